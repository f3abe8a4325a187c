//! Selects the sequences of a step, and the number of tokens of each.
//!
//! ```text
//!            admission: in order, while the head fits
//!   WAITING ─────────────────────────────────────────▶ RUNNING ───▶ finished
//!      ▲                                                  │
//!      └──────────────────────────────────────────────────┘
//!        preemption: the last in order gives all its blocks back, and
//!        comes again with prompt and output as its prompt
//! ```
//!
//! Sequences are ordered by [`SequenceKey`]. A step serves decodes first, then prompts in chunks,
//! then drafts, all under one [budget](Budget) of rows and of logit rows. Running and newly admitted
//! prompts are served in one order. A sequence that finds no free block first takes the blocks of
//! draft models. Then it preempts the last sequence in the order, never a sequence before itself.
//! The first sequence can therefore always go on, and it fits alone (the request was checked). So
//! every step makes progress, and no sequence is lost.
//!
//! **Real work comes before drafts.** A draft may be wrong, so drafts get the rows, logit rows and
//! blocks that running and newly admitted sequences leave over. Each draft gets an equal part of
//! the remainder. In a step that prompts fill, drafts shrink to nothing, and the step is one of
//! plain decoding. While prompts fill every step there are no drafts, and every decoding sequence
//! gets one token a step, as without a drafter. The first step with a row to spare has drafts
//! again.
//!
//! The work of scheduling a step grows neither with the context nor with the number of waiting
//! sequences: blocks are counted, not walked. Only admission reads the whole prompt, to find it in
//! the prefix cache.

mod admission;
mod drafts;
mod queue;
mod waiting;

use crate::budget::{Budget, Share, Wish};
use crate::chaos::Chaos;
use crate::config::{Fitted, SchedulePolicy};
use crate::sequence::{Sequence, SequenceKey};
use admission::AdmissionMemo;
use galley_blocks::{BlockCopy, BlockManager};
use queue::Queue;
use waiting::Waiting;

/// All sequences, in the order of service.
pub(crate) struct Scheduler {
    waiting: Waiting,
    /// In the order of their keys.
    running: Vec<Sequence>,
    /// Sequences without blocks and with their last token pending.
    draining: Queue,
    max_num_seqs: usize,
    max_num_batched_tokens: usize,
    max_logit_rows: usize,
    chaos: Option<Chaos>,
    /// Block copies to make before this step's forward: `(from, to)`.
    copies: Vec<(u32, u32)>,
    n_steps: u64,
    /// The last sequence that was not admitted for lack of blocks.
    refused: Option<AdmissionMemo>,
    counts: Counts,
    /// Drafts get their rows before prompts: the negative control of tests.
    #[cfg(test)]
    pub(crate) drafts_first: bool,
}

/// Counters of the scheduler, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) preemptions: u64,
    pub(crate) prefix_query_tokens: u64,
    pub(crate) prefix_hit_tokens: u64,
    pub(crate) draft_prefix_hit_tokens: u64,
}

impl Scheduler {
    /// A scheduler without sequences.
    pub(crate) fn new(sizes: &Fitted) -> Self {
        Scheduler {
            waiting: Waiting::default(),
            running: Vec::new(),
            draining: Queue::default(),
            max_num_seqs: sizes.config.max_num_seqs,
            max_num_batched_tokens: sizes.config.max_num_batched_tokens,
            max_logit_rows: sizes.max_logit_rows,
            chaos: match sizes.config.policy {
                SchedulePolicy::Fixed => None,
                SchedulePolicy::Random { seed } => Some(Chaos::of_scheduling(seed)),
            },
            copies: Vec::new(),
            n_steps: 0,
            refused: None,
            counts: Counts::default(),
            #[cfg(test)]
            drafts_first: false,
        }
    }

    /// Adds a new sequence, which waits for admission.
    pub(crate) fn add(&mut self, sequence: Sequence) {
        self.waiting.insert(sequence);
    }

