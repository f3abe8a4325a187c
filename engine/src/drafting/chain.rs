//! Draft chains: one token after another from a model. The model is the target, under a view and a
//! layer mask, or a draft model.
//!
//! A chain does not wait for the device. Its draft tokens stay placeholders, in the draft and in
//! the batches that read them (the chain's and the verification's), until
//! [`Drafting::take_drafts`] resolves them after the verification has been sampled. A row with a
//! penalty or a proposal depends on the values of its earlier draft tokens and waits for each of
//! its draft tokens. A chain waits at its end if its draft model has a larger vocabulary than the
//! target, or if the engine waits for all drafts (`waits_for_drafts`).

use super::draft_model::DraftModel;
use super::round::layer_mask;
use super::{DraftCache, Drafting, SequenceDraft, view_budget};
use crate::sequence::Sequence;
use galley_backend::sample::{SampleRow, SampledToken, SampledTokens};
use galley_backend::{Batch, KvShape, KvView, LayerMask, SeqSpan, placeholder_index};
use galley_drafter_host::{MaskId, ModelId, SelectionPolicy, View, ViewId};
use galley_model::{DraftModelId, LanguageModel, Result};
use std::ops::Range;

/// The model, the view and the layer mask of a chain.
#[derive(Clone, Copy)]
pub(super) struct Chain {
    pub(super) model: ModelId,
    pub(super) view: Option<ViewId>,
    pub(super) mask: Option<MaskId>,
}

/// A sequence that a chain drafts for.
struct Reader {
    /// Index in `running`.
    at: usize,
    /// Tokens that the model has read: known tokens first, then draft tokens.
    n_read: usize,
    /// Tokens that the model reads in this forward.
    n_now: usize,
    /// Each draft token is sampled synchronously.
    waits: bool,
}

impl Drafting {
    /// Drafts for the rows that have no draft. A draft model that has not read the whole sequence
    /// reads as many tokens as one forward takes. It drafts for the sequence in the round in which
    /// it has read all of it.
    pub(super) fn chain(
        &mut self,
        index: usize,
        chain: Chain,
        rows: &[usize],
        model: &mut dyn LanguageModel,
        running: &mut [Sequence],
    ) -> Result<()> {
        let drafter = &self.drafters[index];
        let view = chain.view.map(|view| (view.0 as usize, drafter.views()[view.0 as usize]));
        let mask = layer_mask(chain.mask, drafter.masks());
        let super::round::Memory { tokens, positions, logit_rows, ascending, .. } =
            &mut self.memory;
        let vocab_size = model.config().vocab_size;
        let mut chain_model = ChainModel::new(chain.model, model);
        // Some of its draft tokens may lie outside the target's vocabulary.
        let knows_more = chain_model.vocab_size > vocab_size;
        let begin = |&at: &usize| chain_model.begin(at, &mut running[at]);
        let mut readers: Vec<Reader> = rows.iter().filter_map(begin).collect();
        let n_blocks = readers.iter().map(|reader| running[reader.at].table.ids().len()).max();
        ascending.extend(ascending.len() as u32..n_blocks.unwrap_or(0) as u32);
        while !readers.is_empty() {
            tokens.clear();
            positions.clear();
            logit_rows.clear();
            let mut seqs = Vec::with_capacity(readers.len());
            let (mut rows, mut async_rows) = (Vec::new(), Vec::with_capacity(readers.len()));
            for reader in &mut readers {
                let sequence = &running[reader.at];
                let draft = sequence.draft.as_ref().expect("rows have drafts");
                let (first, n_known) = (reader.n_read, sequence.tokens.len());
                let n_unread = n_known + draft.tokens.len() - first;
                reader.n_now = n_unread.min(chain_model.max_rows - tokens.len());
                if reader.n_now == 0 {
                    continue;
                }
                let read = first..first + reader.n_now;
                let all = sequence.tokens.iter().chain(&draft.tokens);
                tokens.extend(
                    all.skip(read.start).take(reader.n_now).map(|&token| chain_model.input(token)),
                );
                positions.extend(read.start as u32..read.end as u32);
                seqs.push(SeqSpan {
                    first_row: tokens.len() - reader.n_now,
                    n_rows: reader.n_now,
                    block_table: chain_model.block_table(sequence),
                    view: match view {
                        None => KvView::default(),
                        Some((i, view)) => draft.view(
                            i,
                            view,
                            read.start,
                            n_known - 1,
                            &chain_model.shape,
                            ascending,
                        ),
                    },
                    writes_kv: true,
                });
                if reader.n_now == n_unread {
                    let mut row = sequence.draft_row(logit_rows.len(), &draft.tokens);
                    if knows_more {
                        // Draft tokens that the target knows are verified by equality, not by
                        // rejection.
                        row.rejection = None;
                    }
                    reader.waits = row.needs_the_host();
                    let of_kind = if reader.waits { &mut rows } else { &mut async_rows };
                    of_kind.push(row);
                    logit_rows.push(tokens.len() as u32 - 1);
                }
            }
            let batch = Batch { tokens, positions, seqs: &seqs, logit_rows };
            chain_model.forward(&batch, &mask)?;
            let mut stand_ins =
                if async_rows.is_empty() { 0..0 } else { chain_model.sample_async(&async_rows)? };
            self.has_pending_drafts |= !stand_ins.is_empty();
            let sampled = if rows.is_empty() { Vec::new() } else { chain_model.sample(&rows)? };
            drop((seqs, rows, async_rows));
            let mut sampled = sampled.into_iter();
            let n_behind = &mut self.n_behind;
            readers.retain_mut(|reader| {
                let sequence = &mut running[reader.at];
                let n_slots = sequence.n_draft_slots();
                let has_read_all = chain_model.end_of_forward(reader, sequence);
                let draft = sequence.draft.as_mut().expect("rows have drafts");
                if !has_read_all {
                    *n_behind += 1;
                    return false;
                }
                let drafted = match reader.waits {
                    true => sampled.next(),
                    false => stand_ins.next().map(SampledToken::of),
                };
                // A draft model's vocabulary may be padded beyond the target's.
                let is_known = |token: u32| (token as usize) < vocab_size;
                let drafted = drafted.filter(|drafted| !reader.waits || is_known(drafted.token));
                let Some(drafted) = drafted else { return false };
                draft.push(drafted);
                draft.tokens.len() < n_slots
            });
        }
        if knows_more || self.waits_for_drafts {
            self.take_drafts(model, running)?;
        }
        if knows_more {
            for &at in rows {
                let draft = running[at].draft.as_mut().expect("rows have drafts");
                draft.end_before_unknown(vocab_size);
            }
        }
        Ok(())
    }

