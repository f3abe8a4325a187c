//! Weights in the order in which kernels read them, and activation tensors.
//!
//! A [`Matrix`] of `rows` outputs and `cols` inputs is stored in *panels* of 32 outputs. The words
//! of a panel are ordered by k first and by output second:
//!
//! ```text
//! panel 0:  word k=0: outputs 0..32 | word k=1: outputs 0..32 | ...
//! panel 1:  word k=0: outputs 32..64 | ...
//! ```
//!
//! So a kernel for any number of rows reads one contiguous stream, and each output accumulates over
//! k alone, in order. There is no second copy of the weights: the embedding reads its rows from the
//! same panels as the output head.

use super::buffer::{DisjointPtr, WordBuffer};
use super::simd::{LANES, bf16_bits};
use super::threads::ThreadPool;
use crate::shapes::{MatrixShape, RowKind, TensorShape};
use crate::{BackendError, OperandFormat, Result, WeightRows};

/// Outputs of a panel: two vectors.
pub(super) const PANEL: usize = 2 * LANES;

/// Approximate cost of packing a weight, in multiply-adds; far more if the file is on a slow disk.
const WORK_PER_WEIGHT: usize = 64;

/// A packed weight matrix.
#[derive(Debug)]
pub struct Matrix {
    pub(super) words: WordBuffer,
    pub(super) format: OperandFormat,
    /// Outputs × inputs. In a gated matrix, gate and up rows alternate, 16 by 16.
    pub(super) shape: MatrixShape,
    /// Words along k.
    pub(super) k_words: usize,
}

impl Matrix {
    /// Packs the rows of `source`. With `up`, `source` is the gate projection.
    pub(super) fn pack(
        pool: &mut ThreadPool,
        format: OperandFormat,
        (rows, cols): (usize, usize),
        source: &dyn WeightRows,
        up: Option<&dyn WeightRows>,
    ) -> Result<Self> {
        let k_words = cols.div_ceil(format.per_word());
        let panel_rows = if up.is_some() { LANES } else { PANEL };
        let n_panels = rows.div_ceil(panel_rows);
        let len = n_panels
            .checked_mul(PANEL)
            .and_then(|n| n.checked_mul(k_words))
            .ok_or(BackendError::OutOfMemory { purpose: "weights", needed_bytes: u128::MAX })?;
        let mut words = WordBuffer::zeroed("weights", len)?;
        let out = DisjointPtr::<u32>::new(&mut words);
        pool.for_each(n_panels, PANEL * cols * WORK_PER_WEIGHT, |panel, _| {
            // Row-major scratch of one panel; the padding after the last value of an odd row is 0.
            let mut row = vec![0.0_f32; k_words * format.per_word()];
            let mut scratch = vec![0_u32; PANEL * k_words];
            for lane in 0..PANEL {
                let (source, at) = match up {
                    Some(up) if lane >= LANES => (up, panel * LANES + lane - LANES),
                    Some(_) => (source, panel * LANES + lane),
                    None => (source, panel * PANEL + lane),
                };
                if at < rows {
                    source.read_row(at, &mut row[..cols]);
                    to_words(format, &row, &mut scratch[lane * k_words..][..k_words]);
                }
            }
            // SAFETY: panels do not overlap, and each is written by one unit.
            let packed = unsafe {
                std::slice::from_raw_parts_mut(
                    out.ptr().add(panel * PANEL * k_words),
                    PANEL * k_words,
                )
            };
            for (k, lanes) in packed.chunks_exact_mut(PANEL).enumerate() {
                for (lane, word) in lanes.iter_mut().enumerate() {
                    *word = scratch[lane * k_words + k];
                }
            }
        });
        let shape = MatrixShape { rows, cols, gated: up.is_some() };
        Ok(Self { words, format, shape, k_words })
    }

    pub(super) fn n_panels(&self) -> usize {
        self.shape.rows.div_ceil(if self.shape.gated { LANES } else { PANEL })
    }

    /// Reads output row `row` back as f32.
    pub(super) fn read_row(&self, row: usize, out: &mut [f32]) {
        let MatrixShape { rows, cols, gated } = self.shape;
        debug_assert!(row < rows && !gated && out.len() == cols);
        let panel = self.words.as_ptr().wrapping_add(row / PANEL * PANEL * self.k_words);
        for (k, values) in out.chunks_mut(self.format.per_word()).enumerate() {
            // SAFETY: row < rows and k < k_words, so the word lies in the panel of the row.
            let word = unsafe { *panel.add(k * PANEL + row % PANEL) };
            match self.format {
                OperandFormat::F32 => values[0] = f32::from_bits(word),
                OperandFormat::Bf16 => {
                    values[0] = f32::from_bits(word << 16);
                    if let Some(high) = values.get_mut(1) {
                        *high = f32::from_bits(word & 0xffff_0000);
                    }
                }
            }
        }
    }
}

/// Rounds f32 values to the words of `format`.
fn to_words(format: OperandFormat, values: &[f32], words: &mut [u32]) {
    match format {
        OperandFormat::F32 => {
            for (word, value) in words.iter_mut().zip(values) {
                *word = value.to_bits();
            }
        }
        OperandFormat::Bf16 => {
            for (word, pair) in words.iter_mut().zip(values.as_chunks::<2>().0) {
                *word = u32::from(bf16_bits(pair[0])) | u32::from(bf16_bits(pair[1])) << 16;
            }
        }
    }
}

/// Activation rows, each padded to a whole number of panels.
#[derive(Debug)]
pub struct Tensor {
    pub(super) words: WordBuffer,
    pub(super) shape: TensorShape,
    /// Words from one row to the next.
    pub(super) stride: usize,
}

impl Tensor {
    pub(super) fn new(shape: TensorShape, format: OperandFormat) -> Result<Self> {
        let TensorShape { kind, max_rows, cols } = shape;
        let per_word = if kind == RowKind::F32 { 1 } else { format.per_word() };
        let stride = cols.next_multiple_of(PANEL).div_ceil(per_word);
        let len = max_rows
            .checked_mul(stride)
            .ok_or(BackendError::OutOfMemory { purpose: "activations", needed_bytes: u128::MAX })?;
        let words = WordBuffer::zeroed("activations", len)?;
        Ok(Self { words, shape, stride })
    }

    /// The f32 row `row`, without its padding.
    pub(super) fn f32_row(&self, row: usize) -> &[f32] {
        let TensorShape { kind, max_rows, cols } = self.shape;
        assert!(kind == RowKind::F32 && row < max_rows);
        // SAFETY: the row lies in the buffer, and every bit pattern is an f32.
        unsafe {
            std::slice::from_raw_parts(self.words.as_ptr().add(row * self.stride).cast(), cols)
        }
    }
}
