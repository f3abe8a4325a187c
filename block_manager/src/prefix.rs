//! The prefix cache: it maps a prefix of tokens to the full blocks that hold their KV.
//!
//! The KV of a token depends on all tokens before it, so a block is identified by its tokens *and*
//! the block before it. The cache is a forest, and the lookup of a prompt follows a path from a
//! root, block by block.
//!
//! ```text
//!   salt 0 ──▶ [You are a] ──▶ [helpful as] ──▶ [sistant. W]      a path = a prompt
//!                          └─▶ [pirate. Sp]
//!   salt 7 ──▶ [You are a]                                        shares nothing with salt 0
//! ```
//!
//! Each kind of KV ([`KvKind`]) has roots of its own: a salt of the target, and a salt of each draft
//! model. A path never leaves its kind.
//!
//! A block is found by one hash, of its parent's hash and its own tokens. **The hash only says
//! where to look**: a lookup compares parent and tokens, so a collision can never serve wrong KV.
//! There is one block a hash, so after a collision the newer block is not cached; that is the only
//! cost.
//!
//! Comparing the parent's *id* is enough because of one rule: **a block leaves the cache only when
//! no cached block has it as its parent**. While a child is cached, its parent's id therefore
//! stands for the same tokens as when the child joined, and by induction the same is true of the
//! whole path. The manager keeps this rule, and thereby keeps every cached block reachable (see
//! `check.rs`).

use crate::kind::KvKind;
use crate::pool::BlockId;
use std::collections::HashMap;

/// The predecessor of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parent {
    /// None: the block is the first of its sequence. Prefixes of different kinds share no block.
    Root(KvKind),
    /// A cached block.
    Block(BlockId),
}

/// A block in the cache.
#[derive(Debug)]
pub(crate) struct CachedBlock {
    pub(crate) parent: Parent,
    pub(crate) tokens: Box<[u32]>,
    pub(crate) n_children: u32,
    hash: u64,
}

/// The result of adding a full block to the cache.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The block is now cached.
    Yes,
    /// The cache already has a block with the same content.
    Twin(BlockId),
    /// The cache has a block with the same hash and other content. The new block is not cached.
    Collision,
}

/// The hash of a block, from its parent's hash (or its kind's) and its tokens.
pub(crate) type ChainHash = fn(u64, &[u32]) -> u64;

/// The forest of cached blocks.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    /// Indexed by block id.
    entries: Vec<Option<CachedBlock>>,
    by_hash: HashMap<u64, BlockId>,
    hash: ChainHash,
}

impl PrefixCache {
    pub(crate) fn new(n_blocks: usize, hash: ChainHash) -> Self {
        let entries = std::iter::repeat_with(|| None).take(n_blocks).collect();
        PrefixCache { entries, by_hash: HashMap::new(), hash }
    }

    pub(crate) fn get(&self, id: BlockId) -> Option<&CachedBlock> {
        self.entries[id.0 as usize].as_ref()
    }

    pub(crate) fn contains(&self, id: BlockId) -> bool {
        self.get(id).is_some()
    }