    /// Waits for draft tokens that are still placeholders, if there are any, and resolves them.
    pub(crate) fn take_drafts(
        &mut self,
        model: &mut dyn LanguageModel,
        running: &mut [Sequence],
    ) -> Result<()> {
        if std::mem::take(&mut self.has_pending_drafts) {
            let rows = model.wait_tokens()?;
            let drafts = running.iter_mut().filter_map(|sequence| sequence.draft.as_mut());
            drafts.for_each(|draft| draft.resolve(&rows));
        }
        Ok(())
    }
}

impl SequenceDraft {
    /// Replaces placeholders by their tokens, in the draft and in the draft models' caches.
    fn resolve(&mut self, rows: &SampledTokens) {
        rows.resolve(&mut self.tokens);
        self.caches.iter_mut().for_each(|cache| cache.resolve(rows));
    }

    /// Ends the draft before its first token outside the target's vocabulary.
    fn end_before_unknown(&mut self, vocab_size: usize) {
        let is_known = |token: &&u32| (**token as usize) < vocab_size;
        self.tokens.truncate(self.tokens.iter().take_while(is_known).count());
    }

    /// The KV view of a forward with its first row at position `first`. The draft begins at
    /// position `n`.
    fn view<'a>(
        &'a self,
        index: usize,
        view: View,
        first: usize,
        n: usize,
        shape: &KvShape,
        ascending: &'a [u32],
    ) -> KvView<'a> {
        let view_budget = view_budget(view, &self.settings, shape.block_size);
        let observe = match &view.middle {
            SelectionPolicy::Observed(observe) => Some(observe),
            SelectionPolicy::Nothing => None,
        };
        let view = self.selections[index].view(&view_budget, observe, n, shape, ascending);
        // A draft model that still reads the prompt attends to all of it.
        if first < view.tail_start as usize { KvView::default() } else { view }
    }
}

/// The model that drafts.
struct ChainModel<'a> {
    model: &'a mut dyn LanguageModel,
    /// The draft model; None is the target.
    draft_model: Option<DraftModelId>,
    shape: KvShape,
    vocab_size: usize,
    max_rows: usize,
}

