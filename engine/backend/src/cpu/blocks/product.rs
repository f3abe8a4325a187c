//! The product of a strip of quantised weights and some rows.
//!
//! For an output and a row, with x as a row's codes and `s` its scale:
//!
//! ```text
//! for block in 0..n_blocks:
//!     sum = Σ code · x                         an exact integer
//!     acc = sum · (scale · s) + acc            fused; `scale` is scale · sub_scale in a superblock (exact)
//!     acc = min · (s Σ x) + acc                in formats with minimums, fused; `min` is -min · sub_min in
//!                                              a superblock (exact)
//! ```
//!
//! One chain in f32 per output, in the order of blocks, for every number of rows and every instruction
//! set: this is the row invariance of quantised linear layers.

use super::layout::{GroupLayout, NIBBLES, STRIP, VECTOR, groups};
use super::rows::RowBlock;
use crate::cpu::simd::Integers;
use crate::{BLOCK_LEN, BlockFormat, IQ4_NL_VALUES};

/// Most rows of a tile on any instruction set.
pub(in super::super) const MOST_ROWS: usize = 12;

/// Values from one row of results to the next: two strips of a panel lie side by side.
const OUT_STRIDE: usize = 2 * STRIP;

/// Numbers of rows that tiles have.
const TILES: [usize; 7] = [1, 2, 3, 4, 6, 8, 12];

/// Rows of the tile that computes `n_rows` rows: at least as many.
pub(in super::super) fn tile_rows(n_rows: usize) -> usize {
    TILES.into_iter().find(|&rows| rows >= n_rows).unwrap_or(MOST_ROWS)
}

/// The product of a strip and a tile of rows.
#[derive(Clone, Copy)]
pub(in super::super) struct StripProduct {
    pub(in super::super) format: BlockFormat,
    pub(in super::super) n_blocks: usize,
    pub(in super::super) strip: *const u8,
    /// Blocks of the rows: block b of row r at `b · n_rows + r`.
    pub(in super::super) rows: *const RowBlock,
    /// A value of [`tile_rows`].
    pub(in super::super) n_rows: usize,
    /// The result of lane l of row r goes to `r · OUT_STRIDE + l`.
    pub(in super::super) out: *mut f32,
}

/// Computes `p` on the instruction set `J`, the integer counterpart of an `Isa`.
///
/// # Safety
///
/// The pointers of `p` must be valid for its sizes, and the CPU must have the instruction set.
#[inline(always)]
pub(in super::super) unsafe fn multiply_strip<J: Integers>(p: &StripProduct) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        match p.format {
            BlockFormat::Q8_0 => rows::<J, Q8_0>(p),
            BlockFormat::Q4_0 => rows::<J, Q4_0>(p),
            BlockFormat::Q4_1 => rows::<J, Q4_1>(p),
            BlockFormat::Q5_0 => rows::<J, Q5_0>(p),
            BlockFormat::Q5_1 => rows::<J, Q5_1>(p),
            BlockFormat::Q4_K => rows::<J, Q4K>(p),
            BlockFormat::Q5_K => rows::<J, Q5K>(p),
            BlockFormat::Q6_K => rows::<J, Q6K>(p),
            BlockFormat::IQ4_NL => rows::<J, Iq4Nl>(p),
        }
    }
}

/// A format, as constants for the compiler.
trait Format: Copy {
    const FORMAT: BlockFormat;
    /// A weight is its code minus this power of two, by its logarithm. None for codes without an offset
    /// and for products of [`Integers::dot_wide`].
    const OFFSET_SHIFT: Option<u32> = None;
    /// Whether the products are those of [`Integers::dot_wide`].
    const WIDE: bool = false;
}

macro_rules! block_format {
    ($name:ident, $format:ident $(, $constant:ident: $type:ty = $value:expr)*) => {
        #[derive(Clone, Copy)]
        struct $name;
        impl Format for $name {
            const FORMAT: BlockFormat = BlockFormat::$format;
            $(const $constant: $type = $value;)*
        }
    };
}