    /// The blocks that hold the longest cached prefix of `tokens`, from the first block on. The
    /// prefix is never all of `tokens`: the last token must be computed, because its logits are
    /// needed.
    pub(crate) fn walk<'a>(
        &'a self,
        kind: KvKind,
        tokens: &'a [u32],
        block_size: usize,
    ) -> impl Iterator<Item = BlockId> + 'a {
        let all_but_last = &tokens[..tokens.len().saturating_sub(1)];
        all_but_last.chunks_exact(block_size).scan(Parent::Root(kind), |parent, tokens| {
            let id = self.find(*parent, tokens)?;
            *parent = Parent::Block(id);
            Some(id)
        })
    }

    /// Adds a full block to the cache, after a cached parent.
    pub(crate) fn join(&mut self, id: BlockId, parent: Parent, tokens: &[u32]) -> Joined {
        debug_assert!(!self.contains(id), "{id:?} is already cached");
        let hash = self.hash_of(parent, tokens);
        if let Some(&there) = self.by_hash.get(&hash) {
            return if self.holds(there, parent, tokens) {
                Joined::Twin(there)
            } else {
                Joined::Collision
            };
        }
        self.by_hash.insert(hash, id);
        self.entries[id.0 as usize] =
            Some(CachedBlock { parent, tokens: tokens.into(), n_children: 0, hash });
        if let Parent::Block(parent) = parent {
            self.cached_mut(parent).n_children += 1;
        }
        Joined::Yes
    }

    /// Takes a cached block without cached children out of the cache.
    pub(crate) fn leave(&mut self, id: BlockId) {
        let cached = self.entries[id.0 as usize].take().expect("only cached blocks leave");
        assert_eq!(cached.n_children, 0, "{id:?} leaves the cache before its children");
        self.by_hash.remove(&cached.hash);
        if let Parent::Block(parent) = cached.parent {
            self.cached_mut(parent).n_children -= 1;
        }
    }

    /// Takes every block out of the cache.
    pub(crate) fn clear(&mut self) {
        self.by_hash.clear();
        self.entries.fill_with(|| None);
    }

    fn find(&self, parent: Parent, tokens: &[u32]) -> Option<BlockId> {
        let &id = self.by_hash.get(&self.hash_of(parent, tokens))?;
        self.holds(id, parent, tokens).then_some(id)
    }

    fn holds(&self, id: BlockId, parent: Parent, tokens: &[u32]) -> bool {
        self.get(id).is_some_and(|cached| cached.parent == parent && *cached.tokens == *tokens)
    }

    /// The hash of a block of `tokens` after a cached parent.
    pub(crate) fn hash_of(&self, parent: Parent, tokens: &[u32]) -> u64 {
        let seed = match parent {
            Parent::Root(kind) => (self.hash)(kind.salt(), &[kind.model()]),
            Parent::Block(id) => self.get(id).expect("a parent is cached").hash,
        };
        (self.hash)(seed, tokens)
    }

    fn cached_mut(&mut self, id: BlockId) -> &mut CachedBlock {
        self.entries[id.0 as usize].as_mut().expect("a parent is cached")
    }

    /// Checks the cache's own invariants: every entry is found by its hash and every hash has an
    /// entry; parents are cached and count their children correctly.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut n_children = vec![0_u32; self.entries.len()];
        let mut n_cached = 0;
        for (id, entry) in (0..).map(BlockId).zip(&self.entries) {
            let Some(it) = entry else { continue };
            n_cached += 1;
            if self.by_hash.get(&it.hash) != Some(&id) {
                return Err(format!("{id:?} is cached and cannot be found by its hash"));
            }
            if let Parent::Block(parent) = it.parent {
                if !self.contains(parent) {
                    return Err(format!("{id:?} is cached, its parent {parent:?} is not"));
                }
                n_children[parent.0 as usize] += 1;
            }
            if self.hash_of(it.parent, &it.tokens) != it.hash {
                return Err(format!("{id:?} has the hash of something else"));
            }
        }
        if n_cached != self.by_hash.len() {
            return Err(format!(
                "{n_cached} blocks are cached under {} hashes",
                self.by_hash.len()
            ));
        }
        for ((id, entry), counted) in (0..).map(BlockId).zip(&self.entries).zip(n_children) {
            if entry.as_ref().map_or(0, |cached| cached.n_children) != counted {
                return Err(format!(
                    "{id:?} has {counted} children, and its entry counts another number"
                ));
            }
        }
        Ok(())
    }
}

