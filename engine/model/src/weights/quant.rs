//! Reading of the block formats of ggml: codes and scales, and the values that follow from them.
//!
//! Layouts are those of `ggml-quants.c`. Products and sums have the order of that file and of
//! gguf-py's `quants.py`, so the values agree to the last bit.

mod codes;
#[cfg(test)]
pub(super) mod tests;

use codes::{
    codes_of_4_bits, codes_of_5_bits, codes_q4_k, codes_q5_k, codes_q6_k, codes_q8_0, sub_mins_k,
    sub_scales_k, sub_scales_q6_k,
};
use galley_backend::{BLOCK_LEN, BlockFormat, IQ4_NL_VALUES, RowCodes, SUPERBLOCK_LEN};
use half::f16;

const Q8_0_BYTES: usize = 2 + 32;
const Q4_0_BYTES: usize = 2 + 16;
const Q4_1_BYTES: usize = 4 + 16;
const Q5_0_BYTES: usize = 2 + 4 + 16;
const Q5_1_BYTES: usize = 4 + 4 + 16;
const Q4_K_BYTES: usize = 4 + 12 + 128;
const Q5_K_BYTES: usize = 4 + 12 + 32 + 128;
const Q6_K_BYTES: usize = 128 + 64 + 16 + 2;
const IQ4_NL_BYTES: usize = 2 + 16;

/// Offset of the scale of a block in all formats but Q6_K.
const SCALE_AT: usize = 0;
/// Offset of the minimum of a block, in the formats with minimums.
const MIN_AT: usize = 2;
/// Offset of the scale of a Q6_K block.
const Q6_K_SCALE_AT: usize = 208;

/// Bytes of a block of [`BlockFormat::scale_len`] weights.
pub(super) fn block_bytes(format: BlockFormat) -> usize {
    match format {
        BlockFormat::Q8_0 => Q8_0_BYTES,
        BlockFormat::Q4_0 => Q4_0_BYTES,
        BlockFormat::Q4_1 => Q4_1_BYTES,
        BlockFormat::Q5_0 => Q5_0_BYTES,
        BlockFormat::Q5_1 => Q5_1_BYTES,
        BlockFormat::Q4_K => Q4_K_BYTES,
        BlockFormat::Q5_K => Q5_K_BYTES,
        BlockFormat::Q6_K => Q6_K_BYTES,
        BlockFormat::IQ4_NL => IQ4_NL_BYTES,
    }
}

/// Reads the codes and scales of a row of whole blocks.
pub(super) fn read_codes(format: BlockFormat, bytes: &[u8], out: &mut RowCodes) {
    let codes = &mut out.codes[..];
    match format {
        BlockFormat::Q8_0 => each_block(bytes, codes, codes_q8_0),
        BlockFormat::Q4_0 => each_block(bytes, codes, codes_of_4_bits::<Q4_0_BYTES>),
        BlockFormat::Q4_1 => each_block(bytes, codes, codes_of_4_bits::<Q4_1_BYTES>),
        BlockFormat::Q5_0 => each_block(bytes, codes, codes_of_5_bits::<Q5_0_BYTES>),
        BlockFormat::Q5_1 => each_block(bytes, codes, codes_of_5_bits::<Q5_1_BYTES>),
        BlockFormat::IQ4_NL => each_block(bytes, codes, codes_of_4_bits::<IQ4_NL_BYTES>),
        BlockFormat::Q4_K => {
            each_block(bytes, codes, codes_q4_k);
            each_block(bytes, &mut out.sub_scales, sub_scales_k::<Q4_K_BYTES>);
            each_block(bytes, &mut out.sub_mins, sub_mins_k::<Q4_K_BYTES>);
        }
        BlockFormat::Q5_K => {
            each_block(bytes, codes, codes_q5_k);
            each_block(bytes, &mut out.sub_scales, sub_scales_k::<Q5_K_BYTES>);
            each_block(bytes, &mut out.sub_mins, sub_mins_k::<Q5_K_BYTES>);
        }
        BlockFormat::Q6_K => {
            each_block(bytes, codes, codes_q6_k);
            each_block(bytes, &mut out.sub_scales, sub_scales_q6_k);
        }
    }
    let blocks = || bytes.chunks_exact(block_bytes(format));
    for (scale, block) in out.scales.iter_mut().zip(blocks()) {
        *scale = half_bits(block, scale_at(format));
    }
    for (min, block) in out.mins.iter_mut().zip(blocks()) {
        *min = half_bits(block, MIN_AT);
    }
}

