//! The operations: every change of a block's state starts here.

use crate::pool::{BlockId, Pool, Rest};
use crate::prefix::{ChainHash, Joined, Parent, PrefixCache, chain_hash};
use crate::table::BlockTable;
use std::{error, fmt};

/// A copy of a whole block that the device performs before it writes to `to`.
///
/// Copies of one step are performed in the order they were returned in, over all tables: `from` may
/// be the `to` of a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockCopy {
    /// The block that stays as it is, for its other holders or the cache.
    pub from: u32,
    /// The table's own block from now on.
    pub to: u32,
}

/// There are not enough blocks, even with every idle one evicted. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfBlocks {
    /// Blocks that were asked for.
    pub needed: usize,
    /// Blocks that could be had.
    pub free: usize,
}

impl fmt::Display for OutOfBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out of KV blocks: {} needed, {} free", self.needed, self.free)
    }
}

impl error::Error for OutOfBlocks {}

/// Counts since the manager was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tokens that were looked up in the prefix cache.
    pub prefix_query_tokens: u64,
    /// Those of them that were found.
    pub prefix_hit_tokens: u64,
    /// Cached blocks given up for their room.
    pub evictions: u64,
    /// Blocks copied before a write.
    pub copies: u64,
}

/// The pool of blocks, the prefix cache, and what may be done with them.
///
/// Every operation takes time in proportion to the blocks it touches, whatever the size of the pool
/// (only [`clear_prefix_cache`](Self::clear_prefix_cache) and [`check`](Self::check) look at all).
///
/// **Which blocks a table gets.** Free ones before idle ones; the one behind the table's last if it
/// is free, else the lowest: consecutive blocks stream faster.
///
/// **Which idle block is evicted.** The one that became idle first, and that is never the parent of
/// a cached one:
///
/// ```text
///    table A   [0]──[1]──[2]       whoever holds a cached block holds all before it, so a parent
///    table B   [0]──[1]──[5]       has at least the holders its children have, and is idle only
///    table C   [0]──[6]            when they are. Tables let go from the end, so children become
///                                  idle before it: the oldest idle block is a leaf.
/// ```
///
/// That is what `prefix.rs` builds on: no cached block is ever out of reach, and none has a
/// parent whose content is not what it was.
#[derive(Debug)]
pub struct BlockManager {
    pub(crate) pool: Pool,
    pub(crate) cache: PrefixCache,
    pub(crate) block_size: usize,
    prefix_caching: bool,
    stats: Stats,
}

/// What it takes to write to the block that a table's next token goes to.
enum NextWrite {
    /// Nothing: it is the table's own, or a block yet to be allocated.
    Ready,
    /// To forget that it is cached.
    Uncache(BlockId),
    /// A copy, in its place in the table.
    Copy(BlockId, usize),
}

impl BlockManager {
    /// A pool of `n_blocks` free blocks for `block_size_tokens` tokens each (at least 1). Without
    /// `prefix_caching`, blocks are shared by forks only.
    pub fn new(n_blocks: usize, block_size_tokens: usize, prefix_caching: bool) -> Self {
        Self::with_hash(n_blocks, block_size_tokens, prefix_caching, chain_hash)
    }

    /// With a hash of one's own. For tests, which want a bad one.
    #[doc(hidden)]
    pub fn with_hash(
        n_blocks: usize,
        block_size_tokens: usize,
        prefix_caching: bool,
        hash: ChainHash,
    ) -> Self {
        assert!(block_size_tokens > 0, "a block holds at least one token");
        BlockManager {
            pool: Pool::new(n_blocks),
            cache: PrefixCache::new(n_blocks, hash),
            block_size: block_size_tokens,
            prefix_caching,
            stats: Stats::default(),
        }
    }

    /// A table that holds the longest cached prefix of `tokens`: whole blocks, and never all of
    /// `tokens`, as the last one must be computed. `n_tokens()` of it says how much was found.
    pub fn match_prefix(&mut self, salt: u64, tokens: &[u32]) -> BlockTable {
        if !self.prefix_caching {
            return BlockTable::new(salt);
        }
        let ids: Vec<u32> = self.cache.walk(salt, tokens, self.block_size).map(|id| id.0).collect();
        ids.iter().for_each(|&id| self.pool.retain(BlockId(id)));
        let hit = &tokens[..ids.len() * self.block_size];
        self.stats.prefix_query_tokens += tokens.len() as u64;
        self.stats.prefix_hit_tokens += hit.len() as u64;
        BlockTable::of_cached(salt, ids, hit, self.block_size)
    }

    /// How many tokens [`match_prefix`](Self::match_prefix) would find. Changes nothing.
    pub fn cached_prefix_tokens(&self, salt: u64, tokens: &[u32]) -> usize {
        self.cache.walk(salt, tokens, self.block_size).count() * self.block_size
    }

