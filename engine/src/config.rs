//! Settings of an engine, and how they are made to fit a device.

use crate::error::StartError;
use galley_backend::setters;
use galley_model::{LanguageModel, RowLimits};

/// Settings of an engine. The number of blocks is no setting: the model's KV pool determines it.
///
/// ```
/// use galley_engine::EngineConfig;
/// let config = EngineConfig::default().max_num_seqs(8).prefix_caching(false);
/// assert_eq!((config.max_num_seqs, config.max_num_batched_tokens), (8, 2048));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineConfig {
    /// Sequences that run at the same time. At most the token budget and at most the model's logit
    /// rows: each sequence needs one row of both.
    pub max_num_seqs: usize,
    /// The token budget: rows of one step, for prompts, decodes and drafts together. At most the model's rows.
    pub max_num_batched_tokens: usize,
    /// Most requests that were submitted and wait for admission, at least 1. Beyond it, submitting
    /// returns [`SubmitError::Busy`](crate::SubmitError::Busy).
    pub max_waiting: usize,
    /// Whether a sequence reuses the KV of earlier sequences with the same prefix.
    pub prefix_caching: bool,
    /// How the rows of each step are shared out.
    pub policy: SchedulePolicy,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            max_num_seqs: 256,
            max_num_batched_tokens: 2048,
            max_waiting: 100_000,
            prefix_caching: true,
            policy: SchedulePolicy::Fixed,
        }
    }
}

setters! {
    impl EngineConfig;
    /// Sets the most sequences that run at the same time.
    max_num_seqs(n_seqs: usize) => max_num_seqs = n_seqs;
    /// Sets the token budget: the most rows of one step.
    max_num_batched_tokens(n_tokens: usize) => max_num_batched_tokens = n_tokens;
    /// Sets the most requests that wait for admission.
    max_waiting(n_requests: usize) => max_waiting = n_requests;
    /// Sets whether a sequence reuses the KV of earlier sequences with the same prefix.
    prefix_caching(is_on: bool) => prefix_caching = is_on;
    /// Sets how the rows of each step are shared out.
    policy(policy: SchedulePolicy) => policy = policy;
}

/// Sizes that no step of an engine exceeds. Only [`EngineConfig::fit`] computes them.
#[derive(Clone, Debug)]
pub(crate) struct Fitted {
    /// The settings, cut to the model's limits: at least one sequence and one row.
    pub(crate) config: EngineConfig,
    /// Logit rows of one step: at least one for each sequence.
    pub(crate) max_logit_rows: usize,
    /// Tokens of the longest draft that a step can verify; 0 if it can verify none.
    pub(crate) max_draft_length: usize,
    /// Slots of the KV pool.
    pub(crate) kv_tokens: usize,
}

impl EngineConfig {
    /// The same settings within the model's limits. Fails if the model's sizes allow no step.
    pub(crate) fn fit(&self, model: &dyn LanguageModel) -> Result<Fitted, StartError> {
        let shape = model.target().kv_shape;
        let RowLimits { max_rows, max_logit_rows, .. } = model.row_limits();
        let sizes = [
            ("block_size", shape.block_size, MAX_ID),
            ("n_blocks", shape.n_blocks, MAX_ID),
            ("max_rows", max_rows, usize::MAX),
            ("max_logit_rows", max_logit_rows, usize::MAX),
        ];
        for (name, value, most) in sizes {
            let reason = match value {
                0 => "an engine needs at least 1",
                _ if value > most => "an engine has 32 bits for it",
                _ => continue,
            };
            return Err(StartError::Size { name, value, reason });
        }
        let max_num_batched_tokens = self.max_num_batched_tokens.clamp(1, max_rows);
        let most_seqs = max_num_batched_tokens.min(max_logit_rows).min(MAX_STREAMS);
        let max_num_seqs = self.max_num_seqs.clamp(1, most_seqs);
        Ok(Fitted {
            config: EngineConfig {
                max_num_seqs,
                max_num_batched_tokens,
                max_waiting: self.max_waiting.max(1),
                ..self.clone()
            },
            max_logit_rows,
            // Beside the rows of its tokens, a draft needs a row for the token before it.
            max_draft_length: max_num_batched_tokens.min(max_logit_rows) - 1,
            kv_tokens: shape.n_blocks.saturating_mul(shape.block_size),
        })
    }
}

/// Block ids and positions in a sequence have 32 bits.
const MAX_ID: usize = u32::MAX as usize;

/// A sequence id has 24 bits for the sequence's index in its request.
const MAX_STREAMS: usize = 1 << 24;

/// How the rows of each step are shared out. No policy changes an output token, except under
/// [`crate::Verify::Rejection`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SchedulePolicy {
    /// Decodes first, then prompts in order as far as the budget allows; drafts get the remaining rows.
    #[default]
    Fixed,
    /// Chunks of random size, decodes that miss a step, and random preemptions, reproducible by
    /// seed. Slow: its only purpose is to test that the output does not depend on the schedule.
    Random {
        /// Seed of the schedule. Requests keep their own seeds.
        seed: u64,
    },
}
