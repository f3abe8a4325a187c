//! Who runs in a step, and how many tokens.
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
//! Sequences are ordered by [`SequenceKey`]. A step serves decodes first, then prompts in chunks, under
//! one token budget. Whoever needs a block and finds none takes the KV of draft models first, then
//! all blocks of the last in order, never of one before it; the first in order can therefore always go on, and has room enough alone
//! (the request was checked). So every step makes progress, and no sequence is lost.
//!
//! No step looks at anything that grows with the context: blocks are counted, not walked. Only
//! admission reads the whole prompt, once, to find it in the prefix cache.

mod admission;
mod chaos;

use crate::config::{EngineConfig, SchedulePolicy};
use crate::sequence::{Sequence, SequenceKey};
use admission::Refused;
use chaos::Chaos;
use galley_blocks::{BlockCopy, BlockManager};
use std::collections::BTreeMap;

/// All sequences, and the order they are served in.
pub(crate) struct Scheduler {
    /// Without blocks.
    waiting: BTreeMap<SequenceKey, Sequence>,
    /// In order.
    running: Vec<Sequence>,
    /// Without blocks: their last token has been picked, and nobody has looked at it.
    leaving: BTreeMap<SequenceKey, Sequence>,
    max_num_seqs: usize,
    max_num_batched_tokens: usize,
    max_logit_rows: usize,
    chaos: Option<Chaos>,
    /// Copies to be made before this step's forward.
    copies: Vec<(u32, u32)>,
    n_steps: u64,
    /// The last sequence that was not admitted for want of blocks.
    refused: Option<Refused>,
    counts: Counts,
}

/// What the scheduler counts, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) preemptions: u64,
    pub(crate) prefix_query_tokens: u64,
    pub(crate) prefix_hit_tokens: u64,
}

/// Which running sequences a pass serves.
#[derive(Clone, Copy, PartialEq)]
enum Pass {
    Decodes,
    Prompts,
}

impl Scheduler {
    /// No sequence runs yet. A step leaves at most `max_logit_rows` rows of logits.
    pub(crate) fn new(config: &EngineConfig, max_logit_rows: usize) -> Self {
        Scheduler {
            waiting: BTreeMap::new(),
            running: Vec::new(),
            leaving: BTreeMap::new(),
            max_num_seqs: config.max_num_seqs,
            max_num_batched_tokens: config.max_num_batched_tokens,
            max_logit_rows,
            chaos: match config.policy {
                SchedulePolicy::Fixed => None,
                SchedulePolicy::Random { seed } => Some(Chaos::new(seed)),
            },
            copies: Vec::new(),
            n_steps: 0,
            refused: None,
            counts: Counts::default(),
        }
    }

    /// A new sequence, to be admitted when its turn comes.
    pub(crate) fn add(&mut self, sequence: Sequence) {
        self.waiting.insert(sequence.key, sequence);
    }

    /// Gives every sequence its rows for one step (`n_scheduled`), with the slots for them reserved.
    pub(crate) fn schedule(&mut self, blocks: &mut BlockManager) {
        self.n_steps += 1;
        self.copies.clear();
        let mut budget = self.max_num_batched_tokens;
        if let Some(chaos) = &mut self.chaos {
            budget = chaos.budget(budget);
            if let Some(victim) = chaos.victim(self.running.len()) {
                self.preempt(victim, blocks);
            }
        }
        self.serve(Pass::Decodes, &mut budget, blocks);
        self.make_room_for_drafts(&mut budget, blocks);
        self.serve(Pass::Prompts, &mut budget, blocks);
        self.admit(&mut budget, blocks);
    }

    /// Running sequences, in order. Those with `n_scheduled > 0` are in this step.
    pub(crate) fn running(&self) -> &[Sequence] {
        &self.running
    }

    pub(crate) fn running_mut(&mut self) -> &mut [Sequence] {
        &mut self.running
    }

    /// Copies to be made before this step's forward.
    pub(crate) fn copies(&self) -> &[(u32, u32)] {
        &self.copies
    }

