//! The invariants as code: slow and thorough, for tests and idle moments.

use crate::manager::BlockManager;
use crate::pool::{BlockId, BlockState, BlockUse};
use crate::prefix::Parent;
use crate::table::BlockTable;

impl BlockManager {
    /// Checks every invariant, given all live tables. An error is a bug, in this crate or in a
    /// caller that lost a table.
    ///
    /// - Every block is free, idle or held. The number of tables that hold it equals its holder
    ///   count. An idle block is cached, and a free block is not.
    /// - The lists and counts of the pool agree, and so do the hashes and children of the cache.
    /// - Idle blocks are evicted children first.
    /// - Blocks count as a draft model's if, and only if, a draft model's table holds them.
    /// - A table has exactly the blocks it needs. A cached block of a table holds the table's
    ///   tokens, and its parent is the block before it in the table. A block with reserved slots
    ///   belongs to one table alone.
    pub fn check(&self, live: &[&BlockTable]) -> Result<(), String> {
        self.pool.check()?;
        self.cache.check()?;
        self.check_blocks(live)?;
        self.check_eviction_order()?;
        live.iter().try_for_each(|table| self.check_table(table))
    }

    fn check_blocks(&self, live: &[&BlockTable]) -> Result<(), String> {
        let mut n_tables = vec![0; self.n_blocks()];
        for id in live.iter().flat_map(|table| table.blocks()) {
            *n_tables.get_mut(id.0 as usize).ok_or("a block id beyond the pool")? += 1;
        }
        for (id, n_tables) in (0..).map(BlockId).zip(n_tables) {
            let (state, cached) = (self.pool.state(id), self.cache.contains(id));
            if self.pool.n_holders(id) != n_tables {
                return Err(format!("{id:?} is {state:?}, and in {n_tables} live tables"));
            }
            let agrees = match state {
                BlockState::Free => !cached,
                BlockState::Idle { .. } => cached,
                BlockState::Held(_) => true,
            };
            if !agrees {
                return Err(format!("{id:?} is {state:?}, and cached: {cached}"));
            }
        }
        Ok(())
    }

    /// An idle parent must come after its idle children in the order of eviction, so that it never
    /// leaves the cache before them.
    fn check_eviction_order(&self) -> Result<(), String> {
        let mut evicted = vec![false; self.n_blocks()];
        for id in self.pool.idle_in_order() {
            let parent = self.cache.get(id).map(|cached| cached.parent);
            if let Some(Parent::Block(parent)) = parent
                && evicted[parent.0 as usize]
            {
                return Err(format!("{parent:?} would be evicted before its child {id:?}"));
            }
            evicted[id.0 as usize] = true;
        }
        Ok(())
    }

    fn check_table(&self, table: &BlockTable) -> Result<(), String> {
        let n_slots = table.n_tokens() + table.n_reserved();
        let block_size = self.block_size_of(table);
        if table.ids().len() != n_slots.div_ceil(block_size) {
            return Err(format!("{n_slots} slots in {} blocks: {table:?}", table.ids().len()));
        }
        let mut parent = Parent::Root(table.kind());
        for (index, id) in table.blocks().enumerate() {
            let tokens = table.tokens_of(index);
            let is_of_draft_model = self.pool.use_of(id) == BlockUse::Draft;
            if is_of_draft_model != table.kind().is_of_draft_model() {
                return Err(format!("{id:?} has another use than its table: {table:?}"));
            }
            if let Some(cached) = self.cache.get(id) {
                if cached.parent != parent || !cached.tokens.starts_with(tokens) {
                    return Err(format!("{id:?} is cached as {cached:?}, but in {table:?}"));
                }
                if matches!(parent, Parent::Block(before) if !self.cache.contains(before)) {
                    return Err(format!("{id:?} is cached behind a block that is not: {table:?}"));
                }
            }
            let is_written = table.n_reserved() > 0 && tokens.len() < block_size;
            let is_own = self.pool.n_holders(id) == 1 && !self.cache.contains(id);
            if is_written && !is_own {
                return Err(format!(
                    "{id:?} is written by one table and is not its own: {table:?}"
                ));
            }
            parent = Parent::Block(id);
        }
        Ok(())
    }
}
