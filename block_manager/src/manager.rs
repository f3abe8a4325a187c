//! The operations: every change of a block's state starts here.

use crate::kind::KvKind;
use crate::pool::{BlockId, BlockPool, BlockUse, Rest};
use crate::prefix::{ChainHash, Joined, Parent, PrefixCache, chain_hash};
use crate::table::BlockTable;
use std::{error, fmt};

/// A copy of a whole block that the device performs before it writes to `to`.
///
/// Perform the copies of one step in the order in which they were returned, over all tables: the
/// `from` of a copy may be the `to` of a later copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockCopy {
    /// The block that stays unchanged, for its other holders or the cache.
    pub from: u32,
    /// The new block, which belongs to the table alone.
    pub to: u32,
}

/// There are too few blocks, even if every idle block is evicted. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfBlocks {
    /// Blocks requested.
    pub needed: usize,
    /// Blocks that can be allocated.
    pub free: usize,
}

impl fmt::Display for OutOfBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out of KV blocks: {} needed, {} free", self.needed, self.free)
    }
}

impl error::Error for OutOfBlocks {}

/// The pool of blocks, the prefix cache, and their operations.
///
/// Every operation takes time in proportion to the blocks it touches, whatever the size of the pool
/// (only [`clear_prefix_cache`](Self::clear_prefix_cache) and [`check`](Self::check) look at all
/// blocks).
///
/// **Choice of a block to allocate.** Free blocks come before idle blocks. Of the free blocks, a
/// table gets the one after its last block if that is free, else the lowest: consecutive blocks
/// stream faster.
///
/// **Choice of an idle block to evict.** Blocks with KV of draft models are evicted first, and of
/// equal blocks the one that became idle first. It is never the parent of a cached block:
///
/// ```text
///    table A   [0]──[1]──[2]       A table that holds a cached block holds all blocks before it,
///    table B   [0]──[1]──[5]       so a parent has at least the holders of its children and is
///    table C   [0]──[6]            idle only if they are idle. Tables release blocks from the end,
///                                  so children become idle first: the oldest idle block is a leaf.
/// ```
///
/// A parent and its children are of one kind, so the order between kinds does not matter here.
/// `prefix.rs` builds on this: every cached block stays reachable, and no cached block has a parent
/// with changed content.
///
/// **Draft models go first,** because a hit of the target saves more. It shortens the wait for the
/// first token, also of requests without drafts, and it saves the larger model's work for the block.
/// A hit of a draft model saves a smaller forward that no request waits for, and it comes only after
/// the target has the same prompt. So cached KV of draft models costs the target no hit.
#[derive(Debug)]
pub struct BlockManager {
    pub(crate) pool: BlockPool,
    pub(crate) cache: PrefixCache,
    pub(crate) block_size: usize,
    prefix_caching: bool,
}

/// The preparation needed before a write to the block that holds a table's next token.
enum NextWrite {
    /// None: the block belongs to the table alone, or is yet to be allocated.
    Ready,
    /// Take the block out of the cache.
    Uncache(BlockId),
    /// Replace the block, at this index of the table, by a copy.
    Copy(BlockId, usize),
}

impl BlockManager {
    /// A pool of `n_blocks` free blocks for `block_size_tokens` tokens each (at least 1). Without
    /// `prefix_caching`, only forks share blocks.
    pub fn new(n_blocks: usize, block_size_tokens: usize, prefix_caching: bool) -> Self {
        Self::with_hash(n_blocks, block_size_tokens, prefix_caching, chain_hash)
    }

    /// A manager with another hash function, for tests that need many collisions.
    #[doc(hidden)]
    pub fn with_hash(
        n_blocks: usize,
        block_size_tokens: usize,
        prefix_caching: bool,
        hash: ChainHash,
    ) -> Self {
        assert!(block_size_tokens > 0, "a block holds at least one token");
        BlockManager {
            pool: BlockPool::new(n_blocks),
            cache: PrefixCache::new(n_blocks, hash),
            block_size: block_size_tokens,
            prefix_caching,
        }
    }

    /// A table that holds the longest cached prefix of `tokens`. The prefix consists of whole
    /// blocks and never of all `tokens`, because the last token must be computed. Its length is
    /// `n_tokens()` of the table.
    pub fn match_prefix(&mut self, kind: KvKind, tokens: &[u32]) -> BlockTable {
        if !self.prefix_caching {
            return BlockTable::new(kind);
        }
        let block_size = kind.tokens_per_block(self.block_size);
        let ids: Vec<u32> = self.cache.walk(kind, tokens, block_size).map(|id| id.0).collect();
        ids.iter().for_each(|&id| self.pool.retain(BlockId(id)));
        let hit = &tokens[..ids.len() * block_size];
        BlockTable::of_cached(kind, ids, hit, block_size)
    }

