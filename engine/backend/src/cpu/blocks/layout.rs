//! Quantised weights in the order in which kernels read them.
//!
//! A *strip* is sixteen outputs, the lanes of a vector. Its weights lie in planes, each a stream over the
//! blocks of k:
//!
//! ```text
//! nibbles      4 vectors a block; the bytes of vector j hold the quads 2j (low nibbles) and 2j + 1 (high ones)
//! more bits    8 bits: the lower nibbles, like the plane above, which holds the upper ones
//!              6 bits: 2 vectors a block; bits 2q and 2q + 1 of a byte of vector h belong to quad 4h + q
//!              5 bits: 1 vector a block; bit q of a byte belongs to quad q
//! sub-scales   a byte for each lane, a block after the other; 2 for each block in Q6_K
//! sub-minimums a byte for each lane
//! scales       an f16 for each lane, by block or superblock
//! minimums     an f16 for each lane
//! ```
//!
//! A vector is 64 bytes: lane l has bytes 4l to 4l + 3, the weights of a quad in order of k. A kernel for any
//! number of rows reads each plane once, from first to last. The plane of upper nibbles of 8-bit weights is
//! a 4-bit version of the same weights.

use crate::cpu::simd::LANES;
use crate::{BLOCK_LEN, BlockFormat};

/// Outputs of a strip.
pub(in super::super) const STRIP: usize = LANES;
/// Bytes of a vector of quads.
pub(super) const VECTOR: usize = 4 * STRIP;
/// Bytes of a plane of nibbles for a block.
pub(super) const NIBBLES: usize = BLOCK_LEN * STRIP / 2;

/// Places of the planes in a strip, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct StripLayout {
    /// Blocks along k.
    pub(super) n_blocks: usize,
    pub(super) more_bits: usize,
    pub(super) sub_scales: usize,
    pub(super) sub_mins: usize,
    pub(super) scales: usize,
    pub(super) mins: usize,
    /// Bytes of the strip, in whole cache lines.
    pub(in super::super) bytes: usize,
}

impl StripLayout {
    /// The layout of rows of `n_blocks` blocks.
    pub(in super::super) fn new(format: BlockFormat, n_blocks: usize) -> Self {
        let n_scales = n_blocks * BLOCK_LEN / format.scale_len();
        let n_sub_scales = format.sub_scale_len().map_or(0, |len| n_blocks * BLOCK_LEN / len);
        let n_mins = |n: usize| if format.has_minimums() { n } else { 0 };
        let more_bits = n_blocks * NIBBLES;
        let sub_scales = more_bits + n_blocks * (format.bits() - 4) * BLOCK_LEN * STRIP / 8;
        let sub_mins = sub_scales + n_sub_scales * STRIP;
        let scales = sub_mins + n_mins(n_sub_scales) * STRIP;
        let mins = scales + 2 * n_scales * STRIP;
        let bytes = (mins + 2 * n_mins(n_scales) * STRIP).next_multiple_of(VECTOR);
        Self { n_blocks, more_bits, sub_scales, sub_mins, scales, mins, bytes }
    }
}
