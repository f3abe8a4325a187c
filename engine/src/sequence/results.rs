//! The results of a step in a sequence: pending tokens, committed KV, kept tokens and their events.

use super::{Sequence, SequenceState};
use crate::event::Event;
use crate::verify::AcceptedRun;
use galley_backend::Placeholder;
use galley_backend::sample::SampledToken;
use galley_blocks::BlockManager;

impl Sequence {
    /// Appends a pending token and releases unused draft slots.
    pub(crate) fn push_pending(&mut self, placeholder: Placeholder, blocks: &mut BlockManager) {
        debug_assert!(self.pending.is_none(), "the token before has been read");
        blocks.rollback(&mut self.table);
        self.pending = Some(placeholder);
    }

    /// The pending token.
    pub(crate) fn pending(&self) -> Option<Placeholder> {
        self.pending
    }

    /// Removes the pending token, as if it had not been sampled.
    pub(crate) fn drop_pending(&mut self) {
        self.pending = None;
    }

    /// Commits the KV of this step's known tokens, the target's and that of draft models, and ends the
    /// sequence's share of the step.
    pub(crate) fn commit_scheduled(&mut self, blocks: &mut BlockManager) {
        let first = self.table.n_tokens();
        let rows = &self.tokens[first..first + std::mem::take(&mut self.share).n_rows()];
        blocks.commit(&mut self.table, rows);
        if let Some(draft) = &mut self.draft {
            draft.commit(&self.tokens, blocks);
        }
    }

    /// Verifies the draft against the target's tokens (`sampled`), commits the KV of the
    /// accepted tokens, appends the kept tokens and sends their events.
    pub(crate) fn keep(
        &mut self,
        sampled: impl IntoIterator<Item = SampledToken>,
        blocks: &mut BlockManager,
    ) {
        let n_generated = self.n_generated();
        let rules = &self.request.stop;
        let drafted = self.draft.as_ref().map_or(&[][..], |draft| &draft.tokens);
        let run = AcceptedRun::verify(drafted, sampled, rules, n_generated, &mut self.text);
        let mut drafter = None;
        if let Some(draft) = self.draft.as_mut().filter(|draft| !draft.tokens.is_empty()) {
            drafter = draft.plan().drafter;
            draft.end_round(run.n_accepted(&draft.tokens), self.tokens.len());
        }
        blocks.commit(&mut self.table, run.computed());
        blocks.rollback(&mut self.table);
        self.accept(run, drafter);
    }

    /// Replaces the pending token by `token`, checks the stop conditions and sends the event.
    pub(crate) fn resolve_pending(&mut self, token: u32) {
        self.drop_pending();
        let (rules, n_generated) = (&self.request.stop, self.n_generated());
        let sampled = [SampledToken::of(token)];
        let run = AcceptedRun::verify(&[], sampled, rules, n_generated, &mut self.text);
        self.accept(run, None);
    }

    /// Appends the tokens of `run` and sends their events. Finishes the sequence if the run says so.
    /// `drafter` is the index of the drafter of the draft, if there was one.
    fn accept(&mut self, run: AcceptedRun, drafter: Option<usize>) {
        if let Some(reason) = run.finish() {
            self.state = SequenceState::Finished(reason.clone());
        }
        self.last_token = self.request.received.elapsed();
        self.first_token.get_or_insert(self.last_token);
        for event in run.into_events(self.key.index, drafter) {
            self.tokens.push(event.token);
            self.sampler.count(event.token);
            self.request.send(Event::Token(event));
        }
    }
}