    /// Gives every sequence its [share](Sequence::share) of one step, with its slots reserved.
    pub(crate) fn schedule(&mut self, blocks: &mut BlockManager) {
        self.n_steps += 1;
        self.copies.clear();
        self.pause_unread(blocks);
        let mut n_rows = self.max_num_batched_tokens;
        if let Some(chaos) = &mut self.chaos {
            n_rows = chaos.budget(n_rows);
            if let Some(victim) = chaos.victim(self.running.len()) {
                let share = self.preempt(victim, blocks);
                debug_assert!(share.is_empty(), "no step has begun");
            }
        }
        let mut budget = Budget::new(n_rows, self.max_logit_rows);
        self.serve_decodes(&mut budget, blocks);
        #[cfg(test)]
        if self.drafts_first {
            self.make_room_for_drafts(&mut budget, blocks);
        }
        self.serve_prompts(&mut budget, blocks);
        self.make_room_for_drafts(&mut budget, blocks);
    }

    /// Running sequences, in order. Sequences with a share that is not empty are in this step.
    pub(crate) fn running(&self) -> &[Sequence] {
        &self.running
    }

    pub(crate) fn running_mut(&mut self) -> &mut [Sequence] {
        &mut self.running
    }

    /// Block copies to make before this step's forward: `(from, to)`.
    pub(crate) fn copies(&self) -> &[(u32, u32)] {
        &self.copies
    }

    /// Sequences that wait for admission, and sequences that wait until their reader reads.
    pub(crate) fn n_waiting_and_paused(&self) -> (usize, usize) {
        self.waiting.len()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether no sequence can go on. Some may be paused.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.draining.is_empty() && self.waiting.is_paused()
    }

    /// Whether there are no sequences.
    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty() && self.draining.is_empty() && self.waiting.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn keys(&self) -> impl Iterator<Item = SequenceKey> {
        let elsewhere = self.waiting.keys().chain(self.draining.keys());
        elsewhere.chain(self.running.iter().map(|sequence| sequence.key))
    }

    /// Insertions, look-ups and removals of sequences without blocks, since the start.
    #[cfg(test)]
    pub(crate) fn n_touched(&self) -> u64 {
        self.waiting.n_touched() + self.draining.n_touched.get()
    }

    /// Removes and returns every sequence. The caller releases their blocks.
    pub(crate) fn take_all(&mut self) -> Vec<Sequence> {
        let mut taken = std::mem::take(&mut self.running);
        taken.extend(self.waiting.take_all());
        taken.extend(self.draining.take_all());
        self.refused = None;
        taken
    }

    /// Removes and returns every sequence of a request, running ones first. The caller releases their blocks.
    pub(crate) fn take_request(&mut self, priority: i32, request: u64) -> Vec<Sequence> {
        let of = |key: SequenceKey| (key.priority, key.request);
        let first = self.running.partition_point(|s| of(s.key) < (priority, request));
        let end = self.running.partition_point(|s| of(s.key) <= (priority, request));
        let mut taken: Vec<_> = self.running.drain(first..end).collect();
        taken.extend(self.waiting.take_request(priority, request));
        taken.extend(self.draining.take_request(priority, request));
        self.refused = None;
        taken
    }

    /// Removes and returns the sequences that have finished: running, draining or preempted. `keys`
    /// names all of them. The caller releases their blocks.
    pub(crate) fn take_finished(&mut self, keys: &[SequenceKey]) -> Vec<Sequence> {
        let mut taken: Vec<_> = self.running.extract_if(.., |s| s.is_finished()).collect();
        if taken.len() < keys.len() {
            let (draining, waiting) = (&mut self.draining, &mut self.waiting);
            let take = |&key: &SequenceKey| draining.remove(key).or_else(|| waiting.remove(key));
            taken.extend(keys.iter().filter_map(take));
        }
        taken
    }

    /// Finds a running, draining or waiting sequence.
    pub(crate) fn find_mut(&mut self, key: SequenceKey) -> Option<&mut Sequence> {
        match self.running.binary_search_by_key(&key, |sequence| sequence.key) {
            Ok(at) => Some(&mut self.running[at]),
            Err(_) => self.draining.get_mut(key).or_else(|| self.waiting.get_mut(key)),
        }
    }

    /// Moves running sequences with their last token pending to `draining`. Nothing is left to
    /// compute for them, so other sequences get their blocks.
    pub(crate) fn drain(&mut self, blocks: &mut BlockManager) {
        for mut sequence in self.running.extract_if(.., |sequence| sequence.can_drain()) {
            sequence.drain(blocks);
            self.draining.insert(sequence);
        }
    }

