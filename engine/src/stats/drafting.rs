//! Statistics of drafting.

use std::time::Duration;

/// Drafted and accepted tokens, of one sequence or of an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DraftStats {
    /// Verifications of at least one draft token.
    pub rounds: u64,
    /// Draft tokens that were verified.
    pub drafted: u64,
    /// Draft tokens that verification accepted.
    pub accepted: u64,
    /// Accepted draft tokens, by position in the draft.
    pub accepted_per_position: Vec<u64>,
}

impl DraftStats {
    /// Counts one round in which `n_accepted` of `n_drafted` draft tokens were accepted.
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

    /// Tokens that a round yields on average: the accepted draft tokens, and one of the target's
    /// own.
    pub fn accept_length(&self) -> f64 {
        if self.rounds == 0 { 1.0 } else { 1.0 + self.accepted as f64 / self.rounds as f64 }
    }
}

/// Time spent on drafting, over all rounds of an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DraftTimes {
    /// Forwards and sampling of drafts, as far as the host waits for them
    /// ([`DraftConfig::waits_for_drafts`]).
    ///
    /// [`DraftConfig::waits_for_drafts`]: crate::DraftConfig::waits_for_drafts
    pub drafting: Duration,
    /// Observing attention and selecting tokens of views, in passes of their own.
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
