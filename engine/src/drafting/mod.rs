//! Drafting: a round of drafts for the sequences that have a drafter.
//!
//! A drafter enqueues a [`Program`]. This module executes it, with the forward, the sampler and the
//! noise of the target. The result is [`SequenceDraft::tokens`], a few token ids for each sequence,
//! which the next forward verifies. Where a request asks for verification by rejection,
//! [`SequenceDraft::proposals`] holds the distributions that the draft tokens were sampled from.
//!
//! KV of a target's draft is written to slots that the sequence has reserved. The verification of
//! the same positions overwrites it. KV of a draft model lies in blocks of its own
//! ([`DraftCache`](crate::draft_cache::DraftCache)).
//!
//! [`SequenceDraft::tokens`]: crate::sequence::SequenceDraft::tokens
//! [`SequenceDraft::proposals`]: crate::sequence::SequenceDraft::proposals

mod auto;
mod chain;
mod draft_model;
mod lookup;
mod mask;
mod piggyback;
mod program;
mod replay;
mod round;
mod search;
mod select;
mod strategy;
mod suffix;

pub(crate) use auto::StepLoad;
pub(crate) use piggyback::PiggybackSelection;
pub(crate) use strategy::DraftStrategy;

use crate::chaos::Chaos;
use crate::config::{Fitted, SchedulePolicy};
use crate::draft_settings::{DraftConfig, DraftOffer, DraftPlan, OfferedDrafter};
use crate::sequence::Sequence;
use crate::stats::{DraftTimes, PlannerStats, Stats, StepStats};
use auto::{AutoPlanner, LookupRule};
use draft_model::{DraftModelLoader, facts_of};
use galley_blocks::BlockManager;
use galley_drafter_host::{Drafter, DrafterLimits, LoadError, Outcome, Program, Verified};
use galley_model::tokenizer::Tokenizer;
use galley_model::{LanguageModel, Result};
use galley_planner::cost_table::CostTable;
use program::Proposal;
use round::{DraftRound, RoundState, take_drafts};
use suffix::SuffixStore;

/// The drafters of an engine.
#[derive(Default)]
pub(crate) struct Drafting {
    drafters: Vec<Box<dyn DraftStrategy>>,
    /// One flag a drafter: whether it has failed too often and drafts no more.
    is_set_aside: Vec<bool>,
    offer: DraftOffer,
    /// Random plans, for the random schedule.
    chaos: Option<Chaos>,
    /// The choice of plans; None without drafters.
    auto: Option<AutoPlanner>,
    /// Whether a sequence has entered another drafter since the last step.
    enters: bool,
    /// One program a drafter, reused from round to round.
    programs: Vec<Program>,
    /// One list a drafter: the fate of its drafts in this step.
    verified: Vec<Vec<Verified>>,
    suffixes: SuffixStore,
    state: RoundState,
}

impl Drafting {
    /// Creates and activates the drafters of `config`, for a model and an engine of these sizes.
    /// Loads the draft models that they ask for.
    pub(crate) fn start(
        config: &DraftConfig,
        model: &mut dyn LanguageModel,
        tokenizer: Option<&Tokenizer>,
        sizes: &Fitted,
    ) -> std::result::Result<Self, LoadError> {
        let facts = facts_of(&model.target().config, &model.target().kv_shape);
        let mut models = DraftModelLoader::new(model, tokenizer, &config.find_model);
        let mut drafters: Vec<Box<dyn DraftStrategy>> = Vec::new();
        let longest_draft = u32::try_from(sizes.max_draft_length).unwrap_or(u32::MAX);
        let mut offered = Vec::new();
        for setup in &config.drafters {
            let mut drafter = Drafter::create(&setup.library, &setup.options, facts)?;
            let limits = DrafterLimits {
                max_rows: sizes.config.max_num_seqs as u32,
                max_draft_length: config.max_draft_length.min(longest_draft.max(1)),
                max_context_tokens: facts.max_context_tokens,
            };
            drafter.activate(limits, &mut models)?;
            let name = drafter.name().to_owned();
            offered.push(OfferedDrafter { name, models: models.take_asked().into() });
            drafters.push(Box::new(drafter));
        }
        let offer = DraftOffer {
            drafters: offered,
            draft_length: config.draft_length.min(config.max_draft_length),
            max_draft_length: config.max_draft_length,
            longest_draft,
            kv_budget: config.kv_budget,
            auto: config.auto,
        };
        let costs = config.costs.clone().unwrap_or_else(|| auto::estimated_costs(model));
        let mut drafting = Self::of(drafters, offer, sizes, costs, config.suffix_bytes);
        if let Some(auto) = &mut drafting.auto {
            auto.max_inter_token(config.max_inter_token);
        }
        drafting.state.waits_for_drafts = config.waits_for_drafts;
        Ok(drafting)
    }

