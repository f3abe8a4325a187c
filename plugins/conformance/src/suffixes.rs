//! Suffix indexes of the host that drafters under test get: a plain search, without counts.

use galley_drafter_host::{Matcher, SuffixMatch, SuffixSource};

/// Finds the latest occurrence of the longest suffix, in the texts of a round's rows.
pub(crate) struct LatestMatch<'a>(pub(crate) &'a [&'a [u32]]);

impl SuffixSource for LatestMatch<'_> {
    fn search(&mut self, row: usize, matcher: &Matcher, most: usize, found: &mut SuffixMatch) {
        let Some(&text) = self.0.get(row) else { return };
        let longest = (matcher.max_match as usize).min(text.len());
        for length in (matcher.min_match as usize..=longest).rev() {
            let suffix = &text[text.len() - length..];
            let ends =
                (length..text.len()).rev().filter(|&end| text[end - length..].starts_with(suffix));
            let ends: Vec<usize> = ends.collect();
            let Some(&latest) = ends.first() else { continue };
            let limit = (matcher.tokens_per_match * length as f64) as usize;
            (found.match_tokens, found.count) = (length as u32, ends.len() as u32);
            found.tokens.extend(text[latest..].iter().take(limit.min(most)));
            found.frequencies.resize(found.tokens.len(), 1.0);
            return;
        }
    }
}
