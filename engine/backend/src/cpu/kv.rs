//! The KV pool: keys and values in the order in which attention reads them.
//!
//! A *group* is 16 slots of one layer and KV head; a block is one or more groups. Keys are ordered
//! by dimension first and slot second, values by slot first and dimension second, both in words:
//!
//! ```text
//! keys of a group:    word 0: slots 0..16 | word 1: slots 0..16 | ...     scores of 16 slots at a time
//! values of a group:  slots 0,1: dims 0.. | slots 2,3: dims 0.. | ...     16 dimensions at a time
//! ```
//!
//! With this order, neither scores nor outputs need a sum across lanes. For each layer and head,
//! the keys of all groups follow each other by block id, and so do the values: a sequence with
//! adjacent blocks is read as two streams.

use super::buffer::WordBuffer;
use super::simd::{Element, LANES};
use crate::{BackendError, KvShape, Result};

/// Slots of a group.
pub(super) const GROUP: usize = LANES;
/// Groups of a tile.
pub(super) const TILE_GROUPS: usize = 16;
/// Tokens of a tile: the unit of the canonical order of attention.
pub(super) const TILE: usize = TILE_GROUPS * GROUP;

/// The KV pool of a model, or a draft model's blocks inside it ([`KvPool::alias_kv_pool`]).
#[derive(Debug)]
pub struct KvPool {
    pub(super) words: WordBuffer,
    pub(super) shape: KvShape,
    pub(super) layout: Layout,
}

/// Sizes of a group, and the places of groups.
///
/// The memory is cut into *arenas*, one for each layer and head of the model that the pool was made
/// for. An arena has room for the keys and then the values of `arena_groups` groups. A draft model
/// that shares the pool uses `n_layers · n_kv_heads` arenas for a block, so several of its blocks
/// may fit into the arenas of one block: its groups from `n · arena_groups` on lie in the `n`-th
/// set of arenas.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Words of one key.
    pub(super) key_words: usize,
    /// Dimensions of a value, padded to whole vectors.
    pub(super) padded_dim: usize,
    /// Words of the keys of one group.
    pub(super) group_key_words: usize,
    /// Words of the values of one group.
    pub(super) group_value_words: usize,
    /// Words from the keys of one group to the keys of the next; at least `group_key_words`.
    key_stride: usize,
    /// Words from the values of one group to the values of the next.
    value_stride: usize,
    /// Groups of an arena.
    arena_groups: usize,
    n_layers: usize,
    pub(super) n_kv_heads: usize,
    /// Groups of one layer and head, in all arenas.
    n_groups: usize,
}

impl Layout {
    /// Offset of the keys of group `group` of a layer and head, in words.
    #[inline(always)]
    pub(super) fn keys_at(&self, layer: usize, kv_head: usize, group: usize) -> usize {
        let (arena, group) = self.arena_of(layer, kv_head, group);
        arena * self.arena_words() + group * self.key_stride
    }

    /// Offset of the values of group `group` of a layer and head, in words.
    #[inline(always)]
    pub(super) fn values_at(&self, layer: usize, kv_head: usize, group: usize) -> usize {
        let (arena, group) = self.arena_of(layer, kv_head, group);
        arena * self.arena_words() + self.arena_groups * self.key_stride + group * self.value_stride
    }

    /// The arena that has a group, and the group's index in this arena.
    #[inline(always)]
    fn arena_of(&self, layer: usize, kv_head: usize, group: usize) -> (usize, usize) {
        debug_assert!(group < self.n_groups && kv_head < self.n_kv_heads && layer < self.n_layers);
        let arena = layer * self.n_kv_heads + kv_head;
        if group < self.arena_groups {
            return (arena, group); // always, except for a draft model that shares the pool
        }
        let n_before = group / self.arena_groups;
        (arena + n_before * self.n_layers * self.n_kv_heads, group % self.arena_groups)
    }