block_format!(Q8_0, Q8_0, WIDE: bool = true);
block_format!(Q4_0, Q4_0, OFFSET_SHIFT: Option<u32> = Some(3));
block_format!(Q4_1, Q4_1);
block_format!(Q5_0, Q5_0, OFFSET_SHIFT: Option<u32> = Some(4));
block_format!(Q5_1, Q5_1);
block_format!(Q4K, Q4_K);
block_format!(Q5K, Q5_K);
block_format!(Q6K, Q6_K, OFFSET_SHIFT: Option<u32> = Some(5));
block_format!(Iq4Nl, IQ4_NL, WIDE: bool = true);

#[inline(always)]
unsafe fn rows<J: Integers, F: Format>(p: &StripProduct) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        match p.n_rows {
            1 => tile::<J, F, 1>(p),
            2 => tile::<J, F, 2>(p),
            3 => tile::<J, F, 3>(p),
            4 => tile::<J, F, 4>(p),
            6 => tile::<J, F, 6>(p),
            8 => tile::<J, F, 8>(p),
            _ => tile::<J, F, 12>(p),
        }
    }
}

/// R rows by the sixteen outputs, a vector of lanes after the other.
#[inline(always)]
unsafe fn tile<J: Integers, F: Format, const R: usize>(p: &StripProduct) {
    if R > J::ROWS {
        return;
    }
    for half in 0..STRIP / J::LANES {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let acc = lanes::<J, F, R>(p, half * J::LANES);
            for (r, acc) in acc.into_iter().enumerate() {
                J::store(p.out.add(r * OUT_STRIDE + half * J::LANES), acc);
            }
        }
    }
}

/// The chains of R rows by the lanes from `lane`.
#[inline(always)]
unsafe fn lanes<J: Integers, F: Format, const R: usize>(
    p: &StripProduct,
    lane: usize,
) -> [J::F; R] {
    // SAFETY: every group has its blocks, and the rows have as many.
    unsafe {
        let mut acc = [J::splat_f32(0.0); R];
        let mut rows = p.rows;
        for group in groups(F::FORMAT, p.n_blocks) {
            let at = p.strip.add(group.offset);
            let lines = group.layout.bytes.div_ceil(VECTOR * group.n_blocks);
            for block in 0..group.n_blocks {
                for line in 0..lines {
                    let line = (block * lines + line) * VECTOR;
                    J::prefetch(at.wrapping_add(BYTES_AHEAD + line));
                }
                let sums = sums::<J, F, R>(at, &group.layout, block, lane, rows);
                let (scales, mins) = scales::<J, F>(at, &group.layout, block, lane);
                for r in 0..R {
                    let row = rows.add(r);
                    let scale = J::mul_f32(scales, J::splat_f32((*row).scale));
                    acc[r] = J::fma(J::to_f32(sums[r]), scale, acc[r]);
                    if let Some(mins) = mins {
                        acc[r] = J::fma(mins, J::splat_f32((*row).scaled_sum), acc[r]);
                    }
                }
                rows = rows.add(R);
            }
        }
        acc
    }
}

/// Distance of prefetches from the products, in bytes. The hardware's own prefetcher stops at page borders.
const BYTES_AHEAD: usize = 6 << 10;

/// Scales of a block, sub-scales included, and its minimums, as they are added to a weight.
#[inline(always)]
unsafe fn scales<J: Integers, F: Format>(
    group: *const u8,
    layout: &GroupLayout,
    block: usize,
    lane: usize,
) -> (J::F, Option<J::F>) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let index = block * BLOCK_LEN / F::FORMAT.scale_len();
        let f16s = |plane: usize| J::load_f16(group.add(plane + 2 * (index * STRIP + lane)));
        let bytes = |plane: usize| J::to_f32(J::load_u8(group.add(plane + block * STRIP + lane)));
        match F::FORMAT {
            BlockFormat::Q4_K | BlockFormat::Q5_K => {
                let sub_mins = J::negate(bytes(layout.sub_mins));
                let mins = J::mul_f32(f16s(layout.mins), sub_mins);
                (J::mul_f32(f16s(0), bytes(layout.sub_scales)), Some(mins))
            }
            BlockFormat::Q4_1 | BlockFormat::Q5_1 => (f16s(0), Some(f16s(layout.mins))),
            _ => (f16s(0), None),
        }
    }
}

