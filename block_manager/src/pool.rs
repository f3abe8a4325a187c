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

/// The use of a block that is not free: the KV of the target, or of a draft model. It decides which
/// idle blocks are evicted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockUse {
    /// KV of a draft model. Such idle blocks are evicted before any of the target.
    Draft,
    /// KV of the target.
    Target,
}

/// The uses in the order of eviction.
const USES: [BlockUse; 2] = [BlockUse::Draft, BlockUse::Target];

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
/// Idle blocks of one use form a list through their own states, from the block that became idle
/// first to the block that became idle last:
///
/// ```text
///   oldest ─▶ Idle ⇄ Idle ⇄ Idle ◀─ newest
///   evicted from here              joined here
/// ```
#[derive(Debug)]
pub(crate) struct BlockPool {
    states: Vec<BlockState>,
    /// The use of every block, from its allocation on. Without meaning for free blocks.
    uses: Vec<BlockUse>,
    free: FreeSet,
    /// One list a use.
    idle: [IdleList; USES.len()],
    n_idle: usize,
    /// Held blocks with KV of draft models.
    n_held_drafts: usize,
}

/// The ends of a list of idle blocks.
#[derive(Clone, Copy, Debug, Default)]
struct IdleList {
    oldest: Option<BlockId>,
    newest: Option<BlockId>,
}

impl BlockPool {
    pub(crate) fn new(n_blocks: usize) -> Self {
        assert!(u32::try_from(n_blocks).is_ok(), "{n_blocks} blocks: a block id has 32 bits");
        BlockPool {
            states: vec![BlockState::Free; n_blocks],
            uses: vec![BlockUse::Target; n_blocks],
            free: FreeSet::full(n_blocks),
            idle: [IdleList::default(); USES.len()],
            n_idle: 0,
            n_held_drafts: 0,
        }
    }

    pub(crate) fn n_blocks(&self) -> usize {
        self.states.len()
    }

    /// Blocks that can be allocated: free and idle blocks.
    pub(crate) fn n_allocatable(&self) -> usize {
        self.free.len() + self.n_idle
    }

