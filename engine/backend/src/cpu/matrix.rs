//! Weights in the order in which kernels read them, and activation tensors.
//!
//! A [`Matrix`] of `rows` outputs and `cols` inputs is stored in *panels* of 32 outputs, each with a format
//! of its own. A panel of floats consists of words, ordered by k first and by output second:
//!
//! ```text
//! word k=0: outputs 0..32 | word k=1: outputs 0..32 | ...
//! ```
//!
//! A quantised panel is two strips of sixteen outputs ([`super::blocks`]), which may differ in format: in
//! a gated matrix, one is gate and the other up.
//!
//! So a kernel for any number of rows reads contiguous streams, and each output accumulates over
//! k alone, in order. There is no second copy of the weights: the embedding reads its rows from the
//! same panels as the output head.

use super::arena::{WeightArena, WeightMemory};
use super::blocks::{STRIP, pack_strip, quantise_weights, read_lane, strip_bytes};
use super::buffer::{DisjointPtr, WordBuffer};
use super::simd::bf16_bits;
use super::threads::ThreadPool;
use crate::shapes::{MatrixShape, RowKind, TensorShape};
use crate::{
    BLOCK_LEN, BackendError, BlockFormat, OperandFormat, Result, RowCodes, WeightFormat, WeightRows,
};

/// Outputs of a panel: two vectors, or strips.
pub(super) const PANEL: usize = 2 * STRIP;

/// Approximate cost of packing a weight, in multiply-adds; far more if the file is on a slow disk.
const WORK_PER_WEIGHT: usize = 64;

/// Panels whose rows are released together: a call to the system interrupts the other threads.
const RELEASED_PANELS: usize = 64;

/// A packed weight matrix.
#[derive(Debug)]
pub struct Matrix {
    pub(super) memory: WeightMemory,
    pub(super) panels: Vec<Panel>,
    /// Whether there are panels of floats.
    pub(super) has_words: bool,
    /// Whether there are quantised panels.
    pub(super) has_strips: bool,
    /// The format of words.
    pub(super) format: OperandFormat,
    /// Outputs × inputs. In a gated matrix, gate and up rows alternate, 16 by 16.
    pub(super) shape: MatrixShape,
}

/// A panel of a matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panel {
    /// Offset of its first byte in the matrix, a multiple of a cache line in quantised panels.
    pub(super) offset: usize,
    pub(super) format: PanelFormat,
}

/// The format of a panel's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PanelFormat {
    /// Floats in words.
    Words,
    /// Two strips, one after the other.
    Strips([BlockFormat; 2]),
}

impl Matrix {
    /// Packs the rows of `source`. With `up`, `source` is the gate projection.
    pub(super) fn pack(
        pool: &mut ThreadPool,
        arena: &mut WeightArena,
        (weights, format): (WeightFormat, OperandFormat),
        (rows, cols): (usize, usize),
        source: &dyn WeightRows,
        up: Option<&dyn WeightRows>,
    ) -> Result<Self> {
        let shape = MatrixShape { rows, cols, gated: up.is_some() };
        let packer = Packer { shape, format, weights, source, up };
        let too_large =
            || BackendError::OutOfMemory { purpose: "weights", needed_bytes: u128::MAX };
        let mut panels = Vec::new();
        panels.try_reserve_exact(packer.n_panels()).map_err(|_| too_large())?;
        let mut bytes = 0_usize;
        for panel in 0..packer.n_panels() {
            let format = packer.panel_format(panel);
            panels.push(Panel { offset: bytes, format });
            let sum = packer.panel_bytes(format).and_then(|n| bytes.checked_add(n));
            bytes = sum.ok_or_else(too_large)?;
        }
        let mut memory = arena.allocate(bytes)?;
        let out = DisjointPtr::<u8>::of_bytes(&mut memory);
        pool.for_each(panels.len(), PANEL * cols * WORK_PER_WEIGHT, |index, _| {
            let panel = panels[index];
            let end = panels.get(index + 1).map_or(bytes, |next| next.offset);
            // SAFETY: panels do not overlap, and each is written by one unit.
            let packed = unsafe {
                std::slice::from_raw_parts_mut(out.ptr().add(panel.offset), end - panel.offset)
            };
            packer.pack_panel(index, panel.format, packed);
        });
        let is_words = |panel: &Panel| panel.format == PanelFormat::Words;
        let (has_words, has_strips) = (panels.iter().any(is_words), !panels.iter().all(is_words));
        Ok(Self { memory, panels, has_words, has_strips, format, shape })
    }

