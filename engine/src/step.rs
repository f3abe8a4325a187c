//! One step of the engine.

mod async_step;
mod failed;

use crate::admission_limit::WaitingPlace;
use crate::config::Fitted;
use crate::drafting::{Drafting, PiggybackSelection};
use crate::error::RequestError;
use crate::event::Event;
use crate::event_sink::EventSink;
use crate::executor::Executor;
use crate::output::TextCodec;
use crate::request::{RequestLimits, ValidRequest};
use crate::scheduler::Scheduler;
use crate::sequence::{Sequence, SequenceKey};
use crate::stats::{Stats, StepStats};
use crate::stop::FinishReason;
use async_step::PendingStep;
use galley_backend::sample::SampledToken;
use galley_blocks::BlockManager;
use galley_drafter_host::Verified;
use galley_model::{LanguageModel, Result};
use std::sync::Arc;
use std::time::Instant;

/// All state of an engine, owned by its one thread.
pub(crate) struct EngineCore {
    model: Box<dyn LanguageModel>,
    codec: Option<Arc<dyn TextCodec>>,
    blocks: BlockManager,
    scheduler: Scheduler,
    executor: Executor,
    drafting: Drafting,
    pending_step: PendingStep,
    /// Sequences that have finished in this step.
    finished: Vec<SequenceKey>,
    /// Failed steps since a successful step last kept a token.
    n_failed_in_a_row: u32,
    /// Whether sampled tokens of a failed step are still in transit to the host.
    has_stale_tokens: bool,
    stats: Stats,
}

impl EngineCore {
    /// Runs one step. A step that fails ends the requests in it. Returns the error if the device is gone.
    pub(crate) fn step(&mut self) -> Result<()> {
        match self.try_step() {
            Ok(()) => Ok(()),
            Err(error) => self.end_failed_step(error),
        }
    }

    /// Schedules, drafts, runs one forward, samples, verifies and sends events.
    pub(crate) fn try_step(&mut self) -> Result<()> {
        let started = Instant::now();
        let mut step = StepStats::default();
        self.drop_stale_tokens()?;
        self.drafting.plan_round(self.scheduler.running_mut(), &mut self.blocks);
        // Rows for every sequence that runs, with their slots reserved.
        self.scheduler.schedule(&mut self.blocks);
        self.stats.kv_blocks_peak = self.stats.kv_blocks_peak.max(self.blocks.n_used());
        if !self.scheduler.copies().is_empty() {
            self.model.copy_blocks(self.scheduler.copies())?;
        }
        // Draft tokens for decoding sequences with a drafter, which needs to know all tokens so far.
        if self.scheduler.running().iter().any(|sequence| sequence.n_draft_slots() > 0) {
            self.finish_previous_step(&mut step)?;
            self.retire();
        }
        let begin_drafting = Instant::now();
        self.drafting.propose(&mut *self.model, self.scheduler.running_mut())?;
        step.drafting = begin_drafting.elapsed();
        // Prompt chunks, decodes and verifications, in one ragged batch.
        let load = self.drafting.load_of(self.scheduler.running());
        let EngineCore { model, scheduler, executor, drafting, .. } = self;
        let mut piggybacked =
            drafting.piggybacked(scheduler.running_mut(), &model.target().kv_shape);
        (step.n_rows, step.forward) =
            executor.forward(&mut **model, scheduler.running(), &mut piggybacked)?;
        // Samples a token after every last token and every draft token, commits KV and sends
        // events. An asynchronous step sends the tokens of the step before.
        if self.can_run_async() {
            self.sample_async(&mut step)?;
        } else {
            self.finish_previous_step(&mut step)?;
            self.sample_now(piggybacked, &mut step)?;
        }
        self.retire();

        if step.n_generated > 0 {
            self.n_failed_in_a_row = 0;
        }
        self.drafting.observe(load, &step, self.model.is_asynchronous());
        step.bookkeeping = started.elapsed() - step.drafting - step.forward - step.sampling;
        self.stats.add_step(step);
        Ok(())
    }

    /// Waits for this step's sampled tokens and for the selections of its forward, and keeps both.
    fn sample_now(
        &mut self,
        mut piggybacked: Vec<PiggybackSelection>,
        step: &mut StepStats,
    ) -> Result<()> {
        let EngineCore { model, scheduler, executor, drafting, .. } = self;
        let (sampled, sampling) = executor.sample(&mut **model, scheduler.running())?;
        drafting.take_drafts(&mut **model, scheduler.running_mut())?;
        step.sampling += sampling + executor.finish_piggybacked(&mut **model, &mut piggybacked)?;
        drafting.end_piggybacked(piggybacked, scheduler.running_mut());
        self.keep(sampled, step);
        Ok(())
    }

