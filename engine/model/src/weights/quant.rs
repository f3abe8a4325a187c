//! Decoding of the block formats of ggml, after `ggml-quants.c` and gguf-py's `quants.py`.
//!
//! Products and sums have the order of these two sources, so the values agree to the last bit.

use half::f16;

/// Elements in a block of the simple formats.
pub(super) const BLOCK: usize = 32;
/// Elements in a superblock of the K formats.
pub(super) const SUPERBLOCK: usize = 256;

pub(super) const Q8_0_BYTES: usize = 2 + 32;
pub(super) const Q4_0_BYTES: usize = 2 + 16;
pub(super) const Q4_1_BYTES: usize = 4 + 16;
pub(super) const Q5_0_BYTES: usize = 2 + 4 + 16;
pub(super) const Q5_1_BYTES: usize = 4 + 4 + 16;
pub(super) const Q4_K_BYTES: usize = 4 + 12 + 128;
pub(super) const Q5_K_BYTES: usize = 4 + 12 + 32 + 128;
pub(super) const Q6_K_BYTES: usize = 128 + 64 + 16 + 2;

/// Applies `decode` to each block of `bytes` and its elements in `out`.
#[inline(always)]
pub(super) fn each_block<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (block, values) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        decode(block, values);
    }
}

/// Decodes a block of: scale; 32 signed bytes.
#[inline(always)]
pub(super) fn decode_q8_0(block: &[u8; Q8_0_BYTES], out: &mut [f32; BLOCK]) {
    let scale = half_at(block, 0);
    for (value, &q) in out.iter_mut().zip(&block[2..]) {
        *value = f32::from(q as i8) * scale;
    }
}

/// Decodes a block of: scale; 16 bytes, low nibbles first.
#[inline(always)]
pub(super) fn decode_q4_0(block: &[u8; Q4_0_BYTES], out: &mut [f32; BLOCK]) {
    let scale = half_at(block, 0);
    let (low, high) = out.split_at_mut(BLOCK / 2);
    for ((low, high), &q) in low.iter_mut().zip(high).zip(&block[2..]) {
        *low = f32::from((q & 0xf) as i8 - 8) * scale;
        *high = f32::from((q >> 4) as i8 - 8) * scale;
    }
}

/// Decodes a block of: scale; minimum; 16 bytes, low nibbles first.
#[inline(always)]
pub(super) fn decode_q4_1(block: &[u8; Q4_1_BYTES], out: &mut [f32; BLOCK]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let (low, high) = out.split_at_mut(BLOCK / 2);
    for ((low, high), &q) in low.iter_mut().zip(high).zip(&block[4..]) {
        *low = f32::from(q & 0xf) * scale + minimum;
        *high = f32::from(q >> 4) * scale + minimum;
    }
}

/// Decodes a block of: scale; 32 fifth bits; 16 bytes, low nibbles first.
#[inline(always)]
pub(super) fn decode_q5_0(block: &[u8; Q5_0_BYTES], out: &mut [f32; BLOCK]) {
    let scale = half_at(block, 0);
    let fifth = u32::from_le_bytes(array_at(block, 2));
    let (low, high) = out.split_at_mut(BLOCK / 2);
    for (j, ((low, high), &q)) in low.iter_mut().zip(high).zip(&block[6..]).enumerate() {
        *low = f32::from((q & 0xf | fifth_bit(fifth, j)) as i8 - 16) * scale;
        *high = f32::from((q >> 4 | fifth_bit(fifth, j + BLOCK / 2)) as i8 - 16) * scale;
    }
}

/// Decodes a block of: scale; minimum; 32 fifth bits; 16 bytes, low nibbles first.
#[inline(always)]
pub(super) fn decode_q5_1(block: &[u8; Q5_1_BYTES], out: &mut [f32; BLOCK]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let fifth = u32::from_le_bytes(array_at(block, 4));
    let (low, high) = out.split_at_mut(BLOCK / 2);
    for (j, ((low, high), &q)) in low.iter_mut().zip(high).zip(&block[8..]).enumerate() {
        *low = f32::from(q & 0xf | fifth_bit(fifth, j)) * scale + minimum;
        *high = f32::from(q >> 4 | fifth_bit(fifth, j + BLOCK / 2)) * scale + minimum;
    }
}

/// Decodes a block of: scale of the scales; scale of the minimums; 8 packed scales and minimums;
/// 128 bytes. A run of 32 bytes holds two groups, the first in the low nibbles.
#[inline(always)]
pub(super) fn decode_q4_k(block: &[u8; Q4_K_BYTES], out: &mut [f32; SUPERBLOCK]) {
    let groups = k_scales(block);
    let (pairs, quants) = (out.as_chunks_mut::<64>().0, block[16..].as_chunks::<32>().0);
    for ((i, pair), quants) in pairs.iter_mut().enumerate().zip(quants) {
        let (low, high) = pair.split_at_mut(32);
        let ((scale_low, min_low), (scale_high, min_high)) = (groups[2 * i], groups[2 * i + 1]);
        for ((low, high), &q) in low.iter_mut().zip(high).zip(quants) {
            *low = scale_low * f32::from(q & 0xf) - min_low;
            *high = scale_high * f32::from(q >> 4) - min_high;
        }
    }
}

