//! Admission: lets waiting sequences in, in order, while there are blocks for all of the next one.

use super::Scheduler;
use crate::budget::Budget;
use crate::sequence::{Sequence, SequenceKey};
use galley_blocks::{BlockManager, BlockTable};

/// A sequence that was refused admission. Matching a prompt takes time, so the sequence is not
/// matched again before more blocks are available, or before some steps have passed in which its
/// prefix may have been cached.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdmissionMemo {
    pub(super) key: SequenceKey,
    n_available: usize,
    step: u64,
}

const STEPS_UNTIL_ANOTHER_LOOK: u64 = 32;

/// Sums over the running sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    n_streams: usize,
    /// Blocks that they still need for their known tokens and their forks.
    n_promised: usize,
    /// Blocks that their draft models hold; shared ones count once.
    n_drafting: usize,
}

impl Scheduler {
    /// Gives running prompts their rows and admits waiting sequences, in one order: an urgent
    /// waiting prompt comes before a less urgent running one. Admission ends at the first sequence
    /// that does not fit.
    pub(super) fn serve_prompts(&mut self, budget: &mut Budget, blocks: &mut BlockManager) {
        let (mut at, mut may_admit) = (0, true);
        // Computed once, and again after anything but admission has changed it.
        let mut taken = None;
        while budget.has_rows() {
            let is_served =
                |sequence: &Sequence| sequence.n_todo() == 1 || !sequence.share.is_empty();
            at += self.running[at..].iter().take_while(|sequence| is_served(sequence)).count();
            let next = self.running.get(at).map(|sequence| sequence.key);
            let head = if may_admit { self.waiting.first() } else { None };
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

    /// Admits the first waiting sequence if it fits, and returns whether it does. It may preempt
    /// running sequences with a higher priority number.
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
            if let Some(table) =
                has_place.then(|| self.match_and_reserve(key, taken, blocks)).flatten()
            {
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
            self.counts.prefix_query_tokens += sequence.tokens.len() as u64;
            self.counts.prefix_hit_tokens += table.n_tokens() as u64;
        }
        sequence.admit(table);
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

    /// Blocks that running sequences still need for their known tokens and their forks.
    pub(super) fn n_promised(&self, blocks: &BlockManager) -> usize {
        self.running.iter().map(|sequence| lacks(sequence, blocks)).sum()
    }

    fn taken(&self, blocks: &BlockManager) -> Taken {
        Taken {
            n_streams: self.running.iter().map(Sequence::n_streams).sum(),
            n_promised: self.n_promised(blocks),
            n_drafting: blocks.n_used_by_draft_models(),
        }
    }

    /// Matches a waiting sequence with the prefix cache. Returns its table if there are blocks for
    /// the rest of its tokens, for all blocks promised to running sequences, and for running
    /// sequences to grow. If none runs, the sequence always fits: its request was checked.
    fn match_and_reserve(
        &mut self,
        key: SequenceKey,
        taken: &mut Taken,
        blocks: &mut BlockManager,
    ) -> Option<BlockTable> {
        let mut spoken_for = taken.n_promised;
        if !self.running.is_empty() {
            // A block for every running sequence and 1 % of the pool: waiting is better than an
            // early preemption.
            spoken_for += self.running.len() + blocks.n_blocks() / 100;
        }
        // Sequences may take the blocks of draft models.
        let n_available = (blocks.n_free() + taken.n_drafting).saturating_sub(spoken_for);
        let stands = |refused: &AdmissionMemo| {
            refused.key == key
                && n_available <= refused.n_available
                && self.n_steps < refused.step + STEPS_UNTIL_ANOTHER_LOOK
        };
        if self.refused.as_ref().is_some_and(stands) {
            return None;
        }
        let sequence = self.waiting.get(key).expect("it was the first a moment ago");
        let table = blocks.match_prefix(sequence.table.kind(), &sequence.tokens);
        let n_todo = sequence.tokens.len() - table.n_tokens();
        let needed = blocks.blocks_needed(&table, n_todo) + sequence.n_forks as usize;
        // Idle cached blocks that the table has taken are no longer free, so `n_free` is read again.
        let wanted = needed + spoken_for;
        if wanted <= blocks.n_free() + taken.n_drafting || self.running.is_empty() {
            while wanted > blocks.n_free() && self.reclaim_draft_kv(blocks) {
                taken.n_drafting = blocks.n_used_by_draft_models();
            }
            return Some(table);
        }
        blocks.release(table);
        self.refused = Some(AdmissionMemo { key, n_available, step: self.n_steps });
        None
    }
}

/// Blocks that a running sequence still needs for its known tokens and its forks.
fn lacks(sequence: &Sequence, blocks: &BlockManager) -> usize {
    blocks.blocks_needed(&sequence.table, sequence.n_todo()) + sequence.n_forks as usize
}
