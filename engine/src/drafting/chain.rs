//! Draft chains: one token after another from a model. The model is the target, under a view and a
//! layer mask, or a draft model.
//!
//! A chain does not wait for the device. Its draft tokens stay pending, in the draft and in the
//! batches that read them (the chain's and the verification's), until
//! [`Drafting::take_drafts`](super::Drafting::take_drafts) resolves them after the verification has
//! been sampled. A row with a penalty or a proposal depends on the values of its earlier draft tokens
//! and waits for each of its draft tokens. A chain waits at its end if its draft model has a larger
//! vocabulary than the target, or if the engine waits for all drafts (`waits_for_drafts`).

use super::round::DraftRound;
use crate::batch::{BatchBuilder, Span};
use crate::draft_cache::DraftCache;
use crate::sequence::DraftingSequence;
use galley_backend::sample::{SampleRow, SampledToken};
use galley_backend::{InputToken, KvShape, KvView, LayerMask, Placeholder};
use galley_drafter_host::View;
use galley_model::{LanguageModel, ModelIndex, Result};

/// A row of a chain: the sequence's index in the round, and the view (its number in the drafter of
/// the row). None attends to all cached tokens.
pub(super) struct ChainRow {
    pub(super) at: usize,
    pub(super) view: Option<(usize, View)>,
}

/// A sequence that a chain drafts for.
struct Reader {
    /// Index in the round.
    at: usize,
    view: Option<(usize, View)>,
    /// Tokens that the model has read: known tokens first, then draft tokens.
    n_read: usize,
    /// Tokens that the model reads in this forward.
    n_now: usize,
    /// Whether they attend to all tokens before them.
    sees_all: bool,
    /// Whether the model has read the sequence to its end before. Until then, views do not apply.
    is_caught_up: bool,
    /// Each draft token is sampled synchronously.
    waits: bool,
}

/// Tokens that one forward of a chain has sampled, each kind in the order of its readers.
struct Drafted {
    pending: Vec<Placeholder>,
    known: Vec<SampledToken>,
}

impl DraftRound<'_> {
    /// Drafts for the rows that have no draft. A draft model that has not read the whole sequence
    /// reads as many tokens as one forward takes. It drafts for the sequence in the round in which
    /// it has read all of it.
    pub(super) fn chain(
        &mut self,
        model: ModelIndex,
        mask: &LayerMask<'_>,
        rows: &[ChainRow],
    ) -> Result<()> {
        let model = ChainModel::new(model, self.model, matches!(mask, LayerMask::All));
        let reader = |row: &ChainRow| model.reader(row, &mut self.sequences[row.at]);
        let mut readers: Vec<Reader> = rows.iter().filter_map(reader).collect();
        let n_blocks = readers.iter().map(|reader| self.sequences[reader.at].table.ids().len());
        let (n_blocks, ascending) = (n_blocks.max().unwrap_or(0), &mut self.state.ascending);
        ascending.extend(ascending.len() as u32..n_blocks as u32);
        while !readers.is_empty() {
            let drafted = self.chain_forward(&model, mask, &mut readers)?;
            self.keep_drafted(&model, &mut readers, drafted);
        }
        if model.knows_more() || self.state.waits_for_drafts {
            self.take_drafts()?;
        }
        if model.knows_more() {
            for row in rows {
                let draft = &mut self.sequences[row.at].draft;
                draft.end_before_unknown(model.target_vocab_size);
            }
        }
        Ok(())
    }

    /// Runs one forward over the unread tokens of all readers, and samples a token for each reader
    /// that has then read all of its tokens.
    fn chain_forward(
        &mut self,
        chain_model: &ChainModel,
        mask: &LayerMask<'_>,
        readers: &mut [Reader],
    ) -> Result<Drafted> {
        let DraftRound { model, sequences, state, .. } = self;
        let index = chain_model.index;
        let mut batch = BatchBuilder::new(&mut state.buffers, readers.len());
        let (mut rows, mut async_rows) = (Vec::new(), Vec::with_capacity(readers.len()));
        for reader in readers {
            let sequence = &sequences[reader.at];
            if !chain_model.read(reader, sequence, &mut batch, &state.ascending) {
                continue;
            }
            let row = chain_model.draft_row(sequence, batch.want_logits(1));
            reader.waits = row.needs_the_host();
            if reader.waits { &mut rows } else { &mut async_rows }.push(row);
        }
        model.forward(index, &batch.batch(), mask, &mut [])?;
        let pending = match async_rows.is_empty() {
            true => Vec::new(),
            false => model.sample_async(index, &async_rows)?.collect(),
        };
        state.has_pending_drafts |= !pending.is_empty();
        let known = if rows.is_empty() { Vec::new() } else { model.sample(index, &rows)? };
        Ok(Drafted { pending, known })
    }

    /// Appends the sampled tokens to their drafts. Keeps the readers that go on.
    fn keep_drafted(
        &mut self,
        model: &ChainModel,
        readers: &mut Vec<Reader>,
        Drafted { pending, known }: Drafted,
    ) {
        let (mut pending, mut known) = (pending.into_iter(), known.into_iter());
        let n_behind = &mut self.state.n_behind;
        readers.retain_mut(|reader| {
            let sequence = &mut self.sequences[reader.at];
            if !model.end_of_forward(reader, sequence) {
                *n_behind += 1;
                return false;
            }
            let DraftingSequence { draft, n_slots, .. } = sequence;
            if reader.waits {
                // A draft model's vocabulary may be padded beyond the target's.
                let is_known = |drafted: &SampledToken| model.is_of_target(drafted.token);
                let Some(drafted) = known.next().filter(is_known) else { return false };
                draft.push(drafted);
            } else {
                let Some(placeholder) = pending.next() else { return false };
                draft.push_pending(placeholder);
            }
            draft.tokens.len() < *n_slots
        });
    }
}

