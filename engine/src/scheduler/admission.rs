//! Who is let in: waiting sequences, in order, while there are blocks for all of the next one.

use super::Scheduler;
use super::budget::Budget;
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

/// What running sequences have and lack, in sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    n_streams: usize,
    /// Blocks that they lack for what they were admitted with.
    n_promised: usize,
    /// Blocks of draft models.
    n_drafting: usize,
}

impl Scheduler {
    /// Gives prompts that run their rows and lets waiting sequences in, in one order: an urgent prompt that waits comes
    /// before one that runs and is less urgent. Admission ends with the first sequence that does not fit.
    pub(super) fn serve_prompts(&mut self, budget: &mut Budget, blocks: &mut BlockManager) {
        let (mut at, mut may_admit) = (0, true);
        // As long as nothing but admission has changed it.
        let mut taken = None;
        while budget.has_rows() {
            let is_served =
                |sequence: &Sequence| sequence.n_todo() == 1 || !sequence.share.is_empty();
            at += self.running[at..].iter().take_while(|sequence| is_served(sequence)).count();
            let next = self.running.get(at).map(|sequence| sequence.key);
            let head =
                if may_admit { self.waiting.first().map(|sequence| sequence.key) } else { None };
            match head.filter(|head| next.is_none_or(|next| *head < next)) {
                Some(head) => {
                    let sum = taken.get_or_insert_with(|| self.taken(blocks));
                    may_admit = self.admit(head, sum, budget, blocks);
                    at = self.running.partition_point(|sequence| sequence.key <= head);
                }
                None if next.is_some() => {
                    self.give_rows(at, budget, blocks);
                    taken = None;
                    at += 1;
                }
                None => return,
            }
        }
    }

    /// Lets the first of those that wait in, if it fits. One with a lower priority number takes the place of running
    /// ones with a higher.
    fn admit(
        &mut self,
        key: SequenceKey,
        taken: &mut Taken,
        budget: &mut Budget,
        blocks: &mut BlockManager,
    ) -> bool {
        let n_streams = self.waiting.get(key).map_or(0, Sequence::n_streams);
        let table = loop {
            let has_place = taken.n_streams + n_streams <= self.max_num_seqs;
            if let Some(table) = has_place.then(|| self.place_for(key, taken, blocks)).flatten() {
                break table;
            }
            let last = self.running.last();
            if last.is_none_or(|last| last.key.priority <= key.priority) {
                return false;
            }
            budget.take_back(self.preempt(self.running.len() - 1, blocks));
            *taken = self.taken(blocks);
        };
        let mut sequence = self.waiting.remove(key).expect("it was the first a moment ago");
        if sequence.n_cached.is_none() {
            sequence.n_cached = Some(table.n_tokens());
            self.counts.prefix_query_tokens += sequence.tokens.len() as u64;
            self.counts.prefix_hit_tokens += table.n_tokens() as u64;
        }
        sequence.table = table;
        let at = self.insert_running(sequence);
        self.give_rows(at, budget, blocks);
        let admitted = &self.running[at];
        taken.n_streams += admitted.n_streams();
        taken.n_promised += lacks(admitted, blocks);
        debug_assert_eq!(
            *taken,
            self.taken(blocks),
            "admission takes blocks from no running sequence"
        );
        true
    }

    /// Blocks that running sequences lack for what they were admitted with.
    pub(super) fn n_promised(&self, blocks: &BlockManager) -> usize {
        self.running.iter().map(|sequence| lacks(sequence, blocks)).sum()
    }

    fn taken(&self, blocks: &BlockManager) -> Taken {
        Taken {
            n_streams: self.running.iter().map(Sequence::n_streams).sum(),
            n_promised: self.n_promised(blocks),
            n_drafting: self.running.iter().map(Sequence::n_draft_blocks).sum(),
        }
    }

    /// A table with what the prefix cache has of a waiting sequence, if there are blocks for all the rest of
    /// it, for what was promised to those admitted before, and for those running to grow.
    fn place_for(
        &mut self,
        key: SequenceKey,
        taken: &mut Taken,
        blocks: &mut BlockManager,
    ) -> Option<BlockTable> {
        let mut spoken_for = taken.n_promised;
        if !self.running.is_empty() {
            // A block for everyone, and one in a hundred: rather wait than be preempted soon.
            spoken_for += self.running.len() + blocks.n_blocks() / 100;
        }
        // Draft models give way to sequences.
        let n_available = (blocks.n_free() + taken.n_drafting).saturating_sub(spoken_for);
        let stands = |refused: &Refused| {
            refused.key == key
                && n_available <= refused.n_available
                && self.n_steps < refused.step + STEPS_UNTIL_ANOTHER_LOOK
        };
        if self.refused.as_ref().is_some_and(stands) {
            return None;
        }
        let sequence = self.waiting.get(key).expect("it was the first a moment ago");
        let table = blocks.match_prefix(sequence.table.salt(), &sequence.tokens);
        let n_todo = sequence.tokens.len() - table.n_tokens();
        let needed = blocks.blocks_needed(&table, n_todo) + sequence.n_forks as usize;
        // Blocks of the table that nobody else held are no longer free.
        let wanted = needed + spoken_for;
        if wanted <= blocks.n_free() + taken.n_drafting || self.running.is_empty() {
            while wanted > blocks.n_free() && self.reclaim_draft_kv(blocks) {
                taken.n_drafting = self.running.iter().map(Sequence::n_draft_blocks).sum();
            }
            return Some(table);
        }
        blocks.release(table);
        self.refused = Some(Refused { key, n_available, step: self.n_steps });
        None
    }
}

/// Blocks that a running sequence lacks for what it was admitted with.
fn lacks(sequence: &Sequence, blocks: &BlockManager) -> usize {
    blocks.blocks_needed(&sequence.table, sequence.n_todo()) + sequence.n_forks as usize
}
