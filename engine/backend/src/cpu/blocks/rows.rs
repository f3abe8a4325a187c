//! Activations as signed bytes, for products with quantised weights.
//!
//! A block of 32 activations has one scale, the largest magnitude over 127. An activation becomes the
//! nearest multiple of it, ties to even. So the bytes of a row are a function of the row alone.

use crate::BLOCK_LEN;
use crate::cpu::simd::Element;

/// Below this largest magnitude, a block counts as zero: its inverse scale could overflow.
const SMALLEST: f32 = 1e-30;

/// 32 activations of a row.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) struct RowBlock {
    /// Activations over the scale, in -127..=127.
    pub(super) codes: [i8; BLOCK_LEN],
    /// NaN or infinite if an activation is.
    pub(super) scale: f32,
    /// Scale times the sum of the codes.
    pub(super) scaled_sum: f32,
    /// The sum of the codes, negated.
    pub(super) negated_sum: i32,
    /// The sum of the first half of the codes, negated.
    pub(super) negated_first_half: i32,
}

impl RowBlock {
    pub(in super::super) const ZERO: Self = Self {
        codes: [0; BLOCK_LEN],
        scale: 0.0,
        scaled_sum: 0.0,
        negated_sum: 0,
        negated_first_half: 0,
    };

    #[inline(always)]
    pub(super) fn new(values: &[f32; BLOCK_LEN]) -> Self {
        // The bits of magnitudes are ordered like the magnitudes, with infinity and NaN at the top.
        let bits = values.map(|value| value.to_bits() & 0x7fff_ffff);
        let largest = f32::from_bits(bits.into_iter().fold(0, u32::max));
        if largest < SMALLEST {
            return Self::ZERO;
        }
        let scale = largest / 127.0;
        let inverse = 127.0 / largest;
        // Adding 1.5 · 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits.
        const MAGIC: f32 = 12_582_912.0;
        let rounded = values.map(|value| (value * inverse + MAGIC).to_bits() as i32);
        let codes = rounded.map(|bits| bits as i8);
        let sum = |codes: &[i8]| codes.iter().map(|&code| i32::from(code)).sum::<i32>();
        let first_half = sum(&codes[..BLOCK_LEN / 2]);
        let all = first_half + sum(&codes[BLOCK_LEN / 2..]);
        Self {
            codes,
            scale,
            scaled_sum: scale * all as f32,
            negated_sum: -all,
            negated_first_half: -first_half,
        }
    }
}

/// Quantises a row of `cols` operands at `row`. Block `b` is written to `out[b · stride]`; the last block
/// is padded with zeros.
///
/// # Safety
///
/// The pointers must be valid for the row and for its blocks.
#[inline(always)]
pub(in super::super) unsafe fn quantise_row<E: Element>(
    row: *const u32,
    cols: usize,
    out: *mut RowBlock,
    stride: usize,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for block in 0..cols.div_ceil(BLOCK_LEN) {
            let first = block * BLOCK_LEN;
            let n = (cols - first).min(BLOCK_LEN);
            let mut values = [0.0; BLOCK_LEN];
            if n == BLOCK_LEN {
                E::read(row, first, &mut values);
            } else {
                E::read(row, first, &mut values[..n]);
            }
            *out.add(block * stride) = RowBlock::new(&values);
        }
    }
}
