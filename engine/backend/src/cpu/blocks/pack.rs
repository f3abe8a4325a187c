//! Packing of quantised rows into strips, and reading a row back.

use super::layout::{GROUP, Group, GroupLayout, NIBBLES, STRIP, VECTOR, groups, strip_bytes};
use crate::{BLOCK_LEN, BlockFormat, IQ4_NL_VALUES, RowCodes};
use half::f16;

/// Quads of a block.
const QUADS: usize = BLOCK_LEN / 4;

/// Writes the rows of a strip, at most sixteen. Lanes without a row stay zero: their scale is zero.
pub(in super::super) fn pack_strip(format: BlockFormat, rows: &[RowCodes], strip: &mut [u8]) {
    let Some(n_blocks) = rows.first().map(|row| row.codes.len() / BLOCK_LEN) else { return };
    debug_assert!(rows.len() <= STRIP && strip.len() == strip_bytes(format, n_blocks));
    // The codes of a block by quad, lane and place in the quad.
    let mut codes = [[0_u8; VECTOR]; QUADS];
    for group in groups(format, n_blocks) {
        let bytes = &mut strip[group.offset..][..group.layout.bytes];
        for block in 0..group.n_blocks {
            let first = (group.first_block + block) * BLOCK_LEN;
            for (lane, row) in rows.iter().enumerate() {
                let of_row = row.codes[first..][..BLOCK_LEN].as_chunks::<4>().0;
                for (quad, of_quad) in codes.iter_mut().zip(of_row) {
                    quad[4 * lane..][..4].copy_from_slice(of_quad);
                }
            }
            pack_codes(format, &codes, &group.layout, block, bytes);
        }
        for (lane, row) in rows.iter().enumerate() {
            pack_scales(format, row, &group, lane, bytes);
        }
    }
}

/// Writes the scales and minimums of a row.
fn pack_scales(format: BlockFormat, row: &RowCodes, group: &Group, lane: usize, bytes: &mut [u8]) {
    let (first, len) = (group.first_block * BLOCK_LEN, group.n_blocks * BLOCK_LEN);
    let (from, n) = (first / format.scale_len(), len / format.scale_len());
    let layout = &group.layout;
    spread_f16(&row.scales[from..][..n], bytes, lane);
    if format.has_minimums() {
        spread_f16(&row.mins[from..][..n], &mut bytes[layout.mins..], lane);
    }
    if let Some(sub_len) = format.sub_scale_len() {
        let (from, n) = (first / sub_len, len / sub_len);
        spread(&row.sub_scales[from..][..n], &mut bytes[layout.sub_scales..], lane);
        if format.has_minimums() {
            spread(&row.sub_mins[from..][..n], &mut bytes[layout.sub_mins..], lane);
        }
    }
}

/// Writes the codes of a block of a group.
fn pack_codes(
    format: BlockFormat,
    codes: &[[u8; VECTOR]; QUADS],
    layout: &GroupLayout,
    block: usize,
    group: &mut [u8],
) {
    let bits = format.bits();
    // The nibbles are the upper ones of 8-bit codes and the lower ones of all others.
    let shift = if bits == 8 { 4 } else { 0 };
    write_nibbles(codes, shift, &mut group[layout.nibbles + block * NIBBLES..]);
    let more = &mut group[layout.more_bits..];
    match bits {
        8 => write_nibbles(codes, 0, &mut more[block * NIBBLES..]),
        6 => {
            let vectors = more[block * 2 * VECTOR..].as_chunks_mut::<VECTOR>().0;
            for (vector, quads) in vectors.iter_mut().zip(codes.as_chunks::<4>().0) {
                for (i, byte) in vector.iter_mut().enumerate() {
                    *byte = (0..4).fold(0, |bits, q| bits | (quads[q][i] >> 4 & 3) << (2 * q));
                }
            }
        }
        5 => {
            for (i, byte) in more[block * VECTOR..][..VECTOR].iter_mut().enumerate() {
                *byte = (0..QUADS).fold(0, |bits, q| bits | (codes[q][i] >> 4 & 1) << q);
            }
        }
        _ => {}
    }
}

