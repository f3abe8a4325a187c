//! Probing rounds: a chain that the choice leaves alone drafts now and then, so that its acceptance is known.

use galley_planner::choice::{Choice, Chooser, Round, SequenceOffer, Strategy};

/// The share of time that probing rounds may lose.
const SHARE: f64 = 0.005;
/// Most time that adds up, in ns: after a long time without probes, a few rounds follow each other.
const MOST_CREDIT_NS: f64 = 1e9;
/// Rounds after which a chain that has not drafted may be probed.
const STALE_ROUNDS: u32 = 64;
/// Draft tokens of a sequence in a probing round.
const PROBE_TOKENS: u32 = 2;
/// Rounds of drafting after which one plain round measures plain decoding again.
const PLAIN_ROUNDS: u32 = 512;

/// When chains were tried last, and the time that probes may take.
pub(super) struct Probes {
    credit_ns: f64,
    /// Rounds since each strategy drafted; None for lookups, which are scored without being run.
    idle_rounds: Vec<Option<u32>>,
    rounds_since_plain: u32,
    one: Vec<SequenceOffer>,
}

impl Probes {
    pub(super) fn new(strategies: &[Strategy]) -> Self {
        let idle = |strategy: &Strategy| (*strategy != Strategy::Lookup).then_some(STALE_ROUNDS);
        Probes {
            credit_ns: 0.0,
            idle_rounds: strategies.iter().map(idle).collect(),
            rounds_since_plain: 0,
            one: Vec::new(),
        }
    }

    /// Adds the share of a step's time.
    pub(super) fn add_time(&mut self, ns: f64) {
        self.credit_ns = (self.credit_ns + SHARE * ns).min(MOST_CREDIT_NS);
    }

    /// A probing round in place of the choice, if one is due and paid for.
    pub(super) fn round(
        &mut self,
        round: &Round<'_>,
        choice: &Choice,
        chooser: &mut Chooser,
    ) -> Option<Choice> {
        if self.rounds_since_plain >= PLAIN_ROUNDS && choice.plans.iter().any(Option::is_some) {
            return Some(plain(choice));
        }
        let idle = |at: &usize| self.idle_rounds[*at].filter(|&n| n >= STALE_ROUNDS);
        let due = (0..self.idle_rounds.len()).filter(|at| idle(at).is_some());
        let strategy = due.max_by_key(|at| idle(at))?;
        self.one.clear();
        self.one.extend(round.sequences.iter().map(|sequence| {
            SequenceOffer {
                kv_tokens: sequence.kv_tokens,
                drafts: sequence
                    .drafts
                    .iter()
                    .filter(|draft| usize::from(draft.strategy) == strategy)
                    .copied()
                    .collect(),
            }
        }));
        let max_draft_rows = PROBE_TOKENS * round.sequences.len() as u32;
        let probe = chooser.choose(&Round {
            sequences: &self.one,
            max_draft_rows: max_draft_rows.min(round.max_draft_rows),
            least_gain: 0.0,
            ..*round
        });
        if probe.plans.iter().all(Option::is_none) {
            return None; // no sequence can draft with it now
        }
        let tokens_per_ns = choice.chosen.rate() / 1e9;
        let ns = probe.chosen.drafting_ns + probe.chosen.forward_ns;
        let loss_ns = ns - probe.chosen.tokens / tokens_per_ns;
        if loss_ns > self.credit_ns {
            return None;
        }
        self.credit_ns -= loss_ns.max(0.0);
        Some(probe)
    }

    /// Counts a chosen round.
    pub(super) fn count(&mut self, choice: &Choice) {
        for idle in self.idle_rounds.iter_mut().flatten() {
            *idle = idle.saturating_add(1);
        }
        let mut is_plain = true;
        for &(strategy, _) in choice.plans.iter().flatten() {
            is_plain = false;
            if let Some(idle) = &mut self.idle_rounds[usize::from(strategy)] {
                *idle = 0;
            }
        }
        self.rounds_since_plain = if is_plain { 0 } else { self.rounds_since_plain + 1 };
    }
}

/// Plain decoding in place of a choice.
fn plain(choice: &Choice) -> Choice {
    Choice { plans: vec![None; choice.plans.len()], chosen: choice.plain, ..*choice }
}
