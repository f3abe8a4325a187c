//! Who is let in: waiting sequences, in order, while there are blocks for all of the next one.

use super::Scheduler;
use crate::sequence::{Sequence, SequenceKey};
use galley_blocks::{BlockManager, BlockTable};

/// A sequence that was not admitted. It is not looked up again before there are more blocks, or
/// some steps have passed in which its prefix may have been cached: reading a prompt takes time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    pub(super) key: SequenceKey,
    n_available: usize,
    step: u64,
}

const STEPS_UNTIL_ANOTHER_LOOK: u64 = 32;

impl Scheduler {
    /// Lets waiting sequences in, in order, until one does not fit. One with a lower priority number
    /// takes the place of running ones with a higher.
    pub(super) fn admit(&mut self, budget: &mut usize, blocks: &mut BlockManager) {
        while *budget > 0 {
            let Some(head) = self.waiting.first_entry() else { return };
            let (key, n_streams) = (*head.key(), head.get().n_streams());
            let n_running: usize = self.running.iter().map(|s| s.n_streams()).sum();
            let table = if n_running + n_streams <= self.max_num_seqs {
                self.place_for(key, budget, blocks)
            } else {
                None
            };
            let Some(table) = table else {
                let last = self.running.last();
                if last.is_some_and(|last| last.key.priority > key.priority) {
                    *budget += self.preempt(self.running.len() - 1, blocks);
                    continue;
                }
                return;
            };
            let mut sequence = self.waiting.remove(&key).expect("it was the first a moment ago");
            if sequence.n_cached.is_none() {
                sequence.n_cached = Some(table.n_tokens());
                self.counts.prefix_query_tokens += sequence.tokens.len() as u64;
                self.counts.prefix_hit_tokens += table.n_tokens() as u64;
            }
            sequence.table = table;
            let n = sequence.n_todo().min(*budget);
            let n = self.chaos.as_mut().map_or(n, |chaos| chaos.chunk(n));
            let at = self.insert_running(sequence);
            self.give_rows(at, n, budget, blocks);
        }
    }

    /// Blocks that running sequences lack for what they were admitted with.
    pub(super) fn n_promised(&self, blocks: &BlockManager) -> usize {
        let lacks = |sequence: &Sequence| {
            blocks.blocks_needed(&sequence.table, sequence.n_todo()) + sequence.n_forks as usize
        };
        self.running.iter().map(lacks).sum()
    }

    /// A table with what the prefix cache has of a waiting sequence, if there are blocks for all the rest of
    /// it, for what was promised to those admitted before, and for those running to grow.
    fn place_for(
        &mut self,
        key: SequenceKey,
        budget: &mut usize,
        blocks: &mut BlockManager,
    ) -> Option<BlockTable> {
        let mut spoken_for = self.n_promised(blocks);
        if !self.running.is_empty() {
            // A block for everyone, and one in a hundred: rather wait than be preempted soon.
            spoken_for += self.running.len() + blocks.n_blocks() / 100;
        }
        // Draft models give way to sequences.
        let n_drafting: usize = self.running.iter().map(Sequence::n_draft_blocks).sum();
        let n_available = (blocks.n_free() + n_drafting).saturating_sub(spoken_for);
        let stands = |refused: &Refused| {
            refused.key == key
                && n_available <= refused.n_available
                && self.n_steps < refused.step + STEPS_UNTIL_ANOTHER_LOOK
        };
        if self.refused.as_ref().is_some_and(stands) {
            return None;
        }
        let sequence = &self.waiting[&key];
        let table = blocks.match_prefix(sequence.table.salt(), &sequence.tokens);
        let n_todo = sequence.tokens.len() - table.n_tokens();
        let needed = blocks.blocks_needed(&table, n_todo) + sequence.n_forks as usize;
        // Blocks of the table that nobody else held are no longer free.
        let wanted = needed + spoken_for;
        if wanted <= blocks.n_free() + n_drafting || self.running.is_empty() {
            while wanted > blocks.n_free() && self.reclaim_draft_kv(budget, blocks) {}
            return Some(table);
        }
        blocks.release(table);
        self.refused = Some(Refused { key, n_available, step: self.n_steps });
        None
    }
}
