//! One sequence of a request, and the state that a request's sequences share.

use crate::drafting::{SequenceDraft, Verify};
use crate::event::{Event, FinishReason, Usage};
use crate::output::{TextCodec, TextOutput};
use crate::request::ValidRequest;
use crate::scheduler::Share;
use crate::stop::StopRules;
use crate::verify::{AcceptedRun, KeptToken};
use crossbeam_channel::Sender;
use galley_backend::placeholder_index;
use galley_backend::sample::philox::sequence_seed;
use galley_backend::sample::{Rejection, SampleRow, SampledToken, SamplingParams, TokenCounts};
use galley_blocks::{BlockManager, BlockTable};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The order of service: the lower priority number, then the earlier request, then the lower index.
/// The last sequence in this order is preempted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SequenceKey {
    pub(crate) priority: i32,
    /// The request's number, counted in the order of submission.
    pub(crate) request: u64,
    pub(crate) index: u32,
}

impl SequenceKey {
    /// The lowest key that a sequence of the request can have.
    pub(crate) fn first_of(priority: i32, request: u64) -> Self {
        SequenceKey { priority, request, index: 0 }
    }

    /// The highest key that a sequence of the request can have.
    pub(crate) fn last_of(priority: i32, request: u64) -> Self {
        SequenceKey { priority, request, index: u32::MAX }
    }
}

/// State that the sequences of a request share.
#[derive(Debug)]
pub(crate) struct RequestState {
    pub(crate) sampling: SamplingParams,
    pub(crate) stop: StopRules,
    seed: u64,
    n_prompt: usize,
    cache_salt: u64,
    /// When the engine thread received the request.
    begin: Instant,
    events: Sender<Event>,
}

impl RequestState {
    /// Sends an event to the request's handle, which may have been dropped.
    pub(crate) fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

/// One sequence of tokens.
pub(crate) struct Sequence {
    pub(crate) key: SequenceKey,
    pub(crate) shared: Arc<RequestState>,
    /// Prompt and output. The last token may be a placeholder ([`Self::has_placeholder`]).
    pub(crate) tokens: Vec<u32>,
    /// Holds the KV of the first `table.n_tokens()` tokens.
    pub(crate) table: BlockTable,
    /// Rows promised to the sequence in this step, with their slots reserved; empty between steps.
    pub(crate) share: Share,
    /// Why the sequence has ended. An ended sequence computes and emits no more.
    pub(crate) ended: Option<FinishReason>,
    /// None means plain decoding.
    pub(crate) draft: Option<SequenceDraft>,
    /// Sequences that are forked off when the prompt is done.
    pub(crate) n_forks: u32,
    seed: u64,
    seen: Option<TokenCounts>,
    text: TextOutput,
    /// Prompt tokens from the prefix cache; None before first admission.
    pub(crate) n_cached: Option<usize>,
    pub(crate) n_preemptions: u32,
    /// Time since `shared.begin`.
    first_token: Option<Duration>,
    last_token: Duration,
}

impl Sequence {
    /// The first sequence of a request. The request's further sequences are forked off it.
    pub(crate) fn new(
        request: ValidRequest,
        number: u64,
        events: Sender<Event>,
        codec: Option<&dyn TextCodec>,
    ) -> Self {
        let shared = RequestState {
            sampling: request.sampling,
            stop: request.stop,
            seed: request.seed,
            n_prompt: request.prompt.len(),
            cache_salt: request.cache_salt,
            begin: Instant::now(),
            events,
        };
        Sequence {
            key: SequenceKey { priority: request.priority, request: number, index: 0 },
            table: BlockTable::new(shared.cache_salt),
            seed: sequence_seed(shared.seed, 0),
            shared: Arc::new(shared),
            share: Share::default(),
            ended: None,
            draft: request.draft.map(SequenceDraft::new),
            n_forks: request.n - 1,
            seen: request.seen,
            text: TextOutput::new(codec, &request.prompt),
            tokens: request.prompt,
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
            shared: Arc::clone(&self.shared),
            tokens: self.tokens.clone(),
            table,
            share: Share::default(),
            ended: None,
            draft: self.draft.as_ref().map(|draft| SequenceDraft::new(draft.settings.clone())),
            n_forks: 0,
            seed: sequence_seed(self.shared.seed, index),
            seen: self.seen.clone(),
            text: TextOutput::new(codec, &self.tokens),
            n_cached: self.n_cached,
            n_preemptions: self.n_preemptions,
            first_token: None,
            last_token: Duration::ZERO,
        }
    }

