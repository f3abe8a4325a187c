//! What drafting has brought.

use std::time::Duration;

/// Drafted and accepted tokens, of one sequence or of an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DraftStats {
    /// Verifications of at least one drafted token.
    pub rounds: u64,
    /// Tokens drafted.
    pub drafted: u64,
    /// Those of them that were the target's own.
    pub accepted: u64,
    /// By position in the draft: how often the token there was accepted.
    pub accepted_per_position: Vec<u64>,
}

impl DraftStats {
    /// Counts one round of which `n_accepted` of `n_drafted` tokens were accepted.
    pub(crate) fn add_round(&mut self, n_drafted: usize, n_accepted: usize) {
        self.rounds += 1;
        self.drafted += n_drafted as u64;
        self.accepted += n_accepted as u64;
        if self.accepted_per_position.len() < n_drafted {
            self.accepted_per_position.resize(n_drafted, 0);
        }
        for count in &mut self.accepted_per_position[..n_accepted] {
            *count += 1;
        }
    }

    /// Accepted tokens over drafted ones; 0 when nothing was drafted.
    pub fn accept_rate(&self) -> f64 {
        if self.drafted == 0 { 0.0 } else { self.accepted as f64 / self.drafted as f64 }
    }

    /// Tokens that a round yields on average: the accepted and the target's own after them.
    pub fn accept_length(&self) -> f64 {
        if self.rounds == 0 { 1.0 } else { 1.0 + self.accepted as f64 / self.rounds as f64 }
    }
}

/// Where the time of drafting goes, over all rounds of an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DraftTimes {
    /// Forwards and picks of drafts, as far as somebody waited for them ([`DraftConfig::waits_for_guesses`]).
    ///
    /// [`DraftConfig::waits_for_guesses`]: crate::DraftConfig::waits_for_guesses
    pub drafting: Duration,
    /// Observing attention and selecting tokens of views, where that is a pass of its own.
    pub selecting: Duration,
    /// Calls into drafters.
    pub calls: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_counted_by_position() {
        let mut stats = DraftStats::default();
        assert_eq!((stats.accept_rate(), stats.accept_length()), (0.0, 1.0));
        stats.add_round(3, 3);
        stats.add_round(3, 1);
        stats.add_round(2, 0);
        assert_eq!(stats.accepted_per_position, [2, 1, 1]);
        assert_eq!((stats.rounds, stats.drafted, stats.accepted), (3, 8, 4));
        assert_eq!((stats.accept_rate(), stats.accept_length()), (0.5, 1.0 + 4.0 / 3.0));
    }
}