    /// The address of a panel.
    pub(super) fn panel(&self, panel: usize) -> *const u8 {
        self.memory.as_ptr().wrapping_add(self.panels[panel].offset)
    }

    /// Words along k of a panel of floats.
    pub(super) fn k_words(&self) -> usize {
        self.shape.cols.div_ceil(self.format.per_word())
    }

    /// Blocks along k of a quantised panel.
    pub(super) fn n_blocks(&self) -> usize {
        self.shape.cols.div_ceil(BLOCK_LEN)
    }

    /// Reads output row `row` back as f32.
    pub(super) fn read_row(&self, row: usize, out: &mut [f32]) {
        let MatrixShape { rows, cols, gated } = self.shape;
        debug_assert!(row < rows && !gated && out.len() == cols);
        let (panel, lane) = (row / PANEL, row % PANEL);
        let at = self.panel(panel);
        match self.panels[panel].format {
            PanelFormat::Words => {
                let words = at.cast::<u32>();
                for (k, values) in out.chunks_mut(self.format.per_word()).enumerate() {
                    // SAFETY: k is below the number of words, so the word lies in the panel.
                    let word = unsafe { *words.add(k * PANEL + lane) };
                    from_word(self.format, word, values);
                }
            }
            PanelFormat::Strips(formats) => {
                let bytes = formats.map(|format| strip_bytes(format, self.n_blocks()));
                let strip = lane / STRIP;
                // SAFETY: the panel consists of these two strips.
                let strip_bytes =
                    unsafe { std::slice::from_raw_parts(at.add(strip * bytes[0]), bytes[strip]) };
                read_lane(formats[strip], strip_bytes, lane % STRIP, out);
            }
        }
    }
}

/// Packs the panels of one matrix.
struct Packer<'a> {
    shape: MatrixShape,
    format: OperandFormat,
    weights: WeightFormat,
    source: &'a dyn WeightRows,
    up: Option<&'a dyn WeightRows>,
}

