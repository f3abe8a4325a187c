//! Plain types around a drafter: model facts, limits, outcomes, feedback and timings.

use std::time::Duration;

use crate::{Matcher, ModelId, SuffixMatch};

/// The facts about a model that a drafter may know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelFacts {
    /// Number of layers.
    pub n_layers: u32,
    /// Query heads in a layer.
    pub n_heads: u32,
    /// KV heads in a layer.
    pub n_kv_heads: u32,
    /// Elements of one head's vector.
    pub head_dim: u32,
    /// Elements of one token's hidden vector.
    pub hidden_size: u32,
    /// Size of the vocabulary, in tokens.
    pub vocab_size: u32,
    /// Tokens in a block of the model's KV cache.
    pub block_size_tokens: u32,
    /// Length limit of a sequence, in tokens.
    pub max_context_tokens: u64,
    /// Number of weights.
    pub n_parameters: u64,
}

/// Loads draft models for a drafter that is being activated.
pub trait ModelLoader {
    /// Loads a model from a path or name. The loader refuses a model if its vocabulary differs from
    /// the target's.
    fn load(&mut self, source: &str) -> Result<(ModelId, ModelFacts), ModelRefused>;
}

/// The reason why a draft model was not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelRefused {
    /// This host cannot run it beside the target.
    Unsupported(String),
    /// There is not enough memory.
    NoMemory(String),
    /// Any other error.
    Failed(String),
}

/// The suffix indexes of a round's rows, for drafters that search them in `guess`.
pub trait SuffixSource {
    /// Searches the index of row number `row` for a draft of at most `most` tokens. `found` is empty
    /// before.
    fn search(&mut self, row: usize, matcher: &Matcher, most: usize, found: &mut SuffixMatch);
}

/// Rows without suffix indexes: no search finds anything.
#[derive(Clone, Copy, Debug)]
pub struct NoSuffixes;

impl SuffixSource for NoSuffixes {
    fn search(&mut self, _: usize, _: &Matcher, _: usize, _: &mut SuffixMatch) {}
}

/// The fate of one row's draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The sequence's id.
    pub sequence: u64,
    /// Draft tokens that were verified, at least 1.
    pub n_proposed: u32,
    /// Draft tokens that the sequence keeps.
    pub n_accepted: u32,
}

/// Upper limits for a drafter while it is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrafterLimits {
    /// Sequences in one round.
    pub max_rows: u32,
    /// Draft tokens for a row.
    pub max_draft_length: u32,
    /// Tokens in a sequence.
    pub max_context_tokens: u64,
}

/// The result of a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The program holds the work that the drafter enqueued.
    Ready,
    /// No draft to verify in this round. The program may hold replays.
    NoGuess,
    /// The callback failed: there is no draft in this round, and the program is empty.
    Failed,
    /// The drafter has failed too often or has been slow too often. It is not called any more.
    SetAside,
}

/// The drafter's estimate for one draft token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Share of the target's weights that drafting reads.
    pub weights_read: f64,
    /// Cached tokens that drafting reads, in tokens of the target.
    pub kv_tokens_read: f64,
}

/// Durations of the `guess` callbacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Number of callbacks.
    pub n_calls: u64,
    /// Total duration.
    pub total: Duration,
    /// Longest duration.
    pub longest: Duration,
}
