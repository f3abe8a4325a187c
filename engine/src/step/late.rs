//! Picks that are looked at a step late, so that a device never waits for the host.
//!
//! ```text
//! device   forward 1 │ forward 2 │ forward 3 │ ...
//! host       enqueue 2   picks of 1, enqueue 3   picks of 2, ...
//! ```
//!
//! A device that works beside the host is asked for the next step before the picks of this one are looked at. A token
//! that nobody has looked at is *late*: the sequence has its name, which the device reads as the token. It is scheduled
//! as if the token were known; KV is committed by the next step, which knows all tokens by then. A sequence that has
//! ended with a late token computes a row too many, which nobody reads. One that has its last token, as far as its
//! limit says, gives its blocks back and leaves the others.
//!
//! Drafters, penalties, log-probabilities and several streams from one prompt need to know tokens. A step in which one
//! sequence picks for any of these looks at all of its picks at once.

use super::Core;
use crate::sequence::{Sequence, SequenceKey};
use crate::stats::StepStats;
use galley_backend::BackendError;
use galley_model::Result;
use std::time::Instant;

/// Picks that are on their way to the host.
#[derive(Default)]
pub(super) struct Late {
    /// Whose they are, and what stands for each.
    picks: Vec<(SequenceKey, u32)>,
}

impl Core {
    /// Whether the picks of this step can wait until the next one has been asked for.
    pub(super) fn may_be_late(&self) -> bool {
        let mut picking = self.scheduler.running().iter().filter(|sequence| sequence.picks_now());
        let may_run_ahead = self.model.is_asynchronous() && !self.drafting.has_guesses_ahead();
        may_run_ahead && picking.all(Sequence::may_be_late)
    }

    /// Has this step's tokens picked, keeps the step before, and commits what this one computes.
    pub(super) fn sample_late(&mut self, step: &mut StepStats) -> Result<()> {
        let begin = Instant::now();
        let picks = self.executor.sample_ahead(&mut *self.model, self.scheduler.running())?;
        step.sampling += begin.elapsed();
        self.take_late(step)?;
        for sequence in self.scheduler.running_mut().iter_mut().filter(|s| !s.share.is_empty()) {
            step.n_seqs += 1;
            step.n_prompt_rows += sequence.n_prompt_rows();
            if sequence.ended.is_none() {
                sequence.commit_scheduled(&mut self.blocks);
            }
        }
        for &(key, name) in &picks {
            let sequence = self.scheduler.find_mut(key).expect("it has picked a moment ago");
            if sequence.ended.is_none() {
                sequence.push_late(name, &mut self.blocks);
            }
        }
        self.scheduler.leave(&mut self.blocks);
        self.late.picks = picks;
        Ok(())
    }

    /// Waits for the step before, keeps its tokens and tells. Where they do not come, they stay late.
    pub(super) fn take_late(&mut self, step: &mut StepStats) -> Result<()> {
        if self.late.picks.is_empty() {
            return Ok(());
        }
        let begin = Instant::now();
        let picks = self.model.take_picks()?;
        step.sampling += begin.elapsed();
        if self.late.picks.iter().any(|&(_, name)| picks.token(name).is_none()) {
            let error = "other picks came than those of the step before".into();
            return Err(BackendError::Device { op: "taking picks", error }.into());
        }
        for (key, name) in std::mem::take(&mut self.late.picks) {
            // It may have been cancelled, and it may have been preempted.
            let Some(sequence) = self.scheduler.find_mut(key) else { continue };
            sequence.keep_late(picks.token(name).expect("it is one of those that came"));
            step.n_generated += 1;
            self.ended.extend(sequence.ended.is_some().then_some(key));
        }
        Ok(())
    }

    /// Sequences whose tokens will not come any more.
    pub(super) fn give_up_late(&mut self) -> Vec<SequenceKey> {
        std::mem::take(&mut self.late.picks).into_iter().map(|(key, _)| key).collect()
    }
}
