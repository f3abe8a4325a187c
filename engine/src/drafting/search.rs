//! Drafts from suffix indexes: searches that a drafter enqueues, or makes itself while it is asked.

use super::round::DraftRound;
use super::strategy::DraftStrategy;
use super::suffix::{SuffixRow, SuffixStore};
use galley_drafter_host::{Matcher, NoSuffixes, Outcome, Program, SuffixMatch, SuffixSource};

/// The indexes of a drafter's rows in one round.
struct RowSuffixes<'a> {
    store: &'a mut SuffixStore,
    rows: Vec<SuffixRow<'a>>,
}

impl SuffixSource for RowSuffixes<'_> {
    fn search(&mut self, row: usize, matcher: &Matcher, most: usize, found: &mut SuffixMatch) {
        if let Some(&row) = self.rows.get(row) {
            self.store.search(row, matcher, most, found);
        }
    }
}

impl DraftRound<'_> {
    /// Asks a drafter for drafts of its rows, and lends it their suffix indexes if it has a matcher.
    pub(super) fn guess(
        &mut self,
        drafter: &mut dyn DraftStrategy,
        rows: &[usize],
        program: &mut Program,
    ) -> Outcome {
        let draft_rows = self.draft_rows(rows);
        if drafter.matchers().is_empty() {
            return drafter.guess(&draft_rows, &mut NoSuffixes, program);
        }
        let rows = rows.iter().map(|&at| SuffixRow::of(&self.sequences[at]));
        let mut suffixes = RowSuffixes { store: self.suffixes, rows: rows.collect() };
        // Long prompts are read here, because the time of the callback counts against the drafter.
        for &row in &suffixes.rows {
            suffixes.store.index(row);
        }
        drafter.guess(&draft_rows, &mut suffixes, program)
    }

    /// Drafts by a matcher for the rows without a draft.
    pub(super) fn propose(&mut self, matcher: &Matcher, rows: &[usize]) {
        let DraftRound { sequences, suffixes, state, .. } = self;
        for &at in rows {
            let sequence = &mut sequences[at];
            if sequence.draft.tokens.is_empty() {
                let found = &mut state.found;
                found.clear();
                suffixes.search(SuffixRow::of(sequence), matcher, sequence.n_slots, found);
                sequence.draft.extend(&found.tokens);
            }
        }
    }
}
