//! A failed step: its requests end with an error, and the engine goes on with the remaining requests.
//!
//! - **Which requests end.** A request with rows in the step, because it is unknown how much of the
//!   step was done. Also a request with a pending token that the device sampled in the step before
//!   and cannot deliver. A request ends with all of its sequences. A sequence that was sent its
//!   last token before has finished normally.
//! - **Cleanup.** Nothing of the step is committed, so the prefix cache holds nothing of it. Blocks
//!   are released. Sampled tokens in transit are received and discarded, at the latest before the
//!   next step. Drafters are told that the sequences are over.
//! - **Sequences that go on.** Sequences that wait, and running sequences without rows in the step,
//!   go on. If the device failed, or is asynchronous, so that earlier steps may have failed with
//!   this one, they rely on nothing that the device holds: the prefix cache is emptied, and running
//!   sequences are preempted and recomputed.
//! - **When the device is gone.** The device counts as gone after [`FAILED_STEPS_UNTIL_GONE`]
//!   failed steps without a kept token between them. Until then each failure ends the requests of
//!   its step, so the engine never spins. Then the engine stops: all requests end with the error,
//!   and new requests are refused.

use super::EngineCore;
use crate::error::RequestError;
use crate::stats::StepStats;
use galley_backend::BackendError;
use galley_model::{ModelError, Result};
use std::collections::BTreeSet;

/// A few requests that each break their step must not end an engine that could serve the next one.
const FAILED_STEPS_UNTIL_GONE: u32 = 8;

/// Runs of sampled tokens that can be in transit: of the step before, of drafts and of this step.
/// The bound includes a margin.
const MAX_TOKEN_COPIES: usize = 8;

impl EngineCore {
    /// Ends the step that failed with `error`. Returns the error if the device is gone.
    pub(crate) fn end_failed_step(&mut self, error: ModelError) -> Result<()> {
        tracing::warn!("a step failed: {error}");
        self.stats.failed_steps += 1;
        self.n_failed_in_a_row += 1;
        // The step before may have succeeded, so its tokens are kept.
        let taken = self.finish_previous_step(&mut StepStats::default());
        self.has_stale_tokens = true;
        let is_silent = taken.and(self.drop_stale_tokens()).is_err();
        self.drafting.forget_pending_drafts();
        self.retire();
        let pending = self.give_up_pending();
        let in_step = self.scheduler.running().iter().filter(|s| !s.share.is_empty());
        let failed: BTreeSet<_> =
            in_step.map(|s| s.key).chain(pending).map(|key| (key.priority, key.request)).collect();
        let reason = format!("a step of this request failed: {error}");
        let told = RequestError::Failed { reason };
        for (priority, number) in failed {
            let sequences = self.scheduler.take_request(priority, number);
            self.end_failed(sequences, &told);
        }
        let is_device = matches!(error, ModelError::Backend(BackendError::Device { .. }));
        if is_device || is_silent || self.model.is_asynchronous() {
            self.scheduler.preempt_all(&mut self.blocks);
            self.blocks.clear_prefix_cache();
        }
        debug_assert!(self.scheduler.running().iter().all(|s| s.pending().is_none()));
        if self.n_failed_in_a_row < FAILED_STEPS_UNTIL_GONE { Ok(()) } else { Err(error) }
    }

    /// Receives and discards sampled tokens of a failed step, so that the next step receives its own.
    pub(super) fn drop_stale_tokens(&mut self) -> Result<()> {
        for _ in 0..MAX_TOKEN_COPIES {
            if !self.has_stale_tokens {
                break;
            }
            self.has_stale_tokens = self.model.wait_tokens()?.n_sampled() > 0;
        }
        Ok(())
    }
}

/// Errors that a failed step must not cause, which tests must notice.
#[cfg(test)]
impl EngineCore {
    /// Commits the tokens that the step was to compute.
    pub(crate) fn commit_step(&mut self) {
        for sequence in self.scheduler.running_mut() {
            let first = sequence.table.n_tokens();
            let rows = sequence.tokens[first..first + sequence.n_scheduled()].to_vec();
            self.blocks.commit(&mut sequence.table, &rows);
        }
    }

    /// Loses the blocks of the first running sequence.
    pub(crate) fn leak(&mut self) {
        if let Some(sequence) = self.scheduler.running_mut().first_mut() {
            drop(std::mem::take(&mut sequence.table));
        }
    }
}
