//! What one engine is set to.

/// Settings of an engine. Blocks are not among them: the model's KV pool says how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Sequences that run at the same time. At most the token budget: each needs a row.
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

impl EngineConfig {
    /// The same, within what a model can do: at least one sequence and one row, at most the model's
    /// rows, and no more sequences than rows.
    pub(crate) fn fit(&self, max_rows: usize) -> Self {
        let max_num_batched_tokens = self.max_num_batched_tokens.clamp(1, max_rows.max(1));
        let max_num_seqs = self.max_num_seqs.clamp(1, max_num_batched_tokens);
        EngineConfig { max_num_seqs, max_num_batched_tokens, ..self.clone() }
    }
}

/// Who runs when. No policy changes a token of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SchedulePolicy {
    /// Decodes first, then prompts in order, as much as the budget allows.
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
