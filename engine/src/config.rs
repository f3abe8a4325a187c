//! What one engine is set to, and how that is made to fit a device.

use crate::error::StartError;
use galley_model::LanguageModel;

/// Settings of an engine. Blocks are not among them: the model's KV pool says how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Sequences that run at the same time. At most the token budget, and at most the model's rows of logits: each
    /// needs a row of either.
    pub max_num_seqs: usize,
    /// The token budget: rows of one step, prompts and decodes together. At most the model's rows.
    pub max_num_batched_tokens: usize,
    /// Whether prompts reuse the KV of prompts before them.
    pub prefix_caching: bool,
    /// Who runs when.
    pub policy: SchedulePolicy,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            max_num_seqs: 256,
            max_num_batched_tokens: 2048,
            prefix_caching: true,
            policy: SchedulePolicy::Fixed,
        }
    }
}

/// Sizes that no step of an engine exceeds. Only [`EngineConfig::fit`] makes them.
#[derive(Clone, Debug)]
pub(crate) struct Fitted {
    /// The settings, cut to what the model can do: at least one sequence and one row.
    pub(crate) config: EngineConfig,
    /// Rows of logits of one step: at least one for each sequence.
    pub(crate) max_logit_rows: usize,
    /// Tokens of the longest draft that a step can verify; 0 where it can verify none.
    pub(crate) max_draft_length: usize,
    /// Slots of the KV pool.
    pub(crate) kv_tokens: usize,
}

impl EngineConfig {
    /// The same, within what a model can do. Fails where the model can do nothing.
    pub(crate) fn fit(&self, model: &dyn LanguageModel) -> Result<Fitted, StartError> {
        let shape = model.kv_shape();
        let (max_rows, max_logit_rows) = (model.max_rows(), model.max_logit_rows());
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
            config: EngineConfig { max_num_seqs, max_num_batched_tokens, ..self.clone() },
            max_logit_rows,
            // Beside its tokens, a draft needs a row for the token before it.
            max_draft_length: max_num_batched_tokens.min(max_logit_rows) - 1,
            kv_tokens: shape.n_blocks.saturating_mul(shape.block_size),
        })
    }
}

/// Ids of blocks, and positions in a sequence, have 32 bits.
const MAX_ID: usize = u32::MAX as usize;

/// The id of a sequence has 24 bits for its place in the request.
const MAX_STREAMS: usize = 1 << 24;

/// Who runs when. No policy changes a token of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SchedulePolicy {
    /// Decodes first, then prompts in order, as much as the budget allows; drafts have what is left.
    #[default]
    Fixed,
    /// Chunks of random size, decodes that miss a turn, and preemptions out of the blue,
    /// reproducible by seed. Slow, and good for one thing: to show that output does not depend on
    /// the schedule.
    Random {
        /// Of the schedule; requests keep theirs.
        seed: u64,
    },
}
