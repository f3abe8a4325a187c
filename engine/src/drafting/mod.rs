//! Drafting: a round of guesses for the sequences that have a drafter.
//!
//! A drafter enqueues a [`Program`]; this module does what it says, with the forward, the sampler and the noise
//! of the target. All that comes out is [`SequenceDraft::tokens`], a few token ids a sequence, which the next
//! forward verifies; where a request wants them verified by rejection, with what they were drawn from.
//!
//! KV of a target's draft is written to slots that the sequence has reserved, and is overwritten by the verification
//! of the same positions. KV of a draft model lies in blocks of its own ([`second`]).

mod chain;
mod guess;
mod lookup;
mod round;
mod second;
mod selection;
mod setup;
mod stats;
mod window;

pub(crate) use guess::Guess;
pub(crate) use second::DraftCache;
pub use second::FindModel;
pub use setup::{DraftConfig, DraftRequest, DrafterChoice, DrafterSetup, Verify};
pub(crate) use setup::{DraftOffer, DraftSettings, OfferedDrafter};
pub use stats::{DraftStats, DraftTimes};

use crate::config::Fitted;
use crate::sequence::Sequence;
use galley_backend::sample::{Pick, Proposal};
use galley_backend::{KvShape, Observation, PoolScores};
use galley_blocks::BlockManager;
use galley_drafter_host::{Drafter, Limits, LoadError, Middle, Program, When};
use galley_model::tokenizer::Tokenizer;
use galley_model::{DraftModelId, LanguageModel, Result};
use second::{SecondModels, facts_of};
use selection::Selection;
use window::{Budgeted, Wanted};

/// The drafters of an engine.
#[derive(Default)]
pub(crate) struct Drafting {
    drafters: Vec<Box<dyn Guess>>,
    offer: DraftOffer,
    times: DraftTimes,
    /// Sequences of the latest step whose draft model has not read all of them.
    n_behind: usize,
    /// Drafts name guesses that nobody has waited for.
    guesses_ahead: bool,
    /// As [`DraftConfig::waits_for_guesses`].
    waits_for_guesses: bool,
    /// Selections so far: the number of each is its version.
    n_selections: u64,
    program: Program,
    memory: round::Memory,
}

/// What drafting keeps of one sequence.
#[derive(Debug)]
pub(crate) struct SequenceDraft {
    pub(crate) settings: DraftSettings,
    /// This round's guess, by name until somebody has waited for it; empty between rounds.
    pub(crate) tokens: Vec<u32>,
    /// What they were drawn from, where they are verified by rejection: one each, or none. Guesses without are
    /// compared.
    pub(crate) proposals: Vec<Proposal>,
    pub(crate) stats: DraftStats,
    /// The drafter has been set aside: no more guesses.
    pub(crate) is_off: bool,
    /// One for each draft model of the drafter.
    pub(crate) caches: Vec<DraftCache>,
    /// One for each view of the drafter.
    selections: Vec<Selection>,
    /// Whether the drafter has heard of its prompt.
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

    /// What a draft model has read.
    fn cache(&self, model: DraftModelId) -> Option<&DraftCache> {
        self.caches.iter().find(|cache| cache.model.id == model)
    }

    fn cache_mut(&mut self, model: DraftModelId) -> Option<&mut DraftCache> {
        self.caches.iter_mut().find(|cache| cache.model.id == model)
    }

    /// A draft model has read the first `n_tokens` of the sequence, and `n_guessed` of the guess.
    fn has_read(&mut self, model: DraftModelId, n_tokens: usize, n_guessed: usize) {
        if let Some(cache) = self.caches.iter_mut().find(|cache| cache.model.id == model) {
            cache.has_read(n_tokens, &self.tokens[..n_guessed]);
        }
    }

    /// Blocks of the pool that the draft models hold.
    pub(crate) fn n_blocks(&self) -> usize {
        self.caches.iter().map(DraftCache::n_blocks).sum()
    }

    /// Blocks of the pool that the draft models lack to read `n_tokens`, those that can.
    pub(crate) fn blocks_needed(&self, n_tokens: usize, block_size: usize) -> usize {
        let readers = self.caches.iter().filter(|cache| cache.can_read(n_tokens));
        readers.map(|cache| cache.blocks_needed(n_tokens, block_size)).sum()
    }

    /// Takes those, and gives back what is of no more use.
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

    /// Appends a token that the host has drawn, or the name of one that the device has.
    fn push(&mut self, pick: Pick) {
        self.tokens.push(pick.token);
        self.proposals.extend(pick.proposal.map(|proposal| *proposal));
    }

    /// Forgets the guess.
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.proposals.clear();
    }
}

