//! Room for drafts: the rows and blocks that running and newly admitted sequences leave over.

use super::Scheduler;
use crate::budget::Budget;
use crate::sequence::Sequence;
use galley_blocks::BlockManager;

impl Scheduler {
    /// Reserves slots for drafts after the decodes of this step, an equal part of the remaining
    /// rows for each. A draft never preempts a sequence. It takes no row that a sequence could use,
    /// and no block that a sequence is about to need.
    pub(super) fn make_room_for_drafts(&mut self, budget: &mut Budget, blocks: &mut BlockManager) {
        let block_size = blocks.block_size_tokens();
        let spoken_for = self.n_promised(blocks) + self.running.len();
        let is_waited_for =
            self.refused.is_some_and(|refused| self.waiting.get(refused.key).is_some());
        let may_draft = |sequence: &Sequence| {
            let has_none = sequence.n_scheduled() == 1 && sequence.n_draft_slots() == 0;
            has_none && sequence.max_draft() > 0
        };
        let mut n_drafting = self.running.iter().filter(|sequence| may_draft(sequence)).count();
        // Hashes of the blocks that draft models read in this step.
        let mut reading = Vec::new();
        for sequence in &mut self.running {
            if !may_draft(sequence) {
                continue;
            }
            let mut n = sequence.max_draft().min(budget.draft_length(n_drafting));
            n_drafting -= 1;
            if let Some(chaos) = self.chaos.as_mut().filter(|_| n > 0) {
                n = chaos.chunk(n);
            }
            let (n_known, n_left) = (sequence.n_tokens(), sequence.n_left());
            let Sequence { tokens, table, share, draft, .. } = sequence;
            let Some(draft) = draft.as_mut().filter(|_| n > 0) else { continue };
            // A draft model reads all tokens except the last one that it drafts.
            let n_read = n_known + n - 1;
            let n_spare = blocks.n_free().saturating_sub(spoken_for);
            let begins = draft.n_blocks() == 0 && draft.blocks_needed(n_read, block_size) > 0;
            let mut n_found = 0;
            if begins {
                // No draft-model prefill starts while a request waits for blocks (it would be
                // evicted), nor while there are no more blocks than when there were too few.
                if is_waited_for || !draft.may_fit(n_spare) {
                    continue;
                }
                n_found = draft.find_prefixes(tokens, n_read, blocks);
                // Nor does it start if it takes as many steps as the sequence has tokens left, nor
                // while another sequence reads what this one can share a step later.
                let n_steps = draft.n_unread(n_known).div_ceil(self.max_num_batched_tokens);
                if n_steps >= n_left || draft.waits_for(&reading, tokens, blocks) {
                    draft.release(blocks);
                    continue;
                }
            }
            let needed =
                blocks.blocks_needed(table, 1 + n) + draft.blocks_needed(n_read, block_size);
            if needed + spoken_for > blocks.n_free() {
                if begins {
                    draft.release(blocks);
                    draft.has_not_fitted(n_spare);
                }
                continue;
            }
            draft.reserve(n_read, blocks);
            reading.extend(draft.next_hashes(tokens, blocks));
            self.counts.draft_prefix_hit_tokens += n_found as u64;
            // The decode's slot is reserved, so its block is the table's own: nothing is copied.
            if blocks.reserve(table, 1 + n).is_ok_and(|copies| copies.is_empty()) {
                budget.promise_draft(share, n);
            }
        }
    }
}
