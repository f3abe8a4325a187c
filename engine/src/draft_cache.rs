//! The KV cache that a draft model has of one sequence, in blocks of the target's pool.

use galley_backend::InputToken;
use galley_backend::sample::SampledTokens;
use galley_blocks::{BlockManager, BlockTable, KvKind};
use galley_model::ModelIndex;
use std::ops::Range;

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
/// in them. Giving the blocks up costs only the time to compute their KV again.
///
/// ```text
///   0          committed        n_exact          n_tokens     the draft
///   ├──────────────┼───────────────┼────────────────┼───────────┤
///   │ in the table │ next to be    │ computed with  │ valid as far as
///   │ as committed │ committed     │ less attention │ the draft is right
/// ```
///
/// **Committed KV is exact:** its tokens are known tokens of the sequence, and the draft model read
/// them, and all tokens before them, with all of its layers and with attention to all tokens before.
/// So committed KV is a function of the draft model and the tokens alone, and other sequences take it
/// from the prefix cache: acceptance does not depend on the sequence that computed it. KV of draft
/// tokens before verification, and KV that was computed through a view or a layer mask, stays with
/// its sequence.
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
    /// The KV of the first `n_exact` of these tokens is exact. Draft tokens count.
    n_exact: usize,
    /// Whether the model has read the sequence to its end before.
    is_caught_up: bool,
}

impl DraftCache {
    /// An empty cache. Sequences of one `salt` share KV.
    pub(crate) fn new(model: DraftModel, salt: u64) -> Self {
        let number = model.index.0 as u32;
        let kind = KvKind::draft_model(number, model.blocks_per_block as u32, salt);
        DraftCache {
            model,
            table: BlockTable::new(kind),
            ids: Vec::new(),
            n_tokens: 0,
            drafted: Vec::new(),
            n_exact: 0,
            is_caught_up: false,
        }
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

    /// Whether the model has read the sequence to its end before. Until then it attends to all
    /// tokens, whatever the view, so that the KV of a prompt does not depend on the forwards in which
    /// it was read.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.is_caught_up
    }

    /// Tokens of the sequence that the model has read.
    pub(crate) fn n_read(&self) -> usize {
        self.n_tokens
    }

    /// Blocks of the pool that the cache lacks to hold the KV of `n_tokens` tokens.
    pub(crate) fn blocks_needed(&self, n_tokens: usize, block_size: usize) -> usize {
        let n_blocks = n_tokens.div_ceil(block_size * self.model.blocks_per_block);
        n_blocks.saturating_sub(self.n_blocks())
    }

    /// Begins an empty cache with the longest prefix of the sequence's `tokens` that the prefix cache
    /// holds. Returns its length.
    pub(crate) fn find_prefix(&mut self, tokens: &[u32], blocks: &mut BlockManager) -> usize {
        debug_assert_eq!(self.n_blocks(), 0, "the cache has begun");
        self.table = blocks.match_prefix(self.table.kind(), tokens);
        self.n_tokens = self.table.n_tokens();
        self.n_exact = self.n_tokens;
        self.update_ids(0);
        self.n_tokens
    }

    /// The [hash](BlockManager::next_hash) of the block that the model reads next. None if it reads no
    /// full block that other sequences can share.
    pub(crate) fn next_hash(&self, tokens: &[u32], blocks: &BlockManager) -> Option<u64> {
        let is_exact = self.n_exact >= self.n_tokens;
        is_exact.then(|| blocks.next_hash(&self.table, tokens)).flatten()
    }

    /// Reserves the blocks that the cache lacks to hold the KV of `n_tokens` tokens. Enough blocks
    /// must be free.
    pub(crate) fn reserve(&mut self, n_tokens: usize, blocks: &mut BlockManager) {
        let (n_slots, first_new) =
            (n_tokens.saturating_sub(self.table.n_tokens()), self.n_blocks());
        let copies = blocks.reserve(&mut self.table, n_slots).expect("as many as needed are free");
        debug_assert!(
            copies.is_empty(),
            "only full blocks are shared, and no full block is written"
        );
        self.update_ids(first_new);
    }

    /// Commits exact KV after a step. `tokens` are the known tokens of the sequence. Blocks that are
    /// full then join the prefix cache. The last token is left out, because it may be read again.
    pub(crate) fn commit(&mut self, tokens: &[u32], blocks: &mut BlockManager) {
        let from = self.table.n_tokens();
        let n = self.n_exact.min(self.n_tokens).min(tokens.len().saturating_sub(1));
        if n > from {
            blocks.commit(&mut self.table, &tokens[from..n]);
            self.update_ids(from / (blocks.block_size_tokens() * self.model.blocks_per_block));
        }
    }

