//! The drafting state of one sequence.

use super::SequenceSampler;
use super::auto_draft::{AutoDraft, VerifiedRound};
use super::selection::ViewSelection;
use super::view_budget::ViewBudget;
use crate::draft_cache::DraftCache;
use crate::draft_settings::{DraftPlan, DraftSettings, Verify};
use crate::stats::DraftStats;
use galley_backend::sample::{Proposal, Rejection, SampledToken, SampledTokens};
use galley_backend::{InputToken, KvShape, KvView, Placeholder};
use galley_blocks::{BlockManager, BlockTable};
use galley_drafter_host::{SelectionPolicy, View};
use galley_model::ModelIndex;
use std::ops::Range;

/// The drafting state of one sequence.
///
/// The plan may change between two rounds: the drafter, the draft length and the KV budget
/// ([`Self::follow`]). A drafter that is not in the plan has no state here.
#[derive(Debug)]
pub(crate) struct SequenceDraft {
    verify: Verify,
    /// The plan that the request has agreed on.
    agreed: DraftPlan,
    /// The plan of this round.
    plan: DraftPlan,
    /// The planner's state, if the request leaves the plan to it.
    pub(crate) auto: Option<AutoDraft>,
    /// This round's draft; empty between rounds. Tokens of a chain are pending until they are
    /// resolved.
    pub(crate) tokens: Vec<InputToken>,
    /// The distributions that the draft tokens were sampled from, for verification by rejection:
    /// one for each token, or none. Draft tokens without a distribution are verified by equality.
    pub(crate) proposals: Vec<Proposal>,
    pub(crate) stats: DraftStats,
    /// One cache for each draft model of the plan's drafter.
    caches: Vec<DraftCache>,
    /// The salt under which the request's KV is shared.
    cache_salt: u64,
    /// The hash of the block for which the draft models last waited.
    waited_for: Option<u64>,
    /// Spare blocks of the pool when there were last too few for the draft models.
    too_few_blocks: Option<usize>,
    /// One selection for each view of the plan's drafter. Empty until the drafter is told of the
    /// sequence.
    pub(crate) selections: Vec<ViewSelection>,
    /// Whether the plan's drafter has been told of the sequence's prompt.
    pub(crate) is_known: bool,
}

impl SequenceDraft {
    pub(crate) fn new(settings: DraftSettings, cache_salt: u64) -> Self {
        SequenceDraft {
            caches: match settings.is_auto {
                true => Vec::new(),
                false => settings.plan.caches(cache_salt),
            },
            cache_salt,
            waited_for: None,
            too_few_blocks: None,
            verify: settings.verify,
            auto: settings.is_auto.then(AutoDraft::default),
            plan: if settings.is_auto { DraftPlan::off() } else { settings.plan.clone() },
            agreed: settings.plan,
            tokens: Vec::new(),
            proposals: Vec::new(),
            stats: DraftStats::default(),
            selections: Vec::new(),
            is_known: false,
        }
    }

    /// The state of a fork: the agreed plan, and nothing computed. Draft models have not read the
    /// prompt yet when a sequence forks; the forks share it through the prefix cache.
    pub(super) fn fork(&self) -> Self {
        let (plan, is_auto) = (self.agreed.clone(), self.auto.is_some());
        let settings = DraftSettings { plan, verify: self.verify, is_auto };
        Self::new(settings, self.cache_salt)
    }

    /// The plan that the request has agreed on. If the planner chooses, it holds the longest draft and the KV budget.
    pub(crate) fn agreed(&self) -> &DraftPlan {
        &self.agreed
    }

    /// The longest draft that the planner may choose; None if the request leaves it no choice.
    pub(crate) fn auto_length(&self) -> Option<u32> {
        self.auto.as_ref().map(|_| self.agreed.draft_length)
    }

    /// Counts a round that was verified: `n_accepted` draft tokens were accepted. `n_tokens` tokens were known before it.
    pub(crate) fn end_round(&mut self, n_accepted: usize, n_tokens: usize) {
        let n_drafted = self.tokens.len();
        self.stats.add_round(n_drafted, n_accepted);
        if let (Some(auto), Some(drafter)) = (&mut self.auto, self.plan.drafter) {
            let [n_drafted, n_accepted, n_tokens] =
                [n_drafted, n_accepted, n_tokens].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
            auto.round = Some(VerifiedRound { drafter, n_drafted, n_accepted, n_tokens });
        }
        self.clear();
    }

    /// The plan of this round.
    pub(crate) fn plan(&self) -> &DraftPlan {
        &self.plan
    }