    /// This sequence and its future forks.
    pub(crate) fn n_streams(&self) -> usize {
        1 + self.n_forks as usize
    }

    /// Tokens without computed KV: 1 for a decode, 1 or more for a prompt.
    pub(crate) fn n_todo(&self) -> usize {
        self.tokens.len() - self.table.n_tokens()
    }

    /// Whether the last token is a placeholder: the device has sampled it and the host has not read it.
    pub(crate) fn has_placeholder(&self) -> bool {
        self.tokens.last().is_some_and(|&token| placeholder_index(token).is_some())
    }

    /// Whether the next token may be a placeholder: no fork, draft, log-probability or penalty needs the host.
    pub(crate) fn can_run_async(&self) -> bool {
        let row = self.row(0, self.key.index, &[]);
        let is_one = self.n_forks == 0 && self.drafted().is_empty();
        is_one && self.shared.sampling.logprobs.is_none() && !row.needs_the_host()
    }

    /// Rows of known tokens in this step.
    pub(crate) fn n_scheduled(&self) -> usize {
        self.share.n_rows()
    }

    /// Slots reserved for a draft, after the rows of known tokens.
    pub(crate) fn n_draft_slots(&self) -> usize {
        self.share.n_draft_rows()
    }

    /// Appends a placeholder (`name`) and releases unused draft slots.
    pub(crate) fn push_placeholder(&mut self, name: u32, blocks: &mut BlockManager) {
        blocks.rollback(&mut self.table);
        self.tokens.push(name);
    }

    /// Removes a placeholder, as if its token had not been sampled.
    pub(crate) fn drop_placeholder(&mut self) {
        if self.has_placeholder() {
            self.tokens.pop();
        }
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

    pub(crate) fn n_generated(&self) -> usize {
        self.tokens.len() - self.shared.n_prompt
    }

    /// Sampler input for the token after `drafted` of the request's sequence `index`, from `logits_row`.
    pub(crate) fn row<'a>(
        &'a self,
        logits_row: usize,
        index: u32,
        drafted: &'a [u32],
    ) -> SampleRow<'a> {
        let is_self = index == self.key.index;
        let draft = self.draft.as_ref().filter(|_| is_self);
        SampleRow {
            logits_row,
            sampling: &self.shared.sampling,
            seed: if is_self { self.seed } else { sequence_seed(self.shared.seed, index) },
            position: (self.tokens.len() + drafted.len()) as u32,
            seen: self.seen.as_ref(),
            banned: &self.shared.stop.banned,
            early_ends: self.shared.stop.early_ends(self.n_generated() + drafted.len()),
            drafted,
            reports: true,
            rejection: draft.and_then(|d| d.proposals.get(drafted.len())).map(Rejection::Verify),
        }
    }

    /// The draft tokens that the next forward verifies; empty without a draft.
    pub(crate) fn drafted(&self) -> &[u32] {
        self.draft.as_ref().map_or(&[], |draft| &draft.tokens)
    }

    /// Blocks of the pool that hold KV of draft models.
    pub(crate) fn n_draft_blocks(&self) -> usize {
        self.draft.as_ref().map_or(0, SequenceDraft::n_blocks)
    }

    /// Releases all blocks, including blocks of draft models.
    pub(crate) fn release(&mut self, blocks: &mut BlockManager) {
        let empty = BlockTable::new(self.table.salt());
        blocks.release(std::mem::replace(&mut self.table, empty));
        if let Some(draft) = &mut self.draft {
            draft.release(blocks);
        }
    }

    /// Draft tokens accepted so far.
    pub(crate) fn n_accepted(&self) -> u64 {
        self.draft.as_ref().map_or(0, |draft| draft.stats.accepted)
    }

    /// An id that no other sequence of the engine has.
    pub(crate) fn id(&self) -> u64 {
        self.key.request << 24 | u64::from(self.key.index)
    }

