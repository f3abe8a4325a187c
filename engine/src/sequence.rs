//! One stream of tokens of a request, and what its streams have in common.

use crate::drafting::{SequenceDraft, Verify};
use crate::event::{Event, FinishReason, Usage};
use crate::output::{TextCodec, TextOutput};
use crate::request::ValidRequest;
use crate::scheduler::Share;
use crate::stop::StopRules;
use crate::verify::{AcceptedRun, Kept};
use crossbeam_channel::Sender;
use galley_backend::pick_of;
use galley_backend::sample::philox::sequence_seed;
use galley_backend::sample::{Pick, Rejection, Row, Sampling, Seen};
use galley_blocks::{BlockManager, BlockTable};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Who comes first: the lower priority number, then the earlier request, then the lower index. The
/// last in this order is the first to be preempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SequenceKey {
    pub(crate) priority: i32,
    /// The request's number, counted by the engine as they come in.
    pub(crate) request: u64,
    pub(crate) index: u32,
}

impl SequenceKey {
    /// No sequence of the request comes before it.
    pub(crate) fn first_of(priority: i32, request: u64) -> Self {
        SequenceKey { priority, request, index: 0 }
    }

    /// No sequence of the request comes after it.
    pub(crate) fn last_of(priority: i32, request: u64) -> Self {
        SequenceKey { priority, request, index: u32::MAX }
    }
}

/// What the sequences of a request share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) sampling: Sampling,
    pub(crate) stop: StopRules,
    seed: u64,
    n_prompt: usize,
    cache_salt: u64,
    /// When the engine took the request in.
    begin: Instant,
    events: Sender<Event>,
}

