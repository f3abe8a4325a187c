//! The block table: the blocks and tokens of one sequence.

use crate::kind::KvKind;
use crate::pool::BlockId;

/// The blocks of one sequence, in order, and the tokens of the KV in them.
///
/// ```text
///   ids()       [  7  ]        [  8  ]        [  3  ]        [  4  ]
///            t  t  t  t  t | t  t  t  t  t | t  t  r  r  r | r  r  .  .  .
///            └────────── n_tokens() ──────────┘└─ reserved ────┘
///            └──────────────────── slots of its blocks ─────────────────┘
///            └─ full: may be shared, ──────┘ └─ this table's alone, ────┘
///               cached; never written           from reserve on
/// ```
///
/// The table has exactly the blocks that its committed and reserved tokens need. The content of a
/// slot that is not committed is undefined.
///
/// A table is an owning handle. It is not `Clone`, because [`fork`](crate::BlockManager::fork)
/// counts holders, and [`release`](crate::BlockManager::release) takes it by value. Dropping a
/// table that still holds blocks loses them for the life of the manager. A `Drop` that panics is
/// deliberately absent: an engine that shuts down with its sequences leaks nothing, and a second
/// panic would abort the process. [`check`](crate::BlockManager::check) reports blocks that are in
/// no live table.
#[derive(Debug, Default)]
#[must_use = "blocks in a dropped table are lost: release it"]
pub struct BlockTable {
    kind: KvKind,
    ids: Vec<u32>,
    /// The committed tokens. They take four bytes each beside the many thousand bytes of their KV.
    /// With them a block can be hashed when it fills, and a table can be truncated anywhere.
    tokens: Vec<u32>,
    n_reserved: usize,
    /// 0 until a manager has added a block.
    block_size: usize,
}

impl BlockTable {
    /// An empty table. It shares KV only with tables of the same kind.
    pub fn new(kind: KvKind) -> Self {
        BlockTable { kind, ..BlockTable::default() }
    }

    /// The physical block of every `block_size` positions, in the form that the device reads.
    /// `block_size` is that of the table's [kind](KvKind).
    ///
    /// An id stays the same until the next call of the manager with this table: `reserve` may
    /// replace the last block (and then returns a copy), and `commit` may replace the blocks that
    /// it fills.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Number of committed tokens, whose KV is in the blocks.
    pub fn n_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// The kind of the table's KV.
    pub fn kind(&self) -> KvKind {
        self.kind
    }

    /// Slots from position `n_tokens()` on that may be written now.
    pub(crate) fn n_reserved(&self) -> usize {
        self.n_reserved
    }

    pub(crate) fn blocks(&self) -> impl DoubleEndedIterator<Item = BlockId> + ExactSizeIterator {
        self.ids.iter().map(|&id| BlockId(id))
    }

    pub(crate) fn block(&self, index: usize) -> BlockId {
        BlockId(self.ids[index])
    }

    pub(crate) fn last_block(&self) -> Option<BlockId> {
        self.blocks().next_back()
    }

    /// The index of the block that committed tokens fill only in part. It also holds the next
    /// token.
    pub(crate) fn partial_block(&self) -> Option<usize> {
        let partial = self.block_size != 0 && !self.tokens.len().is_multiple_of(self.block_size);
        partial.then(|| self.tokens.len() / self.block_size)
    }

    /// The committed tokens in a block.
    pub(crate) fn tokens_of(&self, index: usize) -> &[u32] {
        let end = self.tokens.len().min((index + 1) * self.block_size);
        &self.tokens[(index * self.block_size).min(end)..end]
    }

    pub(crate) fn set_block(&mut self, index: usize, id: BlockId) {
        self.ids[index] = id.0;
    }

    pub(crate) fn push_block(&mut self, id: BlockId, block_size: usize) {
        debug_assert!(
            self.block_size == 0 || self.block_size == block_size,
            "a table of another manager"
        );
        self.block_size = block_size;
        self.ids.push(id.0);
    }

    pub(crate) fn pop_block(&mut self) -> Option<BlockId> {
        self.ids.pop().map(BlockId)
    }

    pub(crate) fn set_reserved(&mut self, n_tokens: usize) {
        self.n_reserved = n_tokens;
    }

    /// Turns reserved slots into committed tokens.
    pub(crate) fn push_tokens(&mut self, tokens: &[u32]) {
        assert!(
            tokens.len() <= self.n_reserved,
            "{} tokens are committed, {} slots are reserved",
            tokens.len(),
            self.n_reserved
        );
        self.n_reserved -= tokens.len();
        self.tokens.extend_from_slice(tokens);
    }

    pub(crate) fn truncate_tokens(&mut self, n_tokens: usize) {
        self.tokens.truncate(n_tokens);
    }

    /// A table of the same blocks and committed tokens. The caller must count the new holders.
    pub(crate) fn duplicate(&self) -> BlockTable {
        let (ids, tokens) = (self.ids.clone(), self.tokens.clone());
        BlockTable { kind: self.kind, ids, tokens, n_reserved: 0, block_size: self.block_size }
    }

    /// A table of cached blocks that hold exactly `tokens`.
    pub(crate) fn of_cached(
        kind: KvKind,
        ids: Vec<u32>,
        tokens: &[u32],
        block_size: usize,
    ) -> Self {
        debug_assert_eq!(ids.len() * block_size, tokens.len());
        BlockTable { kind, ids, tokens: tokens.to_vec(), n_reserved: 0, block_size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_ranges() {
        let mut table = BlockTable::new(KvKind::target(5));
        assert_eq!((table.kind(), table.n_tokens()), (KvKind::target(5), 0));
        assert_eq!(table.partial_block(), None);
        table.push_block(BlockId(7), 4);
        table.push_block(BlockId(3), 4);
        table.set_reserved(6);
        table.push_tokens(&[1, 2, 3, 4, 5]);
        assert_eq!((table.ids(), table.n_tokens(), table.n_reserved()), (&[7, 3][..], 5, 1));
        assert_eq!(table.partial_block(), Some(1));
        assert_eq!(table.tokens_of(0), [1, 2, 3, 4]);
        assert_eq!(table.tokens_of(1), [5]);
        assert_eq!(table.tokens_of(2), [0; 0]);
        table.truncate_tokens(4);
        assert_eq!(table.partial_block(), None);
    }

    #[test]
    #[should_panic(expected = "2 tokens are committed, 1 slots are reserved")]
    fn what_was_not_reserved_cannot_be_committed() {
        let mut table = BlockTable::default();
        table.set_reserved(1);
        table.push_tokens(&[1, 2]);
    }
}