    /// Drafts by `plan` from the next round on. Drops the state that the new plan does not use: with
    /// another drafter all of it, with another length or budget the selections, which were made for
    /// the old ones. Returns whether the old drafter has to be told that the sequence is over.
    #[must_use]
    pub(crate) fn follow(&mut self, plan: DraftPlan, blocks: &mut BlockManager) -> bool {
        debug_assert!(self.tokens.is_empty(), "a plan does not change within a round");
        if self.plan == plan {
            return false;
        }
        self.selections.iter_mut().for_each(|selection| *selection = ViewSelection::default());
        let changes_drafter = self.plan.drafter != plan.drafter;
        let was_known = changes_drafter && self.is_known;
        if changes_drafter {
            self.release(blocks);
            self.caches = plan.caches(self.cache_salt);
            self.selections.clear();
            self.is_known = false;
        }
        self.plan = plan;
        was_known
    }

    /// Records that the plan's drafter, which has `n_views` views, has been told of the sequence.
    pub(crate) fn introduce(&mut self, n_views: usize) {
        self.is_known = true;
        self.selections.resize_with(n_views, ViewSelection::default);
    }

    /// The sequence's KV caches of draft models.
    #[cfg(test)]
    pub(crate) fn caches(&self) -> &[DraftCache] {
        &self.caches
    }

    /// The sequence's KV cache of a draft model.
    pub(crate) fn cache(&self, model: ModelIndex) -> Option<&DraftCache> {
        self.caches.iter().find(|cache| cache.model.index == model)
    }

    pub(crate) fn cache_mut(&mut self, model: ModelIndex) -> Option<&mut DraftCache> {
        self.caches.iter_mut().find(|cache| cache.model.index == model)
    }

    /// Records that a draft model has read the positions `read`, of `n_tokens` known tokens and of the
    /// draft after them. `is_whole`: all layers ran, and attended to all tokens before.
    pub(crate) fn has_read(
        &mut self,
        model: ModelIndex,
        read: Range<usize>,
        n_tokens: usize,
        is_whole: bool,
    ) {
        if let Some(cache) = self.caches.iter_mut().find(|cache| cache.model.index == model) {
            cache.has_read(read, n_tokens, &self.tokens, is_whole);
        }
    }

    /// Commits KV of draft models after a step. `tokens` are the known tokens of the sequence.
    pub(crate) fn commit(&mut self, tokens: &[u32], blocks: &mut BlockManager) {
        self.caches.iter_mut().for_each(|cache| cache.commit(tokens, blocks));
    }

    /// Blocks of the pool that the draft models hold.
    pub(crate) fn n_blocks(&self) -> usize {
        self.caches.iter().map(DraftCache::n_blocks).sum()
    }

    /// Draft models without blocks that can read `n_tokens` tokens begin with the longest prefix of the
    /// sequence's `tokens` that the prefix cache holds. Returns the length of the prefixes, all
    /// together.
    pub(crate) fn find_prefixes(
        &mut self,
        tokens: &[u32],
        n_tokens: usize,
        blocks: &mut BlockManager,
    ) -> usize {
        let begins = |cache: &&mut DraftCache| cache.n_blocks() == 0 && cache.can_read(n_tokens);
        let begin = self.caches.iter_mut().filter(begins);
        begin.map(|cache| cache.find_prefix(tokens, blocks)).sum()
    }

    /// The hashes of the full blocks that the draft models read next.
    pub(crate) fn next_hashes(
        &self,
        tokens: &[u32],
        blocks: &BlockManager,
    ) -> impl Iterator<Item = u64> {
        self.caches.iter().filter_map(|cache| cache.next_hash(tokens, blocks))
    }

    /// Whether the draft models leave a block to another sequence, which reads it in this step: then
    /// they find it in the prefix cache a step later. `hashes` are those of the blocks that are read.
    /// They wait once for a block, so that they go on even if the other sequence does not.
    pub(crate) fn waits_for(
        &mut self,
        hashes: &[u64],
        tokens: &[u32],
        blocks: &BlockManager,
    ) -> bool {
        let next = self.next_hashes(tokens, blocks).find(|next| hashes.contains(next));
        let waits = next.is_some() && next != self.waited_for;
        self.waited_for = next.filter(|_| waits).or(self.waited_for);
        waits
    }

    /// Whether the draft models may have room in `n_spare` blocks: there are more than when there were
    /// too few. So a prompt is not looked up in every step while the pool is full.
    pub(crate) fn may_fit(&self, n_spare: usize) -> bool {
        self.too_few_blocks.is_none_or(|too_few| n_spare > too_few)
    }

    /// Records that `n_spare` blocks were too few for the draft models.
    pub(crate) fn has_not_fitted(&mut self, n_spare: usize) {
        self.too_few_blocks = Some(n_spare);
    }