    /// The hash under which the next full block of `table` will join the prefix cache, if the table
    /// goes on with `tokens` (the committed ones included, the last one excepted). Tables with equal
    /// hashes are about to compute the same block, except for collisions. None if the tokens do not
    /// fill the block, or if the block cannot join.
    pub fn next_hash(&self, table: &BlockTable, tokens: &[u32]) -> Option<u64> {
        if !self.prefix_caching {
            return None;
        }
        let block_size = self.block_size_of(table);
        let index = table.n_tokens() / block_size;
        let end = (index + 1) * block_size;
        let next = tokens.get(index * block_size..end).filter(|_| end < tokens.len())?;
        Some(self.cache.hash_of(self.parent(table, index)?, next))
    }

    /// Reserves the slots of the next `n_tokens` positions, from `table.n_tokens()` on, so that the
    /// table alone may write to them. Reserves all of them; on an error nothing changes.
    ///
    /// If the first of these slots lies in a block that another table or the cache needs, the table
    /// gets a new block in its place, and the device must copy the old block before it writes. A
    /// request for fewer slots than are already reserved changes nothing.
    pub fn reserve(
        &mut self,
        table: &mut BlockTable,
        n_tokens: usize,
    ) -> Result<Vec<BlockCopy>, OutOfBlocks> {
        let (needed, free) = (self.blocks_needed(table, n_tokens), self.n_free());
        if needed > free {
            return Err(OutOfBlocks { needed, free });
        }
        let mut copies = Vec::new();
        match self.next_write(table, n_tokens) {
            NextWrite::Ready => {}
            NextWrite::Uncache(id) => self.cache.leave(id),
            NextWrite::Copy(from, index) => {
                let before = index.checked_sub(1).map(|before| table.block(before));
                let to = self.allocate(before, table.kind());
                table.set_block(index, to);
                self.let_go(from);
                copies.push(BlockCopy { from: from.0, to: to.0 });
            }
        }
        table.set_reserved(table.n_reserved().max(n_tokens));
        let block_size = self.block_size_of(table);
        let n_blocks = (table.n_tokens() + table.n_reserved()).div_ceil(block_size);
        while table.ids().len() < n_blocks {
            let id = self.allocate(table.last_block(), table.kind());
            table.push_block(id, block_size);
        }
        Ok(copies)
    }

    /// The number of blocks that [`reserve`](Self::reserve) would take, including the block for a
    /// copy. Changes nothing.
    pub fn blocks_needed(&self, table: &BlockTable, n_tokens: usize) -> usize {
        let n_slots = table.n_tokens().saturating_add(n_tokens);
        let n_blocks = n_slots.div_ceil(self.block_size_of(table));
        let copy = matches!(self.next_write(table, n_tokens), NextWrite::Copy(..));
        n_blocks.saturating_sub(table.ids().len()) + usize::from(copy)
    }

    /// Moves `tokens` into the table, once their KV has been written to reserved slots. Blocks that
    /// the tokens fill join the prefix cache, so call this only after the step that wrote them.
    ///
    /// If the cache already holds a block with the same content, the filled block is given back and
    /// the cached block takes its place: two sequences with the same prompt soon need the memory of
    /// one. So **`ids()` may change for the blocks that this call fills**; partial blocks and
    /// earlier full blocks keep their ids. (The device may still be reading the block given back.
    /// This is safe, because its next owner writes in a later step.)
    ///
    /// # Panics
    ///
    /// If there are more tokens than reserved slots.
    pub fn commit(&mut self, table: &mut BlockTable, tokens: &[u32]) {
        let block_size = self.block_size_of(table);
        let n_full_before = table.n_tokens() / block_size;
        table.push_tokens(tokens);
        if self.prefix_caching {
            for index in n_full_before..table.n_tokens() / block_size {
                self.cache_block(table, index);
            }
        }
    }

    /// Gives back all reserved slots, and the blocks beyond `n_tokens()`.
    pub fn rollback(&mut self, table: &mut BlockTable) {
        table.set_reserved(0);
        while table.ids().len() > table.n_tokens().div_ceil(self.block_size_of(table)) {
            let id = table.pop_block().expect("there are more than needed");
            self.let_go(id);
        }
    }

    /// Removes committed tokens beyond the first `n_tokens`, and all reserved slots. Cached blocks
    /// stay cached: a later [`reserve`](Self::reserve) ensures that no cached block is written to.
    pub fn truncate(&mut self, table: &mut BlockTable, n_tokens: usize) {
        table.truncate_tokens(n_tokens);
        self.rollback(table);
    }

