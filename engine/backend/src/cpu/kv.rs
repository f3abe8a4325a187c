//! Keys and values, in the order in which attention reads them.
//!
//! A *group* is 16 slots of one layer and KV head; a block is one or more groups. Keys go by
//! dimension first and slot second, values by slot first and dimension second, both in words:
//!
//! ```text
//! group:  K word 0: slots 0..16 | K word 1: slots 0..16 | ...      scores of 16 slots at a time
//!         V slots 0,1: dims 0.. | V slots 2,3: dims 0.. | ...      16 dimensions at a time
//! ```
//!
//! so that neither scores nor outputs need a sum across lanes. The groups of one layer and head
//! follow each other by block id: a sequence whose blocks are neighbours is one stream.

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
    /// Words of one group: keys, then values.
    pub(super) group_words: usize,
    /// Groups of one layer and head.
    pub(super) n_groups: usize,
    pub(super) n_kv_heads: usize,
}

impl Layout {
    /// Offset of group `group` of a layer and head, in words.
    pub(super) fn group_at(&self, layer: usize, kv_head: usize, group: usize) -> usize {
        debug_assert!(group < self.n_groups && kv_head < self.n_kv_heads);
        ((layer * self.n_kv_heads + kv_head) * self.n_groups + group) * self.group_words
    }

    /// Words of the keys of a group; the values follow.
    pub(super) fn keys(&self) -> usize {
        self.key_words * GROUP
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
        let group_words = key_words * GROUP + GROUP / per_word * padded_dim;
        let n_groups = shape.n_blocks * (shape.block_size / GROUP);
        let len = [shape.n_layers, shape.n_kv_heads, group_words]
            .into_iter()
            .try_fold(n_groups, usize::checked_mul)
            .ok_or(BackendError::OutOfMemory { what: "the KV pool", needed_bytes: u128::MAX })?;
        let words = Words::zeroed("the KV pool", len)?;
        let n_kv_heads = shape.n_kv_heads;
        let layout = Layout { key_words, padded_dim, group_words, n_groups, n_kv_heads };
        Ok(Self { words, shape, layout })
    }

    /// Copies whole blocks.
    pub(super) fn copy_blocks(&mut self, copies: &[(u32, u32)]) {
        let per_block = self.shape.block_size / GROUP;
        let words = per_block * self.layout.group_words;
        for &(from, to) in copies {
            assert!((from.max(to) as usize) < self.shape.n_blocks, "block outside the pool");
            for layer in 0..self.shape.n_layers {
                for head in 0..self.shape.n_kv_heads {
                    let at =
                        |block: u32| self.layout.group_at(layer, head, block as usize * per_block);
                    let (from, to) = (at(from), at(to));
                    let base = self.words.as_mut_ptr();
                    // SAFETY: both blocks lie inside the pool.
                    unsafe { std::ptr::copy(base.add(from), base.add(to), words) };
                }
            }
        }
    }
}

/// Writes one token's key and value to lane `lane` of the group at `group`.
///
/// # Safety
///
/// `group` must point to a group of `layout`, and no other thread may access the lane.
#[inline(always)]
pub(super) unsafe fn store_token<E: Element>(
    group: *mut u32,
    layout: &Layout,
    lane: usize,
    key: &[f32],
    value: &[f32],
) {
    // SAFETY: every index is within the group.
    unsafe {
        for (i, &x) in key.iter().enumerate() {
            let word = group.add(i / E::PER_WORD * GROUP + lane);
            E::store_one(word, i % E::PER_WORD, x);
        }
        let values = group.add(layout.keys() + lane / E::PER_WORD * layout.padded_dim);
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
    from: *const u32,
    from_lane: usize,
    to: *mut u32,
    to_lane: usize,
    layout: &Layout,
) {
    // SAFETY: every index is within a group.
    unsafe {
        for i in 0..layout.key_words {
            *to.add(i * GROUP + to_lane) = *from.add(i * GROUP + from_lane);
        }
        let row = |lane: usize| layout.keys() + lane / E::PER_WORD * layout.padded_dim;
        let (from, to) = (from.add(row(from_lane)), to.add(row(to_lane)));
        for i in 0..layout.padded_dim {
            let x = E::load_one(from.add(i), from_lane % E::PER_WORD);
            E::store_one(to.add(i), to_lane % E::PER_WORD, x);
        }
    }
}