/// Decodes a block as Q4_K, with 32 bytes of fifth bits before the nibbles. Bit `g` of byte `j`
/// belongs to element `j` of group `g`.
#[inline(always)]
pub(super) fn decode_q5_k(block: &[u8; Q5_K_BYTES], out: &mut [f32; SUPERBLOCK]) {
    let groups = k_scales(block);
    let fifths: &[u8; 32] = &array_at(block, 16);
    let (pairs, quants) = (out.as_chunks_mut::<64>().0, block[48..].as_chunks::<32>().0);
    for ((i, pair), quants) in pairs.iter_mut().enumerate().zip(quants) {
        let (low, high) = pair.split_at_mut(32);
        let ((scale_low, min_low), (scale_high, min_high)) = (groups[2 * i], groups[2 * i + 1]);
        for (((low, high), &q), &fifth) in low.iter_mut().zip(high).zip(quants).zip(fifths) {
            let bits = fifth >> (2 * i);
            *low = scale_low * f32::from(q & 0xf | (bits & 1) << 4) - min_low;
            *high = scale_high * f32::from(q >> 4 | (bits & 2) << 3) - min_high;
        }
    }
}

/// Decodes a block of: 128 bytes of the lower 4 bits; 64 bytes of the upper 2 bits; 16 signed
/// scales; scale of the scales. Each half of the superblock is four runs of 32 elements, which
/// share 64 bytes of lower bits and 32 bytes of upper bits.
#[inline(always)]
pub(super) fn decode_q6_k(block: &[u8; Q6_K_BYTES], out: &mut [f32; SUPERBLOCK]) {
    let scale = half_at(block, 208);
    let halves = out.as_chunks_mut::<128>().0;
    for (h, half) in halves.iter_mut().enumerate() {
        let nibbles: &[u8; 64] = &array_at(block, 64 * h);
        let uppers: &[u8; 32] = &array_at(block, 128 + 32 * h);
        let scales: [u8; 8] = array_at(block, 192 + 8 * h);
        let scales = scales.map(|s| scale * f32::from(s as i8));
        for (run, values) in half.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let nibbles = &nibbles[32 * (run % 2)..][..32];
            let (nibble_shift, upper_shift) = (4 * (run / 2), 2 * run);
            for (part, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let scale = scales[2 * run + part];
                let (nibbles, uppers) = (&nibbles[16 * part..], &uppers[16 * part..]);
                for ((value, &low), &upper) in values.iter_mut().zip(nibbles).zip(uppers) {
                    let q = low >> nibble_shift & 0xf | (upper >> upper_shift & 3) << 4;
                    *value = scale * f32::from(q as i8 - 32);
                }
            }
        }
    }
}

/// Scale and minimum of the eight groups of a Q4_K or Q5_K superblock, 6 bits each. The first four
/// groups have a byte for each number. A number of the last four groups has 4 bits in a shared
/// byte, and 2 bits at the top of a byte of the first four groups.
#[inline(always)]
fn k_scales<const N: usize>(block: &[u8; N]) -> [(f32, f32); 8] {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let packed: [u8; 12] = array_at(block, 4);
    std::array::from_fn(|g| {
        let (s, m) = if g < 4 {
            (packed[g] & 63, packed[g + 4] & 63)
        } else {
            let both = packed[g + 4];
            (both & 0xf | packed[g - 4] >> 6 << 4, both >> 4 | packed[g] >> 6 << 4)
        };
        (scale * f32::from(s), minimum * f32::from(m))
    })
}

/// Bit `j` of `bits`, moved to bit 4.
#[inline(always)]
fn fifth_bit(bits: u32, j: usize) -> u8 {
    ((bits >> j & 1) << 4) as u8
}

#[inline(always)]
fn half_at<const N: usize>(block: &[u8; N], offset: usize) -> f32 {
    f16::from_le_bytes(array_at(block, offset)).to_f32()
}

#[inline(always)]
fn array_at<const N: usize, const M: usize>(block: &[u8; N], offset: usize) -> [u8; M] {
    block[offset..][..M].try_into().expect("M bytes were taken")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q4_0_by_hand() {
        let mut block = [0x88_u8; Q4_0_BYTES];
        block[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        block[2] = 0xf0;
        let mut out = [f32::NAN; BLOCK];
        decode_q4_0(&block, &mut out);
        assert_eq!((out[0], out[16]), (-4.0, 3.5));
        assert!(out.iter().enumerate().all(|(i, &v)| i % 16 == 0 || v == 0.0));
    }

    #[test]
    fn q6_k_by_hand() {
        let mut block = [0_u8; Q6_K_BYTES];
        block[208..].copy_from_slice(&f16::from_f32(2.0).to_le_bytes());
        // Element 255 is the last element of half 1, run 3, part 1.
        block[127] = 0xf0;
        block[191] = 0xc0;
        block[207] = (-3_i8) as u8;
        let mut out = [f32::NAN; SUPERBLOCK];
        decode_q6_k(&block, &mut out);
        assert_eq!(out[255], 2.0 * -3.0 * 31.0);
        assert_eq!(out[254], 2.0 * -3.0 * -32.0);
        assert!(out[..240].iter().all(|&v| v == 0.0));
    }
}
