//! Quantising weights of any checkpoint while they are loaded.

use crate::{BLOCK_LEN, BlockFormat, RowCodes};
use half::f16;

/// Quantises a row of weights, padded with zeros to whole blocks, to Q8_0 or Q4_0.
///
/// The scale of 8-bit codes is the largest magnitude over 127. Codes of 4 bits are -8..=7: the weight of
/// the largest magnitude becomes -8, and of this scale and its neighbours the one with the smallest sum of
/// squared errors is taken. A scale is rounded to f16 before the codes are computed.
pub(in super::super) fn quantise_weights(format: BlockFormat, weights: &[f32], out: &mut RowCodes) {
    let blocks = weights.chunks(BLOCK_LEN).zip(out.codes.as_chunks_mut::<BLOCK_LEN>().0);
    for ((weights, codes), scale) in blocks.zip(&mut out.scales) {
        let mut block = [0.0; BLOCK_LEN];
        block[..weights.len()].copy_from_slice(weights);
        let offset = 1 << (format.bits() - 1);
        *scale = match format.bits() {
            8 => write_codes(&block, largest(&block).abs() / 127.0, offset, codes).0,
            _ => best_scale(&block, offset, codes),
        };
    }
}

/// The weight of the largest magnitude; NaN if there is a NaN.
fn largest(block: &[f32; BLOCK_LEN]) -> f32 {
    let larger = |most: f32, w: f32| if w.abs() > most.abs() || w.is_nan() { w } else { most };
    block.iter().fold(0.0, |most, &w| larger(most, w))
}

/// Tries scales around the largest magnitude over 8, writes the codes of the best and returns it.
fn best_scale(block: &[f32; BLOCK_LEN], offset: i32, codes: &mut [u8; BLOCK_LEN]) -> u16 {
    let largest = largest(block);
    let mut best = (0, f32::INFINITY);
    for eighths in [-8.0, -7.6, -7.2, -6.8, 7.2, 6.8] {
        let mut tried = [0; BLOCK_LEN];
        let (scale, error) = write_codes(block, largest / eighths, offset, &mut tried);
        if error < best.1 {
            best = (scale, error);
            *codes = tried;
        }
    }
    // No error is finite if a weight is not.
    if best.1 == f32::INFINITY { write_codes(block, largest, offset, codes).0 } else { best.0 }
}

/// Writes the codes for a scale. Returns the scale as f16 and the sum of squared errors.
fn write_codes(
    block: &[f32; BLOCK_LEN],
    scale: f32,
    offset: i32,
    codes: &mut [u8; BLOCK_LEN],
) -> (u16, f32) {
    // Weights beyond the range of an f16 scale become the largest that it has.
    let rounded = f16::from_f32(scale.clamp(-65504.0, 65504.0));
    let scale = rounded.to_f32();
    let inverse = if scale == 0.0 { 0.0 } else { scale.recip() };
    let mut error = 0.0;
    for (code, &weight) in codes.iter_mut().zip(block) {
        let quotient =
            (weight * inverse).round_ties_even().clamp(-offset as f32, (offset - 1) as f32);
        *code = (quotient as i32 + offset) as u8;
        error += (quotient * scale - weight).powi(2);
    }
    (rounded.to_bits(), error)
}
