//! Statistics of the planner's choices.

use galley_planner::choice::{Choice, Prediction, Strategy};
use std::time::Duration;

/// The planner's choices since the start of an engine.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PlannerStats {
    /// Rounds with at least one sequence that leaves the choice to the engine.
    pub rounds: u64,
    /// Rounds of these in which no such sequence drafted.
    pub plain_rounds: u64,
    /// Rounds that were chosen to learn something: a drafter's acceptance, or the time of a plain round.
    pub probes: u64,
    /// Drafts chosen, by the index of the drafter: one for each sequence and round.
    pub drafts: Vec<u64>,
    /// The latest choice.
    pub last: PlannedRound,
    /// Mean of |measured time / predicted time − 1| over all steps that were predicted: `error_sum / n_errors`.
    pub error_sum: f64,
    /// Steps with a predicted and a measured time.
    pub n_errors: u64,
    /// Time of choosing.
    pub planning: Duration,
}

/// One choice with its predictions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PlannedRound {
    /// Sequences that the choice was for.
    pub n_sequences: usize,
    /// Draft tokens in all.
    pub n_draft_tokens: usize,
    /// The chain's drafter, or the lookup's if there is no chain; None for plain decoding.
    pub drafter: Option<usize>,
    /// Predicted tokens per second.
    pub tokens_per_s: f64,
    /// Predicted tokens per second of plain decoding.
    pub plain_tokens_per_s: f64,
    /// Predicted tokens per second of the best round that was not chosen.
    pub runner_up_tokens_per_s: f64,
}

impl PlannerStats {
    /// Counts a choice.
    pub(crate) fn add_choice(&mut self, choice: &Choice, strategies: &[Strategy]) {
        self.rounds += 1;
        self.drafts.resize(strategies.len(), 0);
        let drafts = choice.plans.iter().flatten();
        drafts.clone().for_each(|&(strategy, _)| self.drafts[usize::from(strategy)] += 1);
        let is_lookup = |at: usize| strategies[at] == Strategy::Lookup;
        let used = drafts.clone().map(|&(strategy, _)| usize::from(strategy));
        let drafter = used.min_by_key(|&at| (is_lookup(at), at));
        self.plain_rounds += u64::from(drafter.is_none());
        let rate = |prediction: Prediction| prediction.rate();
        self.last = PlannedRound {
            n_sequences: choice.plans.len(),
            n_draft_tokens: drafts.map(|&(_, n)| n as usize).sum(),
            drafter,
            tokens_per_s: rate(choice.chosen),
            plain_tokens_per_s: rate(choice.plain),
            runner_up_tokens_per_s: rate(choice.runner_up),
        };
    }

    /// Counts the predicted and the measured time of a step, in the same unit.
    pub(crate) fn add_time(&mut self, predicted: f64, measured: f64) {
        if predicted > 0.0 {
            self.error_sum += (measured / predicted - 1.0).abs();
            self.n_errors += 1;
        }
    }

    /// The choices in a line, for people. `drafters` are the names of the engine's drafters.
    pub fn describe(&self, drafters: &[String]) -> String {
        let name = |at: usize| drafters.get(at).map_or("a drafter", String::as_str);
        let used: Vec<String> = (0..)
            .zip(&self.drafts)
            .filter(|(_, n)| **n > 0)
            .map(|(at, n)| format!("{} {n}", name(at)))
            .collect();
        let used = if used.is_empty() { "none".to_owned() } else { used.join(", ") };
        let last = &self.last;
        let latest = match last.drafter {
            Some(at) => format!(
                "{} {} tokens for {} sequences",
                name(at),
                last.n_draft_tokens,
                last.n_sequences
            ),
            None => format!("plain for {} sequences", last.n_sequences),
        };
        format!(
            "{} rounds, {} plain, {} probes; drafts: {used}; latest: {latest}, {:.1} tokens/s predicted, plain {:.1}, runner-up \
             {:.1}; times predicted to {:.1} %; {:.1} us a choice",
            self.rounds,
            self.plain_rounds,
            self.probes,
            last.tokens_per_s,
            last.plain_tokens_per_s,
            last.runner_up_tokens_per_s,
            self.mean_error() * 100.0,
            self.planning.as_secs_f64() * 1e6 / self.rounds.max(1) as f64,
        )
    }

    /// Mean of |measured time / predicted time − 1|; 0 before the first step.
    pub fn mean_error(&self) -> f64 {
        if self.n_errors == 0 { 0.0 } else { self.error_sum / self.n_errors as f64 }
    }
}
