//! The state of a sequence whose drafts the planner chooses.

use galley_planner::acceptance_estimate::SequenceAcceptance;

/// The state of a sequence whose drafts the planner chooses. Empty until its first round.
#[derive(Debug, Default)]
pub(crate) struct AutoDraft {
    /// The acceptance of the sequence, one entry a drafter of the engine.
    pub(crate) acceptance: Vec<SequenceAcceptance>,
    /// The latest verified round, until the planner has counted it.
    pub(crate) round: Option<VerifiedRound>,
    /// The lookups of the latest round, made or not, until the tokens after them are known.
    pub(crate) lookups: Vec<PendingLookup>,
}

/// A round that was verified. Draft tokens after the first rejected one are not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VerifiedRound {
    /// Index of the drafter.
    pub(crate) drafter: usize,
    pub(crate) n_drafted: u32,
    pub(crate) n_accepted: u32,
    /// Tokens of the sequence before the round.
    pub(crate) n_tokens: u32,
}

/// Tokens that a lookup expects after the first `n_tokens` tokens of a sequence.
#[derive(Clone, Debug, Default)]
pub(crate) struct PendingLookup {
    /// Index of the drafter.
    pub(crate) drafter: usize,
    pub(crate) n_tokens: usize,
    /// The bucket of its acceptance.
    pub(crate) bucket: usize,
    pub(crate) tokens: Vec<u32>,
}

impl PendingLookup {
    /// Compares with the tokens that are known now. Returns the number of expected tokens that can be compared, up to the
    /// first wrong one, and the number of right ones; None if no token has followed.
    pub(crate) fn score(&self, tokens: &[u32]) -> Option<(u32, u32)> {
        let followed = tokens.get(self.n_tokens..).filter(|followed| !followed.is_empty())?;
        let n_compared = followed.len().min(self.tokens.len());
        let n_right = followed.iter().zip(&self.tokens).take_while(|(a, b)| a == b).count();
        Some((n_compared as u32, n_right as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookup_is_scored_by_the_tokens_that_followed() {
        let lookup =
            PendingLookup { n_tokens: 3, tokens: vec![4, 5, 6], ..PendingLookup::default() };
        assert_eq!(lookup.score(&[1, 2, 3]), None);
        assert_eq!(lookup.score(&[1, 2, 3, 4]), Some((1, 1)));
        assert_eq!(lookup.score(&[1, 2, 3, 4, 7]), Some((2, 1)));
        assert_eq!(lookup.score(&[1, 2, 3, 9, 5, 6, 7]), Some((3, 0)));
        assert_eq!(lookup.score(&[1, 2, 3, 4, 5, 6, 7]), Some((3, 3)));
    }
}