    /// Pauses running sequences if their reader does not read, and takes their blocks.
    fn pause_unread(&mut self, blocks: &mut BlockManager) {
        for mut sequence in self.running.extract_if(.., |sequence| sequence.request.is_unread()) {
            let share = sequence.preempt(blocks);
            debug_assert!(share.is_empty(), "no step has begun");
            self.counts.preemptions += 1;
            self.refused = None;
            self.waiting.insert(sequence);
        }
    }

    /// Preempts all running sequences: releases their blocks and queues them for recomputation.
    pub(crate) fn preempt_all(&mut self, blocks: &mut BlockManager) {
        while let Some(last) = self.running.len().checked_sub(1) {
            let share = self.preempt(last, blocks);
            debug_assert!(share.is_empty(), "the step is over");
        }
    }

    /// Running sequences, which have blocks, and draining ones, which need none any more.
    pub(crate) fn n_running(&self) -> usize {
        self.running.len() + self.draining.len()
    }

    /// Adds sequences that were forked off running ones.
    pub(crate) fn add_forks(&mut self, forks: Vec<Sequence>) {
        if !forks.is_empty() {
            self.running.extend(forks);
            // Two runs that are each in order.
            self.running.sort_by_key(|sequence| sequence.key);
        }
    }

    fn insert_running(&mut self, sequence: Sequence) -> usize {
        let at = self.running.partition_point(|other| other.key < sequence.key);
        self.running.insert(at, sequence);
        at
    }

    /// Gives decoding sequences their row, in order.
    fn serve_decodes(&mut self, budget: &mut Budget, blocks: &mut BlockManager) {
        let mut at = 0;
        // This may preempt sequences after `at`.
        while budget.has_rows() && at < self.running.len() {
            if self.running[at].n_todo() == 1 {
                self.give_rows(at, budget, blocks);
            }
            at += 1;
        }
    }

    /// Promises rows of the step to the running sequence `at` and reserves their slots. It may
    /// preempt sequences after `at` for them. The last sequence cannot preempt any: it gets as many
    /// rows as there are free slots, possibly none, keeps its blocks, and goes on when a sequence
    /// before it ends.
    fn give_rows(&mut self, at: usize, budget: &mut Budget, blocks: &mut BlockManager) {
        let sequence = &self.running[at];
        let (n_todo, n_streams) = (sequence.n_todo(), sequence.n_streams());
        let mut n_rows = n_todo;
        if let Some(chaos) = &mut self.chaos {
            n_rows = chaos.chunk(budget.at_most(n_rows));
        }
        loop {
            let share = budget.promise(Wish { n_rows, n_todo, n_streams });
            if share.is_empty() {
                return;
            }
            n_rows = share.n_rows();
            let sequence = &mut self.running[at];
            let out = match blocks.reserve(&mut sequence.table, n_rows) {
                Ok(copies) => {
                    self.copies.extend(copies.iter().map(|&BlockCopy { from, to }| (from, to)));
                    sequence.share = share;
                    return;
                }
                Err(out) => out,
            };
            budget.take_back(share);
            if self.reclaim_draft_kv(blocks) {
                continue;
            }
            if at + 1 < self.running.len() {
                budget.take_back(self.preempt(self.running.len() - 1, blocks));
            } else {
                let missing = (out.needed - out.free) * blocks.block_size_tokens();
                n_rows = n_rows.saturating_sub(missing);
            }
        }
    }

    /// Releases the draft-model blocks of the last running sequence in order that has any. That
    /// sequence goes on without draft KV. Returns whether there was one. Drafts of this step are
    /// made later, so no draft is lost.
    fn reclaim_draft_kv(&mut self, blocks: &mut BlockManager) -> bool {
        let last = self.running.iter_mut().rev().find(|sequence| sequence.n_draft_blocks() > 0);
        let Some(draft) = last.and_then(|sequence| sequence.draft.as_mut()) else { return false };
        draft.release(blocks);
        true
    }

    /// Releases all blocks of a running sequence and queues it for recomputation. Returns its share
    /// of this step.
    #[must_use]
    fn preempt(&mut self, at: usize, blocks: &mut BlockManager) -> Share {
        let mut sequence = self.running.remove(at);
        let share = sequence.preempt(blocks);
        self.counts.preemptions += 1;
        self.refused = None;
        self.waiting.insert(sequence);
        share
    }
}