    pub(crate) fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && self.leaving.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn keys(&self) -> impl Iterator<Item = SequenceKey> {
        let elsewhere = self.waiting.keys().chain(self.leaving.keys()).copied();
        elsewhere.chain(self.running.iter().map(|sequence| sequence.key))
    }

    /// Takes out every sequence for which `gone` holds, those that run first. The caller releases their blocks.
    pub(crate) fn take(&mut self, gone: impl Fn(&Sequence) -> bool) -> Vec<Sequence> {
        let mut taken: Vec<_> = self.running.extract_if(.., |sequence| gone(sequence)).collect();
        for others in [&mut self.waiting, &mut self.leaving] {
            taken.extend(others.extract_if(.., |_, sequence| gone(sequence)).map(|(_, s)| s));
        }
        self.refused = None;
        taken
    }

    /// One sequence, running, leaving or preempted.
    pub(crate) fn find_mut(&mut self, key: SequenceKey) -> Option<&mut Sequence> {
        match self.place_of(key) {
            Some(at) => Some(&mut self.running[at]),
            None => self.leaving.get_mut(&key).or_else(|| self.waiting.get_mut(&key)),
        }
    }

    /// Takes out one sequence, running, leaving or preempted. The caller releases its blocks.
    pub(crate) fn take_one(&mut self, key: SequenceKey) -> Option<Sequence> {
        match self.place_of(key) {
            Some(at) => Some(self.running.remove(at)),
            None => self.leaving.remove(&key).or_else(|| self.waiting.remove(&key)),
        }
    }

    /// Lets a running sequence give its blocks and its place to others: there is nothing left to compute for it.
    pub(crate) fn leave(&mut self, key: SequenceKey, blocks: &mut BlockManager) {
        if let Some(at) = self.place_of(key) {
            let mut sequence = self.running.remove(at);
            sequence.release(blocks);
            self.leaving.insert(key, sequence);
        }
    }

    fn place_of(&self, key: SequenceKey) -> Option<usize> {
        self.running.binary_search_by_key(&key, |sequence| sequence.key).ok()
    }

    /// Sequences that have blocks, or will need none any more.
    pub(crate) fn n_running(&self) -> usize {
        self.running.len() + self.leaving.len()
    }

    /// Sequences forked off running ones.
    pub(crate) fn add_forks(&mut self, forks: impl IntoIterator<Item = Sequence>) {
        for fork in forks {
            self.insert_running(fork);
        }
    }

    fn insert_running(&mut self, sequence: Sequence) -> usize {
        let at = self.running.partition_point(|other| other.key < sequence.key);
        self.running.insert(at, sequence);
        at
    }

    /// Gives running sequences of one kind their rows, in order.
    fn serve(&mut self, pass: Pass, budget: &mut usize, blocks: &mut BlockManager) {
        let mut at = 0;
        // Serving one may preempt others, behind it.
        while *budget > 0 && at < self.running.len() {
            let n_todo = self.running[at].n_todo();
            let this_pass = if n_todo == 1 { Pass::Decodes } else { Pass::Prompts };
            if pass == this_pass {
                let mut n = n_todo.min(*budget);
                if let Some(chaos) = &mut self.chaos {
                    n = chaos.chunk(n);
                }
                self.give_rows(at, n, budget, blocks);
            }
            at += 1;
        }
    }

    /// Reserves slots for `n_tokens` rows of the running sequence `at`, for which it may preempt those behind
    /// it. The last in order makes do with what there is, if only nothing: it keeps its blocks, and
    /// goes on when one before it ends.
    fn give_rows(
        &mut self,
        at: usize,
        mut n_tokens: usize,
        budget: &mut usize,
        blocks: &mut BlockManager,
    ) {
        while n_tokens > 0 {
            let sequence = &mut self.running[at];
            match blocks.reserve(&mut sequence.table, n_tokens) {
                Ok(copies) => {
                    self.copies.extend(copies.iter().map(|&BlockCopy { from, to }| (from, to)));
                    sequence.n_scheduled = n_tokens;
                    *budget -= n_tokens;
                    return;
                }
                Err(_) if self.reclaim_draft_kv(budget, blocks) => {}
                Err(_) if at + 1 < self.running.len() => {
                    *budget += self.preempt(self.running.len() - 1, blocks);
                }
                Err(out) => {
                    let missing = (out.needed - out.free) * blocks.block_size_tokens();
                    n_tokens = n_tokens.saturating_sub(missing);
                }
            }
        }
    }

