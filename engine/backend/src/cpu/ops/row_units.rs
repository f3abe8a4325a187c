//! Norms and matrix products of rows as units of work.

use crate::cpu::blocks::RowBlock;
use crate::cpu::buffer::DisjointPtr;
use crate::cpu::gemm::{Gemm, Sink, row_tile};
use crate::cpu::matrix::PANEL;
use crate::cpu::threads::ThreadPool;
use crate::cpu::{CpuBackend, Matrix, Tensor, Vector};

/// Most rows per unit in operations with little work per row.
const MAX_ROWS_PER_UNIT: usize = 8;

/// Rows per unit of an expansion: a row takes about 0.1 µs, and a dispatch about 1 µs.
const EXPANDED_ROWS_PER_UNIT: usize = 32;

impl CpuBackend {
    /// Rows per unit in operations of about 1 µs per row: several units per thread.
    pub(super) fn rows_per_unit(&self, n_rows: usize) -> usize {
        (n_rows / (self.threads.n_at_once() * 2)).clamp(1, MAX_ROWS_PER_UNIT)
    }

    /// Multiplies `n_rows` of `x` by `w` into `sink`, with `out_stride` words from one row to the next.
    /// Shapes are checked.
    pub(super) fn multiply(
        &mut self,
        x: &Tensor,
        n_rows: usize,
        w: &Matrix,
        out_stride: usize,
        sink: Sink,
    ) {
        let (multipliers, x_stride) = match w.has_words {
            true => self.multipliers(x, n_rows, w.k_words()),
            false => (std::ptr::null(), 0),
        };
        let row_blocks = match w.has_strips {
            true => self.row_blocks(x, n_rows, w.n_blocks()),
            false => std::ptr::null(),
        };
        let g = Gemm {
            w,
            x: multipliers,
            x_stride,
            row_blocks,
            strip_rows: self.kernels.strips.rows,
            multiply_strip: self.kernels.strips.multiply,
            n_rows,
            out_stride,
            sink,
        };
        let n_panels = w.panels.len();
        // A unit is small enough for threads to finish together, and large enough to stream.
        let per_unit = (n_panels / (self.threads.n_at_once() * 16)).clamp(1, 8);
        let unit_work = per_unit * PANEL * w.shape.cols * n_rows;
        let kernel = self.kernels.multiply_panels;
        self.threads.for_each(n_panels.div_ceil(per_unit), unit_work, |unit, _| {
            let first = unit * per_unit;
            // SAFETY: shapes were checked by the caller, tensors are padded to whole panels, and
            // each panel is written by one unit.
            unsafe { kernel(&g, first..(first + per_unit).min(n_panels)) };
        });
    }

    /// The rows of `x` as multipliers of a product, and the number of words from one row to the next.
    pub(super) fn multipliers(
        &mut self,
        x: &Tensor,
        n_rows: usize,
        k_words: usize,
    ) -> (*const u32, usize) {
        let (words, words_stride) = match x.format == self.formats.operands {
            true => (x.words.as_ptr(), x.stride),
            false => self.rounded_rows(x, n_rows),
        };
        let Some(expand) = self.kernels.expand else {
            return (words, words_stride);
        };
        let stride = k_words * self.formats.operands.per_word();
        if self.expanded.len() < n_rows * stride {
            self.expanded.resize(n_rows * stride, 0);
        }
        // SAFETY: the rows lie in a buffer that is only read until they are expanded.
        let words = unsafe { std::slice::from_raw_parts(words, n_rows * words_stride) };
        let out = DisjointPtr::of(&mut self.expanded);
        for_each_row(&mut self.threads, (n_rows, EXPANDED_ROWS_PER_UNIT), stride, |row| {
            let from = &words[row * words_stride..];
            // SAFETY: the words have the row, the buffer was made to hold it, and one unit writes it.
            unsafe { expand(from.as_ptr(), k_words, out.ptr().add(row * stride)) };
        });
        (self.expanded.as_ptr(), stride)
    }

