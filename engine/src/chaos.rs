//! The random schedule: random decisions that must not change the output.

use crate::draft_settings::{DraftOffer, DraftPlan};
use galley_backend::sample::philox::philox4x32_10;

/// Random decisions, reproducible by seed.
pub(crate) struct Chaos {
    key: [u32; 2],
    /// The stream of random numbers: scheduling and drafting draw from different streams.
    stream: u32,
    n_drawn: u32,
}

impl Chaos {
    /// The decisions of the scheduler.
    pub(crate) fn of_scheduling(seed: u64) -> Self {
        Chaos { key: [seed as u32, (seed >> 32) as u32], stream: 2, n_drawn: 0 }
    }

    /// The plans of drafting.
    pub(crate) fn of_drafting(seed: u64) -> Self {
        Chaos { stream: 3, ..Chaos::of_scheduling(seed) }
    }

    /// A budget of 1 to `most` tokens.
    pub(crate) fn budget(&mut self, most: usize) -> usize {
        if self.one_in(2) { most } else { 1 + self.below(most) }
    }

    /// Rows for a sequence that could have `most`: all, none or some.
    pub(crate) fn chunk(&mut self, most: usize) -> usize {
        match self.below(4) {
            0 => most,
            1 => 0,
            _ => 1 + self.below(most),
        }
    }

    /// In one step of ten on average, the index of one of `n` running sequences, to preempt without need.
    pub(crate) fn victim(&mut self, n: usize) -> Option<usize> {
        (n > 0 && self.one_in(10)).then(|| self.below(n))
    }

    /// The plan of a sequence's next round: in one round of eight on average, another drafter, draft
    /// length and KV budget within the limits of the `agreed` plan, else the `present` plan.
    pub(crate) fn plan(
        &mut self,
        agreed: &DraftPlan,
        present: &DraftPlan,
        offer: &DraftOffer,
    ) -> DraftPlan {
        if !self.one_in(8) || offer.drafters.is_empty() {
            return present.clone();
        }
        let drafter = self.below(offer.drafters.len());
        let draft_length = self.below(agreed.draft_length as usize + 1) as u32;
        let kv_budget =
            if self.one_in(2) { agreed.kv_budget } else { Some(1 + self.below(256) as u32) };
        offer.plan(drafter, draft_length, kv_budget)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn below(&mut self, n: usize) -> usize {
        self.n_drawn = self.n_drawn.wrapping_add(1);
        philox4x32_10([self.n_drawn, 0, self.stream, 0], self.key)[0] as usize % n
    }
}
