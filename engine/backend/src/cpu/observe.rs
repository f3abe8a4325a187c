//! Selection of the cached tokens that rows attend to most (SnapKV, arXiv 2404.14469).
//!
//! A unit is one KV head of one observation. It sums the probabilities that its query rows give to
//! every position ([`sum_probabilities`]), row after row, so that the sums depend on these rows
//! alone. Then it pools the sums and selects ([`Choice::select`]). Keys are read once for a handful
//! of query rows; values are not read at all.

use super::attention::{CHUNK, Call, QueryRows, score_rows};
use super::buffer::DisjointPtr;
use super::kv::{GROUP, Group};
use super::simd::{Element, Isa};
use super::{CpuBackend, KvPool, Tensor};
use crate::checks::check_observation;
use crate::{AttentionParams, Batch, KvView, Observation, PoolScores, Result};
use std::ops::Range;

const OP: &str = "observe";

/// Approximate cost of a score beside its product, in multiply-adds: softmax, pooling and a share
/// of the selection.
const WORK_PER_SCORE: usize = 64;

impl CpuBackend {
    /// Implements [`DecoderOps::observe`](crate::DecoderOps::observe).
    pub(super) fn observe_layer(
        &mut self,
        q: &Tensor,
        pool: &KvPool,
        layer: usize,
        batch: &Batch<'_>,
        params: AttentionParams,
        observations: &mut [Observation<'_>],
    ) -> Result<()> {
        let n_kv_heads = pool.shape.n_kv_heads;
        let call = self.call(OP, q, batch.tokens.len(), pool, layer, params)?;
        let mut all = Vec::with_capacity(observations.len());
        for observation in observations {
            check_observation(observation, batch, &pool.shape, layer)?;
            let (rows, choice) = (observing(observation, batch), Choice::of(observation));
            let n = n_kv_heads * choice.n_selected;
            let out = DisjointPtr::of(&mut observation.out[layer * n..][..n]);
            all.push((rows, choice, out));
        }
        let scratch = DisjointPtr::of(&mut self.observers);
        let kernel = self.kernels.sum_probabilities;
        let n_scores = |rows: &QueryRows<'_>| {
            (rows.first_position as usize + rows.n_tokens) * rows.n_tokens * call.group_size
        };
        let most_scores = all.iter().map(|(rows, ..)| n_scores(rows)).max().unwrap_or(0);
        let unit_work = most_scores * (call.head_dim + WORK_PER_SCORE);
        self.threads.for_each(all.len() * n_kv_heads, unit_work, |unit, thread| {
            let (rows, choice, out) = &all[unit / n_kv_heads];
            let (kv_head, n) = (unit % n_kv_heads, choice.n_selected);
            // SAFETY: shapes, rows and block tables were checked; each thread has its own scratch,
            // and one unit writes the ids of a head.
            unsafe {
                let scratch = &mut *scratch.ptr().add(thread);
                kernel(&call, &QueryRows { kv_head, ..*rows }, scratch);
                let out = std::slice::from_raw_parts_mut(out.ptr().add(kv_head * n), n);
                choice.select(scratch, out);
            }
        });
        Ok(())
    }
}

/// The observing rows, of KV head 0.
fn observing<'a>(observation: &Observation<'_>, batch: &Batch<'a>) -> QueryRows<'a> {
    let span = &batch.seqs[observation.seq];
    let first_row = span.first_row + observation.rows.start;
    QueryRows {
        first_row,
        first_position: batch.positions[first_row],
        n_tokens: observation.rows.len(),
        kv_head: 0,
        block_table: span.block_table,
        view: KvView::default(),
    }
}

/// Working memory of one thread; grows with the longest sequence observed.
#[derive(Debug, Default)]
pub(super) struct ObserveScratch {
    /// Scores of the rows that are computed together, one score per row and position.
    scores: Vec<f32>,
    /// Summed probabilities per position.
    sums: Vec<f32>,
    /// Scores of candidates: pooled, or summed over blocks.
    pooled: Vec<f32>,
    /// Candidates, the selected ones first.
    order: Vec<u32>,
}