    /// The f32 rows of `x` rounded to operands, and the number of words from one row to the next.
    fn rounded_rows(&mut self, x: &Tensor, n_rows: usize) -> (*const u32, usize) {
        let cols = x.shape.cols;
        let stride = cols.max(1).next_multiple_of(PANEL) / self.formats.operands.per_word();
        if self.rounded.len() < n_rows * stride {
            self.rounded.resize(n_rows * stride, 0);
        }
        let per_unit = self.rows_per_unit(n_rows);
        let round = self.kernels.to_operand;
        let out = DisjointPtr::of(&mut self.rounded);
        let last_word = cols.saturating_sub(1) / self.formats.operands.per_word();
        for_each_row(&mut self.threads, (n_rows, per_unit), cols, |row| {
            // SAFETY: `x` has f32 rows, the buffer was made to hold them, and one unit writes the row.
            unsafe {
                let from = x.words.as_ptr().add(row * x.stride).cast::<f32>();
                let to = out.ptr().add(row * stride);
                *to.add(last_word) = 0; // the padding after an odd number of values
                round(std::slice::from_raw_parts(from, cols), to);
            }
        });
        (self.rounded.as_ptr(), stride)
    }

    /// The rows of `x` as signed bytes, in tiles ([`row_tile`]).
    fn row_blocks(&mut self, x: &Tensor, n_rows: usize, n_blocks: usize) -> *const RowBlock {
        let strip_rows = self.kernels.strips.rows;
        let last = row_tile(n_rows.saturating_sub(1), n_rows, strip_rows);
        let len = (last.first + last.n_rows) * n_blocks;
        if self.row_blocks.len() < len {
            self.row_blocks.resize(len, RowBlock::ZERO);
        }
        let per_unit = self.rows_per_unit(n_rows);
        let quantise = self.kernels.rows(x.format).quantise;
        let out = DisjointPtr::of(&mut self.row_blocks);
        for_each_row(&mut self.threads, (n_rows, per_unit), x.shape.cols, |row| {
            let tile = row_tile(row, n_rows, strip_rows);
            let at = tile.first * n_blocks + row - tile.first;
            // SAFETY: `x` has the row, the tile has room for its blocks, and one unit writes them.
            unsafe {
                let words = x.words.as_ptr().add(row * x.stride);
                quantise(words, x.shape.cols, out.ptr().add(at), tile.n_rows);
            }
        });
        self.row_blocks.as_ptr()
    }

    /// Norms row `source(i)` of `x` to row `i` of `out`, for `i` below `n_rows`. Shapes are checked.
    pub(super) fn norm_rows(
        &mut self,
        x: &Tensor,
        weight: &Vector,
        eps: f32,
        source: impl Fn(usize) -> usize + Sync,
        n_rows: usize,
        out: &mut Tensor,
    ) {
        let kernel = self.kernels.rows(out.format).rms_norm;
        let per_unit = self.rows_per_unit(n_rows);
        let stride = out.stride;
        let out = DisjointPtr::<u32>::new(&mut out.words);
        for_each_row(&mut self.threads, (n_rows, per_unit), 2 * x.shape.cols, |row| {
            // SAFETY: the caller has checked the shapes, and one unit writes the row.
            unsafe {
                let to = out.ptr().add(row * stride);
                kernel(x.f32_row(source(row)), weight.get(), eps, to);
            }
        });
    }
}

/// Runs `work` for every row below `n_rows`, `per_unit` rows a unit. A row costs about `row_work`
/// multiply-adds.
fn for_each_row(
    threads: &mut ThreadPool,
    (n_rows, per_unit): (usize, usize),
    row_work: usize,
    work: impl Fn(usize) + Sync,
) {
    threads.for_each(n_rows.div_ceil(per_unit), per_unit * row_work, |unit, _| {
        let first = unit * per_unit;
        (first..(first + per_unit).min(n_rows)).for_each(&work);
    });
}