impl Packer<'_> {
    fn n_panels(&self) -> usize {
        self.shape.rows.div_ceil(self.panel_rows())
    }

    /// Rows of a source in a panel.
    fn panel_rows(&self) -> usize {
        if self.up.is_some() { STRIP } else { PANEL }
    }

    /// The source of a strip, and its rows.
    fn strip(&self, panel: usize, strip: usize) -> (&dyn WeightRows, std::ops::Range<usize>) {
        let (source, first) = match self.up {
            Some(up) if strip == 1 => (up, panel * STRIP),
            Some(_) => (self.source, panel * STRIP),
            None => (self.source, panel * PANEL + strip * STRIP),
        };
        let rows = self.shape.rows;
        (source, first.min(rows)..(first + STRIP).min(rows))
    }

    /// The format of a panel: strips if all rows of each strip have one format.
    fn panel_format(&self, panel: usize) -> PanelFormat {
        let quantised = match self.weights {
            WeightFormat::Bf16 | WeightFormat::F32 => None,
            WeightFormat::Q8 => Some([BlockFormat::Q8_0; 2]),
            WeightFormat::Q4 => Some([BlockFormat::Q4_0; 2]),
            WeightFormat::Native => {
                let first = self.strip_format(panel, 0);
                let second = match self.strip(panel, 1).1.is_empty() {
                    true => first,
                    false => self.strip_format(panel, 1),
                };
                first.zip(second).map(|(first, second)| [first, second])
            }
        };
        quantised.map_or(PanelFormat::Words, PanelFormat::Strips)
    }

    /// The format of a strip in the file; None for floats and for rows of several formats.
    fn strip_format(&self, panel: usize, strip: usize) -> Option<BlockFormat> {
        let (source, mut rows) = self.strip(panel, strip);
        let format = source.block_format(rows.next()?)?;
        let is_whole = self.shape.cols.is_multiple_of(format.scale_len());
        (is_whole && rows.all(|row| source.block_format(row) == Some(format))).then_some(format)
    }

    /// Bytes of a panel; None if there are too many.
    fn panel_bytes(&self, format: PanelFormat) -> Option<usize> {
        let cols = self.shape.cols;
        match format {
            PanelFormat::Words => {
                cols.div_ceil(self.format.per_word()).checked_mul(PANEL * size_of::<u32>())
            }
            // A row of the longest possible length takes more than an address space of bytes.
            PanelFormat::Strips(_) if cols > usize::MAX / (4 * PANEL) => None,
            PanelFormat::Strips(formats) => {
                let n_blocks = cols.div_ceil(BLOCK_LEN);
                Some(formats.map(|format| strip_bytes(format, n_blocks)).iter().sum())
            }
        }
    }

    /// Packs a panel into zeroed bytes.
    fn pack_panel(&self, panel: usize, format: PanelFormat, packed: &mut [u8]) {
        match format {
            PanelFormat::Words => self.pack_words(panel, packed),
            PanelFormat::Strips(formats) => {
                let mut rest = packed;
                for (strip, format) in formats.into_iter().enumerate() {
                    let n_blocks = self.shape.cols.div_ceil(BLOCK_LEN);
                    let bytes = strip_bytes(format, n_blocks);
                    let (strip_bytes, others) = rest.split_at_mut(bytes);
                    self.pack_strip(self.strip(panel, strip), format, strip_bytes);
                    rest = others;
                }
            }
        }
        if (panel + 1).is_multiple_of(RELEASED_PANELS) {
            self.release(panel + 1 - RELEASED_PANELS..panel + 1);
        }
    }

    /// Releases the rows of some panels. Another thread may still read some of them, from the file again.
    fn release(&self, panels: std::ops::Range<usize>) {
        let rows = self.panel_rows();
        for source in std::iter::once(self.source).chain(self.up) {
            source.release(panels.start * rows..(panels.end * rows).min(self.shape.rows));
        }
    }

    fn pack_strip(
        &self,
        (source, rows): (&dyn WeightRows, std::ops::Range<usize>),
        format: BlockFormat,
        packed: &mut [u8],
    ) {
        let cols = self.shape.cols;
        let mut codes = vec![RowCodes::new(format, cols.next_multiple_of(BLOCK_LEN)); rows.len()];
        let mut values = Vec::new();
        for (row, codes) in rows.zip(&mut codes) {
            if self.weights == WeightFormat::Native {
                source.read_codes(row, codes);
            } else {
                values.resize(cols, 0.0);
                source.read_row(row, &mut values);
                quantise_weights(format, &values, codes);
            }
        }
        pack_strip(format, &codes, packed);
    }

    fn pack_words(&self, panel: usize, packed: &mut [u8]) {
        let (cols, format) = (self.shape.cols, self.format);
        let k_words = cols.div_ceil(format.per_word());
        // Row-major scratch of one panel; the padding after the last value of an odd row is 0.
        let mut row = vec![0.0_f32; k_words * format.per_word()];
        let mut scratch = vec![0_u32; PANEL * k_words];
        for strip in 0..2 {
            let (source, rows) = self.strip(panel, strip);
            for (lane, at) in rows.enumerate() {
                source.read_row(at, &mut row[..cols]);
                let lane = strip * STRIP + lane;
                to_words(format, &row, &mut scratch[lane * k_words..][..k_words]);
            }
        }
        for (k, lanes) in packed.as_chunks_mut::<{ 4 * PANEL }>().0.iter_mut().enumerate() {
            for (lane, word) in lanes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *word = scratch[lane * k_words + k].to_ne_bytes();
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

/// The values of a word.
fn from_word(format: OperandFormat, word: u32, values: &mut [f32]) {
    match format {
        OperandFormat::F32 => values[0] = f32::from_bits(word),
        OperandFormat::Bf16 => {
            values[0] = f32::from_bits(word << 16);
            if let Some(high) = values.get_mut(1) {
                *high = f32::from_bits(word & 0xffff_0000);
            }
        }
    }
}
/// Activation rows, each padded to a whole number of panels.
#[derive(Debug)]
pub struct Tensor {
    pub(super) words: WordBuffer,
    pub(super) shape: TensorShape,
    pub(super) format: OperandFormat,
    /// Words from one row to the next.
    pub(super) stride: usize,
}

impl Tensor {
    pub(super) fn new(shape: TensorShape, format: OperandFormat) -> Result<Self> {
        let TensorShape { kind, max_rows, cols } = shape;
        debug_assert!(kind == RowKind::Operand || format == OperandFormat::F32);
        let stride = cols.next_multiple_of(PANEL).div_ceil(format.per_word());
        let len = max_rows
            .checked_mul(stride)
            .ok_or(BackendError::OutOfMemory { purpose: "activations", needed_bytes: u128::MAX })?;
        let words = WordBuffer::zeroed("activations", len)?;
        Ok(Self { words, shape, format, stride })
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