    /// Commits computed KV, verifies the sampled tokens and sends events.
    fn keep(&mut self, sampled: Vec<SampledToken>, step: &mut StepStats) {
        let EngineCore { blocks, scheduler, codec, stats, finished, drafting, .. } = self;
        let mut sampled = sampled.into_iter();
        let mut forks = Vec::new();
        for sequence in scheduler.running_mut().iter_mut().filter(|s| !s.share.is_empty()) {
            step.n_seqs += 1;
            step.n_prompt_rows += sequence.n_prompt_rows();
            if sequence.is_finished() {
                continue;
            }
            let samples_now = sequence.samples_now();
            sequence.commit_scheduled(blocks);
            if !samples_now {
                continue;
            }
            // The prompt is computed once. From here on, every sequence has its own table.
            let first_fork = forks.len();
            for index in 1..=std::mem::take(&mut sequence.n_forks) {
                let table = blocks.fork(&sequence.table);
                forks.push(sequence.fork(index, table, codec.as_deref()));
            }
            for stream in std::iter::once(&mut *sequence).chain(&mut forks[first_fork..]) {
                let n_before = stream.tokens.len();
                let (n_drafted, n_accepted) = (stream.n_drafted(), stream.n_accepted());
                let drafter = stream.draft.as_ref().and_then(|draft| draft.plan().drafter);
                let mut own = sampled.by_ref().take(1 + n_drafted);
                stream.keep(&mut own, blocks);
                own.for_each(drop); // tokens sampled after a rejected draft token
                step.n_generated += stream.tokens.len() - n_before;
                if n_drafted > 0 {
                    step.n_drafted += n_drafted;
                    let n_accepted = (stream.n_accepted() - n_accepted) as usize;
                    stats.add_round(drafter, n_drafted, n_accepted);
                    if let Some(drafter) = drafter {
                        let sequence = stream.key.id();
                        let (n_proposed, n_accepted) = (n_drafted as u32, n_accepted as u32);
                        let verified = Verified { sequence, n_proposed, n_accepted };
                        drafting.add_feedback(drafter, verified);
                    }
                }
                finished.extend(stream.is_finished().then_some(stream.key));
            }
        }
        scheduler.add_forks(forks);
        drafting.send_feedback();
    }

    /// Removes sequences that have finished and sends their finish events.
    fn retire(&mut self) {
        let keys = std::mem::take(&mut self.finished);
        if keys.is_empty() {
            return;
        }
        for sequence in self.scheduler.take_finished(&keys) {
            if let Some(reason) = sequence.finish_reason() {
                sequence.send_finished(reason);
            }
            self.release(sequence);
        }
    }
}

impl EngineCore {
    /// An engine without requests, of sizes that fit the model.
    pub(crate) fn new(
        model: Box<dyn LanguageModel>,
        codec: Option<Arc<dyn TextCodec>>,
        sizes: &Fitted,
        drafting: Drafting,
    ) -> Self {
        let shape = model.target().kv_shape;
        let prefix_caching = sizes.config.prefix_caching;
        EngineCore {
            blocks: BlockManager::new(shape.n_blocks, shape.block_size, prefix_caching),
            scheduler: Scheduler::new(sizes),
            drafting,
            executor: Executor::default(),
            pending_step: PendingStep::default(),
            finished: Vec::new(),
            n_failed_in_a_row: 0,
            has_stale_tokens: false,
            stats: Stats::default(),
            codec,
            model,
        }
    }

    /// The limits against which requests to this engine are checked.
    pub(crate) fn limits(
        model: &dyn LanguageModel,
        sizes: &Fitted,
        drafting: &Drafting,
    ) -> RequestLimits {
        let config = &model.target().config;
        RequestLimits {
            vocab_size: config.vocab_size,
            max_context: config.max_context,
            kv_tokens: sizes.kv_tokens,
            max_num_seqs: sizes.config.max_num_seqs,
            fingerprint: Arc::default(),
            end_tokens: config.end_tokens.with_tokenizer(None, config.vocab_size),
            drafting: drafting.offer().clone(),
        }
    }

    /// Adds a request. `number` is its place in the order of submission. A request with output that
    /// has ended already ends at once.
    pub(crate) fn add(
        &mut self,
        request: ValidRequest,
        number: u64,
        events: EventSink,
        waiting_place: Option<WaitingPlace>,
    ) {
        if self.is_idle() {
            self.stats.kv_blocks_peak = 0;
            self.drafting.forget_suffix_peak();
        }
        self.stats.requests += 1;
        let sequence = Sequence::new(request, number, events, waiting_place);
        match sequence.finish_reason() {
            None => self.scheduler.add(sequence),
            Some(reason) => {
                sequence.send_finished(reason);
                self.release(sequence);
            }
        }
    }