/// The sums of R rows over a block, sub-scales of Q6_K included.
#[inline(always)]
unsafe fn sums<J: Integers, F: Format, const R: usize>(
    group: *const u8,
    layout: &GroupLayout,
    block: usize,
    lane: usize,
    rows: *const RowBlock,
) -> [J::W; R] {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let start = |r: usize| {
            let row = rows.add(r);
            match (F::OFFSET_SHIFT, F::WIDE) {
                (Some(3), _) => J::shl::<3>(J::splat((*row).negated_sum)),
                (Some(4), _) => J::shl::<4>(J::splat((*row).negated_sum)),
                // Q6_K: the first half of the block, which has a sub-scale of its own.
                (Some(_), _) => J::shl::<5>(J::splat((*row).negated_first_half)),
                (None, true) => J::start_wide(J::splat((*row).negated_sum)),
                (None, false) => J::splat(0),
            }
        };
        let mut sums: [J::W; R] = std::array::from_fn(start);
        let quads = |pair| group.add(layout.nibbles + block * NIBBLES + pair * VECTOR + 4 * lane);
        let bits = group.add(layout.more_bits + 4 * lane);
        if F::FORMAT.bits() != 6 {
            let mut chains = begin::<J, F, R>(&sums);
            step::<J, F, R, 0>(&mut chains, quads(0), bits, block, rows);
            step::<J, F, R, 1>(&mut chains, quads(1), bits, block, rows);
            if F::FORMAT.bits() == 5 {
                sums = end::<J, F, R>(&sums, &chains);
                chains = begin::<J, F, R>(&sums);
            }
            step::<J, F, R, 2>(&mut chains, quads(2), bits, block, rows);
            step::<J, F, R, 3>(&mut chains, quads(3), bits, block, rows);
            return end::<J, F, R>(&sums, &chains);
        }
        let sub_scale =
            |half| J::load_i8(group.add(layout.sub_scales + (2 * block + half) * STRIP + lane));
        let mut others: [J::W; R] = std::array::from_fn(|r| {
            let row = rows.add(r);
            let first_half = J::splat((*row).negated_first_half);
            J::shl::<5>(J::sub(J::splat((*row).negated_sum), first_half))
        });
        lone_step::<J, F, R, 0>(&mut sums, quads(0), bits, block, rows);
        lone_step::<J, F, R, 1>(&mut sums, quads(1), bits, block, rows);
        lone_step::<J, F, R, 2>(&mut others, quads(2), bits, block, rows);
        lone_step::<J, F, R, 3>(&mut others, quads(3), bits, block, rows);
        let (first, second) = (sub_scale(0), sub_scale(1));
        std::array::from_fn(|r| J::add(J::mul(sums[r], first), J::mul(others[r], second)))
    }
}

/// Chains of products on top of `sums`. Wide products add to the sums themselves.
#[inline(always)]
unsafe fn begin<J: Integers, F: Format, const R: usize>(sums: &[J::W; R]) -> [J::W; R] {
    // SAFETY: guaranteed by the caller.
    sums.map(|sum| if F::WIDE { sum } else { unsafe { J::begin(sum) } })
}

/// The sums of chains that began on top of `sums`.
#[inline(always)]
unsafe fn end<J: Integers, F: Format, const R: usize>(
    sums: &[J::W; R],
    chains: &[J::W; R],
) -> [J::W; R] {
    // SAFETY: guaranteed by the caller.
    std::array::from_fn(|r| if F::WIDE { chains[r] } else { unsafe { J::end(sums[r], chains[r]) } })
}