/// Decodes whole blocks to their values.
pub(super) fn decode(format: BlockFormat, bytes: &[u8], out: &mut [f32]) {
    match format {
        BlockFormat::Q8_0 => decode_with(bytes, out, codes_q8_0, 128, scale),
        BlockFormat::Q4_0 => decode_with(bytes, out, codes_of_4_bits::<Q4_0_BYTES>, 8, scale),
        BlockFormat::Q5_0 => decode_with(bytes, out, codes_of_5_bits::<Q5_0_BYTES>, 16, scale),
        BlockFormat::IQ4_NL => decode_with(bytes, out, biased_iq4_nl, 128, scale),
        BlockFormat::Q4_1 => {
            decode_with(bytes, out, codes_of_4_bits::<Q4_1_BYTES>, 0, scale_and_min)
        }
        BlockFormat::Q5_1 => {
            decode_with(bytes, out, codes_of_5_bits::<Q5_1_BYTES>, 0, scale_and_min)
        }
        BlockFormat::Q4_K => decode_with(bytes, out, codes_q4_k, 0, scales_and_mins_k),
        BlockFormat::Q5_K => decode_with(bytes, out, codes_q5_k, 0, scales_and_mins_k),
        BlockFormat::Q6_K => decode_with(bytes, out, codes_q6_k, 32, scales_q6_k),
    }
}

/// A block with a scale or minimum that is not a finite number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BlockDefect {
    /// Number of the block in its row.
    pub(super) block: usize,
    /// The field: "scale" or "minimum".
    pub(super) field: &'static str,
    /// The number in the field.
    pub(super) value: f16,
}

/// The first defect of a row of whole blocks.
pub(super) fn first_defect(format: BlockFormat, bytes: &[u8]) -> Option<BlockDefect> {
    let find = |field, offset| {
        let value = |block| f16::from_bits(half_bits(block, offset));
        let mut values = bytes.chunks_exact(block_bytes(format)).map(value).enumerate();
        let (block, value) = values.find(|(_, value)| !value.is_finite())?;
        Some(BlockDefect { block, field, value })
    };
    let min = if format.has_minimums() { find("minimum", MIN_AT) } else { None };
    let both = [find("scale", scale_at(format)), min];
    both.into_iter().flatten().min_by_key(|defect| defect.block)
}

/// Offset of the scale in a block.
fn scale_at(format: BlockFormat) -> usize {
    if format == BlockFormat::Q6_K { Q6_K_SCALE_AT } else { SCALE_AT }
}

/// Applies `read` to each block of `bytes` and its part of `out`.
#[inline(always)]
pub(super) fn each_block<T, const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [T],
    read: impl Fn(&[u8; BYTES], &mut [T; LEN]),
) {
    for (block, values) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        read(block, values);
    }
}

/// Weights with the values `(code − zero) · scale − min`. These are the bits of the formulas of
/// [`BlockFormat`]: `min` is 0 in formats without minimums, and `−min` where the minimum is added.
#[derive(Clone, Copy, Default)]
struct Group {
    scale: f32,
    min: f32,
}

