//! The pool: the state of every block, and the order in which idle blocks are evicted.

use crate::free::FreeSet;
use std::num::NonZeroU32;

/// The id of a block: its index in the device's pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// The state of a block. See the diagram in the crate's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockState {
    /// The block has no valid content.
    Free,
    /// The block is in this many tables.
    Held(NonZeroU32),
    /// The block is in no table, but cached. It is linked to its neighbours in the order of
    /// eviction.
    Idle { older: Option<BlockId>, newer: Option<BlockId> },
}

/// The state of a block after its last table has released it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// The block is not cached, so its content is not needed.
    Free,
    /// The block is cached: it is kept until its memory is needed.
    Idle,
}

/// The state of every block.
///
/// Idle blocks form a list through their own states, from the block that became idle first to the
/// block that became idle last:
///
/// ```text
///   oldest ─▶ Idle ⇄ Idle ⇄ Idle ◀─ newest
///   evicted from here              joined here
/// ```
#[derive(Debug)]
pub(crate) struct BlockPool {
    states: Vec<BlockState>,
    free: FreeSet,
    oldest: Option<BlockId>,
    newest: Option<BlockId>,
    n_idle: usize,
}

impl BlockPool {
    pub(crate) fn new(n_blocks: usize) -> Self {
        assert!(u32::try_from(n_blocks).is_ok(), "{n_blocks} blocks: a block id has 32 bits");
        BlockPool {
            states: vec![BlockState::Free; n_blocks],
            free: FreeSet::full(n_blocks),
            oldest: None,
            newest: None,
            n_idle: 0,
        }
    }

    pub(crate) fn n_blocks(&self) -> usize {
        self.states.len()
    }

    /// Blocks that can be allocated: free and idle blocks.
    pub(crate) fn n_allocatable(&self) -> usize {
        self.free.len() + self.n_idle
    }

    pub(crate) fn n_holders(&self, id: BlockId) -> u32 {
        match self.state(id) {
            BlockState::Held(n) => n.get(),
            BlockState::Free | BlockState::Idle { .. } => 0,
        }
    }

    pub(crate) fn state(&self, id: BlockId) -> BlockState {
        self.states[id.0 as usize]
    }

    /// Takes a free block, for one holder: the block right after `after` if it is free, so that a
    /// sequence stays contiguous, else the lowest.
    pub(crate) fn take_free(&mut self, after: Option<BlockId>) -> Option<BlockId> {
        let next = after.map(|id| id.0 + 1).filter(|&id| self.free.contains(id));
        let id = BlockId(next.or_else(|| self.free.first())?);
        self.free.remove(id.0);
        self.set(id, BlockState::Held(NonZeroU32::MIN));
        Some(id)
    }

    /// Takes the block that has been idle for longest, for one holder. Its content is lost: the
    /// caller must take it out of the prefix cache.
    pub(crate) fn take_oldest_idle(&mut self) -> Option<BlockId> {
        let id = self.oldest?;
        self.retain(id);
        Some(id)
    }

    /// Adds a holder to a held or idle block.
    pub(crate) fn retain(&mut self, id: BlockId) {
        let n_holders = match self.state(id) {
            BlockState::Held(n) => n.checked_add(1).expect("fewer than 2^32 tables"),
            BlockState::Idle { older, newer } => {
                self.unlink(older, newer);
                NonZeroU32::MIN
            }
            BlockState::Free => panic!("{id:?} is free: there is nothing in it to hold"),
        };
        self.set(id, BlockState::Held(n_holders));
    }

    /// Removes a holder. The last release puts the block into the state `rest`.
    pub(crate) fn release(&mut self, id: BlockId, rest: Rest) {
        let BlockState::Held(n) = self.state(id) else {
            panic!("{id:?} is released, and no table holds it");
        };
        if let Some(n) = NonZeroU32::new(n.get() - 1) {
            self.set(id, BlockState::Held(n));
            return;
        }
        match rest {
            Rest::Free => {
                self.set(id, BlockState::Free);
                self.free.insert(id.0);
            }
            Rest::Idle => self.link_newest(id),
        }
    }

    /// Idle blocks in the order in which they will be evicted.
    pub(crate) fn idle_oldest_first(&self) -> impl Iterator<Item = BlockId> {
        std::iter::successors(self.oldest, |&id| match self.state(id) {
            BlockState::Idle { newer, .. } => newer,
            BlockState::Free | BlockState::Held(_) => None,
        })
    }

    fn set(&mut self, id: BlockId, state: BlockState) {
        self.states[id.0 as usize] = state;
    }

    fn link_newest(&mut self, id: BlockId) {
        self.set(id, BlockState::Idle { older: self.newest, newer: None });
        self.join(self.newest, Some(id));
        self.newest = Some(id);
        self.n_idle += 1;
    }

    /// Closes the gap between the neighbours of a block that leaves the list.
    fn unlink(&mut self, older: Option<BlockId>, newer: Option<BlockId>) {
        self.join(older, newer);
        if newer.is_none() {
            self.newest = older;
        }
        if let Some(id) = newer
            && let BlockState::Idle { older: link, .. } = &mut self.states[id.0 as usize]
        {
            *link = older;
        }
        self.n_idle -= 1;
    }

