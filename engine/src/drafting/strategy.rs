//! The interface through which the engine calls a drafter.

use galley_drafter_host::{
    Cost, DraftRow, Drafter, Mask, MaskId, Matcher, Outcome, Program, SuffixSource, Timings,
    Verified, View,
};

/// A drafter of an engine: a plugin, or a double in tests.
pub(crate) trait DraftStrategy: Send {
    /// The drafter's views.
    fn views(&self) -> &[View];
    /// The drafter's layer masks.
    fn masks(&self) -> &[Mask];
    /// The drafter's matchers of suffix indexes.
    fn matchers(&self) -> &[Matcher];
    /// Tells the drafter that the prompts of `rows` have been read. Enqueued work goes to
    /// `program`.
    fn after_prefill(&mut self, rows: &[DraftRow<'_>], program: &mut Program) -> Outcome;
    /// Asks the drafter for a draft of each row. Enqueued work goes to `program`. `suffixes` are the
    /// suffix indexes of the rows.
    fn guess(
        &mut self,
        rows: &[DraftRow<'_>],
        suffixes: &mut dyn SuffixSource,
        program: &mut Program,
    ) -> Outcome;
    /// Tells the drafter the fate of its drafts in one round.
    fn feedback(&mut self, rows: &[Verified]);
    /// Tells the drafter that a sequence is over.
    fn end(&mut self, sequence: u64);
    /// Adds the counts of a replay, unless the mask has changed since `version`.
    fn add_replay_score(&mut self, mask: MaskId, version: u64, n_matched: u64, n_compared: u64);
    /// The drafter's estimate for one draft token at a context length, under a KV budget (0: its own).
    fn cost(&mut self, context_tokens: u64, budget_tokens: u32) -> Option<Cost>;
    /// Time that the drafter's callbacks have taken.
    fn timings(&self) -> Timings;
}

impl DraftStrategy for Drafter {
    fn views(&self) -> &[View] {
        self.views()
    }

    fn masks(&self) -> &[Mask] {
        self.masks()
    }

    fn matchers(&self) -> &[Matcher] {
        self.matchers()
    }

    fn after_prefill(&mut self, rows: &[DraftRow<'_>], program: &mut Program) -> Outcome {
        self.after_prefill(rows, program)
    }

    fn guess(
        &mut self,
        rows: &[DraftRow<'_>],
        suffixes: &mut dyn SuffixSource,
        program: &mut Program,
    ) -> Outcome {
        self.guess_with(rows, suffixes, program)
    }

    fn feedback(&mut self, rows: &[Verified]) {
        self.feedback(rows);
    }

    fn end(&mut self, sequence: u64) {
        self.end(sequence);
    }

    fn add_replay_score(&mut self, mask: MaskId, version: u64, n_matched: u64, n_compared: u64) {
        self.add_replay_score(mask, version, n_matched, n_compared);
    }

    fn cost(&mut self, context_tokens: u64, budget_tokens: u32) -> Option<Cost> {
        self.cost(context_tokens, budget_tokens)
    }

    fn timings(&self) -> Timings {
        self.timings()
    }
}