impl Shared {
    /// Tells the request's owner, who may have left.
    pub(crate) fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

/// One stream of tokens.
pub(crate) struct Sequence {
    pub(crate) key: SequenceKey,
    pub(crate) shared: Arc<Shared>,
    /// Prompt and output. The last may be late ([`Self::is_late`]).
    pub(crate) tokens: Vec<u32>,
    /// Holds the KV of the first `table.n_tokens()` of them.
    pub(crate) table: BlockTable,
    /// Rows that it was promised in this step, with the slots for them reserved; empty between steps.
    pub(crate) share: Share,
    /// Why it ends, once it does: it has no part in what follows.
    pub(crate) ended: Option<FinishReason>,
    /// None is plain decoding.
    pub(crate) draft: Option<SequenceDraft>,
    /// Sequences that will be forked off when the prompt is done.
    pub(crate) n_forks: u32,
    seed: u64,
    seen: Option<Seen>,
    text: TextOutput,
    /// Of the prompt, from the prefix cache; None before first admission.
    pub(crate) n_cached: Option<usize>,
    pub(crate) n_preemptions: u32,
    /// Since the request began.
    first_token: Option<Duration>,
    last_token: Duration,
}

impl Sequence {
    /// The first sequence of a request; the others are forked off it.
    pub(crate) fn new(
        request: ValidRequest,
        number: u64,
        events: Sender<Event>,
        codec: Option<&dyn TextCodec>,
    ) -> Self {
        let shared = Shared {
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

    /// Sequence `index` of the same request, before any output, over `table`.
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

    /// Streams that it is, or will be once its prompt is done.
    pub(crate) fn n_streams(&self) -> usize {
        1 + self.n_forks as usize
    }

    /// Tokens whose KV is still to be computed: 1 for a decode, more for a prompt.
    pub(crate) fn n_todo(&self) -> usize {
        self.tokens.len() - self.table.n_tokens()
    }

    /// Whether its last token is late: picked, not looked at, and known by name.
    pub(crate) fn is_late(&self) -> bool {
        self.tokens.last().is_some_and(|&token| pick_of(token).is_some())
    }

    /// Whether its next token may be late: nothing but a token comes of the pick.
    pub(crate) fn may_be_late(&self) -> bool {
        let row = self.row(0, self.key.index, &[]);
        let is_one = self.n_forks == 0 && self.drafted().is_empty();
        is_one && self.shared.sampling.logprobs.is_none() && !row.needs_the_host()
    }

    /// Rows it has in this step, but for those of a draft.
    pub(crate) fn n_scheduled(&self) -> usize {
        self.share.n_rows()
    }

    /// Slots reserved behind them for a draft.
    pub(crate) fn n_draft_slots(&self) -> usize {
        self.share.n_draft_rows()
    }

    /// Appends a late token by its name. A draft that has slots and did not come does not come any more.
    pub(crate) fn push_late(&mut self, name: u32, blocks: &mut BlockManager) {
        blocks.rollback(&mut self.table);
        self.tokens.push(name);
    }

    /// Takes a late token away, as if it had not been picked.
    pub(crate) fn forget_late(&mut self) {
        if self.is_late() {
            self.tokens.pop();
        }
    }

    /// Whether this step's rows reach the last token, so that the next one can be picked.
    pub(crate) fn picks_now(&self) -> bool {
        self.n_scheduled() > 0 && self.n_scheduled() == self.n_todo()
    }

    /// This step's rows, but for that of a decode: its token was generated by the step before.
    pub(crate) fn n_prompt_rows(&self) -> usize {
        let is_decode = self.n_generated() > 0 && self.n_todo() == 1;
        if is_decode { 0 } else { self.n_scheduled() }
    }

    pub(crate) fn n_generated(&self) -> usize {
        self.tokens.len() - self.shared.n_prompt
    }

    /// What picking the token of stream `index` after `drafted` from `logits_row` needs.
    pub(crate) fn row<'a>(&'a self, logits_row: usize, index: u32, drafted: &'a [u32]) -> Row<'a> {
        let is_self = index == self.key.index;
        let draft = self.draft.as_ref().filter(|_| is_self);
        Row {
            logits_row,
            sampling: &self.shared.sampling,
            seed: if is_self { self.seed } else { sequence_seed(self.shared.seed, index) },
            position: (self.tokens.len() + drafted.len()) as u32,
            seen: self.seen.as_ref(),
            banned: self.shared.stop.banned(self.n_generated() + drafted.len()),
            drafted,
            reports: true,
            rejection: draft.and_then(|d| d.proposals.get(drafted.len())).map(Rejection::Verify),
        }
    }

    /// The guess for the next forward to verify; empty without one.
    pub(crate) fn drafted(&self) -> &[u32] {
        self.draft.as_ref().map_or(&[], |draft| &draft.tokens)
    }

    /// Blocks of the pool that hold KV of draft models.
    pub(crate) fn n_draft_blocks(&self) -> usize {
        self.draft.as_ref().map_or(0, SequenceDraft::n_blocks)
    }

    /// Gives all its blocks back.
    pub(crate) fn release(&mut self, blocks: &mut BlockManager) {
        let empty = BlockTable::new(self.table.salt());
        blocks.release(std::mem::replace(&mut self.table, empty));
        if let Some(draft) = &mut self.draft {
            draft.release(blocks);
        }
    }

    /// Drafted tokens that were accepted, since it began.
    pub(crate) fn n_accepted(&self) -> u64 {
        self.draft.as_ref().map_or(0, |draft| draft.stats.accepted)
    }

    /// A number that no other sequence of the engine has.
    pub(crate) fn id(&self) -> u64 {
        self.key.request << 24 | u64::from(self.key.index)
    }

    /// The sequence as a drafter sees it in this round.
    pub(crate) fn as_draft_row(&self) -> galley_drafter_host::Row<'_> {
        let draft_length = self.n_draft_slots() as u32;
        galley_drafter_host::Row { sequence: self.id(), tokens: &self.tokens, draft_length }
    }

    /// What picking a draft's token after `drafted` needs: the settings of the verifier, and its noise where
    /// it compares tokens.
    pub(crate) fn draft_pick<'a>(&'a self, logits_row: usize, drafted: &'a [u32]) -> Row<'a> {
        let verify = self.draft.as_ref().map(|draft| draft.settings.verify);
        let rejection = (verify == Some(Verify::Rejection)).then_some(Rejection::Draft);
        Row { reports: false, rejection, ..self.row(logits_row, self.key.index, drafted) }
    }

    /// What picking the known token at `position` once more needs.
    pub(crate) fn replay_pick(&self, logits_row: usize, position: usize) -> Row<'_> {
        let n_generated = position - self.shared.n_prompt;
        let banned = self.shared.stop.banned(n_generated);
        let row = self.draft_pick(logits_row, &[]);
        Row { position: position as u32, banned, rejection: None, ..row }
    }