    /// Cancels the remaining sequences of a request.
    pub(crate) fn cancel(&mut self, priority: i32, number: u64) {
        let sequences = self.scheduler.take_request(priority, number);
        self.end_cancelled(sequences);
    }

    /// Cancels all requests.
    pub(crate) fn cancel_all(&mut self) {
        let sequences = self.scheduler.take_all();
        self.end_cancelled(sequences);
    }

    fn end_cancelled(&mut self, sequences: Vec<Sequence>) {
        for mut sequence in sequences {
            sequence.drop_pending();
            sequence.send_finished(&FinishReason::Cancelled);
            self.release(sequence);
        }
    }

    /// Ends all requests with an error.
    pub(crate) fn fail_all(&mut self, error: &RequestError) {
        let sequences = self.scheduler.take_all();
        self.end_failed(sequences, error);
    }

    /// Ends `sequences`, which are all remaining sequences of their requests, with one error for each request.
    fn end_failed(&mut self, mut sequences: Vec<Sequence>, error: &RequestError) {
        let mut told = None;
        // Ends that are known come first: nothing follows the error.
        sequences.sort_by_key(|sequence| (sequence.key.request, !sequence.is_finished()));
        for sequence in sequences {
            if let Some(reason) = sequence.finish_reason() {
                // Its last token was sent before the step failed.
                sequence.send_finished(reason);
            } else if told.replace(sequence.key.request) != Some(sequence.key.request) {
                sequence.request.send(Event::Error(error.clone()));
            }
            self.release(sequence);
        }
    }

    fn release(&mut self, mut sequence: Sequence) {
        self.stats.finished += sequence.n_streams() as u64;
        self.drafting.end(&sequence);
        sequence.release(&mut self.blocks);
    }

    /// Whether there is nothing to do until a command comes. Sequences may be paused.
    pub(crate) fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    /// Whether no sequence is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.scheduler.is_empty()
    }

    /// A snapshot of the statistics.
    pub(crate) fn stats(&mut self) -> Stats {
        let counts = self.scheduler.counts();
        let stats = &mut self.stats;
        stats.running = self.scheduler.n_running();
        (stats.waiting, stats.paused) = self.scheduler.n_waiting_and_paused();
        stats.kv_blocks_used = self.blocks.n_used();
        stats.kv_blocks_total = self.blocks.n_blocks();
        stats.kv_blocks_drafting = self.blocks.n_used_by_draft_models();
        stats.prefix_query_tokens = counts.prefix_query_tokens;
        stats.prefix_hit_tokens = counts.prefix_hit_tokens;
        stats.draft_prefix_hit_tokens = counts.draft_prefix_hit_tokens;
        stats.preemptions = counts.preemptions;
        stats.draft_times = self.drafting.times();
        self.drafting.suffix_stats(stats);
        stats.draft_models_behind = self.drafting.n_behind();
        stats.planner = self.drafting.planner_stats();
        stats.clone()
    }

    /// Requests that have not ended, waiting or running.
    #[cfg(test)]
    pub(crate) fn open_requests(&self) -> Vec<usize> {
        self.scheduler.keys().map(|key| key.request as usize).collect()
    }

    /// Insertions, look-ups and removals of waiting and draining sequences, since the start.
    #[cfg(test)]
    pub(crate) fn n_touched(&self) -> u64 {
        self.scheduler.n_touched()
    }

    /// Gives drafts their rows before prompts, an error that tests must notice.
    #[cfg(test)]
    pub(crate) fn draft_first(&mut self) {
        self.scheduler.drafts_first = true;
    }

    /// Removes all sequences and adds them again, a cost that no command may have.
    #[cfg(test)]
    pub(crate) fn touch_all(&mut self) {
        let all = self.scheduler.take_all();
        all.into_iter().for_each(|sequence| self.scheduler.add(sequence));
    }

    /// Checks that the tables of running sequences account for every block in use.
    #[cfg(test)]
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        let running = self.scheduler.running();
        let caches = running.iter().filter_map(|s| s.draft.as_ref()).flat_map(|d| d.caches());
        let tables: Vec<_> =
            running.iter().map(|s| &s.table).chain(caches.map(|cache| cache.table())).collect();
        self.blocks.check(&tables)
    }
}
