//! Drafting: a round of drafts for the sequences that have a drafter.
//!
//! A drafter enqueues a [`Program`]. This module executes it, with the forward, the sampler and the
//! noise of the target. The result is [`SequenceDraft::tokens`], a few token ids for each sequence,
//! which the next forward verifies. Where a request asks for verification by rejection,
//! [`SequenceDraft::proposals`] holds the distributions that the draft tokens were sampled from.
//!
//! KV of a target's draft is written to slots that the sequence has reserved. The verification of
//! the same positions overwrites it. KV of a draft model lies in blocks of its own ([`draft_model`]).

mod chain;
mod draft_model;
mod lookup;
mod round;
mod selection;
mod setup;
mod stats;
mod strategy;
mod view_budget;

pub(crate) use draft_model::DraftCache;
pub use draft_model::FindModel;
pub use setup::{DraftConfig, DraftRequest, DrafterChoice, DrafterSetup, Verify};
pub(crate) use setup::{DraftOffer, DraftSettings, OfferedDrafter};
pub use stats::{DraftStats, DraftTimes};
pub(crate) use strategy::DraftStrategy;

use crate::config::Fitted;
use crate::sequence::Sequence;
use draft_model::{DraftModelLoader, facts_of};
use galley_backend::sample::{Proposal, SampledToken};
use galley_backend::{KvShape, Observation, PoolScores};
use galley_blocks::BlockManager;
use galley_drafter_host::{
    Drafter, DrafterLimits, LoadError, Program, RefreshPolicy, SelectionPolicy,
};
use galley_model::tokenizer::Tokenizer;
use galley_model::{DraftModelId, LanguageModel, Result};
use selection::ViewSelection;
use view_budget::{SelectionRequest, ViewBudget};

/// The drafters of an engine.
#[derive(Default)]
pub(crate) struct Drafting {
    drafters: Vec<Box<dyn DraftStrategy>>,
    offer: DraftOffer,
    times: DraftTimes,
    /// Sequences of the latest step that their draft model has not read to the end.
    n_behind: usize,
    /// Some drafts hold placeholders that have not been resolved.
    has_pending_drafts: bool,
    /// See [`DraftConfig::waits_for_drafts`].
    waits_for_drafts: bool,
    /// Number of selections so far. The number of each selection is its version.
    n_selections: u64,
    program: Program,
    memory: round::Memory,
}

/// The drafting state of one sequence.
#[derive(Debug)]
pub(crate) struct SequenceDraft {
    pub(crate) settings: DraftSettings,
    /// This round's draft: placeholders until the host has waited for them. Empty between rounds.
    pub(crate) tokens: Vec<u32>,
    /// The distributions that the draft tokens were sampled from, for verification by rejection:
    /// one for each token, or none. Draft tokens without a distribution are verified by equality.
    pub(crate) proposals: Vec<Proposal>,
    pub(crate) stats: DraftStats,
    /// The drafter has been set aside and drafts no more.
    pub(crate) is_off: bool,
    /// One cache for each draft model of the drafter.
    pub(crate) caches: Vec<DraftCache>,
    /// One selection for each view of the drafter.
    selections: Vec<ViewSelection>,
    /// Whether the drafter has been told of the sequence's prompt.
    is_known: bool,
}

impl SequenceDraft {
    pub(crate) fn new(settings: DraftSettings) -> Self {
        SequenceDraft {
            caches: settings.models.iter().copied().map(DraftCache::new).collect(),
            settings,
            is_off: false,
            tokens: Vec::new(),
            proposals: Vec::new(),
            stats: DraftStats::default(),
            selections: Vec::new(),
            is_known: false,
        }
    }

    /// The sequence's KV cache of a draft model.
    fn cache(&self, model: DraftModelId) -> Option<&DraftCache> {
        self.caches.iter().find(|cache| cache.model.id == model)
    }

    fn cache_mut(&mut self, model: DraftModelId) -> Option<&mut DraftCache> {
        self.caches.iter_mut().find(|cache| cache.model.id == model)
    }

