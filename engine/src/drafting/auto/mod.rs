//! The planner's place in the engine: it chooses drafter and draft length of each sequence, round by round.
//!
//! ```text
//!   kept tokens ──▶ acceptance ─┐
//!   step times ──▶ drift ───────┼──▶ galley_planner::choice ──▶ a plan for each sequence
//!   calibration ──▶ costs ──────┘
//! ```
//!
//! Estimates read kept tokens and acceptance at kept positions alone, so that under verification by rejection a choice does
//! not depend on discarded drafts. A drafter that looks tokens up is scored on all tokens of a sequence, without being run.
//! A chain is scored by its rounds. A chain that the choice leaves alone gets a probing round when the time that probes may
//! take, a share of all time, has added up to the loss that the round is predicted to have.

mod lookup_rule;
mod offers;
mod probe;
mod step_times;

pub(crate) use lookup_rule::LookupRule;
pub(crate) use offers::estimated_costs;
pub(crate) use step_times::StepLoad;

use super::DraftStrategy;
use super::suffix::SuffixStore;
use crate::config::Fitted;
use crate::draft_settings::OfferedDrafter;
use crate::sequence::Sequence;
use crate::stats::PlannerStats;
use galley_planner::acceptance_estimate::{AcceptancePool, Estimates, length_bucket};
use galley_planner::choice::{Choice, Chooser, Round, SequenceOffer, Strategy};
use galley_planner::cost_table::CostTable;
use galley_planner::drift::Drift;
use offers::{Entry, strategy_of};
use probe::Probes;
use std::time::{Duration, Instant};

/// Acceptance of a chain before its first round. High enough that the first rounds are tried where they could pay.
const CHAIN_PRIOR: f64 = 0.7;
/// Acceptance of a lookup before its first match was scored.
const LOOKUP_PRIOR: f64 = 0.4;
/// Predicted gain that turns drafting on, and that keeps it on.
const GAIN_ON: f64 = 1.02;
const GAIN_STAY: f64 = 1.0;

/// Chooses for the sequences that leave the choice to the engine.
pub(crate) struct AutoPlanner {
    costs: CostTable,
    drift: Drift,
    /// One for each drafter of the engine.
    strategies: Vec<Strategy>,
    entries: Vec<Entry>,
    pools: Vec<AcceptancePool>,
    /// The pools' estimates in this round.
    estimates: Vec<Estimates>,
    chooser: Chooser,
    probes: Probes,
    /// The sequences of the round, and their indices among the running ones.
    offers: Vec<SequenceOffer>,
    places: Vec<usize>,
    choice: Choice,
    max_step_ns: Option<f64>,
    max_draft_length: u32,
    /// Rows, and rows of logits, of a step.
    max_rows: u32,
    max_logit_rows: u32,
    stats: PlannerStats,
}

impl AutoPlanner {
    /// A planner over the drafters of an engine.
    pub(crate) fn new(
        costs: CostTable,
        drafters: &mut [Box<dyn DraftStrategy>],
        offered: &[OfferedDrafter],
        max_draft_length: u32,
        sizes: &Fitted,
    ) -> Self {
        let models = offered.iter().map(|offered| !offered.models.is_empty());
        let entries = drafters.iter().zip(models);
        let entries =
            entries.map(|(drafter, has_models)| Entry::of(&**drafter, has_models)).collect();
        let strategies: Vec<_> = (0..)
            .zip(drafters)
            .map(|(at, drafter)| strategy_of(at, &mut **drafter, &costs))
            .collect();
        let prior = |strategy: &Strategy| match strategy {
            Strategy::Lookup => LOOKUP_PRIOR,
            Strategy::Chain(_) => CHAIN_PRIOR,
        };
        AutoPlanner {
            costs,
            drift: Drift::default(),
            pools: strategies.iter().map(|strategy| AcceptancePool::new(prior(strategy))).collect(),
            estimates: Vec::new(),
            chooser: Chooser::default(),
            probes: Probes::new(&strategies),
            strategies,
            entries,
            offers: Vec::new(),
            places: Vec::new(),
            choice: Choice::default(),
            max_step_ns: None,
            max_draft_length,
            max_rows: sizes.config.max_num_batched_tokens as u32,
            max_logit_rows: sizes.max_logit_rows as u32,
            stats: PlannerStats::default(),
        }
    }