    fn arena_words(&self) -> usize {
        self.arena_groups * (self.key_stride + self.value_stride)
    }
}

impl KvPool {
    pub(super) fn new(shape: KvShape) -> Result<Self> {
        if shape.block_size == 0 || !shape.block_size.is_multiple_of(GROUP) {
            return Err(BackendError::Unsupported(format!(
                "block size {} is not a multiple of {GROUP} tokens",
                shape.block_size
            )));
        }
        let per_word = shape.format.per_word();
        let key_words = shape.head_dim.div_ceil(per_word);
        let padded_dim = shape.head_dim.next_multiple_of(LANES);
        let group_key_words = key_words * GROUP;
        let group_value_words = GROUP / per_word * padded_dim;
        let n_groups = shape.n_blocks * (shape.block_size / GROUP);
        let len = [shape.n_layers, shape.n_kv_heads, group_key_words + group_value_words]
            .into_iter()
            .try_fold(n_groups, usize::checked_mul)
            .ok_or(BackendError::OutOfMemory { purpose: "the KV pool", needed_bytes: u128::MAX })?;
        let words = WordBuffer::zeroed("the KV pool", len)?;
        let layout = Layout {
            key_words,
            padded_dim,
            group_key_words,
            group_value_words,
            key_stride: group_key_words,
            value_stride: group_value_words,
            arena_groups: n_groups,
            n_layers: shape.n_layers,
            n_kv_heads: shape.n_kv_heads,
            n_groups,
        };
        Ok(Self { words, shape, layout })
    }

    /// The same memory as blocks of a draft model of `shape`, which [fits](KvShape::draft_layout).
    pub(super) fn alias_kv_pool(&self, shape: KvShape) -> Self {
        let per_word = shape.format.per_word();
        let key_words = shape.head_dim.div_ceil(per_word);
        let padded_dim = shape.head_dim.next_multiple_of(LANES);
        let layout = Layout {
            key_words,
            padded_dim,
            group_key_words: key_words * GROUP,
            group_value_words: GROUP / per_word * padded_dim,
            n_layers: shape.n_layers,
            n_kv_heads: shape.n_kv_heads,
            n_groups: shape.n_blocks * (shape.block_size / GROUP),
            ..self.layout
        };
        Self { words: self.words.share(), shape, layout }
    }

    /// Copies whole blocks.
    pub(super) fn copy_blocks(&mut self, copies: &[(u32, u32)]) {
        let per_block = self.shape.block_size / GROUP;
        let Self { layout, .. } = *self;
        let base = self.words.as_mut_ptr();
        for &(from, to) in copies {
            assert!((from.max(to) as usize) < self.shape.n_blocks, "block outside the pool");
            let (from, to) = (from as usize * per_block, to as usize * per_block);
            for layer in 0..self.shape.n_layers {
                for head in 0..self.shape.n_kv_heads {
                    let copy = |from: usize, to: usize, words: usize| {
                        // SAFETY: both blocks lie inside the pool.
                        unsafe { std::ptr::copy(base.add(from), base.add(to), words) }
                    };
                    let keys = |group| layout.keys_at(layer, head, group);
                    let values = |group| layout.values_at(layer, head, group);
                    for group in 0..per_block {
                        copy(keys(from + group), keys(to + group), layout.group_key_words);
                        copy(values(from + group), values(to + group), layout.group_value_words);
                    }
                }
            }
        }
    }
}

/// Keys and values of one group.
#[derive(Clone, Copy)]
pub(super) struct Group<P> {
    pub(super) keys: P,
    pub(super) values: P,
}

