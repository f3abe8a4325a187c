//! One round: the sequences with room for a draft, and the model that drafts for them.

use super::suffix::SuffixStore;
use crate::batch::BatchBuffers;
use crate::sequence::{DraftingSequence, SequenceDraft};
use crate::stats::DraftTimes;
use galley_drafter_host::{DraftRow, SuffixMatch};
use galley_model::{LanguageModel, Result};

/// State that outlives a round: counters, and buffers for reuse.
#[derive(Default)]
pub(super) struct RoundState {
    pub(super) times: DraftTimes,
    /// Sequences of the latest round that their draft model has not read to the end.
    pub(super) n_behind: usize,
    /// Some drafts hold pending tokens.
    pub(super) has_pending_drafts: bool,
    /// See [`DraftConfig::waits_for_drafts`](crate::DraftConfig::waits_for_drafts).
    pub(super) waits_for_drafts: bool,
    /// Number of selections so far. The number of each selection is its version.
    n_selections: u64,
    pub(super) buffers: BatchBuffers,
    /// The result of the latest search of a suffix index.
    pub(super) found: SuffixMatch,
    /// `0, 1, 2, ...`: the indices of blocks from the start of a sequence.
    pub(super) ascending: Vec<u32>,
}

impl RoundState {
    /// A version that no other selection of the engine has.
    pub(super) fn next_version(&mut self) -> u64 {
        self.n_selections += 1;
        self.n_selections
    }
}

/// The sequences of one round, and the model that drafts for them. A *row* of a drafter is an index
/// into `sequences`.
pub(super) struct DraftRound<'a> {
    pub(super) model: &'a mut dyn LanguageModel,
    pub(super) sequences: Vec<DraftingSequence<'a>>,
    pub(super) state: &'a mut RoundState,
    pub(super) suffixes: &'a mut SuffixStore,
}

impl<'a> DraftRound<'a> {
    /// The rows of a drafter.
    pub(super) fn rows_of(&self, drafter: usize) -> Vec<usize> {
        let is_of = |&at: &usize| self.sequences[at].draft.plan().drafter == Some(drafter);
        (0..self.sequences.len()).filter(is_of).collect()
    }

    /// Rows as a drafter sees them.
    pub(super) fn draft_rows(&self, rows: &[usize]) -> Vec<DraftRow<'a>> {
        let rows = rows.iter().map(|&at| &self.sequences[at]);
        rows.map(|sequence| DraftRow {
            sequence: sequence.id,
            tokens: sequence.tokens,
            draft_length: sequence.n_slots as u32,
        })
        .collect()
    }

    /// Gives a row a draft that the host knows, in place of the draft that it has. Drops tokens that
    /// the step cannot verify.
    pub(super) fn push(&mut self, at: usize, tokens: &[u32]) {
        let DraftingSequence { n_slots, draft, .. } = &mut self.sequences[at];
        draft.clear();
        draft.extend(&tokens[..tokens.len().min(*n_slots)]);
    }

    /// Waits for draft tokens that are still pending, if there are any, and resolves them.
    pub(super) fn take_drafts(&mut self) -> Result<()> {
        let drafts = self.sequences.iter_mut().map(|sequence| &mut *sequence.draft);
        take_drafts(self.state, self.model, drafts)
    }
}

/// Waits for draft tokens that are still pending, if there are any, and resolves them in `drafts`.
pub(super) fn take_drafts<'a>(
    state: &mut RoundState,
    model: &mut dyn LanguageModel,
    drafts: impl Iterator<Item = &'a mut SequenceDraft>,
) -> Result<()> {
    if std::mem::take(&mut state.has_pending_drafts) {
        let sampled = model.wait_tokens()?;
        drafts.for_each(|draft| draft.resolve(&sampled));
    }
    Ok(())
}
