//! What an engine has done so far.

use crate::drafting::{DraftStats, DraftTimes};
use std::time::Duration;

/// A snapshot of an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sequences that have been admitted.
    pub running: usize,
    /// Sequences that wait for their turn. A request for `n` counts as one until its prompt is done.
    pub waiting: usize,
    /// Blocks that sequences hold.
    pub kv_blocks_used: usize,
    /// The most there were in use at once since the engine was last idle.
    pub kv_blocks_peak: usize,
    /// Blocks in the pool.
    pub kv_blocks_total: usize,
    /// Those of the used that hold KV of draft models.
    pub kv_blocks_drafting: usize,
    /// Draft models that were still reading a sequence in the last step.
    pub draft_models_behind: usize,
    /// Tokens of prompts that were looked up in the prefix cache.
    pub prefix_query_tokens: u64,
    /// Those of them that were found.
    pub prefix_hit_tokens: u64,
    /// Sequences preempted, to be recomputed.
    pub preemptions: u64,
    /// Requests accepted.
    pub requests: u64,
    /// Sequences ended.
    pub finished: u64,
    /// Rows computed that were part of a prompt, or recomputed after a preemption.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Turns of the engine, but for those that failed.
    pub steps: u64,
    /// Steps that failed: the requests in them ended with an error.
    pub failed_steps: u64,
    /// Time of the host in the model's forward. A device that works beside the host is waited for in `sampling`, in
    /// the turn after where that is possible.
    pub forward: Duration,
    /// Time of the host in sampling.
    pub sampling: Duration,
    /// Time of the host in drafting: forwards of drafts and calls into drafters.
    pub drafting: Duration,
    /// Where that went.
    pub draft_times: DraftTimes,
    /// Tokens drafted, and those accepted, over all sequences.
    pub drafts: DraftStats,
    /// All other time of a step: scheduling, blocks, verification, text and events.
    pub bookkeeping: Duration,
    /// Of the last step.
    pub last_step: StepStats,
}

/// One step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepStats {
    /// Sequences in the batch.
    pub n_seqs: usize,
    /// Rows of the batch.
    pub n_rows: usize,
    /// Those of them that were part of a prompt, or recomputed after a preemption.
    pub n_prompt_rows: usize,
    /// Tokens kept: those picked in this step, or in the step before.
    pub n_generated: usize,
    /// Tokens drafted.
    pub n_drafted: usize,
    /// Time in drafting.
    pub drafting: Duration,
    /// Time in the model's forward.
    pub forward: Duration,
    /// Time in sampling.
    pub sampling: Duration,
    /// All other time.
    pub bookkeeping: Duration,
}

impl Stats {
    pub(crate) fn add_step(&mut self, step: StepStats) {
        self.steps += 1;
        self.prompt_tokens += step.n_prompt_rows as u64;
        self.generated_tokens += step.n_generated as u64;
        self.drafting += step.drafting;
        self.forward += step.forward;
        self.sampling += step.sampling;
        self.bookkeeping += step.bookkeeping;
        self.last_step = step;
    }
}
