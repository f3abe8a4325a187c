//! One ragged batch: prefill chunks, decodes and verifications are the same thing.

/// The input of one forward pass.
///
/// Rows are tokens. Rows of one sequence are adjacent and at consecutive positions; `seqs` says
/// which rows belong together and which cached tokens they attend to.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Token ids, one a row.
    pub tokens: &'a [u32],
    /// Absolute position of each row in its sequence.
    pub positions: &'a [u32],
    /// The sequences, in row order; their row ranges cover `tokens` without gaps.
    pub seqs: &'a [SeqSpan<'a>],
    /// Rows whose logits are wanted, ascending.
    pub logit_rows: &'a [u32],
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
    /// Whole logical blocks (indices into the block table, ascending), the same for every layer
    /// and KV head.
    Blocks(&'a [u32]),
    /// Single tokens, chosen per layer and KV head.
    Tokens(TokenSelection<'a>),
}

/// Token positions per layer and KV head: `positions[(layer * n_kv_heads + head) * n_tokens ..]`,
/// each run of `n_tokens` ascending.
#[derive(Clone, Copy, Debug)]
pub struct TokenSelection<'a> {
    /// The positions, `n_layers × n_kv_heads × n_tokens`.
    pub positions: &'a [u32],
    /// Tokens selected per layer and KV head.
    pub n_tokens: usize,
    /// KV heads per layer.
    pub n_kv_heads: usize,
}

impl<'a> TokenSelection<'a> {
    /// The positions selected for one layer and KV head.
    pub fn of(&self, layer: usize, kv_head: usize) -> &'a [u32] {
        let at = (layer * self.n_kv_heads + kv_head) * self.n_tokens;
        &self.positions[at..at + self.n_tokens]
    }
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