    /// Updates the draft model's block ids from block `first` of the pool on.
    fn update_ids(&mut self, first: usize) {
        let (per_block, n_pool) = (self.model.blocks_per_block, self.model.n_pool_blocks);
        let held = self.table.ids();
        let place = |i: usize| (i % per_block * n_pool) as u32 + held[i / per_block];
        self.ids.truncate(first * per_block);
        self.ids.extend((first * per_block..held.len() * per_block).map(place));
    }

    /// Gives all blocks back. Those in the prefix cache stay there until their memory is needed.
    pub(crate) fn release(&mut self, blocks: &mut BlockManager) {
        let empty = BlockTable::new(self.table.kind());
        blocks.release(std::mem::replace(&mut self.table, empty));
        self.ids.clear();
        self.drafted.clear();
        (self.n_tokens, self.n_exact, self.is_caught_up) = (0, 0, false);
    }

    /// Index of the first of `tokens` to read. The last token is always read, again if need be,
    /// because its logits are needed.
    pub(crate) fn first_unread(&mut self, tokens: &[u32]) -> usize {
        let drafted = self.drafted.iter().zip(&tokens[self.n_tokens..]);
        let right = drafted.take_while(|(drafted, token)| drafted.id() == Some(**token));
        self.n_tokens += right.count();
        self.drafted.clear();
        self.n_tokens = self.n_tokens.min(tokens.len() - 1);
        self.n_exact = self.n_exact.min(self.n_tokens);
        debug_assert!(self.table.n_tokens() <= self.n_tokens, "committed KV is not written again");
        self.n_tokens
    }

    /// Replaces placeholders among the draft tokens that the model has read.
    pub(crate) fn resolve(&mut self, sampled: &SampledTokens) {
        sampled.resolve(&mut self.drafted);
    }

    /// Records that the KV of the positions `read` has been written. The sequence has `n_tokens` known
    /// tokens, and `draft` after them. `is_whole`: all layers ran, and attended to all tokens before.
    pub(crate) fn has_read(
        &mut self,
        read: Range<usize>,
        n_tokens: usize,
        draft: &[InputToken],
        is_whole: bool,
    ) {
        let is_exact = is_whole && self.n_exact >= read.start;
        self.n_exact = if is_exact { read.end } else { self.n_exact.min(read.start) };
        self.n_tokens = read.end.min(n_tokens);
        self.drafted.clear();
        self.drafted.extend_from_slice(&draft[..read.end - self.n_tokens]);
        self.is_caught_up |= self.n_tokens == n_tokens;
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
        let index = ModelIndex(1);
        let model = DraftModel { index, blocks_per_block, n_pool_blocks: 10, max_context: 100 };
        DraftCache::new(model, 7)
    }

    /// The model reads the rest of `n_tokens` tokens, and then `draft`.
    fn read(cache: &mut DraftCache, n_tokens: usize, draft: &[InputToken], is_whole: bool) {
        cache.has_read(cache.n_tokens..n_tokens + draft.len(), n_tokens, draft, is_whole);
    }

