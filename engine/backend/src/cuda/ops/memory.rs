//! Memory of the CUDA backend.

use crate::checks::check_copies;
use crate::cuda::{CudaBackend, KvPool, Matrix, Tensor, Vector, launch};
use crate::shapes::{RowKind, TensorShape};
use crate::{DeviceMemory, Formats, KvShape, Result, WeightRows};
use galley_kernels_cu::bindings::gk_copy_blocks;

impl DeviceMemory for CudaBackend {
    type Matrix = Matrix;
    type Vector = Vector;
    type Tensor = Tensor;
    type KvPool = KvPool;

    fn formats(&self) -> Formats {
        Formats::BF16
    }

    fn load_matrix(&mut self, rows: usize, cols: usize, fill: &dyn WeightRows) -> Result<Matrix> {
        Matrix::pack(&self.device, (rows, cols), fill, None)
    }

    fn load_gated(
        &mut self,
        rows: usize,
        cols: usize,
        gate: &dyn WeightRows,
        up: &dyn WeightRows,
    ) -> Result<Matrix> {
        Matrix::pack(&self.device, (rows, cols), gate, Some(up))
    }

    fn load_vector(&mut self, values: &[f32]) -> Result<Vector> {
        Vector::new(&self.device, values)
    }

    fn matrix_bytes(&self, matrix: &Matrix) -> usize {
        matrix.buffer.len()
    }

    fn f32_rows(&mut self, max_rows: usize, cols: usize) -> Result<Tensor> {
        Tensor::new(&self.device, TensorShape { kind: RowKind::F32, max_rows, cols })
    }

    fn operand_rows(&mut self, max_rows: usize, cols: usize) -> Result<Tensor> {
        Tensor::new(&self.device, TensorShape { kind: RowKind::Operand, max_rows, cols })
    }

    fn room_bytes(&self) -> Result<Option<usize>> {
        Ok(Some(self.device.memory()?.room_bytes(self.memory_share)))
    }

    fn kv_pool(&mut self, shape: KvShape) -> Result<KvPool> {
        KvPool::new(&self.device, shape)
    }

    fn alias_kv_pool(&mut self, pool: &KvPool, shape: KvShape) -> Result<KvPool> {
        pool.alias_kv_pool(shape)
    }

    fn read_f32(&self, tensor: &Tensor, n_rows: usize) -> Result<Vec<f32>> {
        tensor.shape.expect("read_f32", RowKind::F32, n_rows, tensor.shape.cols)?;
        tensor.read_f32(0, n_rows)
    }

    fn copy_blocks(&mut self, pool: &mut KvPool, copies: &[(u32, u32)]) -> Result<()> {
        check_copies(copies, &pool.shape)?;
        let pairs: Vec<u32> = copies.iter().flat_map(|&(from, to)| [from, to]).collect();
        let call = gk_copy_blocks {
            pairs: self.copies.holding(&self.device, &pairs)?.at(0),
            kv: pool.kv(0),
            n_pairs: copies.len() as i32,
        };
        launch(&self.device, "copy_blocks", self.device.kernels().copy_blocks, &call)
    }
}
