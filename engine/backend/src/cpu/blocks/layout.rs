//! Quantised weights in the order in which kernels read them.
//!
//! A *strip* is sixteen outputs, the lanes of a vector. It is a run of *groups* of eight blocks along k (256
//! weights of each output; the last group may be shorter), and a group is
//!
//! ```text
//! scales       an f16 for each lane, by block, or one for the group in the K formats
//! minimums     likewise, in formats with minimums
//! sub-scales   a byte for each lane, by block; by half block in Q6_K
//! sub-minimums a byte for each lane, by block
//!              (padding to a cache line)
//! nibbles      4 vectors a block; the bytes of vector j hold the quads 2j (low nibbles) and 2j + 1 (high ones)
//! more bits    8 bits: the lower nibbles, in the order of the nibbles above, which are the upper ones
//!              6 bits: 2 vectors a block; bits 2q and 2q + 1 of a byte of vector h belong to quad 4h + q
//!              5 bits: 1 vector a block; bit q of a byte belongs to quad q
//! ```
//!
//! A vector is 64 bytes: lane l has bytes 4l to 4l + 3, the weights of a quad in order of k. So a kernel for
//! any number of rows reads one contiguous stream of whole cache lines. The upper nibbles of 8-bit weights,
//! without the lower ones, are a 4-bit version of the same weights.

use crate::cpu::simd::LANES;
use crate::{BLOCK_LEN, BlockFormat};

/// Outputs of a strip.
pub(in super::super) const STRIP: usize = LANES;
/// Bytes of a vector of quads, and of a cache line.
pub(super) const VECTOR: usize = 4 * STRIP;
/// Bytes of the nibbles of a block.
pub(super) const NIBBLES: usize = BLOCK_LEN * STRIP / 2;
/// Blocks of a group.
pub(super) const GROUP: usize = 8;

/// Places in a group, in bytes from its start. Scales lie at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupLayout {
    pub(super) mins: usize,
    pub(super) sub_scales: usize,
    pub(super) sub_mins: usize,
    pub(super) nibbles: usize,
    pub(super) more_bits: usize,
    /// Bytes of the group.
    pub(super) bytes: usize,
}

impl GroupLayout {
    /// The layout of a group of `n_blocks` blocks.
    #[inline(always)]
    pub(super) fn new(format: BlockFormat, n_blocks: usize) -> Self {
        let n_scales = n_blocks * BLOCK_LEN / format.scale_len();
        let n_sub_scales = format.sub_scale_len().map_or(0, |len| n_blocks * BLOCK_LEN / len);
        let if_minimums = |n: usize| if format.has_minimums() { n } else { 0 };
        let mins = 2 * n_scales * STRIP;
        let sub_scales = mins + if_minimums(mins);
        let sub_mins = sub_scales + n_sub_scales * STRIP;
        let scales_end = sub_mins + if_minimums(n_sub_scales * STRIP);
        let nibbles = scales_end.next_multiple_of(VECTOR);
        let more_bits = nibbles + n_blocks * NIBBLES;
        let bytes = more_bits + n_blocks * (format.bits() - 4) * BLOCK_LEN * STRIP / 8;
        Self { mins, sub_scales, sub_mins, nibbles, more_bits, bytes }
    }
}

/// A group of a strip.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// Offset from the start of the strip.
    pub(super) offset: usize,
    /// The first block.
    pub(super) first_block: usize,
    pub(super) n_blocks: usize,
    pub(super) layout: GroupLayout,
}

/// The groups of a strip of `n_blocks` blocks.
#[inline(always)]
pub(super) fn groups(format: BlockFormat, n_blocks: usize) -> impl Iterator<Item = Group> {
    let whole = GroupLayout::new(format, GROUP);
    (0..n_blocks.div_ceil(GROUP)).map(move |group| {
        let first_block = group * GROUP;
        let n_blocks = (n_blocks - first_block).min(GROUP);
        let layout = if n_blocks == GROUP { whole } else { GroupLayout::new(format, n_blocks) };
        Group { offset: group * whole.bytes, first_block, n_blocks, layout }
    })
}

/// Bytes of a strip of `n_blocks` blocks.
pub(in super::super) fn strip_bytes(format: BlockFormat, n_blocks: usize) -> usize {
    let last = GroupLayout::new(format, n_blocks % GROUP).bytes;
    n_blocks / GROUP * GroupLayout::new(format, GROUP).bytes + last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SUPERBLOCK_LEN;

    #[test]
    fn a_strip_is_as_large_as_the_format_says_and_its_parts_are_whole_cache_lines() {
        for format in BlockFormat::ALL {
            let n_weights = 3 * SUPERBLOCK_LEN * STRIP;
            assert_eq!(strip_bytes(format, 3 * GROUP), format.packed_bytes(n_weights), "{format}");
            for group in groups(format, 3 * GROUP + if format.scale_len() == 32 { 5 } else { 0 }) {
                let GroupLayout { nibbles, more_bits, bytes, .. } = group.layout;
                for at in [group.offset, nibbles, more_bits, bytes] {
                    assert!(at.is_multiple_of(VECTOR), "{format} {group:?}");
                }
            }
        }
    }
}