/// Writes one token's key and value to lane `lane` of a group.
///
/// # Safety
///
/// `group` must point to a group of `layout`, and no other thread may access the lane.
#[inline(always)]
pub(super) unsafe fn store_token<E: Element>(
    group: Group<*mut u32>,
    layout: &Layout,
    lane: usize,
    key: &[f32],
    value: &[f32],
) {
    // SAFETY: every index is within the group.
    unsafe {
        for (i, &x) in key.iter().enumerate() {
            E::store_one(group.keys.add(i / E::PER_WORD * GROUP + lane), i % E::PER_WORD, x);
        }
        let values = group.values.add(lane / E::PER_WORD * layout.padded_dim);
        for (i, &x) in value.iter().enumerate() {
            E::store_one(values.add(i), lane % E::PER_WORD, x);
        }
    }
}

/// Copies lane `from_lane` of one group to lane `to_lane` of another, to gather selected tokens in
/// a tile.
///
/// # Safety
///
/// As for [`store_token`], for both groups; the groups must not overlap.
#[inline(always)]
pub(super) unsafe fn copy_token<E: Element>(
    from: Group<*const u32>,
    from_lane: usize,
    to: Group<*mut u32>,
    to_lane: usize,
    layout: &Layout,
) {
    // SAFETY: every index is within a group.
    unsafe {
        for i in 0..layout.key_words {
            *to.keys.add(i * GROUP + to_lane) = *from.keys.add(i * GROUP + from_lane);
        }
        let from = from.values.add(from_lane / E::PER_WORD * layout.padded_dim);
        let to = to.values.add(to_lane / E::PER_WORD * layout.padded_dim);
        // Whole words are copied, many at once: a word holds the values of one token or of two.
        let bits = u32::BITS as usize / E::PER_WORD;
        let (right, left) = (from_lane % E::PER_WORD * bits, to_lane % E::PER_WORD * bits);
        let mask = u32::MAX >> (u32::BITS as usize - bits);
        for i in 0..layout.padded_dim {
            let others = *to.add(i) & !(mask << left);
            *to.add(i) = others | ((*from.add(i) >> right & mask) << left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KvFormat;
    use std::ops::Range;

    /// Word ranges of one block.
    fn words(pool: &KvPool, block: usize) -> Vec<Range<usize>> {
        let KvPool { shape, layout, .. } = pool;
        let per_block = shape.block_size / GROUP;
        let mut ranges = Vec::new();
        for layer in 0..shape.n_layers {
            for head in 0..shape.n_kv_heads {
                for group in block * per_block..(block + 1) * per_block {
                    let (keys, values) =
                        (layout.keys_at(layer, head, group), layout.values_at(layer, head, group));
                    ranges.push(keys..keys + layout.group_key_words);
                    ranges.push(values..values + layout.group_value_words);
                }
            }
        }
        ranges
    }

    #[test]
    fn a_second_models_blocks_lie_apart_inside_a_block_each() {
        let pool = KvPool::new(KvShape {
            n_layers: 5,
            n_kv_heads: 3,
            head_dim: 40,
            block_size: 32,
            n_blocks: 4,
            format: KvFormat::Bf16,
        })
        .unwrap();
        for (n_layers, n_kv_heads, head_dim, per_block) in
            [(5, 3, 40, 1), (3, 2, 40, 2), (2, 1, 16, 7), (1, 15, 34, 1)]
        {
            let shape = pool.shape.draft_layout(n_layers, n_kv_heads, head_dim).unwrap();
            assert_eq!(shape.n_blocks, 4 * per_block);
            let draft_layout = pool.alias_kv_pool(shape);
            let mut taken = vec![false; pool.words.len()];
            for block in 0..shape.n_blocks {
                let inside = words(&pool, block % 4);
                for range in words(&draft_layout, block) {
                    assert!(
                        inside
                            .iter()
                            .any(|host| host.start <= range.start && range.end <= host.end)
                    );
                    assert!(range.clone().all(|word| !taken[word]), "two blocks share words");
                    taken[range].fill(true);
                }
            }
        }
        assert_eq!(pool.shape.draft_layout(4, 4, 40), None);
        assert_eq!(pool.shape.draft_layout(1, 1, 64), None);
        assert_eq!(pool.shape.draft_layout(0, 1, 8), None);
    }
}
