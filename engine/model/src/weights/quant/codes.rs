//! The codes and sub-scales in a block of each format: the knowledge of bit layouts.
//!
//! Codes are read eight at a time, as the bytes of a word. The bits that a shift moves to a
//! neighbouring byte are masked away.

use super::{Q4_K_BYTES, Q5_K_BYTES, Q6_K_BYTES, Q8_0_BYTES};
use galley_backend::{BLOCK_LEN, SUPERBLOCK_LEN};

/// The lower four bits of each byte.
const NIBBLES: u64 = 0x0f0f_0f0f_0f0f_0f0f;
/// The lower two bits of each byte.
const PAIRS: u64 = 0x0303_0303_0303_0303;
/// The lowest bit of each byte.
const ONES: u64 = 0x0101_0101_0101_0101;

/// Codes of a Q8_0 block: scale; 32 signed bytes.
#[inline(always)]
pub(super) fn codes_q8_0(block: &[u8; Q8_0_BYTES], codes: &mut [u8; BLOCK_LEN]) {
    for (i, codes) in eights(codes) {
        *codes = (word(&block[2..], i) ^ (ONES << 7)).to_le_bytes();
    }
}

/// Codes of a block whose last 16 bytes are nibbles, the low ones first.
#[inline(always)]
pub(super) fn codes_of_4_bits<const BYTES: usize>(
    block: &[u8; BYTES],
    codes: &mut [u8; BLOCK_LEN],
) {
    nibbles(&block[BYTES - 16..], codes);
}

/// Codes of a block that ends with 32 fifth bits and 16 bytes of nibbles.
#[inline(always)]
pub(super) fn codes_of_5_bits<const BYTES: usize>(
    block: &[u8; BYTES],
    codes: &mut [u8; BLOCK_LEN],
) {
    nibbles(&block[BYTES - 16..], codes);
    for (i, codes) in eights(codes) {
        let fifths = spread(block[BYTES - 20 + i]) << 4;
        *codes = (u64::from_le_bytes(*codes) | fifths).to_le_bytes();
    }
}

/// Codes of a Q4_K superblock: scale of the scales; scale of the minimums; 8 packed scales and
/// minimums; 128 bytes. A run of 32 bytes holds two groups, the first in the low nibbles.
#[inline(always)]
pub(super) fn codes_q4_k(block: &[u8; Q4_K_BYTES], codes: &mut [u8; SUPERBLOCK_LEN]) {
    let pairs = codes.as_chunks_mut::<64>().0;
    for (bytes, codes) in block[16..].as_chunks::<32>().0.iter().zip(pairs) {
        nibbles(bytes, codes);
    }
}

/// Codes of a Q5_K superblock: as Q4_K, with 32 bytes of fifth bits before the nibbles. Bit `g` of
/// byte `j` belongs to element `j` of group `g`.
#[inline(always)]
pub(super) fn codes_q5_k(block: &[u8; Q5_K_BYTES], codes: &mut [u8; SUPERBLOCK_LEN]) {
    let (fifths, bytes) = block[16..].split_at(32);
    let groups = codes.as_chunks_mut::<32>().0;
    for (g, codes) in groups.iter_mut().enumerate() {
        let bytes = &bytes[32 * (g / 2)..][..32];
        for (i, codes) in eights(codes) {
            let lower = word(bytes, i) >> (4 * (g % 2)) & NIBBLES;
            *codes = (lower | (word(fifths, i) >> g & ONES) << 4).to_le_bytes();
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
            for (i, codes) in eights(codes) {
                let lower = word(lower, i) >> (4 * (run / 2)) & NIBBLES;
                let upper = word(upper, i) >> (2 * run) & PAIRS;
                *codes = (lower | upper << 4).to_le_bytes();
            }
        }
    }
}

/// The low nibbles of all `bytes`, and then the high ones.
#[inline(always)]
fn nibbles(bytes: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(bytes.len());
    for ((i, low), (_, high)) in eights(low).zip(eights(high)) {
        let word = word(bytes, i);
        *low = (word & NIBBLES).to_le_bytes();
        *high = (word >> 4 & NIBBLES).to_le_bytes();
    }
}

/// The codes, eight by eight, with the numbers of the eights.
#[inline(always)]
fn eights(codes: &mut [u8]) -> impl Iterator<Item = (usize, &mut [u8; 8])> {
    codes.as_chunks_mut::<8>().0.iter_mut().enumerate()
}

/// The `i`-th eight bytes as a word.
#[inline(always)]
fn word(bytes: &[u8], i: usize) -> u64 {
    u64::from_le_bytes(bytes.as_chunks::<8>().0[i])
}

/// A word with bit `i` of `bits` as byte `i`.
#[inline(always)]
fn spread(bits: u8) -> u64 {
    let own_bits = (u64::from(bits) * ONES) & 0x8040_2010_0804_0201;
    // The sum of a byte stays below 256. It reaches 128 if the bit is set.
    (own_bits + 0x7f7f_7f7f_7f7f_7f7f) >> 7 & ONES
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
