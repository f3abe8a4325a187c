//! Asynchronous steps: the host reads sampled tokens a step later, so the device never waits for the host.
//!
//! ```text
//! device   forward 1 │ forward 2 │ forward 3 │ ...
//! host       enqueue 2   tokens of 1, enqueue 3   tokens of 2, ...
//! ```
//!
//! Here `tokens of 1` are the tokens that step 1 samples. An asynchronous device is given the next
//! step before the host has read the tokens of this one. Until then a sampled token is *pending*,
//! and the sequence holds a placeholder, which the device replaces by the token.
//! The sequence is scheduled as if the token were known. The next step commits the token's KV,
//! after the host has read the token.
//!
//! A sequence that ends at a pending token has one row too many in the next step; the row's result
//! is discarded. A sequence that reaches its token limit with a pending token releases its blocks
//! and drains.
//!
//! Drafters, penalties, log-probabilities and forks need to know tokens. If one sequence of a step
//! samples for any of these, the host waits for all tokens of the step.

use super::EngineCore;
use crate::sequence::{Sequence, SequenceKey};
use crate::stats::StepStats;
use galley_backend::BackendError;
use galley_model::Result;
use std::time::Instant;

/// Sampled tokens in transit to the host.
#[derive(Default)]
pub(super) struct PendingStep {
    /// The sequences of the tokens. Each holds its placeholder, unless it has been cancelled.
    sequences: Vec<SequenceKey>,
}

impl EngineCore {
    /// Whether the host can enqueue the next step before it reads the tokens of this one.
    pub(super) fn can_run_async(&self) -> bool {
        let mut sampling_now =
            self.scheduler.running().iter().filter(|sequence| sequence.samples_now());
        let may_run_async = self.model.is_asynchronous() && !self.drafting.has_pending_drafts();
        may_run_async && sampling_now.all(Sequence::can_run_async)
    }

    /// Samples this step's tokens without waiting, keeps the tokens of the step before, and commits
    /// this step's KV.
    pub(super) fn sample_async(&mut self, step: &mut StepStats) -> Result<()> {
        let started = Instant::now();
        let sampled = self.executor.sample_async(&mut *self.model, self.scheduler.running())?;
        step.sampling += started.elapsed();
        self.finish_previous_step(step)?;
        for sequence in self.scheduler.running_mut().iter_mut().filter(|s| !s.share.is_empty()) {
            step.n_seqs += 1;
            step.n_prompt_rows += sequence.n_prompt_rows();
            if !sequence.is_finished() {
                sequence.commit_scheduled(&mut self.blocks);
            }
        }
        for &(key, placeholder) in &sampled {
            let sequence =
                self.scheduler.find_mut(key).expect("its token was sampled in this step");
            if !sequence.is_finished() {
                sequence.push_pending(placeholder, &mut self.blocks);
            }
        }
        self.scheduler.drain(&mut self.blocks);
        self.pending_step.sequences = sampled.into_iter().map(|(key, _)| key).collect();
        Ok(())
    }

    /// Waits for the tokens of the step before, keeps them and sends their events. After an error
    /// they stay pending.
    pub(super) fn finish_previous_step(&mut self, step: &mut StepStats) -> Result<()> {
        if self.pending_step.sequences.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let sampled = self.model.wait_tokens()?;
        step.sampling += started.elapsed();
        // A preempted sequence is found, too. A cancelled sequence is gone, and a finished one has no
        // pending token.
        let mut tokens = Vec::with_capacity(self.pending_step.sequences.len());
        for &key in &self.pending_step.sequences {
            let sequence = self.scheduler.find_mut(key);
            let Some(placeholder) = sequence.and_then(|sequence| sequence.pending()) else {
                continue;
            };
            let token = sampled.token(placeholder).ok_or_else(|| BackendError::Device {
                op: "waiting for sampled tokens",
                error: "other tokens came than the step before sampled".into(),
            })?;
            tokens.push((key, token));
        }
        self.pending_step.sequences.clear();
        for (key, token) in tokens {
            let Some(sequence) = self.scheduler.find_mut(key) else { continue };
            sequence.resolve_pending(token);
            step.n_generated += 1;
            self.finished.extend(sequence.is_finished().then_some(key));
        }
        Ok(())
    }

    /// Drops the pending tokens and returns the keys of their sequences.
    pub(super) fn give_up_pending(&mut self) -> Vec<SequenceKey> {
        std::mem::take(&mut self.pending_step.sequences)
    }
}
