//! The selected part of one sequence's view: positions or blocks per layer and KV head.
//!
//! A selection holds logical positions, so it outlives a preemption: the KV that is computed again
//! is the same.

use super::view_budget::{SelectionRequest, ViewBudget, ViewParts};
use galley_backend::{KvShape, KvView, Observation, PoolScores, Selected, SelectedIds};
use galley_drafter_host::{Granularity, Observe, Pool, RefreshPolicy};

/// The selection of one view of one sequence.
#[derive(Debug, Default)]
pub(crate) struct ViewSelection {
    /// `n_layers × n_kv_heads × n` ids of tokens or blocks: sinks first, each run ascending.
    ids: Vec<u32>,
    n: usize,
    /// Unique among the selections of the engine.
    version: u64,
    /// Start of the tail when the selection was made; 0 before the first selection.
    to: usize,
    /// Tokens in the cache when the selection was made.
    made_at: usize,
    /// Rounds since the selection was made.
    n_rounds: u32,
    /// Buffer for the ids that a forward selects.
    raw: Vec<u32>,
}

impl ViewSelection {
    /// Whether a pass of its own must select before the draft, with `n` tokens in the cache.
    pub(crate) fn is_due(&self, observe: &Observe, n: usize) -> bool {
        match observe.when {
            _ if self.to == 0 => true,
            RefreshPolicy::Context { refresh_tokens: Some(every), .. } => {
                n >= self.made_at + every as usize
            }
            RefreshPolicy::Context { refresh_tokens: None, .. } | RefreshPolicy::Verify { .. } => {
                false
            }
        }
    }

    /// Whether the verification of this round is to select for the next round.
    pub(crate) fn piggybacked(&self, observe: &Observe) -> bool {
        matches!(observe.when, RefreshPolicy::Verify { refresh_rounds } if self.n_rounds >= refresh_rounds)
    }

    pub(crate) fn count_round(&mut self) {
        self.n_rounds = self.n_rounds.saturating_add(1);
    }

    /// A buffer for the ids of the selection `wanted`. [`Self::put_back`] takes it back.
    pub(crate) fn take_raw(&mut self, wanted: &SelectionRequest, shape: &KvShape) -> Vec<u32> {
        let mut raw = std::mem::take(&mut self.raw);
        raw.resize(shape.n_layers * shape.n_kv_heads * wanted.n, 0);
        raw
    }

    /// Stores the ids that a forward selected with `n` tokens in the cache. `version` must be new
    /// in the engine.
    pub(crate) fn put_back(
        &mut self,
        raw: Vec<u32>,
        wanted: &SelectionRequest,
        unit: usize,
        n: usize,
        version: u64,
    ) {
        let n_sinks = wanted.from / unit;
        self.ids.clear();
        for run in raw.chunks_exact(wanted.n) {
            self.ids.extend(0..n_sinks as u32);
            self.ids.extend_from_slice(run);
        }
        self.n = n_sinks + wanted.n;
        self.version = version;
        (self.to, self.made_at, self.n_rounds) = (wanted.to, n, 0);
        self.raw = raw;
    }

    /// The KV view of a draft that begins at position `n`. `ascending` is `0..`, at least as long
    /// as the sequence's block table.
    pub(crate) fn view<'a>(
        &'a self,
        view: &ViewBudget,
        observe: Option<&Observe>,
        n: usize,
        shape: &KvShape,
        ascending: &'a [u32],
    ) -> KvView<'a> {
        let is_made = self.to > 0 && !view.sees_all(n);
        let ViewParts { sink_blocks, tail_start } = match observe {
            Some(_) if is_made => view.around_selection(n, self.to),
            _ => view.window(n),
        };
        let selected = match observe {
            Some(observe) if is_made => {
                let ids = SelectedIds {
                    ids: &self.ids,
                    n: self.n,
                    n_kv_heads: shape.n_kv_heads,
                    version: self.version,
                };
                match observe.granularity {
                    Granularity::Tokens => Selected::Tokens(ids),
                    Granularity::Blocks => Selected::Blocks(ids),
                }
            }
            _ if sink_blocks == 0 => Selected::None,
            _ => Selected::Blocks(SelectedIds::everywhere(&ascending[..sink_blocks])),
        };
        KvView { selected, tail_start: tail_start as u32 }
    }
}

/// Tokens of one selected unit: 1, or the block size.
pub(crate) fn unit(observe: &Observe, block_size: usize) -> usize {
    match observe.granularity {
        Granularity::Tokens => 1,
        Granularity::Blocks => block_size,
    }
}

pub(crate) fn pool(observe: &Observe) -> PoolScores {
    match observe.pool {
        Pool::None => PoolScores::None,
        Pool::Average(width) => PoolScores::Average(width as usize),
        Pool::Max(width) => PoolScores::Max(width as usize),
    }
}

/// Asks a forward to select `wanted` for sequence number `seq` of its batch, by the attention of
/// the sequence's first `n_rows` rows.
pub(crate) fn observation<'a>(
    seq: usize,
    n_rows: usize,
    wanted: &SelectionRequest,
    (unit, pool): (usize, PoolScores),
    out: &'a mut [u32],
) -> Observation<'a> {
    Observation {
        seq,
        rows: 0..n_rows,
        candidates: wanted.from as u32..wanted.to as u32,
        granularity: unit as u32,
        n_selected: wanted.n,
        pool,
        out,
    }
}
