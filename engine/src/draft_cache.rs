//! The KV cache that a draft model has of one sequence, in blocks of the target's pool.

use galley_backend::InputToken;
use galley_backend::sample::SampledTokens;
use galley_blocks::{BlockManager, BlockTable};
use galley_model::ModelIndex;

/// The facts about a draft model that sequences need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DraftModel {
    pub(crate) index: ModelIndex,
    /// Blocks of the draft model that lie in one block of the pool.
    pub(crate) blocks_per_block: usize,
    /// Blocks of the pool.
    pub(crate) n_pool_blocks: usize,
    /// Longest context that the model reads, in tokens.
    pub(crate) max_context: usize,
}

/// The KV cache that a draft model has of one sequence: blocks of the pool, and the tokens cached
/// in them.
///
/// The blocks belong to a table without tokens, so they never join the prefix cache. Giving them up
/// costs only the time to compute their KV again.
#[derive(Debug)]
pub(crate) struct DraftCache {
    pub(crate) model: DraftModel,
    table: BlockTable,
    /// The draft model's own block ids, one for each `block_size` positions.
    ids: Vec<u32>,
    /// The cache holds the KV of the first `n_tokens` tokens of the sequence.
    n_tokens: usize,
    /// Draft tokens after them, cached as well. Their KV is valid as far as the draft was right.
    drafted: Vec<InputToken>,
}

impl DraftCache {
    pub(crate) fn new(model: DraftModel) -> Self {
        let table = BlockTable::new(0);
        DraftCache { model, table, ids: Vec::new(), n_tokens: 0, drafted: Vec::new() }
    }

    /// Blocks of the pool that the cache holds.
    pub(crate) fn n_blocks(&self) -> usize {
        self.table.ids().len()
    }

    /// The block table for the draft model's forward.
    pub(crate) fn block_table(&self) -> &[u32] {
        &self.ids
    }

    #[cfg(test)]
    pub(crate) fn table(&self) -> &BlockTable {
        &self.table
    }

    /// Whether the model can read `n_tokens` tokens.
    pub(crate) fn can_read(&self, n_tokens: usize) -> bool {
        n_tokens <= self.model.max_context
    }

    /// Blocks of the pool that the cache lacks to hold the KV of `n_tokens` tokens.
    pub(crate) fn blocks_needed(&self, n_tokens: usize, block_size: usize) -> usize {
        let n_blocks = n_tokens.div_ceil(block_size).div_ceil(self.model.blocks_per_block);
        n_blocks.saturating_sub(self.n_blocks())
    }

    /// Reserves the blocks that the cache lacks to hold the KV of `n_tokens` tokens. Enough blocks
    /// must be free.
    pub(crate) fn reserve(&mut self, n_tokens: usize, blocks: &mut BlockManager) {
        let size = blocks.block_size_tokens();
        let n_blocks = self.n_blocks() + self.blocks_needed(n_tokens, size);
        blocks.reserve(&mut self.table, n_blocks * size).expect("as many as needed are free");
        let (per_block, n_pool) = (self.model.blocks_per_block, self.model.n_pool_blocks);
        let held = self.table.ids();
        let n = held.len() * per_block;
        let place = |i: usize| (i % per_block * n_pool) as u32 + held[i / per_block];
        self.ids.extend((self.ids.len()..n).map(place));
    }

    /// Gives all blocks back.
    pub(crate) fn release(&mut self, blocks: &mut BlockManager) {
        let table = std::mem::replace(&mut self.table, BlockTable::new(0));
        blocks.release(table);
        self.ids.clear();
        self.drafted.clear();
        self.n_tokens = 0;
    }

    /// Index of the first of `tokens` to read. The last token is always read, again if need be,
    /// because its logits are needed.
    pub(crate) fn first_unread(&mut self, tokens: &[u32]) -> usize {
        let drafted = self.drafted.iter().zip(&tokens[self.n_tokens..]);
        let right = drafted.take_while(|(drafted, token)| drafted.id() == Some(**token));
        self.n_tokens += right.count();
        self.drafted.clear();
        self.n_tokens = self.n_tokens.min(tokens.len() - 1);
        self.n_tokens
    }

    /// Replaces placeholders among the draft tokens that the model has read.
    pub(crate) fn resolve(&mut self, sampled: &SampledTokens) {
        sampled.resolve(&mut self.drafted);
    }

    /// Records that the KV of the first `n_tokens` tokens of the sequence, and of `drafted` after
    /// them, has been written.
    pub(crate) fn has_read(&mut self, n_tokens: usize, drafted: &[InputToken]) {
        self.n_tokens = n_tokens;
        self.drafted.clear();
        self.drafted.extend_from_slice(drafted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use galley_backend::sample::PendingTokens;

    fn known(tokens: &[u32]) -> Vec<InputToken> {
        tokens.iter().copied().map(InputToken::known).collect()
    }

    fn cache(blocks_per_block: usize) -> DraftCache {
        DraftCache::new(DraftModel {
            index: ModelIndex::TARGET,
            blocks_per_block,
            n_pool_blocks: 10,
            max_context: 100,
        })
    }

    #[test]
    fn several_of_its_blocks_lie_in_one_of_the_pool() {
        let mut blocks = BlockManager::new(10, 4, true);
        let mut cache = cache(3);
        assert_eq!(cache.blocks_needed(13, 4), 2);
        cache.reserve(13, &mut blocks);
        let [a, b] = *cache.table.ids() else { panic!("two blocks of the pool") };
        assert_eq!(cache.block_table(), [a, a + 10, a + 20, b, b + 10, b + 20]);
        assert_eq!((cache.blocks_needed(24, 4), cache.blocks_needed(25, 4)), (0, 1));
        cache.reserve(25, &mut blocks);
        assert_eq!((cache.n_blocks(), blocks.n_used()), (3, 3));
        blocks.check(&[&cache.table]).unwrap();
        cache.release(&mut blocks);
        assert_eq!((cache.n_blocks(), cache.block_table().len(), blocks.n_used()), (0, 0, 0));
        blocks.check(&[]).unwrap();
    }

    #[test]
    fn what_was_guessed_right_need_not_be_read_again() {
        let mut cache = cache(1);
        assert_eq!(cache.first_unread(&[5, 6, 7]), 0);
        // The model read all three, drafted 1, 2, 3 and read the first two of these.
        cache.has_read(3, &known(&[1, 2]));
        assert_eq!(cache.first_unread(&[5, 6, 7, 1, 9]), 4);
        cache.has_read(5, &known(&[1, 2]));
        assert_eq!(cache.first_unread(&[5, 6, 7, 1, 9, 1, 2, 3, 4]), 7);
        // The draft tokens are pending: until they are resolved, none counts as right.
        let mut sampled = PendingTokens::default();
        let pending: Vec<_> = sampled.push(&[1, 2]).map(InputToken::pending).collect();
        cache.has_read(5, &pending);
        assert_eq!(cache.first_unread(&[5, 6, 7, 1, 9, 1, 2, 3]), 5);
        cache.has_read(5, &pending);
        cache.resolve(&sampled.take());
        assert_eq!(cache.first_unread(&[5, 6, 7, 1, 9, 1, 2, 3]), 7);
        // The model has read every token; the last is read again, for its logits.
        cache.has_read(9, &known(&[8]));
        assert_eq!(cache.first_unread(&[5, 6, 7, 1, 9, 1, 2, 3, 4, 8]), 9);
    }
}
