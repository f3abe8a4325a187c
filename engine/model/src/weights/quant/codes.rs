//! The codes and sub-scales in a block of each format: the knowledge of bit layouts.
//!
//! Loops run over whole arrays, without branches and with one shift for all elements, so that a
//! compiler turns them into vector instructions.

use super::{Q4_K_BYTES, Q5_K_BYTES, Q6_K_BYTES, Q8_0_BYTES};
use galley_backend::{BLOCK_LEN, SUPERBLOCK_LEN};

/// Codes of a Q8_0 block: scale; 32 signed bytes.
#[inline(always)]
pub(super) fn codes_q8_0(block: &[u8; Q8_0_BYTES], codes: &mut [u8; BLOCK_LEN]) {
    for (code, byte) in codes.iter_mut().zip(&block[2..]) {
        *code = byte ^ 0x80;
    }
}

/// Codes of a block whose last 16 bytes are nibbles, the low ones first.
#[inline(always)]
pub(super) fn codes_of_4_bits<const BYTES: usize>(
    block: &[u8; BYTES],
    codes: &mut [u8; BLOCK_LEN],
) {
    let (low, high) = codes.split_at_mut(BLOCK_LEN / 2);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(&block[BYTES - 16..]) {
        *low = byte & 0xf;
        *high = byte >> 4;
    }
}

/// Codes of a block that ends with 32 fifth bits and 16 bytes of nibbles.
#[inline(always)]
pub(super) fn codes_of_5_bits<const BYTES: usize>(
    block: &[u8; BYTES],
    codes: &mut [u8; BLOCK_LEN],
) {
    codes_of_4_bits(block, codes);
    for (eight, bits) in codes.as_chunks_mut::<8>().0.iter_mut().zip(&block[BYTES - 20..]) {
        *eight = (u64::from_le_bytes(*eight) | fifth_bits(*bits)).to_le_bytes();
    }
}

/// A word with bit `i` of `bits` at bit 4 of byte `i`.
#[inline(always)]
fn fifth_bits(bits: u8) -> u64 {
    let own_bits = u64::from_ne_bytes([bits; 8]) & 0x8040_2010_0804_0201;
    // The sum of a byte stays below 256. It reaches 128 if the bit is set.
    (own_bits + 0x7f7f_7f7f_7f7f_7f7f) >> 3 & 0x1010_1010_1010_1010
}

/// Codes of a Q4_K superblock: scale of the scales; scale of the minimums; 8 packed scales and
/// minimums; 128 bytes. A run of 32 bytes holds two groups, the first in the low nibbles.
#[inline(always)]
pub(super) fn codes_q4_k(block: &[u8; Q4_K_BYTES], codes: &mut [u8; SUPERBLOCK_LEN]) {
    let pairs = codes.as_chunks_mut::<64>().0;
    for (pair, bytes) in pairs.iter_mut().zip(block[16..].as_chunks::<32>().0) {
        let (low, high) = pair.split_at_mut(32);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
            *low = byte & 0xf;
            *high = byte >> 4;
        }
    }
}

/// Codes of a Q5_K superblock: as Q4_K, with 32 bytes of fifth bits before the nibbles. Bit `g` of
/// byte `j` belongs to element `j` of group `g`.
#[inline(always)]
pub(super) fn codes_q5_k(block: &[u8; Q5_K_BYTES], codes: &mut [u8; SUPERBLOCK_LEN]) {
    let (fifths, bytes) = block[16..].split_at(32);
    let pairs = codes.as_chunks_mut::<64>().0;
    for ((i, pair), bytes) in pairs.iter_mut().enumerate().zip(bytes.as_chunks::<32>().0) {
        let (low, high) = pair.split_at_mut(32);
        for (((low, high), byte), fifth) in low.iter_mut().zip(high).zip(bytes).zip(fifths) {
            let bits = fifth >> (2 * i);
            *low = byte & 0xf | (bits & 1) << 4;
            *high = byte >> 4 | (bits & 2) << 3;
        }
    }
}

/// Codes of a Q6_K superblock: 128 bytes of the lower 4 bits; 64 bytes of the upper 2 bits; 16 signed
/// scales; scale of the scales. Each half of the superblock is four runs of 32 elements, which share
/// 64 bytes of lower bits and 32 bytes of upper bits.
#[inline(always)]
pub(super) fn codes_q6_k(block: &[u8; Q6_K_BYTES], codes: &mut [u8; SUPERBLOCK_LEN]) {
    let (lower, rest) = block.split_at(128);
    for (h, half) in codes.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let upper = &rest[32 * h..][..32];
        for (run, codes) in half.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let lower = &lower[64 * h + 32 * (run % 2)..][..32];
            let (lower_shift, upper_shift) = (4 * (run / 2), 2 * run);
            for ((code, lower), upper) in codes.iter_mut().zip(lower).zip(upper) {
                *code = lower >> lower_shift & 0xf | (upper >> upper_shift & 3) << 4;
            }
        }
    }
}

/// The 16 signed scales of a Q6_K superblock.
#[inline(always)]
pub(super) fn sub_scales_q6_k(block: &[u8; Q6_K_BYTES], sub_scales: &mut [u8; 16]) {
    sub_scales.copy_from_slice(&block[192..208]);
}

/// Scales of the eight groups of a Q4_K or Q5_K superblock, 6 bits each. The first four groups have a
/// byte for each number. A number of the last four groups has 4 bits in a shared byte, and 2 bits at
/// the top of a byte of the first four groups.
#[inline(always)]
pub(super) fn sub_scales_k<const BYTES: usize>(block: &[u8; BYTES], sub_scales: &mut [u8; 8]) {
    let [scales, _, shared] = packed_k(block);
    for i in 0..4 {
        sub_scales[i] = scales[i] & 63;
        sub_scales[4 + i] = shared[i] & 0xf | scales[i] >> 6 << 4;
    }
}

/// Minimums of the eight groups, packed as their scales.
#[inline(always)]
pub(super) fn sub_mins_k<const BYTES: usize>(block: &[u8; BYTES], sub_mins: &mut [u8; 8]) {
    let [_, mins, shared] = packed_k(block);
    for i in 0..4 {
        sub_mins[i] = mins[i] & 63;
        sub_mins[4 + i] = shared[i] >> 4 | mins[i] >> 6 << 4;
    }
}

/// The packed scales and minimums: bytes of the scales, of the minimums, and shared bytes.
#[inline(always)]
fn packed_k<const BYTES: usize>(block: &[u8; BYTES]) -> [[u8; 4]; 3] {
    let (words, _) = block[4..16].as_chunks::<4>();
    [words[0], words[1], words[2]]
}