    const TOKENS: [u32; 20] = [5, 6, 7, 8, 9, 1, 2, 3, 4, 0, 5, 6, 7, 8, 9, 1, 2, 3, 4, 0];

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
        read(&mut cache, 3, &known(&[1, 2]), true);
        assert_eq!(cache.first_unread(&[5, 6, 7, 1, 9]), 4);
        read(&mut cache, 5, &known(&[1, 2]), true);
        assert_eq!(cache.first_unread(&[5, 6, 7, 1, 9, 1, 2, 3, 4]), 7);
        // The draft tokens are pending: until they are resolved, none counts as right.
        let mut sampled = PendingTokens::default();
        let pending: Vec<_> = sampled.push(&[1, 2]).map(InputToken::pending).collect();
        read(&mut cache, 5, &pending, true);
        assert_eq!(cache.first_unread(&[5, 6, 7, 1, 9, 1, 2, 3]), 5);
        read(&mut cache, 5, &pending, true);
        cache.resolve(&sampled.take());
        assert_eq!(cache.first_unread(&[5, 6, 7, 1, 9, 1, 2, 3]), 7);
        // The model has read every token; the last is read again, for its logits.
        read(&mut cache, 9, &known(&[8]), true);
        assert_eq!(cache.first_unread(&[5, 6, 7, 1, 9, 1, 2, 3, 4, 8]), 9);
    }

    /// Known tokens that were read whole are found by a second cache of the same model and salt.
    #[test]
    fn exact_kv_is_shared() {
        let mut blocks = BlockManager::new(10, 2, true);
        let mut first = cache(2);
        assert_eq!(first.find_prefix(&TOKENS, &mut blocks), 0);
        assert_eq!(first.next_hash(&TOKENS, &blocks), cache(2).next_hash(&TOKENS, &blocks));
        first.reserve(11, &mut blocks);
        assert_eq!(first.first_unread(&TOKENS[..10]), 0);
        read(&mut first, 10, &known(&[5]), true);
        first.commit(&TOKENS[..10], &mut blocks);
        assert_eq!(first.table.n_tokens(), 9, "the last token may be read again");

        let mut second = cache(2);
        assert_eq!(second.find_prefix(&TOKENS, &mut blocks), 8);
        second.reserve(11, &mut blocks);
        assert_eq!(second.first_unread(&TOKENS[..10]), 8);
        assert_eq!(second.block_table()[..4], first.block_table()[..4]);
        assert_ne!(second.block_table()[4..], first.block_table()[4..]);
        blocks.check(&[&first.table, &second.table]).unwrap();
        first.release(&mut blocks);
        second.release(&mut blocks);
        blocks.check(&[]).unwrap();
    }

    /// Draft tokens are committed once they are known, and as far as they were right.
    #[test]
    fn draft_tokens_are_committed_after_their_verification() {
        let mut blocks = BlockManager::new(10, 2, true);
        let mut cache = cache(1);
        cache.reserve(12, &mut blocks);
        cache.first_unread(&TOKENS[..6]);
        read(&mut cache, 6, &known(&[2, 3, 0]), true);
        cache.commit(&TOKENS[..6], &mut blocks);
        assert_eq!(cache.table.n_tokens(), 5);
        // Two of the three were right, and the target's token came after them.
        assert_eq!(cache.first_unread(&TOKENS[..9]), 8);
        cache.commit(&TOKENS[..9], &mut blocks);
        assert_eq!((cache.table.n_tokens(), cache.n_exact), (8, 8));
        blocks.check(&[&cache.table]).unwrap();
    }

    /// Two caches that compute the same block end with one.
    #[test]
    fn twins_become_one() {
        let mut blocks = BlockManager::new(10, 2, true);
        let (mut first, mut second) = (cache(2), cache(2));
        for cache in [&mut first, &mut second] {
            cache.reserve(9, &mut blocks);
            cache.first_unread(&TOKENS[..9]);
            read(cache, 9, &[], true);
        }
        assert_eq!(blocks.n_used_by_draft_models(), 6);
        first.commit(&TOKENS[..9], &mut blocks);
        second.commit(&TOKENS[..9], &mut blocks);
        assert_eq!(blocks.n_used_by_draft_models(), 4);
        assert_eq!(second.block_table()[..4], first.block_table()[..4]);
        let last = second.table.ids()[2];
        assert_eq!(second.block_table()[4..], [last, last + 10]);
    }

    /// KV that was computed through a view ends what is committed, also if whole reads follow it or
    /// a view reads exact KV again.
    #[test]
    fn kv_computed_through_a_view_is_not_committed() {
        let mut blocks = BlockManager::new(10, 2, true);
        let mut cache = cache(1);
        cache.reserve(20, &mut blocks);
        let mut step = |n: usize, is_whole| {
            let first = cache.first_unread(&TOKENS[..n]);
            read(&mut cache, n, &[], is_whole);
            cache.commit(&TOKENS[..n], &mut blocks);
            (first, cache.table.n_tokens())
        };
        assert_eq!(step(6, true), (0, 5));
        assert_eq!(step(7, true), (6, 6));
        // The last token again, through a view: it is no longer exact.
        assert_eq!(step(7, false), (6, 6));
        assert_eq!(step(10, true), (7, 6));
        assert_eq!(step(12, false), (10, 6));
        assert_eq!(cache.next_hash(&TOKENS, &blocks), None);
        blocks.check(&[&cache.table]).unwrap();
    }
}
