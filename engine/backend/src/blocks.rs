//! Quantised weights: integer codes with a scale for each block, as files store them.

use std::fmt;
use std::ops::Range;

/// Weights of a block: they share a scale, and their products are summed as integers.
pub const BLOCK_LEN: usize = 32;

/// Weights of a superblock of the K formats.
pub const SUPERBLOCK_LEN: usize = 256;

/// A format of quantised weights. Each weight is an unsigned code, and its value follows from the code
/// and from the scales of its block, under ggml's names:
///
/// | format | value | scales |
/// |---|---|---|
/// | Q8_0 | `scale · (code − 128)` | f16 for 32 weights |
/// | Q5_0 | `scale · (code − 16)` | f16 for 32 |
/// | Q4_0 | `scale · (code − 8)` | f16 for 32 |
/// | IQ4_NL | `scale · IQ4_NL_VALUES[code]` | f16 for 32 |
/// | Q4_1, Q5_1 | `scale · code + min` | f16 and f16 for 32 |
/// | Q4_K, Q5_K | `scale · sub_scale · code − min · sub_min` | f16 and f16 for 256, 6 bits each for 32 |
/// | Q6_K | `scale · sub_scale · (code − 32)` | f16 for 256, a signed byte for 16 |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(non_camel_case_types, reason = "these are the names that GGUF files go by")]
pub enum BlockFormat {
    /// 8-bit codes and one scale.
    Q8_0,
    /// 4-bit codes and one scale.
    Q4_0,
    /// 4-bit codes, a scale and a minimum.
    Q4_1,
    /// 5-bit codes and one scale.
    Q5_0,
    /// 5-bit codes, a scale and a minimum.
    Q5_1,
    /// 4-bit codes, with 6-bit scales and minimums in superblocks.
    Q4_K,
    /// 5-bit codes, with 6-bit scales and minimums in superblocks.
    Q5_K,
    /// 6-bit codes, with 8-bit scales in superblocks.
    Q6_K,
    /// 4-bit codes of values that are not evenly spaced, and one scale.
    IQ4_NL,
}

/// The values of the codes of [`BlockFormat::IQ4_NL`], before the scale.
pub const IQ4_NL_VALUES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl BlockFormat {
    /// All formats.
    pub const ALL: [Self; 9] = [
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::IQ4_NL,
    ];

    /// Bits of a code.
    pub fn bits(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q4_K | Self::IQ4_NL => 4,
            Self::Q5_0 | Self::Q5_1 | Self::Q5_K => 5,
            Self::Q6_K => 6,
            Self::Q8_0 => 8,
        }
    }

    /// Weights that share an f16 scale. A row is a multiple of this long.
    pub fn scale_len(self) -> usize {
        match self {
            Self::Q4_K | Self::Q5_K | Self::Q6_K => SUPERBLOCK_LEN,
            _ => BLOCK_LEN,
        }
    }

    /// Bytes that the CPU backend takes for so many weights, in whole superblocks. Scales of sixteen outputs
    /// are padded to a cache line.
    pub fn packed_bytes(self, n_weights: usize) -> usize {
        let scales = 2 * SUPERBLOCK_LEN / self.scale_len();
        let sub_scales = self.sub_scale_len().map_or(0, |len| SUPERBLOCK_LEN / len);
        let with_minimums = if self.has_minimums() { 2 } else { 1 };
        let scale_bytes = ((scales + sub_scales) * with_minimums).next_multiple_of(64 / 16);
        let superblock_bytes = self.bits() * SUPERBLOCK_LEN / 8 + scale_bytes;
        n_weights.div_ceil(SUPERBLOCK_LEN).saturating_mul(superblock_bytes)
    }

    /// Whether blocks have minimums.
    pub fn has_minimums(self) -> bool {
        matches!(self, Self::Q4_1 | Self::Q5_1 | Self::Q4_K | Self::Q5_K)
    }

    /// Weights that share a sub-scale of one byte; None in the formats without superblocks.
    pub fn sub_scale_len(self) -> Option<usize> {
        match self {
            Self::Q4_K | Self::Q5_K => Some(BLOCK_LEN),
            Self::Q6_K => Some(BLOCK_LEN / 2),
            _ => None,
        }
    }
}

impl fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Codes and scales of one row of weights, for [`WeightRows::read_codes`] to write.
///
/// Every vector is as long as the row and its format need ([`RowCodes::new`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowCodes {
    /// A code for each weight.
    pub codes: Vec<u8>,
    /// Scales, as bits of an f16: one for [`BlockFormat::scale_len`] weights.
    pub scales: Vec<u16>,
    /// Minimums, as bits of an f16: as many as scales if the format has minimums, or else none.
    pub mins: Vec<u16>,
    /// Sub-scales: one for [`BlockFormat::sub_scale_len`] weights, or none. Those of Q6_K are signed.
    pub sub_scales: Vec<u8>,
    /// Sub-minimums: one for each sub-scale if the format has minimums, or else none.
    pub sub_mins: Vec<u8>,
}

impl RowCodes {
    /// Zeros for a row of `cols` weights.
    ///
    /// # Panics
    ///
    /// If `cols` is no multiple of [`BlockFormat::scale_len`].
    pub fn new(format: BlockFormat, cols: usize) -> Self {
        assert!(cols.is_multiple_of(format.scale_len()), "{cols} weights are whole blocks");
        let n_scales = cols / format.scale_len();
        let n_sub_scales = format.sub_scale_len().map_or(0, |len| cols / len);
        let if_minimums = |n| if format.has_minimums() { n } else { 0 };
        Self {
            codes: vec![0; cols],
            scales: vec![0; n_scales],
            mins: vec![0; if_minimums(n_scales)],
            sub_scales: vec![0; n_sub_scales],
            sub_mins: vec![0; if_minimums(n_sub_scales)],
        }
    }
}

/// Rows of a weight matrix in a file. Weights reach a backend through this trait, without a second
/// copy of the file. Several threads read, with rows in any order.
///
/// A closure `|row: usize, out: &mut [f32]|` that writes a row is a source without blocks.
pub trait WeightRows: Sync {
    /// Writes row `row` into `out`, as f32.
    fn read_row(&self, row: usize, out: &mut [f32]);

    /// The format of the blocks of row `row`; None if the row consists of floats.
    fn block_format(&self, _row: usize) -> Option<BlockFormat> {
        None
    }

    /// Writes codes and scales of row `row`, whose [`WeightRows::block_format`] is that of `out`.
    fn read_codes(&self, row: usize, _out: &mut RowCodes) {
        unreachable!("row {row} consists of floats");
    }

    /// Says that these rows are hardly read again, so that their part of the file need not stay in memory.
    fn release(&self, _rows: Range<usize>) {}
}

impl<F: Fn(usize, &mut [f32]) + Sync> WeightRows for F {
    fn read_row(&self, row: usize, out: &mut [f32]) {
        self(row, out);
    }
}