    /// Makes the slots of the next `n_tokens` positions, from `table.n_tokens()` on, the table's own,
    /// to be written. All of them or, with an error, nothing.
    ///
    /// Where the first of these slots is in a block that others rely on, the table gets a block of
    /// its own in its place, and the device must copy before it writes. Reserving less than is
    /// reserved already changes nothing.
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
                let to = self.allocate(index.checked_sub(1).map(|before| table.block(before)));
                table.set_block(index, to);
                self.let_go(from);
                self.stats.copies += 1;
                copies.push(BlockCopy { from: from.0, to: to.0 });
            }
        }
        table.set_reserved(table.n_reserved().max(n_tokens));
        let n_blocks = (table.n_tokens() + table.n_reserved()).div_ceil(self.block_size);
        while table.ids().len() < n_blocks {
            let id = self.allocate(table.last_block());
            table.push_block(id, self.block_size);
        }
        Ok(copies)
    }

    /// How many blocks [`reserve`](Self::reserve) would take, that for a copy included. Changes
    /// nothing.
    pub fn blocks_needed(&self, table: &BlockTable, n_tokens: usize) -> usize {
        let n_blocks = table.n_tokens().saturating_add(n_tokens).div_ceil(self.block_size);
        let copy = matches!(self.next_write(table, n_tokens), NextWrite::Copy(..));
        n_blocks.saturating_sub(table.ids().len()) + usize::from(copy)
    }

    /// The KV of `tokens` has been written to reserved slots: they belong to the table now. Blocks
    /// that they fill join the prefix cache; call it only after the step that wrote them.
    ///
    /// A block that turns out to hold what a cached one holds is given back, and the cached one
    /// takes its place: two sequences with one prompt soon need the room of one. So **`ids()` of
    /// blocks that this call fills may change**; partial blocks and earlier full ones stay. (The
    /// device may still be reading the block given back: whoever gets it next writes in a later
    /// step.)
    ///
    /// # Panics
    ///
    /// When there are more tokens than reserved slots.
    pub fn commit(&mut self, table: &mut BlockTable, tokens: &[u32]) {
        let n_full_before = table.n_tokens() / self.block_size;
        table.push_tokens(tokens);
        if self.prefix_caching {
            for index in n_full_before..table.n_tokens() / self.block_size {
                self.cache_block(table, index);
            }
        }
    }

    /// Gives back what is reserved beyond `n_tokens()`.
    pub fn rollback(&mut self, table: &mut BlockTable) {
        table.set_reserved(0);
        while table.ids().len() > table.n_tokens().div_ceil(self.block_size) {
            let id = table.pop_block().expect("there are more than needed");
            self.let_go(id);
        }
    }

    /// Forgets committed tokens beyond the first `n_tokens`, and what is reserved. Cached blocks
    /// stay cached: a later [`reserve`](Self::reserve) takes care that none is written to.
    pub fn truncate(&mut self, table: &mut BlockTable, n_tokens: usize) {
        table.truncate_tokens(n_tokens);
        self.rollback(table);
    }

    /// A second table with the same committed tokens, in the same blocks. Whichever writes to the
    /// last block first gets a copy of it.
    ///
    /// # Panics
    ///
    /// When slots are reserved: they are for the table alone, and may be in a block that would now
    /// be shared. Commit or roll back before.
    pub fn fork(&mut self, table: &BlockTable) -> BlockTable {
        assert_eq!(table.n_reserved(), 0, "a table is forked while slots of it are reserved");
        table.blocks().for_each(|id| self.pool.retain(id));
        table.duplicate()
    }

    /// Gives back all blocks of a table. Those that are cached stay so until their room is needed.
    pub fn release(&mut self, table: BlockTable) {
        table.blocks().rev().for_each(|id| self.let_go(id));
    }

    /// Forgets what is cached. Tables keep their blocks, and cache nothing more behind those that
    /// were full.
    pub fn clear_prefix_cache(&mut self) {
        self.cache.clear();
        while let Some(id) = self.pool.take_oldest_idle() {
            self.pool.release(id, Rest::Free);
        }
    }

    /// Blocks in the pool.
    pub fn n_blocks(&self) -> usize {
        self.pool.n_blocks()
    }

    /// Blocks that can be allocated: free ones, and idle ones that would be evicted for it.
    pub fn n_free(&self) -> usize {
        self.pool.n_allocatable()
    }

    /// Blocks that tables hold.
    pub fn n_used(&self) -> usize {
        self.n_blocks() - self.n_free()
    }

    /// Tokens a block has room for.
    pub fn block_size_tokens(&self) -> usize {
        self.block_size
    }

    /// Counts since the manager was made.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Looks at the block that the next token goes to, if the table holds it already.
    ///
    /// Others rely on it if it was shared by a fork, or cached before the table was truncated into it
    /// (never while slots of it are reserved). A cached block of this table alone is written in place if it
    /// is a leaf; one with children has to stay for them, and they are idle (whoever held one would
    /// hold this), so there is a block to be had for the copy.
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

    /// A block for one table. There is one: the caller has asked `n_free`.
    fn allocate(&mut self, after: Option<BlockId>) -> BlockId {
        self.pool.take_free(after).unwrap_or_else(|| {
            let id = self.pool.take_oldest_idle().expect("as many as n_free can be allocated");
            self.cache.leave(id);
            self.stats.evictions += 1;
            id
        })
    }

    fn let_go(&mut self, id: BlockId) {
        let rest = if self.cache.contains(id) { Rest::Idle } else { Rest::Free };
        self.pool.release(id, rest);
    }

    /// A block has filled: into the cache with it, if the one before it is there.
    fn cache_block(&mut self, table: &mut BlockTable, index: usize) {
        let parent = match index.checked_sub(1).map(|before| table.block(before)) {
            None => Parent::Root { salt: table.salt() },
            Some(before) if self.cache.contains(before) => Parent::Block(before),
            Some(_) => return, // a collision or a cleared cache: nothing behind can be found
        };
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
