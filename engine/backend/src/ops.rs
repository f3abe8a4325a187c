//! The contract between a model and a device.

use crate::sample::{self, SampledTokens};
use crate::{Batch, Dtype, LayerMask, Observation, Result};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes row `i` of a matrix into the slice, as f32. Weights reach a backend through this
/// function, without a second copy of the file. Several threads call it, with rows in any order.
pub type RowSource<'a> = dyn Fn(usize, &mut [f32]) + Sync + 'a;

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
    /// Storage format.
    pub dtype: Dtype,
}

impl KvShape {
    /// Bytes of one token's keys and values over all layers.
    pub fn bytes_per_token(&self) -> usize {
        2 * self.n_layers * self.n_kv_heads * self.head_dim * self.dtype.bytes()
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

/// Rotary embedding: one inverse frequency per pair of dimensions, after frequency scaling.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// `head_dim / 2` inverse frequencies, radians per position.
    pub inv_freq: Vec<f32>,
    /// Factor on cos and sin; 1 unless the frequency scaling sets another one.
    pub attention_scale: f32,
}

/// The transformation of queries and keys before attention.
#[derive(Debug)]
pub struct RopeParams<'a, V> {
    /// Rotary embedding.
    pub rope: &'a Rope,
    /// Norms of the query and key heads before the rotation.
    pub qk_norm: Option<QkNorm<'a, V>>,
}

/// Attention parameters: the scale of scores and the sliding window.
#[derive(Clone, Copy, Debug)]
pub struct AttentionParams {
    /// Factor on scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Sliding window: a row at position p attends only to positions greater than `p - window`.
    pub window: Option<u32>,
}

/// RMS norm of every query and key head before rotation (Qwen3).
#[derive(Debug)]
pub struct QkNorm<'a, V> {
    /// Weight of the query norm, `head_dim`.
    pub q: &'a V,
    /// Weight of the key norm, `head_dim`.
    pub k: &'a V,
    /// Added to the mean square.
    pub eps: f32,
}

/// Identity of one model's weights and activations on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightsId(u64);

impl WeightsId {
    /// A new id, unique in this process.
    #[expect(clippy::new_without_default, reason = "no two are equal, as defaults are")]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Determines the operations of a forward, together with the batch's numbers of rows, sequences and
/// logit rows.
#[derive(Clone, Copy, Debug)]
pub struct GraphKey<'a> {
    /// The model that runs. An id always stands for the same weights and activations.
    pub model: WeightsId,
    /// The sub-layers that run.
    pub layers: LayerMask<'a>,
}

