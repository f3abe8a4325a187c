//! Selection of the cached tokens that rows attend to most (SnapKV, arXiv 2404.14469).
//!
//! A unit is one KV head of one observation. It sums the probabilities that its query rows give to
//! every position, row after row, so that the sums depend on these rows alone. Then it pools the
//! sums and selects ([`Choice::select`]).
//!
//! The probabilities of a few rows, as a verification has them, are kept by attention itself
//! ([`CpuBackend::attend_and_observe`]). Other rows are observed by a pass of their own
//! ([`CpuBackend::observe_layer`]), with the same bits.

mod choice;
mod sums;
#[cfg(test)]
mod tests;

use super::attention::{Call, QueryRows, SPLIT_TOKENS};
use super::buffer::DisjointPtr;
use super::kept::{Kept, KeptUnit};
use super::{CpuBackend, KvPool, Tensor};
use crate::checks::check_observation;
use crate::{AttentionParams, Batch, KvView, Observation, Result, Selected};
use choice::Choice;
use std::ops::Range;
pub(super) use sums::{KeptStates, add_kept, sum_probabilities};

const OP: &str = "observe";

/// Approximate cost of a score beside its product, in multiply-adds: softmax, pooling and a share
/// of the selection.
const WORK_PER_SCORE: usize = 64;

/// Most bytes of probabilities that the attention of one layer keeps. Observations beyond them take
/// a pass of their own.
pub(super) const MAX_KEPT_BYTES: usize = 64 << 20;

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
        let call = self.call(OP, q, batch.tokens.len(), pool, layer, params)?;
        let all = observing(observations, batch, pool, layer)?;
        self.observe_apart(&call, &all, pool.shape.n_kv_heads);
        Ok(())
    }

    /// Implements [`DecoderOps::observed_attention`](crate::DecoderOps::observed_attention) for a call
    /// whose views are checked. States keep at most `max_kept_bytes` of probabilities.
    pub(super) fn attend_and_observe(
        &mut self,
        call: &Call,
        pool: &KvPool,
        batch: &Batch<'_>,
        observations: &mut [Observation<'_>],
        max_kept_bytes: usize,
    ) -> Result<()> {
        let n_kv_heads = pool.shape.n_kv_heads;
        let all = observing(observations, batch, pool, call.layer)?;
        let (mut inside, mut apart) = (Vec::new(), Vec::new());
        let mut observed = vec![None; batch.seqs.len()];
        let mut kept_bytes = 0;
        for one in all {
            let bytes = one.kept_bytes(call, n_kv_heads);
            let has_room = bytes.saturating_add(kept_bytes) <= max_kept_bytes;
            if observed[one.seq].is_none() && has_room && one.fits_a_pass(call, batch) {
                kept_bytes += bytes;
                observed[one.seq] = Some(inside.len());
                inside.push(one);
            } else {
                apart.push(one);
            }
        }
        self.attend_all(call, batch, n_kv_heads, &Observed { all: &inside, of_seq: &observed });
        self.observe_apart(call, &apart, n_kv_heads);
        Ok(())
    }

    /// Observes by a pass that reads the keys once more.
    fn observe_apart(&mut self, call: &Call, all: &[Observing<'_>], n_kv_heads: usize) {
        let scratch = DisjointPtr::of(&mut self.observers);
        let kernel = self.kernels.sum_probabilities;
        let n_scores = |one: &Observing<'_>| {
            let rows = &one.query_rows;
            (rows.first_position as usize + rows.n_tokens) * rows.n_tokens * call.group_size
        };
        let most_scores = all.iter().map(n_scores).max().unwrap_or(0);
        let unit_work = most_scores * (call.head_dim + WORK_PER_SCORE);
        self.threads.for_each(all.len() * n_kv_heads, unit_work, |unit, thread| {
            let (one, kv_head) = (&all[unit / n_kv_heads], unit % n_kv_heads);
            // SAFETY: shapes, rows and block tables were checked; each thread has its own scratch,
            // and one unit writes the ids of a head.
            unsafe {
                let scratch = &mut *scratch.ptr().add(thread);
                kernel(call, &QueryRows { kv_head, ..one.query_rows }, scratch);
                one.select(kv_head, scratch);
            }
        });
    }
}

/// A checked observation of a layer.
pub(super) struct Observing<'a> {
    /// Index of the sequence in the batch.
    seq: usize,
    /// The observing rows, counted from the first row of the sequence.
    rows: Range<usize>,
    /// The observing rows, of KV head 0.
    query_rows: QueryRows<'a>,
    choice: Choice,
    /// The layer's part of the ids, `n_kv_heads × n_selected`.
    out: DisjointPtr<'a, u32>,
}