    /// The sequence as a drafter sees it in this round.
    pub(crate) fn as_draft_row(&self) -> galley_drafter_host::DraftRow<'_> {
        let draft_length = self.n_draft_slots() as u32;
        galley_drafter_host::DraftRow { sequence: self.id(), tokens: &self.tokens, draft_length }
    }

    /// Sampler input for a draft's token after `drafted`: the verifier's settings and, if
    /// verification compares tokens, the verifier's noise.
    pub(crate) fn draft_row<'a>(&'a self, logits_row: usize, drafted: &'a [u32]) -> SampleRow<'a> {
        let verify = self.draft.as_ref().map(|draft| draft.settings.verify);
        let rejection = (verify == Some(Verify::Rejection)).then_some(Rejection::Draft);
        SampleRow { reports: false, rejection, ..self.row(logits_row, self.key.index, drafted) }
    }

    /// Sampler input for a replay: samples the known token at `position` again.
    pub(crate) fn replay_row(&self, logits_row: usize, position: usize) -> SampleRow<'_> {
        let n_generated = position - self.shared.n_prompt;
        let early_ends = self.shared.stop.early_ends(n_generated);
        let row = self.draft_row(logits_row, &[]);
        SampleRow { position: position as u32, early_ends, rejection: None, ..row }
    }

    pub(crate) fn has_penalties(&self) -> bool {
        self.seen.is_some()
    }

    /// Most tokens that may be drafted: one less than may be generated, because a verification
    /// yields one token of its own.
    pub(crate) fn max_draft(&self) -> usize {
        let Some(draft) = self.draft.as_ref().filter(|draft| !draft.is_off) else { return 0 };
        if self.n_todo() != 1 || self.n_forks > 0 {
            return 0;
        }
        self.n_left().saturating_sub(1).min(draft.settings.draft_length as usize)
    }

    /// Tokens that the sequence may still generate.
    pub(crate) fn n_left(&self) -> usize {
        self.shared.stop.max_tokens().saturating_sub(self.n_generated())
    }

    /// Commits the KV of this step's known tokens and ends the sequence's share of the step.
    pub(crate) fn commit_scheduled(&mut self, blocks: &mut BlockManager) {
        let first = self.table.n_tokens();
        let rows = &self.tokens[first..first + std::mem::take(&mut self.share).n_rows()];
        blocks.commit(&mut self.table, rows);
    }

    /// Verifies the draft against the target's tokens (`sampled`), commits the KV of the
    /// accepted tokens, appends the kept tokens and sends their events.
    pub(crate) fn keep(
        &mut self,
        sampled: impl IntoIterator<Item = SampledToken>,
        blocks: &mut BlockManager,
    ) {
        let n_generated = self.n_generated();
        let rules = &self.shared.stop;
        let drafted = self.draft.as_ref().map_or(&[][..], |draft| &draft.tokens);
        let run = AcceptedRun::verify(drafted, sampled, rules, n_generated, &mut self.text);
        if let Some(draft) = self.draft.as_mut().filter(|draft| !draft.tokens.is_empty()) {
            draft.stats.add_round(draft.tokens.len(), run.n_accepted(&draft.tokens));
            draft.clear();
        }
        blocks.commit(&mut self.table, run.computed());
        blocks.rollback(&mut self.table);
        self.accept(run);
    }

    /// Replaces the placeholder by its `token`, checks the stop conditions and sends the event.
    pub(crate) fn resolve_placeholder(&mut self, token: u32) {
        self.drop_placeholder();
        let (rules, n_generated) = (&self.shared.stop, self.n_generated());
        let sampled = [SampledToken::of(token)];
        let run = AcceptedRun::verify(&[], sampled, rules, n_generated, &mut self.text);
        self.accept(run);
    }

    /// Appends the tokens of `run` and sends their events. Ends the sequence if the run says so.
    fn accept(&mut self, run: AcceptedRun) {
        self.ended = run.finish().cloned();
        self.last_token = self.shared.begin.elapsed();
        self.first_token.get_or_insert(self.last_token);
        for KeptToken { sampled, text } in run.into_kept() {
            self.tokens.push(sampled.token);
            if let Some(seen) = &mut self.seen {
                seen.push_output(sampled.token);
            }
            self.shared.send(Event::Token {
                index: self.key.index,
                token: sampled.token,
                text,
                logprob: sampled.logprob,
                top: sampled.top,
            });
        }
    }

    /// Sends the finish events of this sequence and of its future forks.
    pub(crate) fn send_finished(&self, reason: &FinishReason) {
        let usage = Usage {
            prompt_tokens: self.shared.n_prompt,
            cached_tokens: self.n_cached.unwrap_or(0),
            generated_tokens: self.n_generated(),
            preemptions: self.n_preemptions,
            drafts: self.draft.as_ref().map(|draft| draft.stats.clone()).unwrap_or_default(),
            first_token: self.first_token.unwrap_or_default(),
            last_token: self.last_token,
        };
        for index in self.key.index..=self.key.index + self.n_forks {
            self.shared.send(Event::Finished {
                index,
                reason: reason.clone(),
                usage: usage.clone(),
            });
        }
    }
}