/// Adds the products of quads 2P and 2P + 1 to sums, by a chain of their own.
#[inline(always)]
unsafe fn lone_step<J: Integers, F: Format, const R: usize, const P: usize>(
    sums: &mut [J::W; R],
    nibbles: *const u8,
    bits: *const u8,
    block: usize,
    rows: *const RowBlock,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut chains = begin::<J, F, R>(sums);
        step::<J, F, R, P>(&mut chains, nibbles, bits, block, rows);
        *sums = end::<J, F, R>(sums, &chains);
    }
}

/// Adds the products of quads 2P and 2P + 1 to chains.
#[inline(always)]
unsafe fn step<J: Integers, F: Format, const R: usize, const P: usize>(
    chains: &mut [J::W; R],
    nibbles: *const u8,
    bits: *const u8,
    block: usize,
    rows: *const RowBlock,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let codes = codes::<J, F, P>(nibbles, bits, block);
        for (r, chain) in chains.iter_mut().enumerate() {
            let quads = rows.add(r).cast::<i32>();
            let x = [J::splat(*quads.add(2 * P)), J::splat(*quads.add(2 * P + 1))];
            *chain = match F::WIDE {
                true => J::dot_wide(*chain, codes, x),
                false => J::dot(*chain, codes, x),
            };
        }
    }
}

/// The codes of quads 2P and 2P + 1 of a block.
#[inline(always)]
unsafe fn codes<J: Integers, F: Format, const P: usize>(
    nibbles: *const u8,
    bits: *const u8,
    block: usize,
) -> [J::W; 2] {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let low_nibble = J::splat(0x0f0f_0f0f);
        let packed = J::load(nibbles);
        let (low, high) = (J::and(packed, low_nibble), J::and(J::shr::<4>(packed), low_nibble));
        match F::FORMAT {
            BlockFormat::IQ4_NL => [J::lookup(&IQ4_NL_CODES, low), J::lookup(&IQ4_NL_CODES, high)],
            BlockFormat::Q8_0 => {
                let lower = J::load(bits.add(block * NIBBLES + P * VECTOR));
                let high_nibble = J::splat(0xf0f0_f0f0_u32.cast_signed());
                let first = J::and(J::shl::<4>(packed), high_nibble);
                let second = J::and(packed, high_nibble);
                [
                    J::or(J::and(lower, low_nibble), first),
                    J::or(J::and(J::shr::<4>(lower), low_nibble), second),
                ]
            }
            _ if F::FORMAT.bits() == 5 => {
                let fifths = J::load(bits.add(block * VECTOR));
                let (first, second) = match P {
                    0 => (J::shl::<4>(fifths), J::shl::<3>(fifths)),
                    1 => (J::shl::<2>(fifths), J::shl::<1>(fifths)),
                    2 => (fifths, J::shr::<1>(fifths)),
                    _ => (J::shr::<2>(fifths), J::shr::<3>(fifths)),
                };
                let fifth = J::splat(0x1010_1010);
                [J::or(low, J::and(first, fifth)), J::or(high, J::and(second, fifth))]
            }
            _ if F::FORMAT.bits() == 6 => {
                let uppers = J::load(bits.add(block * 2 * VECTOR + P / 2 * VECTOR));
                let (first, second) = match P % 2 {
                    0 => (J::shl::<4>(uppers), J::shl::<2>(uppers)),
                    _ => (uppers, J::shr::<2>(uppers)),
                };
                let upper = J::splat(0x3030_3030);
                [J::or(low, J::and(first, upper)), J::or(high, J::and(second, upper))]
            }
            _ => [low, high],
        }
    }
}

/// The values of IQ4_NL plus 128.
const IQ4_NL_CODES: [u8; 16] = {
    let mut codes = [0; 16];
    let mut i = 0;
    while i < 16 {
        codes[i] = (IQ4_NL_VALUES[i] as u8) ^ 0x80;
        i += 1;
    }
    codes
};
