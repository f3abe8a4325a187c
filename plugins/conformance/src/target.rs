//! The target that drafters under test get: its facts, and the limits of an activation.

use galley_drafter_host::{DrafterLimits, ModelFacts};

/// Facts about the target that drafters get.
pub(crate) const TARGET: ModelFacts = ModelFacts {
    n_layers: 6,
    n_heads: 8,
    n_kv_heads: 2,
    head_dim: 64,
    hidden_size: 512,
    vocab_size: 1000,
    block_size_tokens: 16,
    max_context_tokens: 8192,
    n_parameters: 20_000_000,
};

/// Limits that drafters get.
pub(crate) const LIMITS: DrafterLimits =
    DrafterLimits { max_rows: 8, max_draft_length: 4, max_context_tokens: 8192 };