/// Checks the observations of a layer.
fn observing<'a>(
    observations: &'a mut [Observation<'_>],
    batch: &Batch<'a>,
    pool: &KvPool,
    layer: usize,
) -> Result<Vec<Observing<'a>>> {
    let mut all = Vec::with_capacity(observations.len());
    for observation in observations {
        check_observation(observation, batch, &pool.shape, layer)?;
        let choice = Choice::of(observation);
        let (seq, rows) = (observation.seq, observation.rows.clone());
        let span = &batch.seqs[seq];
        let first_row = span.first_row + rows.start;
        let query_rows = QueryRows {
            first_row,
            first_position: batch.positions[first_row],
            n_tokens: rows.len(),
            kv_head: 0,
            block_table: span.block_table,
            view: KvView::default(),
            kept: Kept { unit: choice.unit(), ..Kept::default() },
        };
        let n = pool.shape.n_kv_heads * choice.n_selected;
        let out = DisjointPtr::of(&mut observation.out[layer * n..][..n]);
        all.push(Observing { seq, rows, query_rows, choice, out });
    }
    Ok(all)
}

impl Observing<'_> {
    /// The rows to keep in a pass that begins with row `first` of the sequence.
    fn kept(&self, call: &Call, first: usize) -> Kept {
        let n = self.rows.len() * call.group_size;
        Kept { first: (self.rows.start - first) * call.group_size, n, unit: self.choice.unit() }
    }

    /// Bytes that the states of the sequence's tiles keep.
    fn kept_bytes(&self, call: &Call, n_kv_heads: usize) -> usize {
        let per_tile = self.kept(call, self.rows.start).len() * size_of::<f32>();
        self.query_rows.n_tiles(call).saturating_mul(per_tile).saturating_mul(n_kv_heads)
    }

    /// Whether the rows are part of one pass over states, and see what they are to observe.
    fn fits_a_pass(&self, call: &Call, batch: &Batch<'_>) -> bool {
        let span = &batch.seqs[self.seq];
        let per_pass = call.tokens_per_pass();
        let sees_all = span.view.tail_start == 0 && matches!(span.view.selected, Selected::None);
        span.n_rows <= SPLIT_TOKENS
            && sees_all
            && self.rows.start / per_pass == (self.rows.end - 1) / per_pass
    }

    /// Selects from the sums in `scratch` and writes the ids of a KV head.
    ///
    /// # Safety
    ///
    /// No other thread may write the ids of the head.
    pub(super) unsafe fn select(&self, kv_head: usize, scratch: &mut ObserveScratch) {
        let n = self.choice.n_selected;
        // SAFETY: `out` has n ids for each head, and the caller writes those of this head alone.
        let out = unsafe { std::slice::from_raw_parts_mut(self.out.ptr().add(kv_head * n), n) };
        self.choice.select(scratch, out);
    }
}

/// Observations that attention makes as it goes, at most one of each sequence.
#[derive(Default)]
pub(super) struct Observed<'a> {
    all: &'a [Observing<'a>],
    /// Index of the observation of each sequence of the batch. Empty if there are no observations.
    of_seq: &'a [Option<usize>],
}

impl<'a> Observed<'a> {
    /// The observation by rows of the pass over rows `pass` of sequence `seq`, and the rows that it
    /// keeps.
    pub(super) fn by(
        &self,
        call: &Call,
        seq: usize,
        pass: Range<usize>,
    ) -> Option<(&'a Observing<'a>, Kept)> {
        let one = &self.all[(*self.of_seq.get(seq)?)?];
        pass.contains(&one.rows.start).then(|| (one, one.kept(call, pass.start)))
    }
}

/// Working memory of one thread; grows with the longest sequence observed.
#[derive(Debug, Default)]
pub(super) struct ObserveScratch {
    /// Scores of a tile, for the rows that are computed together.
    scores: Vec<f32>,
    /// The merged state of these rows, and then their states of all tiles.
    states: Vec<f32>,
    /// Summed probabilities per unit.
    pub(super) sums: Vec<f32>,
    /// Scores of candidates: pooled, or summed over blocks.
    pooled: Vec<f32>,
    /// Candidates, the selected ones first.
    order: Vec<u32>,
}

impl ObserveScratch {
    /// Sets the sums of the units of `n_tiles` tiles to zero.
    pub(super) fn clear_sums(&mut self, unit: KeptUnit, n_tiles: usize) {
        self.sums.clear();
        self.sums.resize(n_tiles * unit.per_tile(), 0.0);
    }
}
