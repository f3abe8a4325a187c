//! From a view and its budget to positions: the tokens that a draft attends to, over the life of a
//! sequence.
//!
//! ```text
//!   0        sinks      candidates              recent   n      n + γ
//!   ├──────────┼─────────────────────────────────┼────────┼──────┤
//!   │ always   │ nothing, or those selected      │ tail: the latest, and the draft itself
//! ```
//!
//! A draft of length γ has its first row at position `n` and its last row at n + γ − 1. No row attends
//! to more tokens, itself included, than the budget, or than γ + 1 if that is more.

use galley_drafter_host::{Granularity, Observe, RefreshPolicy, SelectionPolicy, View};

/// The positions of the parts of a view in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ViewParts {
    /// Blocks from the start that are seen whole.
    pub(crate) sink_blocks: usize,
    /// First position of the tail; 0 is the whole cache.
    pub(crate) tail_start: usize,
}

/// The candidates and the size of a selection, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SelectionRequest {
    /// Candidates are the positions `from..to`: whole blocks after the sinks and before the tail.
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Tokens or blocks to select, per layer and KV head.
    pub(crate) n: usize,
}

/// A view under a budget, for one sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ViewBudget {
    view: View,
    /// KV budget, in tokens.
    budget: usize,
    block_size: usize,
    /// The longest draft of this sequence, in tokens.
    draft_length: usize,
}

impl ViewBudget {
    pub(crate) fn new(
        view: View,
        budget: Option<u32>,
        block_size: usize,
        draft_length: usize,
    ) -> Self {
        let budget = budget.unwrap_or(view.budget_tokens) as usize;
        ViewBudget { view, budget, block_size, draft_length }
    }

    /// Whether a draft from position `n` on may attend to the whole cache.
    pub(crate) fn sees_all(&self, n: usize) -> bool {
        n + self.draft_length <= self.budget
    }

    fn sink_tokens(&self) -> usize {
        let sinks = (self.view.n_sinks as usize).next_multiple_of(self.block_size);
        // A budget too small for both is left to the tail.
        if sinks + self.tail_room() > self.budget { 0 } else { sinks }
    }

    /// The smallest length of a tail.
    fn tail_room(&self) -> usize {
        self.draft_length + 1
    }

    /// The parts of a view with sinks and a rolling window.
    pub(crate) fn window(&self, n: usize) -> ViewParts {
        if self.sees_all(n) {
            return ViewParts { sink_blocks: 0, tail_start: 0 };
        }
        let sinks = self.sink_tokens();
        let window = self.budget.saturating_sub(sinks).max(self.tail_room());
        let tail_start = (n + self.draft_length).saturating_sub(window).clamp(sinks.min(n), n);
        ViewParts { sink_blocks: sinks / self.block_size, tail_start }
    }

    /// The parts of a view with sinks, a selection, and a tail that began at `selected_to` when the
    /// selection was made.
    pub(crate) fn around_selection(&self, n: usize, selected_to: usize) -> ViewParts {
        if self.sees_all(n) {
            return ViewParts { sink_blocks: 0, tail_start: 0 };
        }
        let rolled = (n + self.draft_length).saturating_sub(self.tail_tokens());
        let tail_start = rolled.max(selected_to).min(n);
        ViewParts { sink_blocks: self.sink_tokens() / self.block_size, tail_start }
    }

    fn observe(&self) -> Option<&Observe> {
        match &self.view.middle {
            SelectionPolicy::Nothing => None,
            SelectionPolicy::Observed(observe) => Some(observe),
        }
    }

    /// Length that the tail may reach before the next selection.
    fn tail_tokens(&self) -> usize {
        let Some(observe) = self.observe() else { return self.budget };
        let (n_queries, growth) = match observe.when {
            RefreshPolicy::Context { n_queries, refresh_tokens } => {
                (n_queries as usize, refresh_tokens.unwrap_or(0) as usize)
            }
            RefreshPolicy::Verify { refresh_rounds } => {
                (1, refresh_rounds as usize * self.tail_room())
            }
        };
        let recent = (observe.n_recent as usize).max(n_queries);
        // The tail begins at a block border, up to a block early. At least half of the budget is
        // for the selection.
        let wanted = recent + growth + self.tail_room() + self.block_size;
        let most = (self.budget / 2).max(self.tail_room());
        wanted.min(most)
    }