    /// Makes `newer` follow `older`. Without `older`, makes `newer` the head of the list.
    fn join(&mut self, older: Option<BlockId>, newer: Option<BlockId>) {
        match older {
            None => self.oldest = newer,
            Some(id) => match &mut self.states[id.0 as usize] {
                BlockState::Idle { newer: link, .. } => *link = newer,
                BlockState::Free | BlockState::Held(_) => {
                    unreachable!("{id:?} is in the idle list")
                }
            },
        }
    }

    /// Checks the pool's own invariants: the counts add up, and the idle list is one list,
    /// consistent in both directions.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (mut n_free, mut n_idle) = (0, 0);
        for (id, state) in (0..).map(BlockId).zip(&self.states) {
            let is_free = *state == BlockState::Free;
            n_free += usize::from(is_free);
            n_idle += usize::from(matches!(state, BlockState::Idle { .. }));
            if self.free.contains(id.0) != is_free {
                return Err(format!("{id:?} is {state:?}, the free set says otherwise"));
            }
        }
        if (n_free, n_idle) != (self.free.len(), self.n_idle) {
            return Err(format!(
                "{n_free} free and {n_idle} idle blocks, but {} and {} are on the books",
                self.free.len(),
                self.n_idle
            ));
        }
        let (mut before, mut n_listed) = (None, 0);
        for id in self.idle_oldest_first().take(n_idle + 1) {
            match self.state(id) {
                BlockState::Idle { older, .. } if older == before => {}
                state => {
                    return Err(format!("{id:?} follows {before:?} when idle, and is {state:?}"));
                }
            }
            (before, n_listed) = (Some(id), n_listed + 1);
        }
        if (before, n_listed) != (self.newest, n_idle) {
            return Err(format!("{n_listed} of {n_idle} idle blocks are in the list"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(pool: &BlockPool) -> Vec<u32> {
        pool.check().unwrap();
        pool.idle_oldest_first().map(|id| id.0).collect()
    }

    #[test]
    fn low_and_consecutive_ids_first() {
        let mut pool = BlockPool::new(6);
        let first: Vec<_> = (0..4).map(|_| pool.take_free(None).unwrap().0).collect();
        assert_eq!(first, [0, 1, 2, 3]);
        pool.release(BlockId(0), Rest::Free);
        pool.release(BlockId(2), Rest::Free);
        assert_eq!(pool.take_free(Some(BlockId(1))), Some(BlockId(2)), "the one behind");
        assert_eq!(pool.take_free(Some(BlockId(1))), Some(BlockId(0)), "else the lowest");
        assert_eq!(
            pool.take_free(Some(BlockId(5))),
            Some(BlockId(4)),
            "nothing is behind the last"
        );
        assert_eq!(pool.take_free(None), Some(BlockId(5)));
        assert_eq!(pool.take_free(None), None);
        pool.check().unwrap();
    }

    #[test]
    fn idle_blocks_leave_the_list_from_any_place() {
        for middle in 0..3 {
            let mut pool = BlockPool::new(3);
            while pool.take_free(None).is_some() {}
            (0..3).for_each(|id| pool.release(BlockId(id), Rest::Idle));
            assert_eq!(idle(&pool), [0, 1, 2]);
            assert_eq!(pool.n_allocatable(), 3);

            pool.retain(BlockId(middle));
            assert_eq!(idle(&pool), (0..3).filter(|&id| id != middle).collect::<Vec<_>>());
            pool.release(BlockId(middle), Rest::Idle);
            assert_eq!(idle(&pool).last(), Some(&middle), "used again: evicted last");
        }
    }

    #[test]
    fn eviction_takes_the_oldest_and_stops_when_none_is_left() {
        let mut pool = BlockPool::new(2);
        while pool.take_free(None).is_some() {}
        pool.release(BlockId(1), Rest::Idle);
        pool.release(BlockId(0), Rest::Idle);
        assert_eq!(pool.take_free(None), None);
        assert_eq!(pool.take_oldest_idle(), Some(BlockId(1)));
        assert_eq!(pool.take_oldest_idle(), Some(BlockId(0)));
        assert_eq!(pool.take_oldest_idle(), None);
        assert_eq!(pool.n_allocatable(), 0);
    }

    #[test]
    fn the_last_holder_decides() {
        let mut pool = BlockPool::new(1);
        let id = pool.take_free(None).unwrap();
        pool.retain(id);
        pool.release(id, Rest::Free);
        assert_eq!((pool.n_holders(id), pool.n_allocatable()), (1, 0));
        pool.release(id, Rest::Free);
        assert_eq!((pool.n_holders(id), pool.n_allocatable()), (0, 1));
    }

    #[test]
    #[should_panic(expected = "no table holds it")]
    fn a_double_free_is_caught() {
        let mut pool = BlockPool::new(1);
        let id = pool.take_free(None).unwrap();
        pool.release(id, Rest::Free);
        pool.release(id, Rest::Free);
    }

    #[test]
    #[should_panic(expected = "is free")]
    fn a_free_block_cannot_be_held() {
        BlockPool::new(1).retain(BlockId(0));
    }
}