/// Decodes blocks of `N_GROUPS` groups each. The codes of many blocks are read before the first value
/// is computed: a value that is computed from bytes just written waits for them.
#[inline(always)]
fn decode_with<const BYTES: usize, const LEN: usize, const N_GROUPS: usize>(
    bytes: &[u8],
    out: &mut [f32],
    read_codes: impl Fn(&[u8; BYTES], &mut [u8; LEN]),
    zero: u8,
    read_groups: impl Fn(&[u8; BYTES], &mut [Group; N_GROUPS]),
) {
    const CHUNK: usize = 4 * SUPERBLOCK_LEN;
    const SMALLEST_GROUP: usize = 16;
    let (mut codes, mut groups) = ([0; CHUNK], [Group::default(); CHUNK / SMALLEST_GROUP]);
    for (bytes, out) in bytes.chunks(CHUNK / LEN * BYTES).zip(out.chunks_mut(CHUNK)) {
        each_block(bytes, &mut codes, &read_codes);
        each_block(bytes, &mut groups, &read_groups);
        write_values(&codes, zero, LEN / N_GROUPS, &groups, out);
    }
}

/// Writes the values of groups of `len` codes. With a constant length, compilers unroll the inner loop
/// before they can turn it into vector instructions: it is half as fast.
#[inline(never)]
fn write_values(codes: &[u8], zero: u8, len: usize, groups: &[Group], out: &mut [f32]) {
    let zero = f32::from(zero);
    let values = out.chunks_exact_mut(len).zip(codes.chunks_exact(len));
    for ((out, codes), group) in values.zip(groups) {
        for (value, &code) in out.iter_mut().zip(codes) {
            *value = (f32::from(code) - zero) * group.scale - group.min;
        }
    }
}

/// Values of the codes of an IQ4_NL block before the scale, plus 128.
#[inline(always)]
fn biased_iq4_nl(block: &[u8; IQ4_NL_BYTES], values: &mut [u8; BLOCK_LEN]) {
    codes_of_4_bits(block, values);
    for value in values {
        *value = (IQ4_NL_VALUES[usize::from(*value & 0xf)] as u8) ^ 0x80;
    }
}

#[inline(always)]
fn scale<const BYTES: usize>(block: &[u8; BYTES], [group]: &mut [Group; 1]) {
    *group = Group { scale: half_at(block, SCALE_AT), min: 0.0 };
}

#[inline(always)]
fn scale_and_min<const BYTES: usize>(block: &[u8; BYTES], [group]: &mut [Group; 1]) {
    *group = Group { scale: half_at(block, SCALE_AT), min: -half_at(block, MIN_AT) };
}

#[inline(always)]
fn scales_and_mins_k<const BYTES: usize>(block: &[u8; BYTES], groups: &mut [Group; 8]) {
    let (mut sub_scales, mut sub_mins) = ([0; 8], [0; 8]);
    sub_scales_k(block, &mut sub_scales);
    sub_mins_k(block, &mut sub_mins);
    let (scale, min) = (half_at(block, SCALE_AT), half_at(block, MIN_AT));
    for ((group, sub_scale), sub_min) in groups.iter_mut().zip(sub_scales).zip(sub_mins) {
        *group = Group { scale: scale * f32::from(sub_scale), min: min * f32::from(sub_min) };
    }
}

#[inline(always)]
fn scales_q6_k(block: &[u8; Q6_K_BYTES], groups: &mut [Group; 16]) {
    let mut sub_scales = [0; 16];
    sub_scales_q6_k(block, &mut sub_scales);
    let scale = half_at(block, Q6_K_SCALE_AT);
    for (group, sub_scale) in groups.iter_mut().zip(sub_scales) {
        *group = Group { scale: scale * f32::from(sub_scale as i8), min: 0.0 };
    }
}

#[inline(always)]
fn half_at(block: &[u8], offset: usize) -> f32 {
    f16::from_bits(half_bits(block, offset)).to_f32()
}

#[inline(always)]
fn half_bits(block: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([block[offset], block[offset + 1]])
}