    /// Reserves slots for drafts behind decodes that are in this step, from what is left: a draft never preempts
    /// a sequence, nor takes blocks that others are about to need.
    fn make_room_for_drafts(&mut self, budget: &mut usize, blocks: &mut BlockManager) {
        let n_picks = self.running.iter().filter(|s| s.picks_now()).map(Sequence::n_streams).sum();
        let mut logit_rows = self.max_logit_rows.saturating_sub(n_picks);
        let block_size = blocks.block_size_tokens();
        let spoken_for = self.n_promised(blocks) + self.running.len();
        let is_waited_for =
            self.refused.is_some_and(|refused| self.waiting.contains_key(&refused.key));
        for sequence in &mut self.running {
            if let Some(draft) = sequence.draft.as_mut().filter(|draft| draft.is_off) {
                draft.release(blocks);
            }
            if sequence.n_scheduled != 1 {
                continue;
            }
            let mut n = sequence.max_draft().min(*budget).min(logit_rows);
            if let Some(chaos) = self.chaos.as_mut().filter(|_| n > 0) {
                n = chaos.chunk(n);
            }
            let (n_known, n_left) = (sequence.tokens.len(), sequence.n_left());
            let Some(draft) = sequence.draft.as_mut().filter(|_| n > 0) else { continue };
            // A draft model reads all tokens but the last that it guesses.
            let n_read = n_known + n - 1;
            let needed_to_read = draft.blocks_needed(n_read, block_size);
            if needed_to_read > 0 && draft.n_blocks() == 0 {
                // What is begun while somebody waits for blocks would be given up for them; what takes as many
                // steps to read as the sequence has left is of no use to it.
                let n_steps = n_known.div_ceil(self.max_num_batched_tokens);
                if is_waited_for || n_steps >= n_left {
                    continue;
                }
            }
            let needed = blocks.blocks_needed(&sequence.table, 1 + n) + needed_to_read;
            if needed + spoken_for > blocks.n_free() {
                continue;
            }
            draft.reserve(n_read, blocks);
            // Its first slot is its own already, so there is nothing to copy.
            if blocks.reserve(&mut sequence.table, 1 + n).is_ok_and(|copies| copies.is_empty()) {
                sequence.n_draft_slots = n;
                *budget -= n;
                logit_rows -= n;
            }
        }
    }

    /// Takes the blocks of draft models from the last running sequence in order that has some, whoever asks: a
    /// sequence goes on without. Whether it had any.
    fn reclaim_draft_kv(&mut self, budget: &mut usize, blocks: &mut BlockManager) -> bool {
        let last = self.running.iter_mut().rev().find(|sequence| sequence.n_draft_blocks() > 0);
        let Some(sequence) = last else { return false };
        // Nothing of this step's guess has been computed yet.
        *budget += std::mem::take(&mut sequence.n_draft_slots);
        sequence.draft.as_mut().expect("it has blocks").release(blocks);
        true
    }

    /// Takes all blocks of a running sequence and lets it wait for its turn. Returns the rows it had in this
    /// step.
    fn preempt(&mut self, at: usize, blocks: &mut BlockManager) -> usize {
        let mut sequence = self.running.remove(at);
        let n_rows =
            std::mem::take(&mut sequence.n_scheduled) + std::mem::take(&mut sequence.n_draft_slots);
        sequence.release(blocks);
        sequence.n_preemptions += 1;
        self.counts.preemptions += 1;
        self.refused = None;
        self.waiting.insert(sequence.key, sequence);
        n_rows
    }
}