    pub(crate) fn has_penalties(&self) -> bool {
        self.seen.is_some()
    }

    /// Tokens that may still be drafted: one less than may be generated, as a verification yields one of its own.
    pub(crate) fn max_draft(&self) -> usize {
        let Some(draft) = self.draft.as_ref().filter(|draft| !draft.is_off) else { return 0 };
        if self.n_todo() != 1 || self.n_forks > 0 {
            return 0;
        }
        self.n_left().saturating_sub(1).min(draft.settings.draft_length as usize)
    }

    /// Tokens that it may still generate.
    pub(crate) fn n_left(&self) -> usize {
        self.shared.stop.max_tokens().saturating_sub(self.n_generated())
    }

    /// Commits the KV of this step's rows, but for those of a draft. Ends the step for them.
    pub(crate) fn commit_scheduled(&mut self, blocks: &mut BlockManager) {
        let first = self.table.n_tokens();
        let rows = &self.tokens[first..first + std::mem::take(&mut self.share).n_rows()];
        blocks.commit(&mut self.table, rows);
    }

    /// Verifies the target's `picks` against what was drafted, commits the KV of what agreed,
    /// appends what is kept and tells the request's owner.
    pub(crate) fn keep(
        &mut self,
        picks: impl IntoIterator<Item = Pick>,
        blocks: &mut BlockManager,
    ) {
        let n_generated = self.n_generated();
        let rules = &self.shared.stop;
        let drafted = self.draft.as_ref().map_or(&[][..], |draft| &draft.tokens);
        let run = AcceptedRun::verify(drafted, picks, rules, n_generated, &mut self.text);
        if let Some(draft) = self.draft.as_mut().filter(|draft| !draft.tokens.is_empty()) {
            draft.stats.add_round(draft.tokens.len(), run.n_accepted(&draft.tokens));
            draft.clear();
        }
        blocks.commit(&mut self.table, run.computed());
        blocks.rollback(&mut self.table);
        self.accept(run);
    }

    /// Keeps its late token, which is `token`, and tells the request's owner.
    pub(crate) fn keep_late(&mut self, token: u32) {
        self.forget_late();
        let (rules, n_generated) = (&self.shared.stop, self.n_generated());
        let pick = [Pick::of(token)];
        let run = AcceptedRun::verify(&[], pick, rules, n_generated, &mut self.text);
        self.accept(run);
    }

    /// Appends what is kept and tells the request's owner; ends where that says so.
    fn accept(&mut self, run: AcceptedRun) {
        self.ended = run.finish().cloned();
        self.last_token = self.shared.begin.elapsed();
        self.first_token.get_or_insert(self.last_token);
        for Kept { pick, text } in run.into_kept() {
            self.tokens.push(pick.token);
            if let Some(seen) = &mut self.seen {
                seen.push_output(pick.token);
            }
            self.shared.tell(Event::Token {
                index: self.key.index,
                token: pick.token,
                text,
                logprob: pick.logprob,
                top: pick.top,
            });
        }
    }

    /// Tells the request's owner that this sequence, and those not yet forked off it, have ended.
    pub(crate) fn tell_finished(&self, reason: &FinishReason) {
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
            self.shared.tell(Event::Finished {
                index,
                reason: reason.clone(),
                usage: usage.clone(),
            });
        }
    }
}