    /// Blocks with KV of draft models that tables hold.
    pub(crate) fn n_held_drafts(&self) -> usize {
        self.n_held_drafts
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

    pub(crate) fn use_of(&self, id: BlockId) -> BlockUse {
        self.uses[id.0 as usize]
    }

    /// Takes a free block, for one holder: the block right after `after` if it is free, so that a
    /// sequence stays contiguous, else the lowest.
    pub(crate) fn take_free(&mut self, after: Option<BlockId>, to: BlockUse) -> Option<BlockId> {
        let next = after.map(|id| id.0 + 1).filter(|&id| self.free.contains(id));
        let id = BlockId(next.or_else(|| self.free.first())?);
        self.free.remove(id.0);
        self.hold_first(id, to);
        Some(id)
    }

    /// Takes the first idle block in the order of eviction, for one holder. Its content is lost: the
    /// caller must take it out of the prefix cache.
    pub(crate) fn take_idle(&mut self, to: BlockUse) -> Option<BlockId> {
        let id = self.idle.iter().find_map(|list| list.oldest)?;
        self.unlink(id);
        self.hold_first(id, to);
        Some(id)
    }

    /// Adds a holder to a held or idle block.
    pub(crate) fn retain(&mut self, id: BlockId) {
        match self.state(id) {
            BlockState::Held(n) => {
                let n = n.checked_add(1).expect("fewer than 2^32 tables");
                self.set(id, BlockState::Held(n));
            }
            BlockState::Idle { .. } => {
                self.unlink(id);
                self.hold_first(id, self.use_of(id));
            }
            BlockState::Free => panic!("{id:?} is free: there is nothing in it to hold"),
        }
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
        self.n_held_drafts -= usize::from(self.use_of(id) == BlockUse::Draft);
        match rest {
            Rest::Free => {
                self.set(id, BlockState::Free);
                self.free.insert(id.0);
            }
            Rest::Idle => self.link_newest(id),
        }
    }

    /// Idle blocks in the order in which they will be evicted.
    pub(crate) fn idle_in_order(&self) -> impl Iterator<Item = BlockId> {
        USES.into_iter().flat_map(|to| self.idle_of(to))
    }

    /// The list of idle blocks of one use, oldest first.
    fn idle_of(&self, to: BlockUse) -> impl Iterator<Item = BlockId> {
        std::iter::successors(self.idle[to as usize].oldest, |&id| match self.state(id) {
            BlockState::Idle { newer, .. } => newer,
            BlockState::Free | BlockState::Held(_) => None,
        })
    }

    fn set(&mut self, id: BlockId, state: BlockState) {
        self.states[id.0 as usize] = state;
    }

    /// Gives a block that no table holds its first holder, and its use.
    fn hold_first(&mut self, id: BlockId, to: BlockUse) {
        self.uses[id.0 as usize] = to;
        self.n_held_drafts += usize::from(to == BlockUse::Draft);
        self.set(id, BlockState::Held(NonZeroU32::MIN));
    }

    fn link_newest(&mut self, id: BlockId) {
        let to = self.use_of(id);
        let newest = self.idle[to as usize].newest;
        self.set(id, BlockState::Idle { older: newest, newer: None });
        self.join(to, newest, Some(id));
        self.idle[to as usize].newest = Some(id);
        self.n_idle += 1;
    }

    /// Takes an idle block out of its list, and closes the gap between its neighbours.
    fn unlink(&mut self, id: BlockId) {
        let BlockState::Idle { older, newer } = self.state(id) else {
            unreachable!("{id:?} is in an idle list")
        };
        let to = self.use_of(id);
        self.join(to, older, newer);
        if newer.is_none() {
            self.idle[to as usize].newest = older;
        }
        if let Some(id) = newer
            && let BlockState::Idle { older: link, .. } = &mut self.states[id.0 as usize]
        {
            *link = older;
        }
        self.n_idle -= 1;
    }

    /// Makes `newer` follow `older` in the list of a use. Without `older`, makes `newer` the head of
    /// the list.
    fn join(&mut self, to: BlockUse, older: Option<BlockId>, newer: Option<BlockId>) {
        match older {
            None => self.idle[to as usize].oldest = newer,
            Some(id) => match &mut self.states[id.0 as usize] {
                BlockState::Idle { newer: link, .. } => *link = newer,
                BlockState::Free | BlockState::Held(_) => {
                    unreachable!("{id:?} is in the idle list")
                }
            },
        }
    }

    /// Checks the pool's own invariants: the counts add up, and the idle blocks of each use are one
    /// list, consistent in both directions.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (mut n_free, mut n_held_drafts) = (0, 0);
        for (id, state) in (0..).map(BlockId).zip(&self.states) {
            let is_free = *state == BlockState::Free;
            n_free += usize::from(is_free);
            let is_draft = self.use_of(id) == BlockUse::Draft;
            n_held_drafts += usize::from(is_draft && matches!(state, BlockState::Held(_)));
            if self.free.contains(id.0) != is_free {
                return Err(format!("{id:?} is {state:?}, the free set says otherwise"));
            }
        }
        let n_idle = USES.map(|to| self.check_idle(to));
        let n_idle = n_idle.into_iter().sum::<Result<usize, String>>()?;
        let counted = (n_free, n_idle, n_held_drafts);
        let on_the_books = (self.free.len(), self.n_idle, self.n_held_drafts);
        if counted != on_the_books {
            return Err(format!(
                "(free, idle, held by drafts) are {counted:?}, and {on_the_books:?} on the books"
            ));
        }
        Ok(())
    }

