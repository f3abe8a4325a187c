//! One ragged batch: prefill chunks, decodes and verifications are the same thing.

use std::ops::Range;

/// The input of one forward pass.
///
/// Rows are tokens. Rows of one sequence are adjacent and at consecutive positions; `seqs` says
/// which rows belong together and which cached tokens they attend to.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Token ids, one a row, or picks made ahead ([`TOKEN_OF_PICK`]).
    pub tokens: &'a [u32],
    /// Absolute position of each row in its sequence.
    pub positions: &'a [u32],
    /// The sequences, in row order; their row ranges cover `tokens` without gaps.
    pub seqs: &'a [SeqSpan<'a>],
    /// Rows whose logits are wanted, ascending.
    pub logit_rows: &'a [u32],
}

/// A token of a [`Batch`] with this bit is a pick that was made ahead and has not been waited for
/// ([`Backend::sample_ahead`]); the other bits are its number. Ids of tokens do not have it.
///
/// [`Backend::sample_ahead`]: crate::Backend::sample_ahead
pub const TOKEN_OF_PICK: u32 = 1 << 31;

/// The number of the pick that a token of a batch stands for; None where it is a token.
pub fn pick_of(token: u32) -> Option<usize> {
    (token & TOKEN_OF_PICK != 0).then_some((token & !TOKEN_OF_PICK) as usize)
}

/// The rows of one sequence in a [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct SeqSpan<'a> {
    /// First row of this sequence.
    pub first_row: usize,
    /// How many rows: 1 for a decode, γ+1 for a verification, a chunk for a prefill.
    pub n_rows: usize,
    /// Physical block ids; entry `p / block_size` holds position `p`. Covers every row's position.
    pub block_table: &'a [u32],
    /// Whether keys and values of the rows are stored; false where their slots hold them already.
    pub writes_kv: bool,
    /// Which cached tokens the rows attend to.
    pub view: KvView<'a>,
}

/// Which cached tokens a pass attends to: a selected set and a contiguous tail.
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
    Blocks(Selection<'a>),
    /// Single tokens (positions).
    Tokens(Selection<'a>),
}

/// Blocks or tokens per layer and KV head, or the same ones for all: each run of `n` ascending.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// The ids: `ids[(layer * n_kv_heads + head) * n ..]`, or just `n` of them for all.
    pub ids: &'a [u32],
    /// Ids per layer and KV head.
    pub n: usize,
    /// KV heads per layer; 0 where every layer and head has the same `ids`.
    pub n_kv_heads: usize,
    /// Tells these ids from all others that the backend is given, so that a device may keep them; 0 is anything.
    pub version: u64,
}

impl<'a> Selection<'a> {
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

/// Asks a forward which cached tokens some of its rows attend to most.
///
/// This is the selection of SnapKV (arXiv 2404.14469). Each observing row and each of its query
/// heads has a softmax over all positions that it sees causally, whatever the view of its
/// sequence. The score of a position is the sum of its probability over the observing rows and the
/// query heads of a KV head. Per layer and KV head, the highest scores are selected; ties go to
/// the lower id. Layers whose attention does not run leave their part of `out` alone.
#[derive(Debug)]
pub struct Observation<'a> {
    /// Index into [`Batch::seqs`].
    pub seq: usize,
    /// The rows that look back, counted from the first row of the sequence.
    pub rows: Range<usize>,
    /// Positions that may be selected, none after the first observing row.
    pub candidates: Range<u32>,
    /// 1 selects tokens; the block size selects whole blocks by the sum of their tokens' scores
    /// (`candidates` is whole blocks then, and ids are logical blocks).
    pub granularity: u32,
    /// Ids per layer and KV head; no more than there are candidates.
    pub n_selected: usize,
    /// Smooths the scores of tokens before the selection.
    pub pool: PoolScores,
    /// The selected ids, `n_layers × n_kv_heads × n_selected`, each run ascending: what
    /// [`Selection::ids`] reads.
    pub out: &'a mut [u32],
}

/// Pooling of scores along positions, so that selected tokens bring their neighbours.
///
/// Windows are centred, of an odd width, and hold candidates only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolScores {
    /// Scores as they are.
    #[default]
    None,
    /// The mean over this many positions; those that are no candidates count as 0.
    Average(usize),
    /// The largest of this many positions.
    Max(usize),
}

/// Which sub-layers a pass runs.
#[derive(Clone, Copy, Debug, Default)]
pub enum LayerMask<'a> {
    /// All of them.
    #[default]
    All,
    /// One flag per layer, for its attention and for its MLP.
    Only {
        /// Layers whose attention runs.
        attention: &'a [bool],
        /// Layers whose MLP runs.
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
