//! Selections that a verification makes during its forward, for the next rounds of drafting.

use super::Drafting;
use crate::sequence::Sequence;
use crate::sequence::selection::{observation, pool, unit};
use crate::sequence::view_budget::SelectionRequest;
use galley_backend::{KvShape, Observation, PoolScores};
use galley_drafter_host::SelectionPolicy;

/// A selection that a verification makes during its forward.
pub(crate) struct PiggybackSelection {
    /// Index of the sequence in `running`.
    pub(crate) at: usize,
    /// Index of the sequence in the verification's batch, once the forward has been enqueued.
    pub(crate) seq: usize,
    wanted: SelectionRequest,
    /// Tokens of one selected unit: 1, or the block size.
    unit: usize,
    pool: PoolScores,
    out: Vec<u32>,
    view: usize,
}

impl PiggybackSelection {
    /// The observation that the forward is asked for. Its query is the sequence's first row, which
    /// reads a known token.
    pub(crate) fn observation(&mut self) -> Observation<'_> {
        observation(self.seq, 1, &self.wanted, (self.unit, self.pool), &mut self.out)
    }
}

impl Drafting {
    /// The selections that the coming verification is to make.
    pub(crate) fn piggybacked(
        &self,
        running: &mut [Sequence],
        shape: &KvShape,
    ) -> Vec<PiggybackSelection> {
        let mut piggybacked = Vec::new();
        if self.drafters.is_empty() {
            return piggybacked;
        }
        for (at, sequence) in running.iter_mut().enumerate() {
            let n = sequence.table.n_tokens();
            let Some(draft) = &mut sequence.draft else { continue };
            let Some(drafter) = draft.plan().drafter.filter(|_| !draft.tokens.is_empty()) else {
                continue;
            };
            let views = self.drafters[drafter].views();
            for (index, view) in views.iter().copied().enumerate().take(draft.selections.len()) {
                let SelectionPolicy::Observed(observe) = view.middle else { continue };
                let view_budget = draft.view_budget(view, shape.block_size);
                let Some(wanted) = view_budget.wanted(n) else { continue };
                let selection = &mut draft.selections[index];
                if selection.piggybacked(&observe) {
                    let out = selection.take_raw(&wanted, shape);
                    let (unit, pool) = (unit(&observe, shape.block_size), pool(&observe));
                    let piggyback =
                        PiggybackSelection { at, seq: 0, wanted, unit, pool, out, view: index };
                    piggybacked.push(piggyback);
                }
            }
        }
        piggybacked
    }

    /// Stores the verification's selections in their sequences.
    pub(crate) fn end_piggybacked(
        &mut self,
        piggybacked: Vec<PiggybackSelection>,
        running: &mut [Sequence],
    ) {
        for PiggybackSelection { at, wanted, unit, out, view, .. } in piggybacked {
            let sequence = &mut running[at];
            let n = sequence.table.n_tokens();
            let Some(draft) = &mut sequence.draft else { continue };
            let version = self.state.next_version();
            draft.selections[view].put_back(out, &wanted, unit, n, version);
        }
    }
}
