//! Memory of a device: weights, activations and the KV pool.

use crate::{Formats, KvFormat, Result, WeightRows};

/// Geometry of a KV pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Decoder layers.
    pub n_layers: usize,
    /// KV heads per layer.
    pub n_kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// Tokens per block.
    pub block_size: usize,
    /// Blocks in the pool.
    pub n_blocks: usize,
    /// Format of keys and values.
    pub format: KvFormat,
}

impl KvShape {
    /// Bytes of one token's keys and values over all layers.
    pub fn bytes_per_token(&self) -> usize {
        2 * self.n_layers * self.n_kv_heads * self.head_dim * self.format.bytes()
    }

    /// The shape of a draft model's blocks inside the blocks of this pool. Its `n_blocks` is a
    /// multiple of this pool's: the draft model's block `i` lies in block `i % self.n_blocks` of
    /// this pool. None if a block of this pool is too small for one block of the draft model.
    pub fn draft_layout(
        &self,
        n_layers: usize,
        n_kv_heads: usize,
        head_dim: usize,
    ) -> Option<KvShape> {
        let per_block = (self.n_layers * self.n_kv_heads).checked_div(n_layers * n_kv_heads)?;
        let fits = per_block > 0 && head_dim <= self.head_dim;
        let n_blocks = per_block * self.n_blocks;
        fits.then_some(KvShape { n_layers, n_kv_heads, head_dim, n_blocks, ..*self })
    }
}

/// Allocation, upload, copies and download of weights, activations and KV.
///
/// A tensor has one of two kinds of rows: *f32 rows* (the residual stream, unrotated queries, keys
/// and values, logits) or *operand rows*: inputs of matrix products, in the operand format (a device may
/// keep them in f32 for quantised weights), and queries, always in the operand format.
/// A tensor is allocated once, at its largest size.
pub trait DeviceMemory: Send + 'static {
    /// A packed weight matrix.
    type Matrix: Send;
    /// A small f32 vector (norm weight, bias, inverse frequencies).
    type Vector: Send;
    /// Activations.
    type Tensor: Send;
    /// Keys and values of all layers.
    type KvPool: Send;

    /// The formats of weights, operands and the KV cache.
    fn formats(&self) -> Formats;
    /// Packs a `rows × cols` matrix (output × input features).
    fn load_matrix(
        &mut self,
        rows: usize,
        cols: usize,
        source: &dyn WeightRows,
    ) -> Result<Self::Matrix>;
    /// Packs a `rows × cols` table of embeddings, which may be the output head too.
    fn load_table(
        &mut self,
        rows: usize,
        cols: usize,
        source: &dyn WeightRows,
    ) -> Result<Self::Matrix> {
        self.load_matrix(rows, cols, source)
    }
    /// Says that a model with matrices of about `bytes` packed bytes is loaded next, so that they lie together.
    /// `has_blocks` says whether some are quantised in the file. Operand rows that are allocated
    /// afterwards suit this model.
    fn begin_model(&mut self, _bytes: usize, _has_blocks: bool) {}
    /// Packs gate and up projections, each `rows × cols`, for [`DecoderOps::linear_silu_mul`].
    ///
    /// [`DecoderOps::linear_silu_mul`]: crate::DecoderOps::linear_silu_mul
    fn load_gated(
        &mut self,
        rows: usize,
        cols: usize,
        gate: &dyn WeightRows,
        up: &dyn WeightRows,
    ) -> Result<Self::Matrix>;
    /// Uploads a vector.
    fn load_vector(&mut self, values: &[f32]) -> Result<Self::Vector>;
    /// Bytes that a matrix takes on the device.
    fn matrix_bytes(&self, matrix: &Self::Matrix) -> usize;
    /// Allocates a tensor of f32 rows.
    fn f32_rows(&mut self, max_rows: usize, cols: usize) -> Result<Self::Tensor>;
    /// Allocates a tensor of operand rows for matrix products.
    fn operand_rows(&mut self, max_rows: usize, cols: usize) -> Result<Self::Tensor>;
    /// Allocates a tensor of operand rows for queries.
    fn query_rows(&mut self, max_rows: usize, cols: usize) -> Result<Self::Tensor> {
        self.operand_rows(max_rows, cols)
    }
    /// Free bytes for a KV pool at this moment; None if the backend does not know.
    fn room_bytes(&self) -> Result<Option<usize>> {
        Ok(None)
    }
    /// Allocates a zeroed KV pool.
    fn kv_pool(&mut self, shape: KvShape) -> Result<Self::KvPool>;
    /// Returns a draft model's pool in the memory of `pool`; [`KvShape::draft_layout`] gives its `shape`.
    /// The caller ensures that a block of `pool` belongs to one model at a time.
    fn alias_kv_pool(&mut self, pool: &Self::KvPool, shape: KvShape) -> Result<Self::KvPool>;

    /// Copies f32 rows such as logits to the host, for tests and for callers that need raw logits.
    fn read_f32(&self, tensor: &Self::Tensor, n_rows: usize) -> Result<Vec<f32>>;
    /// Copies whole blocks over all layers, as pairs `(from, to)`, for copy-on-write.
    fn copy_blocks(&mut self, pool: &mut Self::KvPool, copies: &[(u32, u32)]) -> Result<()>;
}