    fn of(
        mut drafters: Vec<Box<dyn DraftStrategy>>,
        offer: DraftOffer,
        sizes: &Fitted,
        costs: CostTable,
        suffix_bytes: usize,
    ) -> Self {
        let n_drafters = drafters.len();
        let auto = (n_drafters > 0).then(|| {
            let most = offer.max_draft_length.min(offer.longest_draft);
            AutoPlanner::new(costs, &mut drafters, &offer.drafters, most, sizes)
        });
        Drafting {
            drafters,
            offer,
            is_set_aside: vec![false; n_drafters],
            chaos: match sizes.config.policy {
                SchedulePolicy::Fixed => None,
                SchedulePolicy::Random { seed } => Some(Chaos::of_drafting(seed)),
            },
            auto,
            enters: false,
            programs: vec![Program::default(); n_drafters],
            verified: vec![Vec::new(); n_drafters],
            suffixes: SuffixStore::new(suffix_bytes),
            state: RoundState::default(),
        }
    }

    /// Test drafters, each with its name and its draft models.
    #[cfg(test)]
    pub(crate) fn of_test(
        drafters: Vec<(OfferedDrafter, Box<dyn DraftStrategy>)>,
        sizes: &Fitted,
    ) -> Self {
        let (offered, drafters) = drafters.into_iter().unzip();
        let offer = DraftOffer {
            drafters: offered,
            draft_length: 3,
            max_draft_length: 64,
            longest_draft: sizes.max_draft_length as u32,
            kv_budget: None,
            auto: false,
        };
        // A step takes 1 us, a row 0.1 us, a cached token 0.1 ns, whatever the clock says. Real steps take longer, so the time
        // that probes may take adds up at least as fast.
        let costs = CostTable::analytic(1e3, 1e2, 1e-1, 1e9, 1e9);
        let mut drafting = Self::of(drafters, offer, sizes, costs, 1 << 20);
        if let Some(auto) = &mut drafting.auto {
            auto.freeze();
        }
        drafting
    }

    pub(crate) fn offer(&self) -> &DraftOffer {
        &self.offer
    }

    pub(crate) fn times(&self) -> DraftTimes {
        let calls = self.drafters.iter().map(|drafter| drafter.timings().total).sum();
        DraftTimes { calls, ..self.state.times }
    }

    /// Whether some drafts hold pending tokens.
    pub(crate) fn has_pending_drafts(&self) -> bool {
        self.state.has_pending_drafts
    }

    /// Gives up pending drafts: a failed step has lost their tokens.
    pub(crate) fn forget_pending_drafts(&mut self) {
        self.state.has_pending_drafts = false;
    }

    /// Sequences of the latest step that their draft model has not read to the end.
    pub(crate) fn n_behind(&self) -> usize {
        self.state.n_behind
    }

    /// Settles how each sequence drafts in the coming round: as agreed with its request or as the planner chooses, not at
    /// all with a drafter that was set aside, and at random under the random schedule. Drafters that a sequence leaves are
    /// told that it is over for them.
    pub(crate) fn plan_round(&mut self, running: &mut [Sequence], blocks: &mut BlockManager) {
        self.enters = false;
        let has_auto = running.iter().any(|s| s.draft.as_ref().is_some_and(|d| d.auto.is_some()));
        if self.chaos.is_none() && !self.is_set_aside.contains(&true) && !has_auto {
            return; // every plan is the agreed one
        }
        let mut chosen = self.chosen_plans(running, has_auto).into_iter().peekable();
        for (at, sequence) in running.iter_mut().enumerate() {
            let id = sequence.key.id();
            let choice =
                chosen.next_if(|(chosen_at, _)| *chosen_at == at).and_then(|(_, plan)| plan);
            let Some(draft) = &mut sequence.draft else { continue };
            let left = draft.plan().drafter;
            let mut plan = match &mut self.chaos {
                Some(chaos) => chaos.plan(draft.agreed(), draft.plan(), &self.offer),
                None if draft.auto.is_some() => match choice {
                    Some((drafter, n)) => self.offer.plan(drafter, n, draft.agreed().kv_budget),
                    None => DraftPlan::off(),
                },
                None => draft.agreed().clone(),
            };
            if plan.drafter.is_some_and(|drafter| self.is_set_aside[drafter]) {
                plan = DraftPlan::off();
            }
            self.enters |= plan.drafter.is_some() && plan.drafter != left;
            if draft.follow(plan, blocks)
                && let Some(left) = left
            {
                self.drafters[left].end(id);
            }
        }
    }

    /// The planner's choice for each sequence that leaves it one, by its index.
    fn chosen_plans(
        &mut self,
        running: &mut [Sequence],
        has_auto: bool,
    ) -> Vec<(usize, Option<(usize, u32)>)> {
        let Some(auto) = self.auto.as_mut().filter(|_| has_auto) else { return Vec::new() };
        let programs = self.drafters.iter().zip(&self.programs);
        let rules =
            programs.map(|(drafter, program)| LookupRule::of(drafter.matchers(), &program.work));
        let rules: Vec<_> = rules.collect();
        auto.choose(running, &self.is_set_aside, &rules, &mut self.suffixes);
        auto.plans().collect()
    }

