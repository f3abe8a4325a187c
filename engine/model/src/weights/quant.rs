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
        BlockFormat::Q8_0 => decode_centred(bytes, out, codes_q8_0, 128),
        BlockFormat::Q4_0 => decode_centred(bytes, out, codes_of_4_bits::<Q4_0_BYTES>, 8),
        BlockFormat::Q5_0 => decode_centred(bytes, out, codes_of_5_bits::<Q5_0_BYTES>, 16),
        BlockFormat::Q4_1 => decode_from_minimum(bytes, out, codes_of_4_bits::<Q4_1_BYTES>),
        BlockFormat::Q5_1 => decode_from_minimum(bytes, out, codes_of_5_bits::<Q5_1_BYTES>),
        BlockFormat::Q4_K => decode_k(bytes, out, codes_q4_k),
        BlockFormat::Q5_K => decode_k(bytes, out, codes_q5_k),
        BlockFormat::Q6_K => each_block(bytes, out, decode_q6_k),
        BlockFormat::IQ4_NL => each_block(bytes, out, decode_iq4_nl),
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

/// Decodes blocks of the values `scale · (code − zero)`.
#[inline(always)]
fn decode_centred<const BYTES: usize>(
    bytes: &[u8],
    out: &mut [f32],
    read_codes: impl Fn(&[u8; BYTES], &mut [u8; BLOCK_LEN]),
    zero: i16,
) {
    each_block(bytes, out, |block: &[u8; BYTES], out: &mut [f32; BLOCK_LEN]| {
        let mut codes = [0; BLOCK_LEN];
        read_codes(block, &mut codes);
        let scale = half_at(block, SCALE_AT);
        for (value, code) in out.iter_mut().zip(codes) {
            *value = f32::from(i16::from(code) - zero) * scale;
        }
    });
}

/// Decodes blocks of the values `scale · code + min`.
#[inline(always)]
fn decode_from_minimum<const BYTES: usize>(
    bytes: &[u8],
    out: &mut [f32],
    read_codes: impl Fn(&[u8; BYTES], &mut [u8; BLOCK_LEN]),
) {
    each_block(bytes, out, |block: &[u8; BYTES], out: &mut [f32; BLOCK_LEN]| {
        let mut codes = [0; BLOCK_LEN];
        read_codes(block, &mut codes);
        let (scale, min) = (half_at(block, SCALE_AT), half_at(block, MIN_AT));
        for (value, code) in out.iter_mut().zip(codes) {
            *value = f32::from(code) * scale + min;
        }
    });
}

/// Decodes superblocks of the values `scale · sub_scale · code − min · sub_min`.
#[inline(always)]
fn decode_k<const BYTES: usize>(
    bytes: &[u8],
    out: &mut [f32],
    read_codes: impl Fn(&[u8; BYTES], &mut [u8; SUPERBLOCK_LEN]),
) {
    each_block(bytes, out, |block: &[u8; BYTES], out: &mut [f32; SUPERBLOCK_LEN]| {
        let mut codes = [0; SUPERBLOCK_LEN];
        read_codes(block, &mut codes);
        let (mut sub_scales, mut sub_mins) = ([0; 8], [0; 8]);
        sub_scales_k(block, &mut sub_scales);
        sub_mins_k(block, &mut sub_mins);
        let (scale, min) = (half_at(block, SCALE_AT), half_at(block, MIN_AT));
        let groups = out.as_chunks_mut::<BLOCK_LEN>().0.iter_mut();
        for (g, (out, codes)) in groups.zip(codes.as_chunks::<BLOCK_LEN>().0).enumerate() {
            let (scale, min) = (scale * f32::from(sub_scales[g]), min * f32::from(sub_mins[g]));
            for (value, &code) in out.iter_mut().zip(codes) {
                *value = scale * f32::from(code) - min;
            }
        }
    });
}

/// Decodes a superblock of the values `scale · sub_scale · (code − 32)`.
#[inline(always)]
fn decode_q6_k(block: &[u8; Q6_K_BYTES], out: &mut [f32; SUPERBLOCK_LEN]) {
    let (mut codes, mut sub_scales) = ([0; SUPERBLOCK_LEN], [0; 16]);
    codes_q6_k(block, &mut codes);
    sub_scales_q6_k(block, &mut sub_scales);
    let scale = half_at(block, Q6_K_SCALE_AT);
    let groups = out.as_chunks_mut::<16>().0.iter_mut().zip(codes.as_chunks::<16>().0);
    for ((out, codes), sub_scale) in groups.zip(sub_scales) {
        let scale = scale * f32::from(sub_scale as i8);
        for (value, &code) in out.iter_mut().zip(codes) {
            *value = scale * f32::from(i16::from(code) - 32);
        }
    }
}

/// Decodes a block of the values `scale · IQ4_NL_VALUES[code]`.
#[inline(always)]
fn decode_iq4_nl(block: &[u8; IQ4_NL_BYTES], out: &mut [f32; BLOCK_LEN]) {
    let mut codes = [0; BLOCK_LEN];
    codes_of_4_bits(block, &mut codes);
    let scale = half_at(block, SCALE_AT);
    for (value, code) in out.iter_mut().zip(codes) {
        *value = scale * f32::from(IQ4_NL_VALUES[usize::from(code & 0xf)]);
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