    /// Checks the list of idle blocks of one use, and returns their number.
    fn check_idle(&self, to: BlockUse) -> Result<usize, String> {
        let is_idle = |(state, use_of): (&BlockState, &BlockUse)| {
            matches!(state, BlockState::Idle { .. }) && *use_of == to
        };
        let n_idle = self.states.iter().zip(&self.uses).filter(|&block| is_idle(block)).count();
        let (mut before, mut n_listed) = (None, 0);
        for id in self.idle_of(to).take(n_idle + 1) {
            match self.state(id) {
                BlockState::Idle { older, .. } if older == before && self.use_of(id) == to => {}
                state => {
                    return Err(format!("{id:?} follows {before:?} when idle, and is {state:?}"));
                }
            }
            (before, n_listed) = (Some(id), n_listed + 1);
        }
        if (before, n_listed) != (self.idle[to as usize].newest, n_idle) {
            return Err(format!("{n_listed} of {n_idle} idle blocks are in the list of {to:?}"));
        }
        Ok(n_idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a free block for the target.
    fn take(pool: &mut BlockPool, after: Option<BlockId>) -> Option<BlockId> {
        pool.take_free(after, BlockUse::Target)
    }

    fn idle(pool: &BlockPool) -> Vec<u32> {
        pool.check().unwrap();
        pool.idle_in_order().map(|id| id.0).collect()
    }

    #[test]
    fn low_and_consecutive_ids_first() {
        let mut pool = BlockPool::new(6);
        let first: Vec<_> = (0..4).map(|_| take(&mut pool, None).unwrap().0).collect();
        assert_eq!(first, [0, 1, 2, 3]);
        pool.release(BlockId(0), Rest::Free);
        pool.release(BlockId(2), Rest::Free);
        assert_eq!(take(&mut pool, Some(BlockId(1))), Some(BlockId(2)), "the one behind");
        assert_eq!(take(&mut pool, Some(BlockId(1))), Some(BlockId(0)), "else the lowest");
        assert_eq!(
            take(&mut pool, Some(BlockId(5))),
            Some(BlockId(4)),
            "nothing is behind the last"
        );
        assert_eq!(take(&mut pool, None), Some(BlockId(5)));
        assert_eq!(take(&mut pool, None), None);
        pool.check().unwrap();
    }

    #[test]
    fn idle_blocks_leave_the_list_from_any_place() {
        for middle in 0..3 {
            let mut pool = BlockPool::new(3);
            while take(&mut pool, None).is_some() {}
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
        while take(&mut pool, None).is_some() {}
        pool.release(BlockId(1), Rest::Idle);
        pool.release(BlockId(0), Rest::Idle);
        assert_eq!(take(&mut pool, None), None);
        assert_eq!(pool.take_idle(BlockUse::Target), Some(BlockId(1)));
        assert_eq!(pool.take_idle(BlockUse::Target), Some(BlockId(0)));
        assert_eq!(pool.take_idle(BlockUse::Target), None);
        assert_eq!(pool.n_allocatable(), 0);
    }

    #[test]
    fn idle_blocks_of_draft_models_are_evicted_first() {
        let mut pool = BlockPool::new(4);
        for to in [BlockUse::Draft, BlockUse::Target, BlockUse::Draft, BlockUse::Target] {
            pool.take_free(None, to).unwrap();
        }
        assert_eq!(pool.n_held_drafts(), 2);
        [3, 1, 2, 0].into_iter().for_each(|id| pool.release(BlockId(id), Rest::Idle));
        assert_eq!((idle(&pool), pool.n_held_drafts()), (vec![2, 0, 3, 1], 0));
        pool.retain(BlockId(2));
        assert_eq!((idle(&pool), pool.n_held_drafts()), (vec![0, 3, 1], 1));
        pool.release(BlockId(2), Rest::Idle);
        // A block that is evicted takes the use of its new table.
        assert_eq!(pool.take_idle(BlockUse::Target), Some(BlockId(0)));
        assert_eq!(pool.take_idle(BlockUse::Draft), Some(BlockId(2)));
        assert_eq!(pool.take_idle(BlockUse::Draft), Some(BlockId(3)));
        assert_eq!((idle(&pool), pool.n_held_drafts()), (vec![1], 2));
        pool.release(BlockId(0), Rest::Idle);
        pool.release(BlockId(3), Rest::Idle);
        assert_eq!(idle(&pool), [3, 1, 0]);
    }

    #[test]
    fn the_last_holder_decides() {
        let mut pool = BlockPool::new(1);
        let id = take(&mut pool, None).unwrap();
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
        let id = take(&mut pool, None).unwrap();
        pool.release(id, Rest::Free);
        pool.release(id, Rest::Free);
    }

    #[test]
    #[should_panic(expected = "is free")]
    fn a_free_block_cannot_be_held() {
        BlockPool::new(1).retain(BlockId(0));
    }
}
