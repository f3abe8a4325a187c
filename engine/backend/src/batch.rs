//! One ragged batch: prefill chunks, decodes and verifications are the same thing.

use crate::InputToken;
use std::ops::Range;

/// The input of one forward pass.
///
/// Rows are tokens. Rows of one sequence are adjacent and at consecutive positions; `seqs` says
/// which rows belong together and which cached tokens they attend to.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// One token per row.
    pub tokens: &'a [InputToken],
    /// Absolute position of each row in its sequence.
    pub positions: &'a [u32],
    /// The sequences, in row order; their row ranges cover `tokens` without gaps.
    pub seqs: &'a [SeqSpan<'a>],
    /// Rows that need logits, ascending.
    pub logit_rows: &'a [u32],
}

/// The rows of one sequence in a [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct SeqSpan<'a> {
    /// First row of this sequence.
    pub first_row: usize,
    /// Number of rows: 1 for a decode, γ+1 for a verification, the chunk length for a prefill.
    pub n_rows: usize,
    /// Physical block ids; entry `p / block_size` holds position `p`. Covers every row's position.
    pub block_table: &'a [u32],
    /// Whether keys and values of the rows are stored; false if their slots hold them already.
    pub writes_kv: bool,
    /// The cached tokens that the rows attend to.
    pub view: KvView<'a>,
}

/// The cached tokens that a pass attends to: a selected set and a contiguous tail.
///
/// A row at position `p` attends to every selected token and to positions `tail_start ..= p`.
/// Selected tokens lie before `tail_start`.
#[derive(Clone, Copy, Debug, Default)]
pub struct KvView<'a> {
    /// Tokens attended to before the tail.
    pub selected: Selected<'a>,
    /// First position of the contiguous tail; 0 is the full cache.
    pub tail_start: u32,
}

/// The selected part of a [`KvView`].
#[derive(Clone, Copy, Debug, Default)]
pub enum Selected<'a> {
    /// Nothing before the tail.
    #[default]
    None,
    /// Whole logical blocks (indices into the block table).
    Blocks(SelectedIds<'a>),
    /// Single tokens (positions).
    Tokens(SelectedIds<'a>),
}

/// Selected blocks or tokens, per layer and KV head or the same for all. Each run of `n` ids ascends.
#[derive(Clone, Copy, Debug)]
pub struct SelectedIds<'a> {
    /// The ids `ids[(layer * n_kv_heads + head) * n ..][..n]` of each layer and head, or `n` ids
    /// for all.
    pub ids: &'a [u32],
    /// Ids per layer and KV head.
    pub n: usize,
    /// KV heads per layer; 0 if every layer and head has the same `ids`.
    pub n_kv_heads: usize,
    /// Identifies these ids among all selections that the backend receives, so that a device may
    /// keep them; 0 if unversioned.
    pub version: u64,
}

impl<'a> SelectedIds<'a> {
    /// The same ids for every layer and KV head.
    pub fn everywhere(ids: &'a [u32]) -> Self {
        Self { ids, n: ids.len(), n_kv_heads: 0, version: 0 }
    }

    /// The ids selected for one layer and KV head.
    pub fn of(&self, layer: usize, kv_head: usize) -> &'a [u32] {
        let run = if self.n_kv_heads == 0 { 0 } else { layer * self.n_kv_heads + kv_head };
        &self.ids[run * self.n..][..self.n]
    }
}

/// Asks a forward for the cached tokens that some of its rows attend to most.
///
/// This is the selection of SnapKV (arXiv 2404.14469). Each observing row and each of its query
/// heads has a softmax over all positions that the row sees causally, whatever the view of its
/// sequence. The score of a position is the sum of its probabilities over the observing rows and
/// the query heads of a KV head. The highest scores are selected per layer and KV head; ties go to
/// the lower id. A layer that runs no attention does not write its part of `out`.
#[derive(Debug)]
pub struct Observation<'a> {
    /// Index into [`Batch::seqs`].
    pub seq: usize,
    /// The observing rows, counted from the first row of the sequence.
    pub rows: Range<usize>,
    /// Positions that may be selected, none after the first observing row.
    pub candidates: Range<u32>,
    /// 1 selects tokens. The block size selects whole blocks by the sum of their tokens' scores;
    /// then `candidates` covers whole blocks and the ids are logical blocks.
    pub granularity: u32,
    /// Ids to select per layer and KV head, at most the number of candidates.
    pub n_selected: usize,
    /// Pooling of the tokens' scores before the selection.
    pub pool: PoolScores,
    /// The selected ids, `n_layers × n_kv_heads × n_selected`, each run ascending: the layout of
    /// [`SelectedIds::ids`].
    pub out: &'a mut [u32],
}

/// Pooling of scores along positions, so that selected tokens bring their neighbours.
///
/// Windows are centred, of an odd width, and hold candidates only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolScores {
    /// No pooling.
    #[default]
    None,
    /// The mean over this many positions; positions outside the candidates count as 0.
    Average(usize),
    /// The largest of this many positions.
    Max(usize),
}

/// The sub-layers that a pass runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayerMask<'a> {
    /// All sub-layers.
    #[default]
    All,
    /// One flag per layer, for its attention and for its MLP.
    Only {
        /// Whether the attention of each layer runs.
        attention: &'a [bool],
        /// Whether the MLP of each layer runs.
        mlp: &'a [bool],
    },
}

impl LayerMask<'_> {
    /// Whether the attention of `layer` runs.
    pub fn attention(&self, layer: usize) -> bool {
        match self {
            LayerMask::All => true,
            LayerMask::Only { attention, .. } => attention[layer],
        }
    }

    /// Whether the MLP of `layer` runs.
    pub fn mlp(&self, layer: usize) -> bool {
        match self {
            LayerMask::All => true,
            LayerMask::Only { mlp, .. } => mlp[layer],
        }
    }
}