    /// A second table with the same committed tokens in the same blocks. The table that first
    /// writes to the last block gets a copy of it.
    ///
    /// # Panics
    ///
    /// If slots are reserved: they belong to the table alone, and may lie in a block that the fork
    /// would share. Commit or roll back first.
    pub fn fork(&mut self, table: &BlockTable) -> BlockTable {
        assert_eq!(table.n_reserved(), 0, "a table is forked while slots of it are reserved");
        table.blocks().for_each(|id| self.pool.retain(id));
        table.duplicate()
    }

    /// Gives back all blocks of a table. Cached blocks stay cached until their memory is needed.
    pub fn release(&mut self, table: BlockTable) {
        table.blocks().rev().for_each(|id| self.let_go(id));
    }

    /// Empties the prefix cache. Tables keep their blocks, but no block after a table's already
    /// full blocks joins the cache any more.
    pub fn clear_prefix_cache(&mut self) {
        self.cache.clear();
        while let Some(id) = self.pool.take_idle(BlockUse::Target) {
            self.pool.release(id, Rest::Free);
        }
    }

    /// Blocks in the pool.
    pub fn n_blocks(&self) -> usize {
        self.pool.n_blocks()
    }

    /// Blocks that can be allocated: free blocks, and idle blocks, which allocation evicts.
    pub fn n_free(&self) -> usize {
        self.pool.n_allocatable()
    }

    /// Blocks that tables hold.
    pub fn n_used(&self) -> usize {
        self.n_blocks() - self.n_free()
    }

    /// Blocks that tables of draft models hold. A block in several tables counts once.
    pub fn n_used_by_draft_models(&self) -> usize {
        self.pool.n_held_drafts()
    }

    /// Tokens of the target that a block has room for.
    pub fn block_size_tokens(&self) -> usize {
        self.block_size
    }

    /// Examines the block that holds the next token, if the table already has it.
    ///
    /// The block must not be overwritten if a fork shares it, or if it was cached before the table
    /// was truncated into it (this never happens while slots of it are reserved). A cached block of
    /// this table alone is written in place if it is a leaf. A cached block with children is
    /// copied, because it must stay for them. These children are idle, because a table that held
    /// one would also hold this block; so a block for the copy can always be allocated.
    fn next_write(&self, table: &BlockTable, n_tokens: usize) -> NextWrite {
        let Some(index) = table.partial_block() else { return NextWrite::Ready };
        if n_tokens == 0 {
            return NextWrite::Ready;
        }
        let id = table.block(index);
        match (self.pool.n_holders(id), self.cache.get(id)) {
            (1, None) => NextWrite::Ready,
            (1, Some(cached)) if cached.n_children == 0 => NextWrite::Uncache(id),
            _ => NextWrite::Copy(id, index),
        }
    }

    /// Allocates a block for one table. It cannot fail, because the caller has checked `n_free`.
    fn allocate(&mut self, after: Option<BlockId>, kind: KvKind) -> BlockId {
        let to = if kind.is_of_draft_model() { BlockUse::Draft } else { BlockUse::Target };
        self.pool.take_free(after, to).unwrap_or_else(|| {
            let id = self.pool.take_idle(to).expect("as many as n_free can be allocated");
            self.cache.leave(id);
            id
        })
    }

    fn let_go(&mut self, id: BlockId) {
        let rest = if self.cache.contains(id) { Rest::Idle } else { Rest::Free };
        self.pool.release(id, rest);
    }

    /// Tokens that a block of the table has room for.
    pub(crate) fn block_size_of(&self, table: &BlockTable) -> usize {
        table.kind().tokens_per_block(self.block_size)
    }

    /// The parent of block `index` of a table. None if the block before it is not cached, so that the
    /// block cannot join the cache.
    fn parent(&self, table: &BlockTable, index: usize) -> Option<Parent> {
        match index.checked_sub(1).map(|before| table.block(before)) {
            None => Some(Parent::Root(table.kind())),
            Some(before) => self.cache.contains(before).then_some(Parent::Block(before)),
        }
    }

    /// Puts a newly filled block into the cache, if the block before it is cached.
    fn cache_block(&mut self, table: &mut BlockTable, index: usize) {
        // After a collision or a cleared cache, no later block can be found.
        let Some(parent) = self.parent(table, index) else { return };
        let id = table.block(index);
        match self.cache.join(id, parent, table.tokens_of(index)) {
            Joined::Yes | Joined::Collision => {}
            Joined::Twin(twin) => {
                self.pool.retain(twin);
                table.set_block(index, twin);
                self.let_go(id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
