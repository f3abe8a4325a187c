//! Memory of the CPU backend.

use crate::checks::{check_copies, check_draft_layout, check_kv_format};
use crate::cpu::matrix::PANEL;
use crate::cpu::rope::MAX_HEAD_DIM;
use crate::cpu::{CpuBackend, KvPool, Matrix, Tensor, Vector};
use crate::shapes::{RowKind, TensorShape};
use crate::{
    BackendError, DeviceMemory, Formats, KvShape, OperandFormat, Result, WeightFormat, WeightRows,
};

impl CpuBackend {
    fn pack(
        &mut self,
        weights: WeightFormat,
        size: (usize, usize),
        source: &dyn WeightRows,
        up: Option<&dyn WeightRows>,
    ) -> Result<Matrix> {
        let formats = (weights, self.formats.operands);
        Matrix::pack(&mut self.threads, &mut self.arena, formats, size, source, up)
    }
}

impl DeviceMemory for CpuBackend {
    type Matrix = Matrix;
    type Vector = Vector;
    type Tensor = Tensor;
    type KvPool = KvPool;

    fn formats(&self) -> Formats {
        self.formats
    }

    fn load_matrix(&mut self, rows: usize, cols: usize, source: &dyn WeightRows) -> Result<Matrix> {
        self.pack(self.formats.weights, (rows, cols), source, None)
    }

    fn load_table(&mut self, rows: usize, cols: usize, source: &dyn WeightRows) -> Result<Matrix> {
        let weights = match self.formats.weights {
            WeightFormat::Q4 => WeightFormat::Q8,
            weights => weights,
        };
        self.pack(weights, (rows, cols), source, None)
    }

    fn begin_model(&mut self, bytes: usize, has_blocks: bool) {
        self.arena.expect(bytes);
        self.product_format = match self.formats.is_quantised(has_blocks) {
            true => OperandFormat::F32,
            false => self.formats.operands,
        };
    }

    fn load_gated(
        &mut self,
        rows: usize,
        cols: usize,
        gate: &dyn WeightRows,
        up: &dyn WeightRows,
    ) -> Result<Matrix> {
        self.pack(self.formats.weights, (rows, cols), gate, Some(up))
    }

    fn load_vector(&mut self, values: &[f32]) -> Result<Vector> {
        let mut padded = values.to_vec();
        padded.resize(values.len().next_multiple_of(PANEL), 0.0);
        Ok(Vector { values: padded, len: values.len() })
    }

    fn matrix_bytes(&self, matrix: &Matrix) -> usize {
        matrix.memory.len()
    }

    fn f32_rows(&mut self, max_rows: usize, cols: usize) -> Result<Tensor> {
        Tensor::new(TensorShape { kind: RowKind::F32, max_rows, cols }, OperandFormat::F32)
    }

    fn operand_rows(&mut self, max_rows: usize, cols: usize) -> Result<Tensor> {
        Tensor::new(TensorShape { kind: RowKind::Operand, max_rows, cols }, self.product_format)
    }

    fn query_rows(&mut self, max_rows: usize, cols: usize) -> Result<Tensor> {
        Tensor::new(TensorShape { kind: RowKind::Operand, max_rows, cols }, self.formats.operands)
    }

    fn kv_pool(&mut self, shape: KvShape) -> Result<KvPool> {
        check_kv_format(&shape, self.formats.kv)?;
        if shape.head_dim > MAX_HEAD_DIM || !shape.head_dim.is_multiple_of(2) {
            return Err(BackendError::Unsupported(format!(
                "head_dim {}: an even number up to {MAX_HEAD_DIM} is needed",
                shape.head_dim
            )));
        }
        KvPool::new(shape)
    }

    fn alias_kv_pool(&mut self, pool: &KvPool, shape: KvShape) -> Result<KvPool> {
        check_draft_layout(&pool.shape, &shape)?;
        Ok(pool.alias_kv_pool(shape))
    }

    fn read_f32(&self, tensor: &Tensor, n_rows: usize) -> Result<Vec<f32>> {
        tensor.shape.expect("read_f32", RowKind::F32, n_rows, tensor.shape.cols)?;
        Ok((0..n_rows).flat_map(|row| tensor.f32_row(row)).copied().collect())
    }

    fn copy_blocks(&mut self, pool: &mut KvPool, copies: &[(u32, u32)]) -> Result<()> {
        check_copies(copies, &pool.shape)?;
        pool.copy_blocks(copies);
        Ok(())
    }
}