/// The model that drafts.
struct ChainModel {
    index: ModelIndex,
    shape: KvShape,
    vocab_size: usize,
    target_vocab_size: usize,
    max_rows: usize,
    /// Whether all layers run.
    is_whole: bool,
}

impl ChainModel {
    fn new(index: ModelIndex, model: &dyn LanguageModel, is_whole: bool) -> Self {
        let loaded = model.loaded(index);
        ChainModel {
            index,
            shape: loaded.kv_shape,
            vocab_size: loaded.config.vocab_size,
            target_vocab_size: model.target().config.vocab_size,
            max_rows: model.row_limits().max_rows,
            is_whole,
        }
    }

    /// Whether some tokens of the model lie outside the target's vocabulary.
    fn knows_more(&self) -> bool {
        self.vocab_size > self.target_vocab_size
    }

    fn is_of_target(&self, token: u32) -> bool {
        (token as usize) < self.target_vocab_size
    }

    /// A reader for a row; None if the chain does not draft for it.
    fn reader(&self, row: &ChainRow, sequence: &mut DraftingSequence<'_>) -> Option<Reader> {
        if !sequence.draft.tokens.is_empty() {
            return None;
        }
        let n_wanted = sequence.tokens.len() + sequence.n_slots - 1;
        let (n_read, is_caught_up) = if self.index == ModelIndex::TARGET {
            (sequence.table.n_tokens(), true)
        } else {
            let cache = sequence.draft.cache_mut(self.index)?;
            let n_read = cache.can_read(n_wanted).then(|| cache.first_unread(sequence.tokens))?;
            (n_read, cache.is_caught_up())
        };
        let ChainRow { at, view } = *row;
        Some(Reader { at, view, n_read, n_now: 0, sees_all: true, is_caught_up, waits: false })
    }

    /// Adds unread tokens of a reader to the batch, as many as fit. Returns whether the reader has
    /// then read all tokens.
    fn read<'a>(
        &self,
        reader: &mut Reader,
        sequence: &'a DraftingSequence<'_>,
        batch: &mut BatchBuilder<'a>,
        ascending: &'a [u32],
    ) -> bool {
        let DraftingSequence { tokens, draft, .. } = sequence;
        let n_unread = tokens.len() + draft.tokens.len() - reader.n_read;
        reader.n_now = n_unread.min(self.max_rows - batch.n_rows());
        if reader.n_now == 0 {
            return false;
        }
        let (position, n) = (reader.n_read, tokens.len() - 1);
        let view = match reader.view.filter(|_| reader.is_caught_up) {
            Some(view) => draft.view(view, position, n, &self.shape, ascending),
            None => KvView::default(),
        };
        reader.sees_all = view.tail_start == 0;
        let block_table = self.block_table(sequence);
        let span = Span { position, block_table, writes_kv: true, view };
        let known = tokens[position.min(tokens.len())..].iter().copied().map(InputToken::known);
        let drafted = draft.tokens.iter().copied().skip(position.saturating_sub(tokens.len()));
        let unread = known.chain(drafted).take(reader.n_now);
        batch.add(span, unread.map(|token| self.input(token)));
        reader.n_now == n_unread
    }

    /// Sampler input for the token after the draft: the verifier's settings and, if verification
    /// compares tokens, the verifier's noise.
    fn draft_row<'a>(
        &self,
        sequence: &'a DraftingSequence<'_>,
        logits_row: usize,
    ) -> SampleRow<'a> {
        let DraftingSequence { tokens, draft, sampler, .. } = sequence;
        let position = tokens.len() + draft.tokens.len();
        let row = sampler.row(logits_row, position, &draft.tokens);
        // Draft tokens of a larger vocabulary that the target knows are verified by equality, not by
        // rejection.
        let rejection = draft.drafting_role().filter(|_| !self.knows_more());
        SampleRow { reports: false, rejection, ..row }
    }

    fn block_table<'a>(&self, sequence: &'a DraftingSequence<'_>) -> &'a [u32] {
        let cache = sequence.draft.cache(self.index);
        cache.map_or(sequence.table.ids(), DraftCache::block_table)
    }

    /// A token that the model can embed: the target may have further ids, for padding. Pending
    /// tokens pass unchanged, because this model has sampled them.
    fn input(&self, token: InputToken) -> InputToken {
        let in_vocabulary = |id: u32| InputToken::known(id.min(self.vocab_size as u32 - 1));
        token.id().map_or(token, in_vocabulary)
    }

    /// Records the tokens that `reader` has read. Returns whether no token is left to read.
    fn end_of_forward(&self, reader: &mut Reader, sequence: &mut DraftingSequence<'_>) -> bool {
        let first = reader.n_read;
        reader.n_read += reader.n_now;
        let n_tokens = sequence.tokens.len();
        reader.is_caught_up |= reader.n_read >= n_tokens;
        let is_whole = self.is_whole && reader.sees_all;
        sequence.draft.has_read(self.index, first..reader.n_read, n_tokens, is_whole);
        reader.n_read == n_tokens + sequence.draft.tokens.len()
    }
}
