//! Statistics of an engine.

mod drafting;
mod planner;

pub use drafting::{DraftStats, DraftTimes};
pub use planner::{PlannedRound, PlannerStats};

use std::time::Duration;

/// A snapshot of an engine's counters and times.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Admitted sequences that have not ended. A preempted sequence counts as waiting.
    pub running: usize,
    /// Sequences that are paused, because events of their queue were not read.
    pub paused: usize,
    /// Sequences that wait for admission. A request for `n` counts as one until its prompt is done.
    pub waiting: usize,
    /// Blocks that sequences hold, for the target and for draft models.
    pub kv_blocks_used: usize,
    /// Most blocks in use at once since the engine was last idle.
    pub kv_blocks_peak: usize,
    /// Blocks in the pool.
    pub kv_blocks_total: usize,
    /// Used blocks that hold KV of draft models. A block that several sequences share counts once.
    pub kv_blocks_drafting: usize,
    /// Bytes of the suffix indexes of sequences, which drafters search for earlier text.
    pub suffix_index_bytes: usize,
    /// Most of these bytes at once since the engine was last idle.
    pub suffix_index_bytes_peak: usize,
    /// Bytes of the outputs of ended sequences that drafters search
    /// ([`DraftConfig::suffix_bytes`](crate::DraftConfig::suffix_bytes)).
    pub suffix_memory_bytes: usize,
    /// Limit on both together.
    pub suffix_bytes_limit: usize,
    /// Sequences that a draft model was still reading in the last step.
    pub draft_models_behind: usize,
    /// Prompt tokens that were looked up in the prefix cache, counted at first admission.
    pub prefix_query_tokens: u64,
    /// Prompt tokens that were found in the prefix cache, counted at first admission. KV of draft
    /// models does not count.
    pub prefix_hit_tokens: u64,
    /// Tokens that draft models did not have to read, because the prefix cache had their KV. Counted
    /// whenever a draft model begins with a sequence.
    pub draft_prefix_hit_tokens: u64,
    /// Preemptions. A preempted sequence is recomputed.
    pub preemptions: u64,
    /// Accepted requests.
    pub requests: u64,
    /// Ended sequences.
    pub finished: u64,
    /// Rows of prompts, and rows recomputed after a preemption.
    pub prompt_tokens: u64,
    /// Generated tokens.
    pub generated_tokens: u64,
    /// Steps, without failed ones.
    pub steps: u64,
    /// Steps that failed. Their requests ended with an error.
    pub failed_steps: u64,
    /// Host time in the model's forward. On an asynchronous device this is the time to enqueue it;
    /// the wait for the device counts as `sampling`, if possible in the next step.
    pub forward: Duration,
    /// Host time in sampling.
    pub sampling: Duration,
    /// Host time in drafting: forwards of drafts and calls into drafters.
    pub drafting: Duration,
    /// The parts of `drafting`.
    pub draft_times: DraftTimes,
    /// Drafted and accepted tokens of all sequences.
    pub drafts: DraftStats,
    /// The same for each drafter, by its index in [`Engine::drafters`](crate::Engine::drafters).
    /// Drafters after the last one that has drafted are left out.
    pub drafters: Vec<DraftStats>,
    /// The planner's choices; None without drafters.
    pub planner: Option<PlannerStats>,
    /// All other time of a step: scheduling, blocks, verification, text and events.
    pub bookkeeping: Duration,
    /// Statistics of the last step.
    pub last_step: StepStats,
}

/// Statistics of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepStats {
    /// Sequences in the batch.
    pub n_seqs: usize,
    /// Rows of the batch.
    pub n_rows: usize,
    /// Rows of prompts, and rows recomputed after a preemption.
    pub n_prompt_rows: usize,
    /// Tokens kept. On an asynchronous device the step before may have sampled them.
    pub n_generated: usize,
    /// Drafted tokens.
    pub n_drafted: usize,
    /// Host time in drafting.
    pub drafting: Duration,
    /// Host time in the model's forward.
    pub forward: Duration,
    /// Host time in sampling.
    pub sampling: Duration,
    /// All other time of the step.
    pub bookkeeping: Duration,
}

impl Stats {
    /// Counts one round of a sequence with `drafter`, in which `n_accepted` of `n_drafted` tokens were
    /// accepted.
    pub(crate) fn add_round(
        &mut self,
        drafter: Option<usize>,
        n_drafted: usize,
        n_accepted: usize,
    ) {
        self.drafts.add_round(n_drafted, n_accepted);
        if let Some(drafter) = drafter {
            if self.drafters.len() <= drafter {
                self.drafters.resize_with(drafter + 1, DraftStats::default);
            }
            self.drafters[drafter].add_round(n_drafted, n_accepted);
        }
    }

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
