//! Weights and activations on the device, and the upload of weights.
//!
//! A matrix is row-major bf16, padded with zeros to whole steps of rows and columns. In a gated
//! matrix, runs of [`GK_GATED_RUN`] rows of the gate alternate with runs of as many rows of up. All
//! cores pack rows, some megabytes at a time. Where the device can, an upload runs while the next
//! rows are packed.

use super::device::Device;
use super::memory::{Buffer, bytes_of};
use crate::shapes::{MatrixShape, RowKind, TensorShape};
use crate::{BackendError, Result, WeightRows};
use galley_kernels_cu::bindings::{GK_GATED_RUN, GK_K_STEP, GK_N_STEP};
use half::bf16;
use std::sync::Arc;

const GATED_RUN: usize = GK_GATED_RUN as usize;
const K_STEP: usize = GK_K_STEP as usize;
const N_STEP: usize = GK_N_STEP as usize;

/// Values packed per upload: few beside a model, many beside the start-up of a transfer.
const STAGED_VALUES: usize = 8 << 20;

/// A packed weight matrix.
pub struct Matrix {
    pub(super) buffer: Buffer,
    pub(super) shape: MatrixShape,
    /// Values from one row to the next.
    pub(super) stride: usize,
}

impl Matrix {
    /// Packs the rows that `fill` writes. With `up`, `fill` is the gate.
    pub(super) fn pack(
        device: &Arc<dyn Device>,
        (rows, cols): (usize, usize),
        fill: &dyn WeightRows,
        up: Option<&dyn WeightRows>,
    ) -> Result<Self> {
        let stride = cols.next_multiple_of(K_STEP);
        let packed_rows = match up {
            Some(_) => (2 * rows.next_multiple_of(GATED_RUN)).next_multiple_of(N_STEP),
            None => rows.next_multiple_of(N_STEP),
        };
        let n_bytes = packed_rows
            .checked_mul(stride)
            .and_then(|n| n.checked_mul(size_of::<bf16>()))
            .ok_or(BackendError::OutOfMemory { purpose: "weights", needed_bytes: u128::MAX })?;
        let buffer = Buffer::new(device, "weights", n_bytes)?;
        let write = |packed_row: usize, scratch: &mut [f32], out: &mut [u16]| {
            let (fill, row) = source(packed_row, fill, up);
            if row < rows {
                fill.read_row(row, scratch);
                for (out, x) in out.iter_mut().zip(scratch) {
                    *out = bf16::from_f32(*x).to_bits();
                }
            }
        };
        let per_stage = (STAGED_VALUES / stride.max(1)).clamp(1, packed_rows.max(1));
        let mut stage = vec![0_u16; per_stage * stride];
        for first in (0..packed_rows).step_by(per_stage) {
            let n = per_stage.min(packed_rows - first);
            let stage = &mut stage[..n * stride];
            stage.fill(0);
            pack_rows(stage, (stride, cols), first, &write);
            buffer.upload(first * stride * size_of::<bf16>(), bytes_of(stage))?;
        }
        let shape = MatrixShape { rows, cols, gated: up.is_some() };
        Ok(Self { buffer, shape, stride })
    }
}

/// The source of a packed row: a projection and a row of it.
fn source<'a>(
    packed_row: usize,
    fill: &'a dyn WeightRows,
    up: Option<&'a dyn WeightRows>,
) -> (&'a dyn WeightRows, usize) {
    let Some(up) = up else { return (fill, packed_row) };
    let (run, at) = (packed_row / GATED_RUN, packed_row % GATED_RUN);
    (if run.is_multiple_of(2) { fill } else { up }, run / 2 * GATED_RUN + at)
}

/// Writes packed row `i` as bf16 bits to the second slice. The first is scratch for f32 values.
type WriteRow<'a> = dyn Fn(usize, &mut [f32], &mut [u16]) + Sync + 'a;

/// Writes packed rows to `stage`, from packed row `first` on, on all cores.
fn pack_rows(
    stage: &mut [u16],
    (stride, cols): (usize, usize),
    first: usize,
    write: &WriteRow<'_>,
) {
    if stage.is_empty() {
        return;
    }
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let per_thread = (stage.len() / stride).div_ceil(n_threads);
    std::thread::scope(|scope| {
        for (part, rows) in stage.chunks_mut(per_thread * stride).enumerate() {
            let first = first + part * per_thread;
            scope.spawn(move || {
                let mut scratch = vec![0.0; cols];
                for (i, row) in rows.chunks_exact_mut(stride).enumerate() {
                    write(first + i, &mut scratch, &mut row[..cols]);
                }
            });
        }
    });
}

/// A small f32 vector.
pub struct Vector {
    pub(super) buffer: Buffer,
    pub(super) len: usize,
}

impl Vector {
    pub(super) fn new(device: &Arc<dyn Device>, values: &[f32]) -> Result<Self> {
        Ok(Self { buffer: Buffer::of(device, "a weight vector", values)?, len: values.len() })
    }
}

/// Activations: f32 rows or operand rows, zero beyond their columns.
pub struct Tensor {
    pub(super) buffer: Buffer,
    pub(super) shape: TensorShape,
    /// Values from one row to the next.
    pub(super) stride: usize,
}

impl Tensor {
    pub(super) fn new(device: &Arc<dyn Device>, shape: TensorShape) -> Result<Self> {
        let TensorShape { kind, max_rows, cols } = shape;
        let (stride, bytes) = match kind {
            RowKind::F32 => (cols.next_multiple_of(N_STEP), size_of::<f32>()),
            RowKind::Operand => (cols.next_multiple_of(K_STEP), size_of::<bf16>()),
        };
        let n_bytes = max_rows
            .checked_mul(stride)
            .and_then(|n| n.checked_mul(bytes))
            .ok_or(BackendError::OutOfMemory { purpose: "activations", needed_bytes: u128::MAX })?;
        let buffer = Buffer::new(device, "activations", n_bytes)?;
        Ok(Self { buffer, shape, stride })
    }

    /// Reads `n_rows` f32 rows from `first_row` on, without the padding between them.
    pub(super) fn read_f32(&self, first_row: usize, n_rows: usize) -> Result<Vec<f32>> {
        let row_bytes = self.stride * size_of::<f32>();
        let mut values: Vec<f32> =
            self.buffer.download(first_row * row_bytes, n_rows * self.stride)?;
        let cols = self.shape.cols;
        if self.stride != cols {
            for row in 0..n_rows {
                let from = row * self.stride;
                values.copy_within(from..from + cols, row * cols);
            }
            values.truncate(n_rows * cols);
        }
        Ok(values)
    }
}