/// Sums the probabilities that `rows` give to each position, over rows and heads, into
/// `scratch.sums`.
///
/// # Safety
///
/// The pointers of `call` must be valid for its shapes and for `rows`, and the CPU must have the
/// instruction set.
#[inline(always)]
pub(super) unsafe fn sum_probabilities<I: Isa, E: Element>(
    call: &Call,
    rows: &QueryRows<'_>,
    scratch: &mut ObserveScratch,
) {
    let n_positions = rows.first_position as usize + rows.n_tokens;
    let stride = n_positions.next_multiple_of(CHUNK * GROUP);
    let n_rows = rows.n_tokens * call.group_size;
    if scratch.scores.len() < I::ATTENTION_ROWS * stride {
        scratch.scores.resize(I::ATTENTION_ROWS * stride, 0.0);
    }
    scratch.sums.clear();
    scratch.sums.resize(stride, 0.0);
    let scores = scratch.scores.as_mut_ptr();
    let visible = |r: usize| {
        let hi = rows.first_position as usize + r / call.group_size + 1;
        (call.window.map_or(0, |w| hi.saturating_sub(w as usize)), hi)
    };
    let last_group = (n_positions - 1) / GROUP;
    let chunk_keys = |chunk: usize| -> [*const u32; CHUNK] {
        // SAFETY: the block table covers every position. Past the end, the last group fills the
        // chunk, and its scores there are not read.
        std::array::from_fn(|i| unsafe { call.group(rows, (chunk + i).min(last_group)) }.keys)
    };
    let mut r = 0;
    while r < n_rows {
        let n = (n_rows - r).min(I::ATTENTION_ROWS);
        let (first, last) = (visible(r).0 / GROUP, visible(r + n - 1).1.div_ceil(GROUP));
        let first = first / CHUNK * CHUNK;
        let mut keys = chunk_keys(first);
        for chunk in (first..last).step_by(CHUNK) {
            let next = chunk_keys(chunk + CHUNK);
            // Scoring prefetches the memory at `values`. Here these are the next keys, since no
            // values are read.
            let groups = std::array::from_fn(|i| Group { keys: keys[i], values: next[i] });
            keys = next;
            // SAFETY: rows r..r+n and the chunk lie inside queries, keys and scores.
            unsafe {
                let out = scores.add(chunk * GROUP);
                score_rows::<I, E>(call, rows, r..r + n, groups, (out, stride));
            }
        }
        for i in 0..n {
            // SAFETY: row `i` lies inside the scores, which are computed for all positions that row
            // `r + i` sees.
            unsafe {
                let scores = std::slice::from_raw_parts_mut(scores.add(i * stride), stride);
                add_softmax::<I>(scores, visible(r + i), call.scale, &mut scratch.sums);
            }
        }
        r += n;
    }
}

/// Adds the softmax of `scores[lo..hi]` to `sums`.
#[inline(always)]
unsafe fn add_softmax<I: Isa>(
    scores: &mut [f32],
    (lo, hi): (usize, usize),
    scale: f32,
    sums: &mut [f32],
) {
    let (from, to) = (lo / GROUP * GROUP, hi.next_multiple_of(GROUP));
    scores[from..lo].fill(f32::NEG_INFINITY);
    scores[hi..to].fill(f32::NEG_INFINITY);
    // SAFETY: the loads and stores cover whole groups of the row; the caller vouches for the
    // instruction set.
    let total = unsafe {
        let mut max = I::splat(f32::NEG_INFINITY);
        for group in scores[from..to].chunks_exact(GROUP) {
            max = I::max(max, I::load(group.as_ptr()));
        }
        let (max, factor) = (I::splat(I::reduce_max(max)), I::splat(scale));
        let mut total = I::splat(0.0);
        for group in scores[from..to].chunks_exact_mut(GROUP) {
            let s = I::load(group.as_ptr());
            let p = I::exp_nonpositive(I::mul(I::sub(s, max), factor));
            total = I::add(total, p);
            I::store(group.as_mut_ptr(), p);
        }
        I::reduce_add(total)
    };
    // The sums of positions that the row does not see stay exactly as they are.
    let inverse = 1.0 / total;
    for (sum, p) in sums[lo..hi].iter_mut().zip(&scores[lo..hi]) {
        *sum += p * inverse;
    }
}

/// Parameters of the selection from the sums of one KV head.
struct Choice {
    candidates: Range<usize>,
    granularity: usize,
    n_selected: usize,
    pool: PoolScores,
}

impl Choice {
    fn of(observation: &Observation<'_>) -> Self {
        let Observation { candidates, granularity, n_selected, pool, .. } = observation;
        Choice {
            candidates: candidates.start as usize..candidates.end as usize,
            granularity: *granularity as usize,
            n_selected: *n_selected,
            pool: *pool,
        }
    }

    /// Writes the selected ids to `out`, ascending.
    fn select(&self, scratch: &mut ObserveScratch, out: &mut [u32]) {
        let ObserveScratch { sums, pooled, order, .. } = scratch;
        let Some(last) = out.len().checked_sub(1) else { return };
        let sums = &sums[self.candidates.clone()];
        let around = |i: usize, width: usize| {
            &sums[i.saturating_sub(width / 2)..(i + width / 2 + 1).min(sums.len())]
        };
        pooled.clear();
        match self.pool {
            PoolScores::None => {
                pooled.extend(sums.chunks_exact(self.granularity).map(|c| c.iter().sum::<f32>()));
            }
            PoolScores::Average(width) => pooled.extend(
                (0..sums.len()).map(|i| around(i, width).iter().sum::<f32>() / width as f32),
            ),
            PoolScores::Max(width) => pooled.extend(
                (0..sums.len()).map(|i| around(i, width).iter().copied().fold(0.0, f32::max)),
            ),
        }
        order.clear();
        order.extend(0..pooled.len() as u32);
        order.select_nth_unstable_by(last, |&a, &b| {
            pooled[b as usize].total_cmp(&pooled[a as usize]).then(a.cmp(&b))
        });
        let first = (self.candidates.start / self.granularity) as u32;
        for (to, id) in out.iter_mut().zip(order) {
            *to = first + *id;
        }
        out.sort_unstable();
    }
}