    /// Records that a draft model has read the first `n_tokens` tokens of the sequence, and the
    /// first `n_drafted` draft tokens after them.
    fn has_read(&mut self, model: DraftModelId, n_tokens: usize, n_drafted: usize) {
        if let Some(cache) = self.caches.iter_mut().find(|cache| cache.model.id == model) {
            cache.has_read(n_tokens, &self.tokens[..n_drafted]);
        }
    }

    /// Blocks of the pool that the draft models hold.
    pub(crate) fn n_blocks(&self) -> usize {
        self.caches.iter().map(DraftCache::n_blocks).sum()
    }

    /// Pool blocks that the draft models lack to read `n_tokens` tokens. Models with a shorter
    /// context need none.
    pub(crate) fn blocks_needed(&self, n_tokens: usize, block_size: usize) -> usize {
        let readers = self.caches.iter().filter(|cache| cache.can_read(n_tokens));
        readers.map(|cache| cache.blocks_needed(n_tokens, block_size)).sum()
    }

    /// Reserves these blocks. A model with a shorter context gives its blocks back.
    pub(crate) fn reserve(&mut self, n_tokens: usize, blocks: &mut BlockManager) {
        for cache in &mut self.caches {
            match cache.can_read(n_tokens) {
                true => cache.reserve(n_tokens, blocks),
                false => cache.release(blocks),
            }
        }
    }

    /// Gives the draft models' blocks back.
    pub(crate) fn release(&mut self, blocks: &mut BlockManager) {
        self.caches.iter_mut().for_each(|cache| cache.release(blocks));
    }

    /// Appends a token that the host has sampled, or the placeholder of one that the device has
    /// sampled.
    fn push(&mut self, sampled: SampledToken) {
        self.tokens.push(sampled.token);
        self.proposals.extend(sampled.proposal.map(|proposal| *proposal));
    }

    /// Drops the draft.
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.proposals.clear();
    }
}

/// A selection that a verification makes during its forward.
pub(crate) struct PiggybackSelection {
    /// Index of the sequence in `running`.
    pub(crate) at: usize,
    /// Index of the sequence in the verification's batch, once the forward has been enqueued.
    pub(crate) seq: usize,
    pub(crate) wanted: SelectionRequest,
    /// Tokens of one selected unit: 1, or the block size.
    pub(crate) unit: usize,
    pub(crate) pool: PoolScores,
    pub(crate) out: Vec<u32>,
    view: usize,
}