    /// Most tokens of the first `n_tokens` that a draft model has not read.
    pub(crate) fn n_unread(&self, n_tokens: usize) -> usize {
        let readers = self.caches.iter().filter(|cache| cache.can_read(n_tokens));
        readers.map(|cache| n_tokens.saturating_sub(cache.n_read())).max().unwrap_or(0)
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

    /// Appends a token that the host has sampled.
    pub(crate) fn push(&mut self, sampled: SampledToken) {
        self.tokens.push(InputToken::known(sampled.token));
        self.proposals.extend(sampled.proposal.map(|proposal| *proposal));
    }

    /// Drops the draft.
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.proposals.clear();
    }

    /// Appends a token that the device has sampled.
    pub(crate) fn push_pending(&mut self, placeholder: Placeholder) {
        self.tokens.push(InputToken::pending(placeholder));
    }

    /// Appends tokens that were not sampled.
    pub(crate) fn extend(&mut self, tokens: &[u32]) {
        self.tokens.extend(tokens.iter().copied().map(InputToken::known));
    }

    /// Replaces placeholders by their tokens, in the draft and in the draft models' caches. A
    /// placeholder without a token stays, and verification rejects it.
    pub(crate) fn resolve(&mut self, sampled: &SampledTokens) {
        sampled.resolve(&mut self.tokens);
        self.caches.iter_mut().for_each(|cache| cache.resolve(sampled));
    }

    /// Ends the draft before its first token that is pending or outside a vocabulary of this size.
    pub(crate) fn end_before_unknown(&mut self, vocab_size: usize) {
        let in_vocabulary =
            |token: &&InputToken| token.id().is_some_and(|id| (id as usize) < vocab_size);
        self.tokens.truncate(self.tokens.iter().take_while(in_vocabulary).count());
    }

    /// The role of a draft token when it is drafted.
    pub(crate) fn drafting_role(&self) -> Option<Rejection<'_>> {
        (self.verify == Verify::Rejection).then_some(Rejection::Draft)
    }

    /// The role of draft token number `at` when it is verified; None after the last one.
    pub(crate) fn verification_role(&self, at: usize) -> Option<Rejection<'_>> {
        self.proposals.get(at).map(Rejection::Verify)
    }

    /// Positions and budget of `view` under the plan.
    pub(crate) fn view_budget(&self, view: View, block_size: usize) -> ViewBudget {
        ViewBudget::new(view, self.plan.kv_budget, block_size, self.plan.draft_length as usize)
    }

    /// The KV view of a forward with its first row at position `first`, through view number `index`
    /// of the drafter. The draft begins at position `n`. `ascending` is `0..`, at least as long as
    /// the sequence's block table.
    pub(crate) fn view<'a>(
        &'a self,
        (index, view): (usize, View),
        first: usize,
        n: usize,
        shape: &KvShape,
        ascending: &'a [u32],
    ) -> KvView<'a> {
        let view_budget = self.view_budget(view, shape.block_size);
        let observe = match &view.middle {
            SelectionPolicy::Observed(observe) => Some(observe),
            SelectionPolicy::Nothing => None,
        };
        let view = self.selections[index].view(&view_budget, observe, n, shape, ascending);
        // A draft model with more than the tail to read attends to all of it.
        if first < view.tail_start as usize { KvView::default() } else { view }
    }
}

/// A sequence with a draft to make in this step: the parts that drafting reads, and the part that it
/// changes.
pub(crate) struct DraftingSequence<'a> {
    pub(crate) id: u64,
    pub(crate) tokens: &'a [u32],
    pub(crate) n_generated: usize,
    pub(crate) table: &'a BlockTable,
    pub(crate) sampler: &'a SequenceSampler,
    /// The longest draft that the step can verify, at least 1.
    pub(crate) n_slots: usize,
    pub(crate) draft: &'a mut SequenceDraft,
}

#[cfg(test)]
mod tests {
    use super::*;
    use galley_backend::sample::PendingTokens;

    #[test]
    fn a_draft_ends_before_what_is_no_token_of_the_target() {
        let drafted = |rows: &[u32]| {
            let plan = DraftPlan { draft_length: 3, ..DraftPlan::off() };
            let settings = DraftSettings { plan, verify: Verify::Equality, is_auto: false };
            let mut draft = SequenceDraft::new(settings, 0);
            let placeholders: Vec<_> = PendingTokens::default().push(&[0; 5]).collect();
            [0, 2, 4].into_iter().for_each(|at| draft.push_pending(placeholders[at]));
            let mut sampled = PendingTokens::default();
            sampled.push(rows);
            draft.resolve(&sampled.take());
            draft.end_before_unknown(100);
            draft.tokens.iter().filter_map(|token| token.id()).collect::<Vec<_>>()
        };
        assert_eq!(drafted(&[7, 0, 99, 0, 5]), [7, 99, 5]);
        assert_eq!(drafted(&[7, 0, 100, 0, 5]), [7]);
        assert_eq!(drafted(&[100, 0, 8, 0, 5]), [0; 0]);
        assert_eq!(drafted(&[7, 0, 99]), [7, 99], "a missing sample is no token");
    }
}