impl<'a> ChainModel<'a> {
    fn new(id: ModelId, model: &'a mut dyn LanguageModel) -> Self {
        let max_rows = model.max_rows();
        let draft_model = DraftModel::of_host(id);
        let (shape, vocab_size) = match (draft_model, model.draft_models()) {
            (Some(id), Some(models)) => (models.kv_shape(id), models.config(id).vocab_size),
            _ => (model.kv_shape(), model.config().vocab_size),
        };
        ChainModel { model, draft_model, shape, vocab_size, max_rows }
    }

    /// A reader for `sequence`; None if the chain does not draft for it.
    fn begin(&self, at: usize, sequence: &mut Sequence) -> Option<Reader> {
        let n_wanted = sequence.tokens.len() + sequence.n_draft_slots() - 1;
        let draft = sequence.draft.as_mut().filter(|draft| draft.tokens.is_empty())?;
        let n_read = match self.draft_model {
            None => sequence.table.n_tokens(),
            Some(id) => {
                let cache = draft.cache_mut(id)?;
                cache.can_read(n_wanted).then(|| cache.first_unread(&sequence.tokens))?
            }
        };
        Some(Reader { at, n_read, n_now: 0, waits: false })
    }

    fn block_table<'b>(&self, sequence: &'b Sequence) -> &'b [u32] {
        let cache = self.draft_model.and_then(|id| sequence.draft.as_ref()?.cache(id));
        cache.map_or(sequence.table.ids(), DraftCache::block_table)
    }

    /// A token id that the model can embed: the target may have further ids, for padding.
    /// Placeholders pass unchanged, because they stand for tokens of this model.
    fn input(&self, token: u32) -> u32 {
        if placeholder_index(token).is_some() {
            token
        } else {
            token.min(self.vocab_size as u32 - 1)
        }
    }

    fn forward(&mut self, batch: &Batch<'_>, mask: &LayerMask<'_>) -> Result<()> {
        match self.draft_model {
            None => self.model.forward(batch, mask, &mut []),
            Some(id) => self.model.draft_models().expect("it loaded one").forward(id, batch, mask),
        }
    }

    fn sample(&mut self, rows: &[SampleRow<'_>]) -> Result<Vec<SampledToken>> {
        match self.draft_model {
            None => self.model.sample(rows),
            Some(id) => self.model.draft_models().expect("it loaded one").sample(id, rows),
        }
    }

    fn sample_async(&mut self, rows: &[SampleRow<'_>]) -> Result<Range<u32>> {
        match self.draft_model {
            None => self.model.sample_async(rows),
            Some(id) => self.model.draft_models().expect("it loaded one").sample_async(id, rows),
        }
    }

    /// Records the tokens that `reader` has read. Returns whether no token is left to read.
    fn end_of_forward(&self, reader: &mut Reader, sequence: &mut Sequence) -> bool {
        reader.n_read += reader.n_now;
        let n_known = sequence.tokens.len();
        let draft = sequence.draft.as_mut().expect("rows have drafts");
        if let Some(id) = self.draft_model {
            let n_drafted = reader.n_read.saturating_sub(n_known);
            draft.has_read(id, reader.n_read - n_drafted, n_drafted);
        }
        reader.n_read == n_known + draft.tokens.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drafting::{DraftSettings, Verify};
    use galley_backend::PLACEHOLDER_BIT;
    use galley_backend::sample::PendingTokens;

    #[test]
    fn a_draft_ends_before_what_is_no_token_of_the_target() {
        let drafted = |rows: &[u32]| {
            let mut draft = SequenceDraft::new(DraftSettings {
                drafter: 0,
                models: [].into(),
                draft_length: 3,
                kv_budget: None,
                verify: Verify::Equality,
            });
            draft.tokens = vec![PLACEHOLDER_BIT, PLACEHOLDER_BIT | 2, PLACEHOLDER_BIT | 4];
            let mut async_rows = PendingTokens::default();
            async_rows.push(rows);
            draft.resolve(&async_rows.take());
            draft.end_before_unknown(100);
            draft.tokens
        };
        assert_eq!(drafted(&[7, 0, 99, 0, 5]), [7, 99, 5]);
        assert_eq!(drafted(&[7, 0, 100, 0, 5]), [7]);
        assert_eq!(drafted(&[100, 0, 8, 0, 5]), [0; 0]);
        assert_eq!(drafted(&[7, 0, 99]), [7, 99], "a missing sample is no token");
    }
}
