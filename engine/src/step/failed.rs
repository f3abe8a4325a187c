//! A step that failed: the requests in it end with an error, and the engine goes on with the others.
//!
//! - **Which requests end.** A request with rows in the step: how much of the step was done is not known. And a request
//!   that waits for a token which the device picked in the step before and does not bring any more. A request ends with
//!   all of its sequences. A sequence whose last token was told before has ended well.
//! - **What is left behind.** Nothing of the step is committed, so nothing of it is in the prefix cache. Blocks are
//!   given back, picks that are on their way are taken and thrown away, at the latest before the next step, and drafters
//!   hear that the sequences are over.
//! - **What the others rely on.** Sequences that wait, or run and had no rows in the step, go on. Where the device
//!   failed, or works beside the host, so that steps before this one may have failed with it, they rely on nothing that
//!   it holds: the prefix cache is emptied, and sequences that run are preempted, to be computed again.
//! - **When the device is gone.** [`FAILED_STEPS_UNTIL_GONE`] steps fail, and no token is picked between them. Until
//!   then each failure ends the requests of its step, so the engine never spins. Then the engine stops: all requests end
//!   with the error, and no request is accepted any more.

use super::Core;
use crate::stats::StepStats;
use galley_backend::BackendError;
use galley_model::{ModelError, Result};
use std::collections::BTreeSet;

/// Enough that a few requests, each of which breaks its step, do not end an engine that could serve the next one.
const FAILED_STEPS_UNTIL_GONE: u32 = 8;

/// Runs of picks that can be on their way: those of the step before, of drafts and of this step. Twice that.
const MAX_RUNS_OF_PICKS: usize = 8;

impl Core {
    /// Ends the step that failed with `error`. Returns the error where the device is gone.
    pub(crate) fn end_failed_step(&mut self, error: ModelError) -> Result<()> {
        tracing::warn!("a step failed: {error}");
        self.stats.failed_steps += 1;
        self.n_failed_in_a_row += 1;
        // The step before may have gone well.
        let taken = self.take_late(&mut StepStats::default());
        self.has_stale_picks = true;
        let is_silent = taken.and(self.drop_stale_picks()).is_err();
        self.drafting.forget_guesses();
        self.retire();
        let late = self.give_up_late();
        let in_step = self.scheduler.running().iter().filter(|s| !s.share.is_empty());
        let failed: BTreeSet<_> =
            in_step.map(|s| s.key).chain(late).map(|key| (key.priority, key.request)).collect();
        let message = format!("a step of this request failed: {error}");
        for (priority, number) in failed {
            let sequences = self.scheduler.take_request(priority, number);
            self.end_failed(sequences, &message);
        }
        let is_device = matches!(error, ModelError::Backend(BackendError::Device { .. }));
        if is_device || is_silent || self.model.is_asynchronous() {
            self.scheduler.preempt_all(&mut self.blocks);
            self.blocks.clear_prefix_cache();
        }
        debug_assert!(self.scheduler.running().iter().all(|s| !s.is_late()));
        if self.n_failed_in_a_row < FAILED_STEPS_UNTIL_GONE { Ok(()) } else { Err(error) }
    }

    /// Takes picks of a step that failed, so that the next to come are those of the next step.
    pub(super) fn drop_stale_picks(&mut self) -> Result<()> {
        for _ in 0..MAX_RUNS_OF_PICKS {
            if !self.has_stale_picks {
                break;
            }
            self.has_stale_picks = self.model.take_picks()?.n_picks() > 0;
        }
        Ok(())
    }
}

/// What must not become of a failed step, for tests to notice.
#[cfg(test)]
impl Core {
    /// Commits what the step was to compute.
    pub(crate) fn commit_step(&mut self) {
        for sequence in self.scheduler.running_mut() {
            let first = sequence.table.n_tokens();
            let rows = sequence.tokens[first..first + sequence.n_scheduled()].to_vec();
            self.blocks.commit(&mut sequence.table, &rows);
        }
    }

    /// Forgets the blocks of a sequence.
    pub(crate) fn leak(&mut self) {
        if let Some(sequence) = self.scheduler.running_mut().first_mut() {
            drop(std::mem::replace(&mut sequence.table, galley_blocks::BlockTable::new(0)));
        }
    }
}
