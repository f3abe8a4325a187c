//! Observations of a cache, and their expected selections.

use super::{Cache, LAYER, LAYERS, TestBackend};
use crate::{Batch, KvView, Observation, OperandFormat, PoolScores, SeqSpan};
use std::ops::Range;

/// Parameters of an observation by the last rows of a cache.
#[derive(Clone, Debug)]
pub(crate) struct SelectionCase {
    pub(crate) n_rows: usize,
    pub(crate) candidates: Range<u32>,
    pub(crate) is_blocks: bool,
    pub(crate) n_selected: usize,
    pub(crate) pool: PoolScores,
    pub(crate) window: Option<u32>,
}

/// The operation that observes.
#[derive(Clone, Copy)]
pub(crate) enum ObservedBy {
    /// An operation of its own.
    Itself,
    /// Attention, whose result must be the same as without an observation.
    Attention,
}

impl Cache {
    /// The ids that the last rows of the last chunk select, per KV head.
    pub(crate) fn observe<B: TestBackend>(
        &self,
        backend: &mut B,
        chunks: &[usize],
        selection_case: &SelectionCase,
        by: ObservedBy,
    ) -> Vec<Vec<u32>> {
        let n = selection_case.n_selected;
        let len: usize = chunks.iter().sum();
        let mut out = Vec::new();
        self.run_chunks(
            backend,
            chunks,
            KvView::default(),
            selection_case.window,
            |backend, q, pool, batch| {
                let n_rows = batch.tokens.len();
                if *batch.positions.last().unwrap() as usize + 1 < len {
                    return;
                }
                let first = n_rows - selection_case.n_rows;
                let mut ask = |batch: &Batch<'_>, seq: usize, rows: Range<usize>| {
                    let mut ids = vec![u32::MAX; LAYERS * self.n_kv_heads * n];
                    let observation = self.observation(selection_case, seq, rows, &mut ids);
                    let window = selection_case.window;
                    self.observe_rows(backend, (q, pool), batch, window, observation, by);
                    ids
                };
                out = ask(batch, 0, first..n_rows);
                // The same rows as the second sequence of a batch.
                let [all] = *batch.seqs else { panic!("one sequence") };
                let before = SeqSpan { n_rows: first, ..all };
                let rest = SeqSpan { first_row: first, n_rows: selection_case.n_rows, ..all };
                let apart =
                    ask(&Batch { seqs: &[before, rest], ..*batch }, 1, 0..selection_case.n_rows);
                assert_eq!(out, apart, "{}", backend.description());
            },
        );
        let (other_layers, here) = out.split_at(LAYER * self.n_kv_heads * n);
        assert!(other_layers.iter().all(|&id| id == u32::MAX), "another layer's ids");
        here.chunks(n).map(<[u32]>::to_vec).collect()
    }

    fn observe_rows<B: TestBackend>(
        &self,
        backend: &mut B,
        (q, pool): (&B::Tensor, &B::KvPool),
        batch: &Batch<'_>,
        window: Option<u32>,
        mut observation: Observation<'_>,
        by: ObservedBy,
    ) {
        let params = self.params(window);
        let all = std::slice::from_mut(&mut observation);
        self.begin(backend, batch, pool, window);
        match by {
            ObservedBy::Itself => {
                backend.observe(q, pool, LAYER, batch, params, all).unwrap();
            }
            ObservedBy::Attention => {
                let (n_rows, cols) = (batch.tokens.len(), self.n_heads * self.head_dim);
                let [mut alone, mut out] =
                    [(); 2].map(|()| backend.operand_rows(n_rows, cols).unwrap());
                backend.attention(q, pool, LAYER, batch, params, &mut alone).unwrap();
                backend.observed_attention(q, pool, LAYER, batch, params, all, &mut out).unwrap();
                for row in 0..n_rows {
                    let (alone, got) = (backend.read(&alone, row), backend.read(&out, row));
                    assert!(alone == got, "attention of row {row}: {}", backend.description());
                }
            }
        }
        backend.finish_observing(all).unwrap();
    }

    /// The observation of a case by `rows` of sequence number `seq`.
    pub(crate) fn observation<'a>(
        &self,
        selection_case: &SelectionCase,
        seq: usize,
        rows: Range<usize>,
        out: &'a mut [u32],
    ) -> Observation<'a> {
        let SelectionCase { candidates, is_blocks, n_selected, pool, .. } = selection_case.clone();
        let granularity = if is_blocks { self.block_size as u32 } else { 1 };
        Observation { seq, rows, candidates, granularity, n_selected, pool, out }
    }

    /// Scores of the candidates in float64, per KV head.
    pub(crate) fn scores(&self, len: usize, selection_case: &SelectionCase) -> Vec<Vec<f64>> {
        let group_size = self.n_heads / self.n_kv_heads;
        let candidates =
            selection_case.candidates.start as usize..selection_case.candidates.end as usize;
        let of_head = |kv_head: usize| {
            let mut sums = vec![0.0; len];
            for p in len - selection_case.n_rows..len {
                let earliest =
                    selection_case.window.map_or(0, |w| (p + 1).saturating_sub(w as usize));
                let seen: Vec<usize> = (earliest..=p).collect();
                for head in kv_head * group_size..(kv_head + 1) * group_size {
                    for (at, x) in seen.iter().zip(self.probabilities(p, head, &seen)) {
                        sums[*at] += x;
                    }
                }
            }
            let sums = &sums[candidates.clone()];
            if selection_case.is_blocks {
                return sums.chunks(self.block_size).map(|block| block.iter().sum()).collect();
            }
            let (PoolScores::Average(width) | PoolScores::Max(width)) = selection_case.pool else {
                return sums.to_vec();
            };
            let pooled = |i: usize| {
                let near = (0..sums.len()).filter(|j| j.abs_diff(i) <= width / 2).map(|j| sums[j]);
                match selection_case.pool {
                    PoolScores::Max(_) => near.fold(0.0, f64::max),
                    _ => near.sum::<f64>() / width as f64,
                }
            };
            (0..sums.len()).map(pooled).collect()
        };
        (0..self.n_kv_heads).map(of_head).collect()
    }

    /// Whether `ids` have the highest of `scores`, up to a relative error of `slack`.
    pub(crate) fn are_highest(
        &self,
        ids: &[u32],
        scores: &[f64],
        selection_case: &SelectionCase,
        slack: f64,
    ) -> bool {
        let unit = if selection_case.is_blocks { self.block_size as u32 } else { 1 };
        let mut sorted = scores.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let threshold = sorted[selection_case.n_selected - 1];
        let is_selected =
            |i: usize| ids.contains(&(selection_case.candidates.start / unit + i as u32));
        ids.is_sorted_by(|a, b| a < b)
            && (0..scores.len()).filter(|&i| is_selected(i)).count() == selection_case.n_selected
            && scores.iter().enumerate().all(|(i, &score)| match is_selected(i) {
                true => score >= threshold * (1.0 - slack),
                false => score <= threshold * (1.0 + slack),
            })
    }
}

pub(crate) fn slack(format: OperandFormat) -> f64 {
    match format {
        OperandFormat::F32 => 1e-4,
        OperandFormat::Bf16 => 6e-2,
    }
}