impl PiggybackSelection {
    /// The observation that the forward is asked for. Its query is the sequence's first row, which
    /// reads a known token.
    pub(crate) fn observation(&mut self) -> Observation<'_> {
        selection::observation(self.seq, 1, &self.wanted, (self.unit, self.pool), &mut self.out)
    }
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
        let facts = facts_of(model.config(), &model.kv_shape());
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
        };
        let waits_for_drafts = config.waits_for_drafts;
        Ok(Drafting { drafters, offer, waits_for_drafts, ..Drafting::default() })
    }

    /// Test drafters, each with a name.
    #[cfg(test)]
    pub(crate) fn of_test(drafters: Vec<(String, Box<dyn DraftStrategy>)>, sizes: &Fitted) -> Self {
        let (names, drafters): (Vec<_>, Vec<_>) = drafters.into_iter().unzip();
        let offered = |name| OfferedDrafter { name, models: [].into() };
        let offer = DraftOffer {
            drafters: names.into_iter().map(offered).collect(),
            draft_length: 3,
            max_draft_length: 64,
            longest_draft: sizes.max_draft_length as u32,
            kv_budget: None,
        };
        Drafting { drafters, offer, ..Drafting::default() }
    }

    pub(crate) fn offer(&self) -> &DraftOffer {
        &self.offer
    }

    pub(crate) fn times(&self) -> DraftTimes {
        let calls = self.drafters.iter().map(|drafter| drafter.timings().total).sum();
        DraftTimes { calls, ..self.times }
    }

    /// Whether some drafts hold placeholders that have not been resolved.
    pub(crate) fn has_pending_drafts(&self) -> bool {
        self.has_pending_drafts
    }

    /// Gives up unresolved placeholders: a failed step has lost their tokens.
    pub(crate) fn forget_pending_drafts(&mut self) {
        self.has_pending_drafts = false;
    }

    pub(crate) fn n_behind(&self) -> usize {
        self.n_behind
    }

    /// Has the drafters draft for every sequence with room for a draft. Draft tokens in
    /// `draft.tokens` may be placeholders. [`Self::take_drafts`] resolves them after the
    /// verification has been sampled.
    pub(crate) fn propose(
        &mut self,
        model: &mut dyn LanguageModel,
        running: &mut [Sequence],
    ) -> Result<()> {
        self.n_behind = 0;
        if !running.iter().any(|sequence| sequence.n_draft_slots() > 0) {
            return Ok(());
        }
        for drafter in 0..self.drafters.len() {
            self.round(drafter, model, running)?;
        }
        if self.has_pending_drafts {
            // The tokens are copied to the host while the verification runs.
            model.start_token_copy()?;
        }
        Ok(())
    }

    /// The selections that the coming verification is to make.
    pub(crate) fn piggybacked(
        &self,
        running: &mut [Sequence],
        shape: &KvShape,
    ) -> Vec<PiggybackSelection> {
        let mut piggybacked = Vec::new();
        if self.drafters.is_empty() {
            return piggybacked;
        }
        for (at, sequence) in running.iter_mut().enumerate() {
            let n = sequence.table.n_tokens();
            let Some(draft) = &mut sequence.draft else { continue };
            if draft.tokens.is_empty() {
                continue;
            }
            let views = self.drafters[draft.settings.drafter].views();
            for (index, selection) in draft.selections.iter_mut().enumerate() {
                let view = views[index];
                let SelectionPolicy::Observed(observe) = view.middle else { continue };
                let view_budget = view_budget(view, &draft.settings, shape.block_size);
                let Some(wanted) = view_budget.wanted(n) else { continue };
                if selection.piggybacked(&observe) {
                    let out = selection.take_raw(&wanted, shape);
                    let unit = selection::unit(&observe, shape.block_size);
                    let pool = selection::pool(&observe);
                    piggybacked.push(PiggybackSelection {
                        at,
                        seq: 0,
                        wanted,
                        unit,
                        pool,
                        out,
                        view: index,
                    });
                }
            }
        }
        piggybacked
    }

    /// Stores the verification's selections in their sequences.
    pub(crate) fn end_piggybacked(
        &mut self,
        piggybacked: Vec<PiggybackSelection>,
        running: &mut [Sequence],
    ) {
        for piggyback in piggybacked {
            let sequence = &mut running[piggyback.at];
            let n = sequence.table.n_tokens();
            let draft = sequence.draft.as_mut().expect("it had one before the forward");
            self.n_selections += 1;
            let version = self.n_selections;
            draft.selections[piggyback.view].put_back(
                piggyback.out,
                &piggyback.wanted,
                piggyback.unit,
                n,
                version,
            );
        }
    }

    /// Tells the drafter of a sequence that the sequence is over.
    pub(crate) fn end(&mut self, sequence: &Sequence) {
        if let Some(draft) = sequence.draft.as_ref().filter(|draft| draft.is_known) {
            self.drafters[draft.settings.drafter].end(sequence.id());
        }
    }
}

fn view_budget(
    view: galley_drafter_host::View,
    settings: &DraftSettings,
    block_size: usize,
) -> ViewBudget {
    ViewBudget::new(view, settings.kv_budget, block_size, settings.draft_length as usize)
}

/// Number of latest tokens that look back in a selection pass. For [`RefreshPolicy::Verify`] the latest
/// token stands in for a verification that has not run yet.
fn n_queries(when: RefreshPolicy) -> usize {
    match when {
        RefreshPolicy::Context { n_queries, .. } => n_queries as usize,
        RefreshPolicy::Verify { .. } => 1,
    }
}
