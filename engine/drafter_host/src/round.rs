//! The plain types around a drafter: what it is told, and what comes of asking it.

use std::time::Duration;

use crate::ModelId;

/// What a drafter may know of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelFacts {
    /// Layers.
    pub n_layers: u32,
    /// Query heads of a layer.
    pub n_heads: u32,
    /// KV heads of a layer.
    pub n_kv_heads: u32,
    /// Numbers of a head.
    pub head_dim: u32,
    /// Numbers of a token between layers.
    pub hidden_size: u32,
    /// Tokens that exist.
    pub vocab_size: u32,
    /// Tokens of a block of its KV cache.
    pub block_size_tokens: u32,
    /// Tokens of its longest sequence.
    pub max_context_tokens: u64,
    /// Weights.
    pub n_parameters: u64,
}

/// Loads draft models for a drafter that is being activated.
pub trait ModelLoader {
    /// Loads a model from a path or name. One whose vocabulary is not the target's is refused afterwards.
    fn load(&mut self, source: &str) -> Result<(ModelId, ModelFacts), ModelRefused>;
}

/// Why a draft model was not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelRefused {
    /// This host cannot run it beside the target.
    Unsupported(String),
    /// There is no room.
    NoMemory(String),
    /// Anything else.
    Failed(String),
}

/// The most that a drafter will be asked for while it is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sequences in one round.
    pub max_rows: u32,
    /// Tokens guessed for a row.
    pub max_draft_length: u32,
    /// Tokens of a sequence.
    pub max_context_tokens: u64,
}

/// What came of asking a drafter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The program holds what it enqueued.
    Ready,
    /// Nothing to verify this round. The program may hold replays.
    NoGuess,
    /// It failed: no guess this round, and the program is empty.
    Failed,
    /// It has failed too often or held up too many rounds. It is not asked any more.
    SetAside,
}

/// What a guessed token costs, as the drafter estimates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Share of the target's weights that are read.
    pub weights_read: f64,
    /// Cached tokens that are read, in tokens of the target.
    pub kv_tokens_read: f64,
}

/// How long guess callbacks took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Callbacks.
    pub n_calls: u64,
    /// All of them.
    pub total: Duration,
    /// The longest.
    pub longest: Duration,
}
