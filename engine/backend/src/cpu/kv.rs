//! Keys and values, in the order in which attention reads them.
//!
//! A *group* is 16 slots of one layer and KV head; a block is one or more groups. Keys go by
//! dimension first and slot second, values by slot first and dimension second, both in words:
//!
//! ```text
//! keys of a group:    word 0: slots 0..16 | word 1: slots 0..16 | ...     scores of 16 slots at a time
//! values of a group:  slots 0,1: dims 0.. | slots 2,3: dims 0.. | ...     16 dimensions at a time
//! ```
//!
//! so that neither scores nor outputs need a sum across lanes. For each layer and head, the keys of
//! all groups follow each other by block id, and so do the values: a sequence whose blocks are
//! neighbours is two streams.

use super::buffer::Words;
use super::simd::{Element, LANES};
use crate::{BackendError, KvShape, Result};

/// Slots of a group.
pub(super) const GROUP: usize = LANES;

/// The KV pool of a model.
#[derive(Debug)]
pub struct KvPool {
    pub(super) words: Words,
    pub(super) shape: KvShape,
    pub(super) layout: Layout,
}

/// Sizes of a group and strides between groups.
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
    /// Groups of one layer and head.
    pub(super) n_groups: usize,
    pub(super) n_kv_heads: usize,
}

impl Layout {
    /// Offset of the keys of group `group` of a layer and head, in words.
    pub(super) fn keys_at(&self, layer: usize, kv_head: usize, group: usize) -> usize {
        debug_assert!(group < self.n_groups && kv_head < self.n_kv_heads);
        (layer * self.n_kv_heads + kv_head) * self.head_words() + group * self.group_key_words
    }

    /// Offset of its values.
    pub(super) fn values_at(&self, layer: usize, kv_head: usize, group: usize) -> usize {
        debug_assert!(group < self.n_groups && kv_head < self.n_kv_heads);
        (layer * self.n_kv_heads + kv_head) * self.head_words()
            + self.n_groups * self.group_key_words
            + group * self.group_value_words
    }

    /// Words of all groups of one layer and head.
    fn head_words(&self) -> usize {
        self.n_groups * (self.group_key_words + self.group_value_words)
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
        let per_word = shape.dtype.per_word();
        let key_words = shape.head_dim.div_ceil(per_word);
        let padded_dim = shape.head_dim.next_multiple_of(LANES);
        let group_key_words = key_words * GROUP;
        let group_value_words = GROUP / per_word * padded_dim;
        let n_groups = shape.n_blocks * (shape.block_size / GROUP);
        let len = [shape.n_layers, shape.n_kv_heads, group_key_words + group_value_words]
            .into_iter()
            .try_fold(n_groups, usize::checked_mul)
            .ok_or(BackendError::OutOfMemory { what: "the KV pool", needed_bytes: u128::MAX })?;
        let words = Words::zeroed("the KV pool", len)?;
        let n_kv_heads = shape.n_kv_heads;
        let layout = Layout {
            key_words,
            padded_dim,
            group_key_words,
            group_value_words,
            n_groups,
            n_kv_heads,
        };
        Ok(Self { words, shape, layout })
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
                    copy(keys(from), keys(to), per_block * layout.group_key_words);
                    copy(values(from), values(to), per_block * layout.group_value_words);
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

/// Copies lane `from_lane` of one group to lane `to_lane` of another: how selected tokens are
/// gathered into a tile.
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
        for i in 0..layout.padded_dim {
            let x = E::load_one(from.add(i), from_lane % E::PER_WORD);
            E::store_one(to.add(i), to_lane % E::PER_WORD, x);
        }
    }
}
