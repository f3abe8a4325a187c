//! Codes, scales and values of every format on random blocks.

use super::*;
use galley_backend::IQ4_NL_VALUES;

/// Scales, as bits of an f16: 0.5, -0.5, 0, -0, the smallest and largest subnormal, the largest.
const SCALES: [u16; 7] = [0x3800, 0xb800, 0, 0x8000, 1, 0x83ff, 0x7bff];

const N_BLOCKS: usize = 49;

/// Bytes of a linear congruential generator.
fn random_bytes(n: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..n).map(|_| next()).collect()
}

/// Blocks of random bits with every pair of [`SCALES`]. The first block has bytes 0x80 between them:
/// code -128 of Q8_0, and sub-scale -128 of Q6_K.
fn random_blocks(format: BlockFormat) -> Vec<u8> {
    let len = block_bytes(format);
    let mut bytes = random_bytes(N_BLOCKS * len, 14);
    bytes[..len].fill(0x80);
    for (i, block) in bytes.chunks_exact_mut(len).enumerate() {
        if format.has_minimums() {
            block[MIN_AT..][..2].copy_from_slice(&SCALES[i / SCALES.len()].to_le_bytes());
        }
        block[scale_at(format)..][..2].copy_from_slice(&SCALES[i % SCALES.len()].to_le_bytes());
    }
    bytes
}

fn codes_of(format: BlockFormat, bytes: &[u8]) -> RowCodes {
    let n_blocks = bytes.len() / block_bytes(format);
    let mut codes = RowCodes::new(format, n_blocks * format.scale_len());
    read_codes(format, bytes, &mut codes);
    codes
}

/// The values of a row, by the table of [`BlockFormat`].
pub(in crate::weights) fn values_of(format: BlockFormat, row: &RowCodes) -> Vec<f32> {
    let half = |bits: &[u16], i: usize| f16::from_bits(bits[i / format.scale_len()]).to_f32();
    let value = |(i, &code): (usize, &u8)| {
        let scale = half(&row.scales, i);
        let sub = format.sub_scale_len().map(|len| i / len);
        let centred = |zero: i16| scale * f32::from(i16::from(code) - zero);
        match (format, sub) {
            (BlockFormat::Q8_0, None) => centred(128),
            (BlockFormat::Q5_0, None) => centred(16),
            (BlockFormat::Q4_0, None) => centred(8),
            (BlockFormat::IQ4_NL, None) => scale * f32::from(IQ4_NL_VALUES[usize::from(code)]),
            (BlockFormat::Q4_1 | BlockFormat::Q5_1, None) => {
                scale * f32::from(code) + half(&row.mins, i)
            }
            (BlockFormat::Q4_K | BlockFormat::Q5_K, Some(sub)) => {
                let min = half(&row.mins, i) * f32::from(row.sub_mins[sub]);
                scale * f32::from(row.sub_scales[sub]) * f32::from(code) - min
            }
            (BlockFormat::Q6_K, Some(sub)) => {
                let scale = scale * f32::from(row.sub_scales[sub] as i8);
                scale * f32::from(i16::from(code) - 32)
            }
            (format, sub) => panic!("{format} with the sub-scale {sub:?}"),
        }
    };
    row.codes.iter().enumerate().map(value).collect()
}

#[test]
fn values_follow_from_codes_and_scales_bit_for_bit() {
    for format in BlockFormat::ALL {
        let bytes = random_blocks(format);
        let codes = codes_of(format, &bytes);
        let mut expected = vec![f32::NAN; codes.codes.len()];
        decode(format, &bytes, &mut expected);
        for (i, (value, expected)) in values_of(format, &codes).iter().zip(&expected).enumerate() {
            assert_eq!(value.to_bits(), expected.to_bits(), "{format} {i}: {value} {expected}");
        }
    }
}

#[test]
fn codes_have_the_bits_of_their_format() {
    for format in BlockFormat::ALL {
        let codes = codes_of(format, &random_blocks(format));
        let most = *codes.codes.iter().max().expect("codes");
        assert_eq!(usize::from(most), (1 << format.bits()) - 1, "{format}");
        if format.has_minimums() && format.sub_scale_len().is_some() {
            let mut six_bits = codes.sub_scales.iter().chain(&codes.sub_mins);
            assert!(six_bits.all(|sub| *sub < 64), "{format}");
        }
    }
}

/// A lost bit, or a bit that is read for another one, would leave codes and scales unchanged.
#[test]
fn every_bit_of_a_block_counts_once() {
    for format in BlockFormat::ALL {
        let mut block = random_bytes(block_bytes(format), 15);
        let before = bits(&codes_of(format, &block));
        for bit in 0..8 * block.len() {
            block[bit / 8] ^= 1 << (bit % 8);
            let after = bits(&codes_of(format, &block));
            let changed = before.iter().zip(&after).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
            assert_eq!(changed, 1, "{format}: bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// All numbers of a row.
fn bits(row: &RowCodes) -> Vec<u16> {
    let bytes = row.codes.iter().chain(&row.sub_scales).chain(&row.sub_mins);
    let halves = row.scales.iter().chain(&row.mins).copied();
    bytes.map(|&byte| byte.into()).chain(halves).collect()
}

#[test]
fn the_first_scale_or_minimum_of_no_finite_number_is_found() {
    const NAN: u16 = 0x7e01;
    const MINUS_INFINITY: u16 = 0xfc00;
    for format in BlockFormat::ALL {
        let (mut bytes, len) = (random_blocks(format), block_bytes(format));
        assert_eq!(first_defect(format, &bytes), None, "{format}");
        let mut set = |block: usize, at: usize, bits: u16| {
            bytes[block * len + at..][..2].copy_from_slice(&bits.to_le_bytes());
            first_defect(format, &bytes).expect("a defect")
        };
        let last = N_BLOCKS - 1;
        let found = set(last, scale_at(format), MINUS_INFINITY);
        assert_eq!((found.block, found.field), (last, "scale"), "{format}");
        assert_eq!(found.value, f16::NEG_INFINITY, "{format}");
        if format.has_minimums() {
            let found = set(3, MIN_AT, NAN);
            assert_eq!((found.block, found.field), (3, "minimum"), "{format}");
            assert!(found.value.is_nan(), "{format}");
        }
        assert_eq!(set(2, scale_at(format), NAN).block, 2, "{format}");
    }
}

#[test]
fn q4_0_by_hand() {
    let mut block = [0x88_u8; Q4_0_BYTES];
    block[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
    block[2] = 0xf0;
    let mut out = [f32::NAN; BLOCK_LEN];
    decode(BlockFormat::Q4_0, &block, &mut out);
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
    let mut out = [f32::NAN; SUPERBLOCK_LEN];
    decode(BlockFormat::Q6_K, &block, &mut out);
    assert_eq!(out[255], 2.0 * -3.0 * 31.0);
    assert_eq!(out[254], 2.0 * -3.0 * -32.0);
    assert!(out[..240].iter().all(|&v| v == 0.0));
}