/// The operations of one device. The engine thread calls them, one at a time.
///
/// A tensor has one of two kinds of rows: *f32 rows* (the residual stream, unrotated queries, keys
/// and values, logits) or *operand rows* (inputs of matrix products, in the dtype of the weights).
/// The batch gives the number of rows. A tensor is allocated once, at its largest size.
pub trait Backend: Send + 'static {
    /// A packed weight matrix.
    type Matrix: Send;
    /// A small f32 vector (norm weight, bias, inverse frequencies).
    type Vector: Send;
    /// Activations.
    type Tensor: Send;
    /// Keys and values of all layers.
    type KvPool: Send;

    /// Description of the device for the user, such as instruction set and thread count.
    fn description(&self) -> String;

    /// Packs a `rows × cols` matrix (output × input features).
    fn load_matrix(
        &mut self,
        rows: usize,
        cols: usize,
        fill: &RowSource<'_>,
    ) -> Result<Self::Matrix>;
    /// Packs gate and up projections, each `rows × cols`, for [`Backend::linear_silu_mul`].
    fn load_gated(
        &mut self,
        rows: usize,
        cols: usize,
        gate: &RowSource<'_>,
        up: &RowSource<'_>,
    ) -> Result<Self::Matrix>;
    /// Uploads a vector.
    fn load_vector(&mut self, values: &[f32]) -> Result<Self::Vector>;
    /// Bytes that a matrix takes on the device.
    fn matrix_bytes(&self, matrix: &Self::Matrix) -> usize;
    /// Allocates a tensor of f32 rows.
    fn f32_rows(&mut self, max_rows: usize, cols: usize) -> Result<Self::Tensor>;
    /// Allocates a tensor of operand rows.
    fn operand_rows(&mut self, max_rows: usize, cols: usize) -> Result<Self::Tensor>;
    /// Free bytes for a KV pool at this moment; None if the backend does not know.
    fn room_bytes(&self) -> Result<Option<usize>> {
        Ok(None)
    }
    /// Allocates a zeroed KV pool.
    fn kv_pool(&mut self, shape: KvShape) -> Result<Self::KvPool>;
    /// Returns a draft model's pool in the memory of `pool`; [`KvShape::draft_layout`] gives its `shape`.
    /// The caller ensures that a block of `pool` belongs to one model at a time.
    fn alias_kv_pool(&mut self, pool: &Self::KvPool, shape: KvShape) -> Result<Self::KvPool>;

    /// Prepares a batch. All operations up to the next `begin` are of this batch, over `pool`, with
    /// this rotation, `n_heads` query heads and these `params`. Fails if rows, blocks or views are
    /// invalid, unless the operations themselves check them. A device uploads everything that it
    /// needs of the batch here, once.
    fn begin(
        &mut self,
        batch: &Batch<'_>,
        pool: &Self::KvPool,
        rope: &Rope,
        n_heads: usize,
        params: AttentionParams,
    ) -> Result<()>;
    /// Runs the `work` of a forward: all operations on the batch that `begin` has prepared.
    ///
    /// A device may record the operations of `work`, and replay them instead of calling `work`, for
    /// another batch with the same numbers of rows, sequences and logit rows. Therefore `work` must
    /// depend only on `forward` and these numbers: kernels find tokens, positions and views in the
    /// buffers that `begin` has filled. It must not call an operation that returns values to the
    /// host, nor [`Backend::observe`]. It may be called twice if recording fails.
    fn run_forward(
        &mut self,
        forward: &GraphKey<'_>,
        batch: &Batch<'_>,
        work: &mut dyn FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let _ = (forward, batch);
        work(self)
    }
    /// `out[row] = table[token]`, f32 rows. `table` is `vocab × hidden`. A token may be a
    /// placeholder ([`PLACEHOLDER_BIT`](crate::PLACEHOLDER_BIT)) until [`Backend::wait_tokens`] returns
    /// its token.
    fn embed(
        &mut self,
        table: &Self::Matrix,
        batch: &Batch<'_>,
        out: &mut Self::Tensor,
    ) -> Result<()>;
    /// `out = x / rms(x) * weight`: f32 rows to operand rows.
    fn rms_norm(
        &mut self,
        x: &Self::Tensor,
        n_rows: usize,
        weight: &Self::Vector,
        eps: f32,
        out: &mut Self::Tensor,
    ) -> Result<()>;
    /// `out = x Wᵀ + bias`: operand rows to f32 rows.
    fn linear(
        &mut self,
        x: &Self::Tensor,
        n_rows: usize,
        w: &Self::Matrix,
        bias: Option<&Self::Vector>,
        out: &mut Self::Tensor,
    ) -> Result<()>;
    /// `out += x Wᵀ`: operand rows added to f32 rows (the residual stream).
    fn linear_add(
        &mut self,
        x: &Self::Tensor,
        n_rows: usize,
        w: &Self::Matrix,
        out: &mut Self::Tensor,
    ) -> Result<()>;
    /// `out = silu(x Gᵀ) · (x Uᵀ)`: operand rows to operand rows.
    fn linear_silu_mul(
        &mut self,
        x: &Self::Tensor,
        n_rows: usize,
        gate_up: &Self::Matrix,
        out: &mut Self::Tensor,
    ) -> Result<()>;
    /// Rotates queries and keys, after their optional norm. Writes queries to `q` (operand rows),
    /// and keys and values to their slots of `layer` for the rows of spans with `writes_kv`.
    ///
    /// `qkv` rows are `[n_heads · head_dim | n_kv_heads · head_dim | n_kv_heads · head_dim]`.
    fn rope_and_store_kv(
        &mut self,
        qkv: &Self::Tensor,
        rope_params: &RopeParams<'_, Self::Vector>,
        batch: &Batch<'_>,
        layer: usize,
        pool: &mut Self::KvPool,
        q: &mut Self::Tensor,
    ) -> Result<()>;
    /// Attention of every row over its sequence's view. Operand rows to operand rows.
    fn attention(
        &mut self,
        q: &Self::Tensor,
        pool: &Self::KvPool,
        layer: usize,
        batch: &Batch<'_>,
        params: AttentionParams,
        out: &mut Self::Tensor,
    ) -> Result<()>;
    /// Selects the cached tokens of `layer` that rows of `q` attend to most. They are the part of
    /// `layer` in the `out` of each observation, which is valid after
    /// [`Backend::finish_observing`]. The selection of an observation does not depend on the rest
    /// of the batch.
    fn observe(
        &mut self,
        q: &Self::Tensor,
        pool: &Self::KvPool,
        layer: usize,
        batch: &Batch<'_>,
        params: AttentionParams,
        observations: &mut [Observation<'_>],
    ) -> Result<()>;
    /// Writes the selections of all [`Backend::observe`] calls since `begin` to `out`.
    /// `observations` are the same as in these calls.
    fn finish_observing(&mut self, observations: &mut [Observation<'_>]) -> Result<()>;
    /// Norms and projects `batch.logit_rows` of `x` to logits, one f32 row each.
    fn logits(
        &mut self,
        x: &Self::Tensor,
        norm: &Self::Vector,
        eps: f32,
        head: &Self::Matrix,
        batch: &Batch<'_>,
        out: &mut Self::Tensor,
    ) -> Result<()>;
    /// Samples one token for each entry of `rows`, from the logit row `logits_row`.
    fn sample(
        &mut self,
        logits: &Self::Tensor,
        rows: &[sample::SampleRow<'_>],
    ) -> Result<Vec<sample::SampledToken>>;
    /// Samples like [`Backend::sample`], without waiting for the device. Returns one placeholder
    /// for each entry of `rows`, in order. A batch may contain a placeholder until
    /// [`Backend::wait_tokens`] returns its token. The result is tokens only: no log-probabilities
    /// and no proposals.
    fn sample_async(
        &mut self,
        logits: &Self::Tensor,
        rows: &[sample::SampleRow<'_>],
    ) -> Result<Range<u32>>;
    /// Starts the copy to the host of all tokens that [`Backend::sample_async`] has sampled since
    /// the last call. The device continues with its next operations meanwhile.
    fn start_token_copy(&mut self) -> Result<()>;
    /// Waits for the oldest copy that [`Backend::start_token_copy`] has started and that was not taken
    /// yet. Without one, waits for all tokens that were sampled ahead. Returns the tokens; their
    /// placeholders become invalid and may be reused.
    fn wait_tokens(&mut self) -> Result<SampledTokens>;
    /// Whether the device continues to work after a call has returned. If so, the host should
    /// enqueue more work before it waits.
    fn is_asynchronous(&self) -> bool {
        false
    }
    /// Copies f32 rows such as logits to the host, for tests and for callers that need raw logits.
    fn read_f32(&self, tensor: &Self::Tensor, n_rows: usize) -> Result<Vec<f32>>;
    /// Copies whole blocks over all layers, as pairs `(from, to)`, for copy-on-write.
    fn copy_blocks(&mut self, pool: &mut Self::KvPool, copies: &[(u32, u32)]) -> Result<()>;
}