/// Writes four bits of each code, from bit `shift`.
fn write_nibbles(codes: &[[u8; VECTOR]; QUADS], shift: u32, plane: &mut [u8]) {
    for (vector, [even, odd]) in
        plane.as_chunks_mut::<VECTOR>().0.iter_mut().zip(codes.as_chunks().0)
    {
        for ((byte, even), odd) in vector.iter_mut().zip(even).zip(odd) {
            *byte = (even >> shift & 0xf) | (odd >> shift & 0xf) << 4;
        }
    }
}

/// Writes one byte of `values` for each vector of lanes.
fn spread(values: &[u8], plane: &mut [u8], lane: usize) {
    for (lanes, &value) in plane.chunks_exact_mut(STRIP).zip(values) {
        lanes[lane] = value;
    }
}

fn spread_f16(values: &[u16], plane: &mut [u8], lane: usize) {
    for (lanes, &value) in plane.chunks_exact_mut(2 * STRIP).zip(values) {
        lanes[2 * lane..][..2].copy_from_slice(&value.to_le_bytes());
    }
}

/// Reads the weights of a lane back as f32.
pub(in super::super) fn read_lane(format: BlockFormat, strip: &[u8], lane: usize, out: &mut [f32]) {
    let n_blocks = out.len().div_ceil(BLOCK_LEN).next_multiple_of(format.scale_len() / BLOCK_LEN);
    let values = out.chunks_mut(GROUP * BLOCK_LEN);
    for (group, values) in groups(format, n_blocks).zip(values) {
        let bytes = &strip[group.offset..][..group.layout.bytes];
        for (k, value) in values.iter_mut().enumerate() {
            *value = weight(format, bytes, &group.layout, lane, k);
        }
    }
}

/// Weight `k` of a lane of a group.
fn weight(format: BlockFormat, group: &[u8], layout: &GroupLayout, lane: usize, k: usize) -> f32 {
    let f16_at = |plane: usize| {
        let at = plane + 2 * (k / format.scale_len() * STRIP + lane);
        f16::from_le_bytes([group[at], group[at + 1]]).to_f32()
    };
    let byte_at = |plane: usize, len: usize| group[plane + k / len * STRIP + lane];
    let (code, scale) = (code_at(format, group, layout, lane, k), f16_at(0));
    match format {
        BlockFormat::Q8_0 => scale * (f32::from(code) - 128.0),
        BlockFormat::Q5_0 => scale * (f32::from(code) - 16.0),
        BlockFormat::Q4_0 => scale * (f32::from(code) - 8.0),
        BlockFormat::IQ4_NL => scale * f32::from(IQ4_NL_VALUES[usize::from(code)]),
        BlockFormat::Q4_1 | BlockFormat::Q5_1 => scale * f32::from(code) + f16_at(layout.mins),
        BlockFormat::Q4_K | BlockFormat::Q5_K => {
            let sub_scale = f32::from(byte_at(layout.sub_scales, BLOCK_LEN));
            let sub_min = f32::from(byte_at(layout.sub_mins, BLOCK_LEN));
            scale * sub_scale * f32::from(code) - f16_at(layout.mins) * sub_min
        }
        BlockFormat::Q6_K => {
            let sub_scale = byte_at(layout.sub_scales, BLOCK_LEN / 2).cast_signed();
            scale * f32::from(sub_scale) * (f32::from(code) - 32.0)
        }
    }
}

/// The code of weight `k` of a lane of a group.
fn code_at(format: BlockFormat, group: &[u8], layout: &GroupLayout, lane: usize, k: usize) -> u8 {
    let (block, quad) = (k / BLOCK_LEN, k % BLOCK_LEN / 4);
    let byte = 4 * lane + k % 4;
    let nibble = |plane: usize| {
        let packed = group[plane + block * NIBBLES + quad / 2 * VECTOR + byte];
        packed >> (4 * (quad % 2)) & 0xf
    };
    let more = |vectors: usize, vector: usize| {
        group[layout.more_bits + (block * vectors + vector) * VECTOR + byte]
    };
    match format.bits() {
        8 => nibble(layout.nibbles) << 4 | nibble(layout.more_bits),
        6 => nibble(layout.nibbles) | (more(2, quad / 4) >> (2 * (quad % 4)) & 3) << 4,
        5 => nibble(layout.nibbles) | (more(1, 0) >> quad & 1) << 4,
        _ => nibble(layout.nibbles),
    }
}
