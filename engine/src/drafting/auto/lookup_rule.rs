//! What a drafter that looks tokens up would propose, without asking it.

use crate::drafting::lookup::longest_match;
use crate::drafting::suffix::{SuffixRow, SuffixStore};
use crate::sequence::PendingLookup;
use galley_drafter_host::{Matcher, SuffixMatch, Work};
use galley_planner::acceptance_estimate::match_bucket;

/// Limits of a lookup that no drafter has enqueued yet.
const FIRST_LOOKUP: LookupRule = LookupRule::History { min_n: 2, max_n: 4 };
/// A draft whose first token followed in fewer of the earlier occurrences counts as one of a shorter match.
const OFTEN: f32 = 0.5;

/// How a drafter looks tokens up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LookupRule {
    /// By the latest occurrence of the latest tokens.
    History { min_n: usize, max_n: usize },
    /// In a suffix index.
    Suffixes(Matcher),
}

impl LookupRule {
    /// The rule of a drafter with these matchers, which has enqueued this work last.
    pub(crate) fn of(matchers: &[Matcher], work: &[Work]) -> Self {
        if let Some(matcher) = matchers.first() {
            return LookupRule::Suffixes(*matcher);
        }
        let found = work.iter().rev().find_map(|work| match *work {
            Work::Lookup { min_n, max_n } => {
                Some(LookupRule::History { min_n: min_n as usize, max_n: max_n as usize })
            }
            _ => None,
        });
        found.unwrap_or(FIRST_LOOKUP)
    }

    /// The tokens that `drafter` would propose for a sequence, at most `n`, to be scored when the tokens after them are
    /// known. None if there are none.
    pub(super) fn look(
        &self,
        drafter: usize,
        row: SuffixRow<'_>,
        n: u32,
        suffixes: &mut SuffixStore,
    ) -> Option<PendingLookup> {
        let (n_matched, tokens, is_often) = match self {
            LookupRule::History { min_n, max_n } => {
                let found = longest_match(row.tokens, *min_n, *max_n)?;
                let end = row.tokens.len().min(found.follows + n as usize);
                (found.n_tokens as u32, row.tokens[found.follows..end].to_vec(), true)
            }
            LookupRule::Suffixes(matcher) => {
                let mut found = SuffixMatch::default();
                suffixes.search(row, matcher, n as usize, &mut found);
                let is_often = found.frequencies.first().is_some_and(|&first| first >= OFTEN);
                (found.match_tokens, found.tokens, is_often)
            }
        };
        let bucket = match_bucket(n_matched).saturating_sub(usize::from(!is_often));
        let n_tokens = row.tokens.len();
        (!tokens.is_empty()).then_some(PendingLookup { drafter, n_tokens, bucket, tokens })
    }
}