/// A selection that a verification makes as it runs.
pub(crate) struct Ride {
    /// The sequence: its place among the running ones.
    pub(crate) at: usize,
    /// Its place in the batch of the verification, once that has run.
    pub(crate) seq: usize,
    pub(crate) wanted: Wanted,
    /// Tokens or blocks.
    pub(crate) unit: usize,
    pub(crate) pool: PoolScores,
    pub(crate) out: Vec<u32>,
    view: usize,
}

impl Ride {
    /// What the forward is asked for: the first row, which reads a token that is known, looks back.
    pub(crate) fn observation(&mut self) -> Observation<'_> {
        selection::observation(self.seq, 1, &self.wanted, (self.unit, self.pool), &mut self.out)
    }
}

impl Drafting {
    /// Creates and activates the drafters of `config`, for a model and an engine of these sizes. Loads the models that
    /// they draft with.
    pub(crate) fn start(
        config: &DraftConfig,
        model: &mut dyn LanguageModel,
        tokenizer: Option<&Tokenizer>,
        sizes: &Fitted,
    ) -> std::result::Result<Self, LoadError> {
        let facts = facts_of(model.config(), &model.kv_shape());
        let mut models = SecondModels::new(model, tokenizer, &config.find_model);
        let mut drafters: Vec<Box<dyn Guess>> = Vec::new();
        let longest_draft = u32::try_from(sizes.max_draft_length).unwrap_or(u32::MAX);
        let mut offered = Vec::new();
        for setup in &config.drafters {
            let mut drafter = Drafter::create(&setup.library, &setup.options, facts)?;
            let limits = Limits {
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
        let waits_for_guesses = config.waits_for_guesses;
        Ok(Drafting { drafters, offer, waits_for_guesses, ..Drafting::default() })
    }

    /// Drafters of a test, each with a name.
    #[cfg(test)]
    pub(crate) fn of_test(drafters: Vec<(String, Box<dyn Guess>)>, sizes: &Fitted) -> Self {
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

    /// Whether drafts name guesses that nobody has waited for.
    pub(crate) fn has_guesses_ahead(&self) -> bool {
        self.guesses_ahead
    }

    /// Drops guesses that nobody has waited for: their picks are gone.
    pub(crate) fn forget_guesses(&mut self) {
        self.guesses_ahead = false;
    }

    pub(crate) fn n_behind(&self) -> usize {
        self.n_behind
    }

    /// Has the drafters guess for every sequence with room for a draft; a guess is in its `draft.tokens`, by
    /// name. [`Self::take_guesses`] makes tokens of names, once the verification's picks have been made.
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
        if self.guesses_ahead {
            // They are on their way while the verification runs.
            model.send_picks()?;
        }
        Ok(())
    }

    /// Selections that are to be made by the verification that is about to run.
    pub(crate) fn rides(&self, running: &mut [Sequence], shape: &KvShape) -> Vec<Ride> {
        let mut rides = Vec::new();
        if self.drafters.is_empty() {
            return rides;
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
                let Middle::Observed(observe) = view.middle else { continue };
                let budgeted = budgeted(view, &draft.settings, shape.block_size);
                let Some(wanted) = budgeted.wanted(n) else { continue };
                if selection.rides(&observe) {
                    let out = selection.take_raw(&wanted, shape);
                    let unit = selection::unit(&observe, shape.block_size);
                    let pool = selection::pool(&observe);
                    rides.push(Ride { at, seq: 0, wanted, unit, pool, out, view: index });
                }
            }
        }
        rides
    }

    /// What the verification has selected belongs to the sequences.
    pub(crate) fn end_rides(&mut self, rides: Vec<Ride>, running: &mut [Sequence]) {
        for ride in rides {
            let sequence = &mut running[ride.at];
            let n = sequence.table.n_tokens();
            let draft = sequence.draft.as_mut().expect("it had one before the forward");
            self.n_selections += 1;
            let version = self.n_selections;
            draft.selections[ride.view].put_back(ride.out, &ride.wanted, ride.unit, n, version);
        }
    }

    /// A sequence is over: its drafter forgets it.
    pub(crate) fn end(&mut self, sequence: &Sequence) {
        if let Some(draft) = sequence.draft.as_ref().filter(|draft| draft.is_known) {
            self.drafters[draft.settings.drafter].end(sequence.id());
        }
    }
}

fn budgeted(
    view: galley_drafter_host::View,
    settings: &DraftSettings,
    block_size: usize,
) -> Budgeted {
    Budgeted::new(view, settings.kv_budget, block_size, settings.draft_length as usize)
}

/// Whether a context selection looks back with how many tokens: a verification that has not run yet is stood
/// in for by the latest token.
fn n_queries(when: When) -> usize {
    match when {
        When::Context { n_queries, .. } => n_queries as usize,
        When::Verify { .. } => 1,
    }
}
