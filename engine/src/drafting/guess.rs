//! A drafter, as far as the engine asks it for anything.

use galley_drafter_host::{Drafter, Mask, MaskId, Outcome, Program, Row, Timings, View};

/// What guesses for an engine: a plugin, or a double in tests.
pub(crate) trait Guess: Send {
    /// Its views.
    fn views(&self) -> &[View];
    /// Its masks.
    fn masks(&self) -> &[Mask];
    /// Tells it that the prompts of these rows have been read.
    fn after_prefill(&mut self, rows: &[Row<'_>], program: &mut Program) -> Outcome;
    /// Asks it for a guess.
    fn guess(&mut self, rows: &[Row<'_>], program: &mut Program) -> Outcome;
    /// Tells it that a sequence is over.
    fn end(&mut self, sequence: u64);
    /// Adds what a replay found.
    fn add_replay_score(&mut self, mask: MaskId, version: u64, n_matched: u64, n_compared: u64);
    /// How long its callbacks took.
    fn timings(&self) -> Timings;
}

impl Guess for Drafter {
    fn views(&self) -> &[View] {
        self.views()
    }

    fn masks(&self) -> &[Mask] {
        self.masks()
    }

    fn after_prefill(&mut self, rows: &[Row<'_>], program: &mut Program) -> Outcome {
        self.after_prefill(rows, program)
    }

    fn guess(&mut self, rows: &[Row<'_>], program: &mut Program) -> Outcome {
        self.guess(rows, program)
    }

    fn end(&mut self, sequence: u64) {
        self.end(sequence);
    }

    fn add_replay_score(&mut self, mask: MaskId, version: u64, n_matched: u64, n_compared: u64) {
        self.add_replay_score(mask, version, n_matched, n_compared);
    }

    fn timings(&self) -> Timings {
        self.timings()
    }
}
