//! One sequence of a request, and the state that a request's sequences share.

mod auto_draft;
mod draft;
mod results;
mod sampler;
pub(crate) mod selection;
mod state;
pub(crate) mod view_budget;

pub(crate) use auto_draft::PendingLookup;
pub(crate) use draft::{DraftingSequence, SequenceDraft};
pub(crate) use sampler::SequenceSampler;
pub(crate) use state::{SequenceKey, SequenceState};

use crate::admission_limit::WaitingPlace;
use crate::budget::Share;
use crate::event::{Event, Usage};
use crate::event_sink::EventSink;
use crate::output::{TextCodec, TextOutput};
use crate::request::{ExistingOutput, ValidRequest};
use crate::stop::{FinishReason, StopRules};
use galley_backend::sample::{SampleRow, SamplingParams};
use galley_backend::{InputToken, Placeholder};
use galley_blocks::{BlockManager, BlockTable, KvKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// State that the sequences of a request share.
#[derive(Debug)]
pub(crate) struct RequestState {
    sampling: SamplingParams,
    stop: StopRules,
    seed: u64,
    n_prompt: usize,
    cache_salt: u64,
    /// When the engine thread received the request.
    received: Instant,
    events: EventSink,
    /// Sequences that have not ended.
    n_open: AtomicU32,
}

impl RequestState {
    /// Sends an event to the request's reader, which may have been dropped.
    /// Nothing follows the last event.
    pub(crate) fn send(&self, event: Event) {
        let n_open = self.n_open.load(Ordering::Relaxed);
        let n_left = match &event {
            Event::Started(_) | Event::Token(_) => n_open,
            Event::Finished { .. } => n_open.saturating_sub(1),
            Event::Error(_) => 0,
        };
        if n_open > 0 {
            self.n_open.store(n_left, Ordering::Relaxed); // by the engine thread alone
            self.events.send(event, n_left == 0);
        }
    }

    /// Identifies the queue of events that the request shares; None if it has a handle of its own.
    pub(crate) fn queue(&self) -> Option<usize> {
        self.events.queue()
    }

    /// Whether the reader has to read before the request may go on.
    pub(crate) fn is_unread(&self) -> bool {
        self.events.is_full()
    }
}

/// One sequence of tokens.
pub(crate) struct Sequence {
    pub(crate) key: SequenceKey,
    pub(crate) request: Arc<RequestState>,
    /// Prompt and output, as far as the host knows the output.
    pub(crate) tokens: Vec<u32>,
    /// The token after `tokens`, if the device has sampled it and the host has not read it. A
    /// sequence in any state but `Finished` can have one.
    pending: Option<Placeholder>,
    /// Holds the KV of the first `table.n_tokens()` tokens.
    pub(crate) table: BlockTable,
    /// Rows promised to the sequence in this step, with their slots reserved; empty between steps.
    pub(crate) share: Share,
    state: SequenceState,
    /// None means plain decoding.
    pub(crate) draft: Option<SequenceDraft>,
    /// Sequences that are forked off when the prompt is done.
    pub(crate) n_forks: u32,
    sampler: SequenceSampler,
    text: TextOutput,
    /// The request's place among the waiting ones, until first admission.
    waiting_place: Option<WaitingPlace>,
    /// Tokens from the prefix cache; None before first admission.
    pub(crate) n_cached: Option<usize>,
    n_preemptions: u32,
    /// Time since `request.received`.
    first_token: Option<Duration>,
    last_token: Duration,
}

impl Sequence {
    /// The first sequence of a request. The request's further sequences are forked off it. Output that
    /// the request brings may have ended it already.
    pub(crate) fn new(
        request: ValidRequest,
        number: u64,
        events: EventSink,
        waiting_place: Option<WaitingPlace>,
    ) -> Self {
        let state = Arc::new(RequestState {
            sampling: request.sampling,
            stop: request.stop,
            seed: request.seed,
            n_prompt: request.n_prompt,
            cache_salt: request.cache_salt,
            received: Instant::now(),
            events,
            n_open: AtomicU32::new(request.n),
        });
        let ExistingOutput { text, finish, .. } = request.output;
        Sequence {
            key: SequenceKey { priority: request.priority, request: number, index: 0 },
            table: BlockTable::new(KvKind::target(state.cache_salt)),
            sampler: SequenceSampler::new(Arc::clone(&state), 0, request.seen),
            request: state,
            pending: None,
            share: Share::default(),
            state: finish.map_or(SequenceState::Waiting, SequenceState::Finished),
            draft: request.draft.map(|draft| SequenceDraft::new(draft, request.cache_salt)),
            n_forks: request.n - 1,
            text,
            tokens: request.tokens,
            waiting_place,
            n_cached: None,
            n_preemptions: 0,
            first_token: None,
            last_token: Duration::ZERO,
        }
    }

    /// Sequence `index` of the same request, before any output, with `table` as its block table.
    pub(crate) fn fork(
        &self,
        index: u32,
        table: BlockTable,
        codec: Option<&dyn TextCodec>,
    ) -> Self {
        debug_assert_eq!(self.n_generated(), 0, "forks begin at the prompt");
        Sequence {
            key: SequenceKey { index, ..self.key },
            request: Arc::clone(&self.request),
            tokens: self.tokens.clone(),
            pending: None,
            table,
            share: Share::default(),
            state: SequenceState::Running,
            draft: self.draft.as_ref().map(SequenceDraft::fork),
            n_forks: 0,
            sampler: self.sampler.fork(index),
            text: TextOutput::new(codec, &self.tokens),
            waiting_place: None,
            n_cached: self.n_cached,
            n_preemptions: self.n_preemptions,
            first_token: None,
            last_token: Duration::ZERO,
        }
    }

    // ---- state

    /// Takes a sequence out of the queue of waiting ones, with its cached prefix in `table`.
    pub(crate) fn admit(&mut self, table: BlockTable) {
        debug_assert_eq!(self.state, SequenceState::Waiting);
        self.n_cached.get_or_insert(table.n_tokens());
        self.waiting_place = None;
        self.table = table;
        self.state = SequenceState::Running;
    }

    /// Releases all blocks, so that the sequence has to wait and to be recomputed. Returns its share
    /// of this step.
    #[must_use]
    pub(crate) fn preempt(&mut self, blocks: &mut BlockManager) -> Share {
        debug_assert_eq!(self.state, SequenceState::Running);
        self.release(blocks);
        self.n_preemptions += 1;
        self.state = SequenceState::Waiting;
        std::mem::take(&mut self.share)
    }

    /// Whether the last token that the sequence may generate is pending, so that nothing is left to
    /// compute.
    pub(crate) fn can_drain(&self) -> bool {
        self.pending.is_some() && self.n_left() == 0
    }

    /// Releases all blocks of a sequence that [can drain](Self::can_drain).
    pub(crate) fn drain(&mut self, blocks: &mut BlockManager) {
        debug_assert!(self.can_drain() && self.state == SequenceState::Running);
        self.release(blocks);
        self.state = SequenceState::Draining;
    }

    /// Why the sequence has finished, if it has.
    pub(crate) fn finish_reason(&self) -> Option<&FinishReason> {
        match &self.state {
            SequenceState::Finished(reason) => Some(reason),
            SequenceState::Waiting | SequenceState::Running | SequenceState::Draining => None,
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finish_reason().is_some()
    }

    // ---- tokens

    /// This sequence and its future forks.
    pub(crate) fn n_streams(&self) -> usize {
        1 + self.n_forks as usize
    }

    /// Prompt and output tokens, a pending one included.
    pub(crate) fn n_tokens(&self) -> usize {
        self.tokens.len() + usize::from(self.pending.is_some())
    }

    /// The output, as far as the host knows it.
    pub(crate) fn output(&self) -> &[u32] {
        &self.tokens[self.request.n_prompt..]
    }

    /// Tokens without computed KV: 1 for a decode, 1 or more for a prompt.
    pub(crate) fn n_todo(&self) -> usize {
        self.n_tokens() - self.table.n_tokens()
    }

    pub(crate) fn n_generated(&self) -> usize {
        self.n_tokens() - self.request.n_prompt
    }

    /// Tokens that the sequence may still generate.
    pub(crate) fn n_left(&self) -> usize {
        self.request.stop.max_tokens().saturating_sub(self.n_generated())
    }

    /// The tokens of this step's rows, as a batch takes them: known tokens and then the draft.
    pub(crate) fn scheduled_inputs(&self) -> impl Iterator<Item = InputToken> {
        let known = self.tokens[self.table.n_tokens()..].iter().copied().map(InputToken::known);
        let known = known.chain(self.pending.map(InputToken::pending)).take(self.n_scheduled());
        known.chain(self.draft.iter().flat_map(|draft| draft.tokens.iter().copied()))
    }

    /// Draft tokens that the next forward verifies.
    pub(crate) fn n_drafted(&self) -> usize {
        self.draft.as_ref().map_or(0, |draft| draft.tokens.len())
    }

    // ---- the share of a step

    /// Rows of known tokens in this step.
    pub(crate) fn n_scheduled(&self) -> usize {
        self.share.n_rows()
    }

    /// Slots reserved for a draft, after the rows of known tokens.
    pub(crate) fn n_draft_slots(&self) -> usize {
        self.share.n_draft_rows()
    }

    /// Whether this step's rows reach the last token, so that the next token can be sampled.
    pub(crate) fn samples_now(&self) -> bool {
        self.n_scheduled() > 0 && self.n_scheduled() == self.n_todo()
    }

    /// This step's rows of a prompt or a recomputation: all rows but the row of a decode.
    pub(crate) fn n_prompt_rows(&self) -> usize {
        let is_decode = self.n_generated() > 0 && self.n_todo() == 1;
        if is_decode { 0 } else { self.n_scheduled() }
    }

    /// Most tokens that may be drafted: one less than may be generated, because a verification
    /// yields one token of its own.
    pub(crate) fn max_draft(&self) -> usize {
        let Some(draft) = &self.draft else { return 0 };
        if self.n_todo() != 1 || self.n_forks > 0 {
            return 0;
        }
        self.n_left().saturating_sub(1).min(draft.plan().draft_length as usize)
    }

    // ---- sampling

    /// Sampler input for the token after this step's last row, from `logits_row`.
    pub(crate) fn next_row(&self, logits_row: usize) -> SampleRow<'_> {
        self.verified_row(logits_row, 0)
    }

    /// Sampler input for the token after the first `n_drafted` tokens of the draft, from
    /// `logits_row`.
    pub(crate) fn verified_row(&self, logits_row: usize, n_drafted: usize) -> SampleRow<'_> {
        let before = self.draft.as_ref().map_or(&[][..], |draft| &draft.tokens[..n_drafted]);
        let row = self.sampler.row(logits_row, self.n_tokens() + n_drafted, before);
        let role = self.draft.as_ref().and_then(|draft| draft.verification_role(n_drafted));
        SampleRow { rejection: role, ..row }
    }

    /// Sampler input for the first token of sequence `index` of the request, from `logits_row`.
    pub(crate) fn fork_row(&self, logits_row: usize, index: u32) -> SampleRow<'_> {
        self.sampler.fork_row(logits_row, index)
    }

    /// Whether the next token may be pending: no fork, draft, log-probability or penalty needs the
    /// host.
    pub(crate) fn can_run_async(&self) -> bool {
        let is_one = self.n_forks == 0 && self.n_drafted() == 0;
        let reports = self.request.sampling.logprobs.is_some();
        is_one && !reports && !self.next_row(0).needs_the_host()
    }

    /// The parts of the sequence that drafting needs; None if it has no room for a draft.
    pub(crate) fn drafting(&mut self) -> Option<DraftingSequence<'_>> {
        let n_generated = self.n_generated();
        let Sequence { key, tokens, table, sampler, share, draft, .. } = self;
        let (n_slots, draft) = (share.n_draft_rows(), draft.as_mut()?);
        let id = key.id();
        (n_slots > 0).then_some(DraftingSequence {
            id,
            tokens,
            n_generated,
            table,
            sampler,
            n_slots,
            draft,
        })
    }

    // ---- the end

    /// Releases all blocks, including blocks of draft models.
    pub(crate) fn release(&mut self, blocks: &mut BlockManager) {
        let empty = BlockTable::new(self.table.kind());
        blocks.release(std::mem::replace(&mut self.table, empty));
        if let Some(draft) = &mut self.draft {
            draft.release(blocks);
        }
    }

    /// Blocks of the pool that hold KV of draft models.
    pub(crate) fn n_draft_blocks(&self) -> usize {
        self.draft.as_ref().map_or(0, SequenceDraft::n_blocks)
    }

    /// Draft tokens accepted so far.
    pub(crate) fn n_accepted(&self) -> u64 {
        self.draft.as_ref().map_or(0, |draft| draft.stats.accepted)
    }

    /// Sends the finish events of this sequence and of its future forks.
    pub(crate) fn send_finished(&self, reason: &FinishReason) {
        let usage = Usage {
            prompt_tokens: self.request.n_prompt,
            cached_tokens: self.n_cached.unwrap_or(0),
            generated_tokens: self.n_generated(),
            preemptions: self.n_preemptions,
            drafts: self.draft.as_ref().map(|draft| draft.stats.clone()).unwrap_or_default(),
            first_token: self.first_token.unwrap_or_default(),
            last_token: self.last_token,
        };
        for index in self.key.index..=self.key.index + self.n_forks {
            self.request.send(Event::Finished {
                index,
                reason: reason.clone(),
                usage: usage.clone(),
            });
        }
    }
}