    /// The selection to make with the first `n` tokens in the cache. None if there is none to make.
    pub(crate) fn wanted(&self, n: usize) -> Option<SelectionRequest> {
        let observe = self.observe()?;
        if self.sees_all(n) {
            return None;
        }
        let looking_back = match observe.when {
            RefreshPolicy::Context { n_queries, .. } => n_queries as usize,
            RefreshPolicy::Verify { .. } => 0,
        };
        let recent = (observe.n_recent as usize).max(looking_back).min(self.tail_tokens());
        let from = self.sink_tokens();
        let to = n.saturating_sub(recent.max(looking_back)) / self.block_size * self.block_size;
        let room = self.budget.saturating_sub(from + self.tail_tokens());
        let candidates = to.saturating_sub(from);
        let n = match observe.granularity {
            Granularity::Tokens => room.min(candidates),
            Granularity::Blocks => (room.min(candidates)) / self.block_size,
        };
        (n > 0).then_some(SelectionRequest { from, to, n })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use galley_drafter_host::{ModelId, Pool};

    fn view(n_sinks: u32, middle: SelectionPolicy) -> View {
        View { model: ModelId::TARGET, budget_tokens: 256, n_sinks, middle }
    }

    fn observed(n_recent: u32, when: RefreshPolicy, granularity: Granularity) -> SelectionPolicy {
        SelectionPolicy::Observed(Observe { granularity, n_recent, when, pool: Pool::None })
    }

    #[test]
    fn a_window_keeps_its_budget_and_rolls() {
        for budget in [1, 5, 16, 40, 64, 256] {
            for sinks in [0, 4, 16, 20] {
                for draft_length in [1, 3, 8] {
                    let view = ViewBudget::new(
                        view(sinks, SelectionPolicy::Nothing),
                        Some(budget),
                        16,
                        draft_length,
                    );
                    for n in 0..600 {
                        let parts = view.window(n);
                        assert!(parts.tail_start <= n, "the tail includes every row");
                        assert!(parts.sink_blocks * 16 <= parts.tail_start);
                        let seen = parts.sink_blocks * 16 + n + draft_length - parts.tail_start;
                        let least = draft_length + 1;
                        assert!(seen <= (budget as usize).max(least), "{seen} of {budget} at {n}");
                        assert_eq!(view.sees_all(n), n + draft_length <= budget as usize);
                        if view.sees_all(n) {
                            assert_eq!(parts.tail_start, 0);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_selection_keeps_the_budget_for_as_long_as_it_lives() {
        let whens = [
            RefreshPolicy::Context { n_queries: 32, refresh_tokens: None },
            RefreshPolicy::Context { n_queries: 8, refresh_tokens: Some(64) },
            RefreshPolicy::Verify { refresh_rounds: 4 },
        ];
        for when in whens {
            for granularity in [Granularity::Tokens, Granularity::Blocks] {
                for budget in [64, 128, 256] {
                    let middle = observed(32, when, granularity);
                    let view = ViewBudget::new(view(16, middle), Some(budget), 16, 3);
                    let selected_at = 500;
                    let wanted = view.wanted(selected_at).expect("longer than the budget");
                    assert!(wanted.from + wanted.n <= wanted.to && wanted.to <= selected_at);
                    let unit = if granularity == Granularity::Tokens { 1 } else { 16 };
                    for n in selected_at..900 {
                        let parts = view.around_selection(n, wanted.to);
                        assert!(parts.tail_start >= wanted.to && parts.tail_start <= n);
                        let seen =
                            parts.sink_blocks * 16 + wanted.n * unit + n + 3 - parts.tail_start;
                        assert!(seen <= budget as usize, "{seen} of {budget} at {n}, {when:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_short_sequence_is_seen_whole() {
        let middle = observed(8, RefreshPolicy::Verify { refresh_rounds: 1 }, Granularity::Tokens);
        let view = ViewBudget::new(view(16, middle), None, 16, 3);
        assert_eq!(view.wanted(253), None);
        assert_eq!(view.around_selection(253, 0).tail_start, 0);
        assert!(view.wanted(254).is_some());
    }
}