/// The default hash: each step takes 8 bytes, multiplies once and folds 128 bits to 64.
pub(crate) fn chain_hash(parent: u64, tokens: &[u32]) -> u64 {
    /// Odd numbers without a pattern (the fractional digits of the golden ratio and of pi).
    const KEYS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0x243f_6a88_85a3_08d3];
    let fold = |a: u64, b: u64| {
        let wide = u128::from(a) * u128::from(b);
        (wide as u64) ^ ((wide >> 64) as u64)
    };
    let start = fold(parent ^ KEYS[0], KEYS[1]);
    tokens.chunks(2).fold(start, |hash, pair| {
        let high = pair.get(1).copied().unwrap_or(0);
        fold(hash ^ (u64::from(high) << 32 | u64::from(pair[0])), KEYS[0]).rotate_left(29)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const ROOT: Parent = Parent::Root(KvKind::target(0));

    fn walk(cache: &PrefixCache, salt: u64, tokens: &[u32]) -> Vec<u32> {
        walk_kind(cache, KvKind::target(salt), tokens)
    }

    fn walk_kind(cache: &PrefixCache, kind: KvKind, tokens: &[u32]) -> Vec<u32> {
        cache.check().unwrap();
        cache.walk(kind, tokens, 2).map(|id| id.0).collect()
    }

    #[test]
    fn a_prompt_is_a_path() {
        let mut cache = PrefixCache::new(4, chain_hash);
        assert_eq!(cache.join(BlockId(2), ROOT, &[1, 2]), Joined::Yes);
        assert_eq!(cache.join(BlockId(0), Parent::Block(BlockId(2)), &[1, 2]), Joined::Yes);
        assert_eq!(walk(&cache, 0, &[1, 2, 1, 2, 9]), [2, 0]);
        assert_eq!(walk(&cache, 0, &[1, 2, 1, 2]), [2], "the last token is left to compute");
        assert_eq!(walk(&cache, 0, &[1, 2, 3, 4, 5]), [2]);
        assert_eq!(walk(&cache, 7, &[1, 2, 1, 2, 9]), [0; 0], "another salt");
        for short in [&[][..], &[1], &[1, 2]] {
            assert_eq!(walk(&cache, 0, short), [0; 0]);
        }
        assert_eq!(cache.join(BlockId(3), ROOT, &[1, 2]), Joined::Twin(BlockId(2)));
        cache.leave(BlockId(0));
        assert_eq!(walk(&cache, 0, &[1, 2, 1, 2, 9]), [2]);
    }

    /// With a hash that ignores the kind, the tokens agree and only the kind differs.
    #[test]
    fn a_kind_is_compared_too() {
        for hash in [chain_hash as ChainHash, |_, tokens| u64::from(tokens[0])] {
            let draft = |number, salt| KvKind::draft_model(number, 1, salt);
            let mut cache = PrefixCache::new(4, hash);
            cache.join(BlockId(0), Parent::Root(draft(1, 0)), &[1, 2]);
            cache.join(BlockId(1), Parent::Block(BlockId(0)), &[3, 4]);
            let tokens = [1, 2, 3, 4, 5];
            assert_eq!(walk_kind(&cache, draft(1, 0), &tokens), [0, 1]);
            for kind in [draft(2, 0), draft(1, 7), KvKind::target(0), KvKind::target(7)] {
                assert_eq!(walk_kind(&cache, kind, &tokens), [0; 0], "{kind:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "before its children")]
    fn a_parent_cannot_leave_first() {
        let mut cache = PrefixCache::new(2, chain_hash);
        cache.join(BlockId(0), ROOT, &[1, 2]);
        cache.join(BlockId(1), Parent::Block(BlockId(0)), &[3, 4]);
        cache.leave(BlockId(0));
    }

    #[test]
    fn a_hash_that_is_always_the_same_serves_nothing_wrong() {
        let mut cache = PrefixCache::new(3, |_, _| 42);
        assert_eq!(cache.join(BlockId(0), ROOT, &[1, 2]), Joined::Yes);
        assert_eq!(cache.join(BlockId(1), ROOT, &[3, 4]), Joined::Collision);
        assert_eq!(walk(&cache, 0, &[1, 2, 0]), [0]);
        assert_eq!(walk(&cache, 0, &[3, 4, 0]), [0; 0], "other tokens");
        assert_eq!(walk(&cache, 1, &[1, 2, 0]), [0; 0], "another salt");
        assert_eq!(walk(&cache, 0, &[1, 2, 1, 2, 0]), [0], "the same tokens, another parent");
    }

    /// With a hash that ignores the parent, the tokens agree and only the parent differs.
    #[test]
    fn a_parent_is_compared_too() {
        let mut cache = PrefixCache::new(3, |_, tokens| u64::from(tokens[0]));
        cache.join(BlockId(0), ROOT, &[1, 1]);
        cache.join(BlockId(1), ROOT, &[2, 2]);
        cache.join(BlockId(2), Parent::Block(BlockId(0)), &[3, 3]);
        assert_eq!(walk(&cache, 0, &[1, 1, 3, 3, 0]), [0, 2]);
        assert_eq!(walk(&cache, 0, &[2, 2, 3, 3, 0]), [1]);
    }

    #[test]
    fn the_hash_tells_near_things_apart() {
        let mut seen = HashSet::new();
        for parent in 0..50 {
            for a in 0..50 {
                for b in 0..50 {
                    assert!(seen.insert(chain_hash(parent, &[a, b, 0])), "{parent} {a} {b}");
                    assert!(seen.insert(chain_hash(parent, &[0, a, b + 100])), "{parent} {a} {b}");
                }
            }
        }
    }
}