    /// The work of the step whose drafts are made, for [`Self::observe`]; None without a planner.
    pub(crate) fn load_of(&self, running: &[Sequence]) -> Option<StepLoad> {
        let enters = self.enters || self.state.n_behind > 0;
        self.auto.as_ref().map(|auto| auto.load_of(running, enters))
    }

    /// Tells the planner the times of a step.
    pub(crate) fn observe(&mut self, load: Option<StepLoad>, step: &StepStats, is_async: bool) {
        if let (Some(auto), Some(load)) = (&mut self.auto, load) {
            auto.observe(&load, step, is_async);
        }
    }

    /// The statistics of the planner.
    pub(crate) fn planner_stats(&self) -> Option<PlannerStats> {
        self.auto.as_ref().map(|auto| auto.stats().clone())
    }

    /// Has the drafters draft for every sequence with room for a draft. Draft tokens may be pending.
    /// [`Self::take_drafts`] resolves them after the verification has been sampled.
    pub(crate) fn propose(
        &mut self,
        model: &mut dyn LanguageModel,
        running: &mut [Sequence],
    ) -> Result<()> {
        self.state.n_behind = 0;
        let sequences: Vec<_> = running.iter_mut().filter_map(Sequence::drafting).collect();
        if sequences.is_empty() {
            return Ok(());
        }
        let Drafting { drafters, is_set_aside, programs, suffixes, state, .. } = self;
        let mut round = DraftRound { model, sequences, state, suffixes };
        let mut proposals = Vec::new();
        for (index, program) in programs.iter_mut().enumerate() {
            let rows = round.rows_of(index);
            if rows.is_empty() {
                continue;
            }
            round.introduce(index, &rows, drafters, program)?;
            match round.guess(&mut *drafters[index], &rows, program) {
                // A drafter without a draft may still have enqueued replays.
                Outcome::Ready | Outcome::NoGuess => {
                    proposals.push(Proposal::new(index, rows, program));
                }
                Outcome::Failed => {}
                Outcome::SetAside => is_set_aside[index] = true,
            }
        }
        round.execute(&mut proposals, drafters)?;
        if round.state.has_pending_drafts {
            // The tokens are copied to the host while the verification runs.
            round.model.start_token_copy()?;
        }
        Ok(())
    }

    /// Waits for draft tokens that are still pending, if there are any, and resolves them.
    pub(crate) fn take_drafts(
        &mut self,
        model: &mut dyn LanguageModel,
        running: &mut [Sequence],
    ) -> Result<()> {
        let drafts = running.iter_mut().filter_map(|sequence| sequence.draft.as_mut());
        take_drafts(&mut self.state, model, drafts)
    }

    /// Records the fate of a sequence's draft, until [`Self::send_feedback`].
    pub(crate) fn add_feedback(&mut self, drafter: usize, verified: Verified) {
        self.verified[drafter].push(verified);
    }

    /// Tells drafters the fate of their drafts in this step.
    pub(crate) fn send_feedback(&mut self) {
        for (drafter, verified) in self.drafters.iter_mut().zip(&mut self.verified) {
            if !verified.is_empty() {
                drafter.feedback(verified);
                verified.clear();
            }
        }
    }

    /// Adds the bytes of suffix indexes to `stats`.
    pub(crate) fn suffix_stats(&self, stats: &mut Stats) {
        stats.suffix_index_bytes = self.suffixes.index_bytes();
        stats.suffix_index_bytes_peak = self.suffixes.index_bytes_peak();
        stats.suffix_memory_bytes = self.suffixes.memory_bytes();
        stats.suffix_bytes_limit = self.suffixes.limit_bytes();
    }

    /// Begins anew to look for the most bytes of suffix indexes: the engine is idle.
    pub(crate) fn forget_suffix_peak(&mut self) {
        self.suffixes.forget_peak();
    }

    /// Tells the drafter of a sequence that the sequence is over. Its output is kept for later
    /// sequences with the same salt, if a drafter searches earlier outputs.
    pub(crate) fn end(&mut self, sequence: &Sequence) {
        self.suffixes.end(sequence.key.id());
        let mut matchers = self.drafters.iter().flat_map(|drafter| drafter.matchers());
        if sequence.draft.is_some() && matchers.any(|matcher| matcher.uses_memory) {
            self.suffixes.remember(sequence.table.kind().salt(), sequence.output());
        }
        let known = sequence.draft.as_ref().filter(|draft| draft.is_known);
        if let Some(drafter) = known.and_then(|draft| draft.plan().drafter) {
            self.drafters[drafter].end(sequence.key.id());
        }
    }
}