    /// Limits the time of a step.
    pub(crate) fn max_inter_token(&mut self, time: Option<Duration>) {
        self.max_step_ns = time.map(|time| time.as_nanos() as f64);
    }

    /// Takes the tables at their word: no measured time changes a choice.
    #[cfg(test)]
    pub(crate) fn freeze(&mut self) {
        self.drift = Drift::frozen();
    }

    pub(crate) fn stats(&self) -> &PlannerStats {
        &self.stats
    }

    /// Chooses for the running sequences that leave the choice to the engine. `is_set_aside` and `rules` have one entry a
    /// drafter.
    pub(crate) fn choose(
        &mut self,
        running: &mut [Sequence],
        is_set_aside: &[bool],
        rules: &[LookupRule],
        suffixes: &mut SuffixStore,
    ) {
        let started = Instant::now();
        self.count_rounds(running);
        self.estimates.clear();
        self.estimates.extend(self.pools.iter().map(AcceptancePool::estimates));
        self.offers.clear();
        self.places.clear();
        let (mut other_rows, mut other_attention_ns) = (0, 0.0);
        for (at, sequence) in running.iter_mut().enumerate() {
            if let Some(offer) = self.offer(sequence, is_set_aside, rules, suffixes) {
                self.offers.push(offer);
                self.places.push(at);
            } else {
                let (rows, kv) = (sequence.n_todo() as u32, sequence.table.n_tokens() as u32);
                // A prompt takes the rows that a step has.
                let rows = (rows + sequence.max_draft() as u32).min(self.max_rows - other_rows);
                other_rows += rows;
                other_attention_ns += self.costs.attention_ns(rows, kv + rows / 2);
            }
        }
        if self.offers.is_empty() {
            self.choice = Choice::default();
            return;
        }
        let is_drafting = self.choice.plans.iter().any(Option::is_some);
        let round = Round {
            costs: &self.costs,
            drift: &self.drift,
            strategies: &self.strategies,
            sequences: &self.offers,
            other_rows,
            other_attention_ns,
            max_draft_rows: (self.max_rows - other_rows)
                .min(self.max_logit_rows)
                .saturating_sub(self.offers.len() as u32),
            max_step_ns: self.max_step_ns,
            least_gain: if is_drafting { GAIN_STAY } else { GAIN_ON },
        };
        self.choice = self.chooser.choose(&round);
        if let Some(probe) = self.probes.round(&round, &self.choice, &mut self.chooser) {
            self.choice = probe;
            self.stats.probes += 1;
        }
        self.probes.count(&self.choice);
        self.stats.add_choice(&self.choice, &self.strategies);
        self.stats.planning += started.elapsed();
    }

    /// The plan of each sequence that was chosen for, by its index among the running ones.
    pub(crate) fn plans(&self) -> impl Iterator<Item = (usize, Option<(usize, u32)>)> {
        let plans = self.choice.plans.iter().map(|plan| plan.map(|(at, n)| (usize::from(at), n)));
        self.places.iter().copied().zip(plans)
    }

    /// Counts the rounds and the lookups of all sequences since the last choice.
    fn count_rounds(&mut self, running: &mut [Sequence]) {
        for sequence in running {
            let Sequence { tokens, draft, .. } = sequence;
            let Some(auto) = draft.as_mut().and_then(|draft| draft.auto.as_mut()) else { continue };
            auto.acceptance.resize_with(self.pools.len(), Default::default);
            for lookup in auto.lookups.drain(..) {
                if let Some((n_compared, n_right)) = lookup.score(tokens) {
                    let own = &mut auto.acceptance[lookup.drafter];
                    self.pools[lookup.drafter].record(own, lookup.bucket, n_compared, n_right);
                }
            }
            let Some(round) = auto.round.take() else { continue };
            if let Strategy::Chain(_) = self.strategies[round.drafter] {
                let own = &mut auto.acceptance[round.drafter];
                let bucket = length_bucket(round.n_tokens);
                let pool = &mut self.pools[round.drafter];
                pool.record(own, bucket, round.n_drafted, round.n_accepted);
            }
        }
    }
}
