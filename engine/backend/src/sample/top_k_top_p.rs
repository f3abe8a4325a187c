//! Top-k, top-p and min-p: the cutoff below which tokens are not sampled.
//!
//! Each of the three keeps the front of one order (larger value first, then lower id). So together
//! they are one cutoff, and only tokens near the cutoff need sorting.

use super::vector_ops::{gather, total_weight, weight};
use super::{SamplingParams, Scratch};
use std::cmp::Ordering;

/// The last token that is kept, in the order of [`by_likelihood`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cutoff {
    /// Its value.
    pub(super) least: f32,
    /// Its id: of the tokens with the same value, ids up to this one are kept.
    pub(super) last: u32,
}

/// Working memory of the search for a cutoff.
#[derive(Debug, Default)]
pub(super) struct CutoffScratch {
    /// The row after bias and penalties.
    pub(super) adjusted: Vec<f32>,
    gathered: Vec<(f32, u32)>,
    maxima: Vec<f32>,
    histogram: Vec<u64>,
}

impl CutoffScratch {
    /// Buffer for tokens and their values.
    pub(super) fn gathered(&mut self) -> &mut Vec<(f32, u32)> {
        &mut self.gathered
    }

    /// The buffers that [`most_likely`] needs.
    pub(super) fn for_most_likely(&mut self) -> (&mut Vec<f32>, &mut Vec<(f32, u32)>) {
        (&mut self.maxima, &mut self.gathered)
    }
}

impl Cutoff {
    /// Keeps every token above -inf.
    pub(super) const NONE: Cutoff = Cutoff { least: f32::MIN, last: u32::MAX };

    /// The cutoff of `sampling` for the `n_vocab` values of `scratch.work`; `top` is the largest value.
    pub(super) fn of(
        sampling: &SamplingParams,
        n_vocab: usize,
        top: f32,
        scratch: &mut Scratch,
    ) -> Self {
        let Scratch { work, chunk_max, keep: memory, .. } = scratch;
        let row = Values { work, chunk_max, top };
        let k = sampling.top_k as usize;
        let by_k = (k > 0 && k < n_vocab).then(|| top_k(&row, k, memory)).flatten();
        let by_p = (sampling.top_p < 1.0).then(|| match by_k {
            Some(_) => {
                let total = memory.gathered.iter().map(|&(value, _)| weight(value - top)).sum();
                top_p_of(&mut memory.gathered, 0, needed(sampling.top_p, total), top)
            }
            None => top_p(&row, sampling.top_p, memory),
        });
        let by_min_p = (sampling.min_p > 0.0)
            .then(|| Cutoff { least: top + sampling.min_p.ln(), last: u32::MAX });
        by_p.or(by_k).unwrap_or(Cutoff::NONE).stricter(by_min_p.unwrap_or(Cutoff::NONE))
    }

    /// Whether a token is kept.
    pub(super) fn keeps(self, value: f32, token: u32) -> bool {
        by_likelihood(&(value, token), &(self.least, self.last)).is_le()
    }

    fn at((least, last): (f32, u32)) -> Self {
        Cutoff { least, last }
    }

    fn stricter(self, other: Cutoff) -> Cutoff {
        if other.keeps(self.least, self.last) { self } else { other }
    }
}

/// The order of tokens: more likely first, then lower id.
pub(super) fn by_likelihood(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1))
}

/// A row that was loaded into scratch memory.
struct Values<'a> {
    work: &'a [f32],
    chunk_max: &'a [f32],
    top: f32,
}

/// Writes the `k` most likely tokens to `out`, in no particular order; fewer if fewer are above -inf.
///
/// At least k values reach the k-th largest chunk maximum, so no value below it belongs to the top k.
pub(super) fn most_likely(
    work: &[f32],
    chunk_max: &[f32],
    k: usize,
    maxima: &mut Vec<f32>,
    out: &mut Vec<(f32, u32)>,
) {
    let mut least = f32::MIN;
    if (1..=chunk_max.len()).contains(&k) {
        maxima.clear();
        maxima.extend_from_slice(chunk_max);
        let (_, kth, _) = maxima.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        least = kth.max(f32::MIN);
    }
    out.clear();
    gather(work, chunk_max, least, out);
    if k < out.len() {
        out.select_nth_unstable_by(k - 1, by_likelihood);
        out.truncate(k);
    }
}

/// The cutoff after the `k` most likely tokens. Leaves these tokens in `memory.gathered`.
fn top_k(row: &Values<'_>, k: usize, memory: &mut CutoffScratch) -> Option<Cutoff> {
    let CutoffScratch { gathered, maxima, .. } = memory;
    most_likely(row.work, row.chunk_max, k, maxima, gathered);
    gathered.iter().copied().max_by(by_likelihood).map(Cutoff::at)
}

/// The weight that a set needs to reach the fraction `p` of `total`.
fn needed(p: f32, total: u64) -> u64 {
    ((f64::from(p) * total as f64).ceil() as u64).max(1)
}

/// The cutoff after the smallest set that reaches the fraction `p` of the total weight.
fn top_p(row: &Values<'_>, p: f32, memory: &mut CutoffScratch) -> Cutoff {
    if row.top == f32::NEG_INFINITY {
        return Cutoff::NONE;
    }
    let needed = needed(p, total_weight(row.work, row.chunk_max, row.top));
    // The set nearly always is a few tokens near the top. Tokens far below the top have weight 0.
    for depth in [8.0, 16.0, 32.0] {
        memory.gathered.clear();
        gather(row.work, row.chunk_max, row.top - depth, &mut memory.gathered);
        if let Some(cutoff) = top_p_among(memory, depth, needed, row.top) {
            return cutoff;
        }
    }
    Cutoff::NONE
}

/// The cutoff of [`top_p`] among the gathered tokens, which reach down to `top - depth`; None if
/// their weight is too small.
fn top_p_among(memory: &mut CutoffScratch, depth: f32, needed: u64, top: f32) -> Option<Cutoff> {
    const N_BUCKETS: usize = 1024;
    let bucket_of =
        |value: f32| (((top - value) * (N_BUCKETS as f32 / depth)) as usize).min(N_BUCKETS - 1);
    let CutoffScratch { gathered, histogram, .. } = memory;
    histogram.clear();
    histogram.resize(N_BUCKETS, 0);
    for &(value, _) in &*gathered {
        histogram[bucket_of(value)] += weight(value - top);
    }
    let mut before = 0;
    let bucket = histogram.iter().position(|weight| {
        before += weight;
        before >= needed
    })?;
    before -= histogram[bucket];
    gathered.retain(|&(value, _)| bucket_of(value) == bucket);
    Some(top_p_of(gathered, before, needed, top))
}

/// The cutoff at the token of `tokens` where the running weight, from `before` on, reaches `needed`.
fn top_p_of(tokens: &mut [(f32, u32)], before: u64, needed: u64, top: f32) -> Cutoff {
    tokens.sort_unstable_by(by_likelihood);
    let mut running = before;
    let last = tokens.iter().find(|&&(value, _)| {
        running += weight(value - top);
        running >= needed
    });
    last.or(tokens.last()).copied().map_or(Cutoff::NONE, Cutoff::at)
}
