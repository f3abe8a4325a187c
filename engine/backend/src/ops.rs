//! The contract between a model and a device.

use crate::sample::{self, Picks};
use crate::{Batch, Dtype, LayerMask, Observation, Result};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes row `i` of a matrix as f32 into the slice: how weights reach a backend without a second
/// copy of the file. Called from several threads, in any order.
pub type FillRow<'a> = dyn Fn(usize, &mut [f32]) + Sync + 'a;

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
    /// Bytes that one token's keys and values take over all layers.
    pub fn bytes_per_token(&self) -> usize {
        2 * self.n_layers * self.n_kv_heads * self.head_dim * self.dtype.bytes()
    }

    /// The blocks of a second model inside the blocks of this pool: `n_blocks` is a multiple of this pool's, and
    /// the second model's block `i` lies in block `i % n_blocks` of this one. None where not one fits.
    pub fn lodger(&self, n_layers: usize, n_kv_heads: usize, head_dim: usize) -> Option<KvShape> {
        let per_block = (self.n_layers * self.n_kv_heads).checked_div(n_layers * n_kv_heads)?;
        let fits = per_block > 0 && head_dim <= self.head_dim;
        let n_blocks = per_block * self.n_blocks;
        fits.then_some(KvShape { n_layers, n_kv_heads, head_dim, n_blocks, ..*self })
    }
}

/// Rotary embedding: one inverse frequency per pair, scaling already applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// `head_dim / 2` inverse frequencies, radians per position.
    pub inv_freq: Vec<f32>,
    /// Factor on cos and sin (1 unless the scaling says otherwise).
    pub attention_scale: f32,
}

/// What happens to queries and keys before attention.
#[derive(Debug)]
pub struct Rotation<'a, V> {
    /// Rotary embedding.
    pub rope: &'a Rope,
    /// Norms before it.
    pub qk_norm: Option<QkNorm<'a, V>>,
}

/// How attention weighs and how far it reaches.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// Factor on scores, `1 / sqrt(head_dim)` as a rule.
    pub scale: f32,
    /// A row at position p sees positions greater than `p - window` only.
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

/// The weights and activations of one model on a device, told from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelId(u64);

impl ModelId {
    /// One that there was none of before.
    #[expect(clippy::new_without_default, reason = "no two are equal, as defaults are")]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What decides the operations of a forward, beside its batch.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// Whose weights and activations they name: always the same ones.
    pub model: ModelId,
    /// Which sub-layers run.
    pub layers: LayerMask<'a>,
}

/// The operations of one device. All are called from the engine thread, one at a time.
///
/// Tensors come in two kinds: *f32 rows* (the residual stream, queries, logits) and *operand rows*
/// (what a matrix product reads, in the dtype of the weights). Row counts are those of the batch;
/// tensors are allocated once at their largest size.
pub trait Backend: Send + 'static {
    /// A packed weight matrix.
    type Matrix: Send;
    /// A small f32 vector (norm weight, bias, inverse frequencies).
    type Vector: Send;
    /// Activations.
    type Tensor: Send;
    /// Keys and values of all layers.
    type KvPool: Send;

    /// Device, instruction set and thread count, for people.
    fn description(&self) -> String;

    /// Packs a `rows × cols` matrix (output × input features).
    fn load_matrix(&mut self, rows: usize, cols: usize, fill: &FillRow<'_>)
    -> Result<Self::Matrix>;
    /// Packs gate and up projections, each `rows × cols`, for [`Backend::linear_silu_mul`].
    fn load_gated(
        &mut self,
        rows: usize,
        cols: usize,
        gate: &FillRow<'_>,
        up: &FillRow<'_>,
    ) -> Result<Self::Matrix>;
    /// Uploads a vector.
    fn load_vector(&mut self, values: &[f32]) -> Result<Self::Vector>;
    /// Bytes that a matrix takes on the device.
    fn matrix_bytes(&self, matrix: &Self::Matrix) -> usize;
    /// A tensor of f32 rows.
    fn f32_rows(&mut self, max_rows: usize, cols: usize) -> Result<Self::Tensor>;
    /// A tensor of operand rows.
    fn operand_rows(&mut self, max_rows: usize, cols: usize) -> Result<Self::Tensor>;
    /// Bytes that a KV pool may take at this moment; None where the caller has to know.
    fn room_bytes(&self) -> Result<Option<usize>> {
        Ok(None)
    }
    /// A KV pool, zeroed.
    fn kv_pool(&mut self, shape: KvShape) -> Result<Self::KvPool>;
    /// The blocks of a second model in the memory of `pool`, of a shape that [`KvShape::lodger`] gave. Who writes
    /// which block is up to the caller: a block of `pool` belongs to one model at a time.
    fn lodge(&mut self, pool: &Self::KvPool, shape: KvShape) -> Result<Self::KvPool>;

    /// Takes a batch in: the operations that follow, up to the next `begin`, are of this batch, over `pool`, with
    /// this rotation, `n_heads` query heads and this reach. Fails where rows, blocks or views are not what they must
    /// be. A device sends all that it needs to know of the batch here, once.
    fn begin(
        &mut self,
        batch: &Batch<'_>,
        pool: &Self::KvPool,
        rope: &Rope,
        n_heads: usize,
        reach: Reach,
    ) -> Result<()>;
    /// Does the `work` of a forward: operations of the batch that `begin` took in, all that are to be done with it.
    ///
    /// A device may keep what `work` asks of it, and ask that again instead of calling `work`, for another batch of
    /// as many rows, sequences and logit rows. So `work` depends on `forward` and these numbers alone (kernels find
    /// tokens, positions and views where `begin` sent them), calls nothing that gives values to the host
    /// ([`Backend::observe`] neither), and may be called twice where the device could not keep it.
    fn run_forward(
        &mut self,
        forward: &Forward<'_>,
        batch: &Batch<'_>,
        work: &mut dyn FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let _ = (forward, batch);
        work(self)
    }
    /// `out[row] = table[token]`, f32 rows. `table` is `vocab × hidden`. A token may be a pick that was made ahead and
    /// not taken yet ([`TOKEN_OF_PICK`](crate::TOKEN_OF_PICK)).
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
    /// Normalises (optionally) and rotates queries and keys, writes keys and values of the rows
    /// whose span writes any to their slots of `layer`, and queries to `q` (operand rows).
    ///
    /// `qkv` rows are `[n_heads · head_dim | n_kv_heads · head_dim | n_kv_heads · head_dim]`.
    fn rope_and_store_kv(
        &mut self,
        qkv: &Self::Tensor,
        rotation: &Rotation<'_, Self::Vector>,
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
        reach: Reach,
        out: &mut Self::Tensor,
    ) -> Result<()>;
    /// Selects the cached tokens of `layer` that rows of `q` attend to most: that layer's part of the `out` of every
    /// observation, which holds it after [`Backend::finish_observing`]. What a row observes depends on nothing else in the batch.
    fn observe(
        &mut self,
        q: &Self::Tensor,
        pool: &Self::KvPool,
        layer: usize,
        batch: &Batch<'_>,
        reach: Reach,
        observations: &mut [Observation<'_>],
    ) -> Result<()>;
    /// Fills in what [`Backend::observe`] has selected since the batch began; `observations` are the same as there.
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
    /// Picks one token per entry of `rows`, from the logits row it names.
    fn sample(
        &mut self,
        logits: &Self::Tensor,
        rows: &[sample::Row<'_>],
    ) -> Result<Vec<sample::Pick>>;
    /// Picks as [`Backend::sample`] does, without waiting for the device. Returns, in the order of `rows`, what stands
    /// for the picks in the tokens of batches until they are taken. Keeps tokens alone: no log-probabilities, no
    /// proposals.
    fn sample_ahead(
        &mut self,
        logits: &Self::Tensor,
        rows: &[sample::Row<'_>],
    ) -> Result<Range<u32>>;
    /// Has the picks made ahead since the last call brought to the host, while the device goes on with what is
    /// asked of it next.
    fn send_picks(&mut self) -> Result<()>;
    /// Waits for the picks that were sent first and not taken yet; where none were, for all made ahead. Nothing stands
    /// for them any more: what stood for them may stand for others.
    fn take_picks(&mut self) -> Result<Picks>;
    /// Whether work goes on after a call has returned: then the host does well to ask for more before it waits.
    fn is_asynchronous(&self) -> bool {
        false
    }
    /// Reads rows of logits back, for tests and for callers that want raw logits.
    fn read_f32(&self, tensor: &Self::Tensor, n_rows: usize) -> Result<Vec<f32>>;
    /// Copies whole blocks, all layers: `(from, to)`. For copy-on-write.
    fn copy_blocks(&mut self, pool: &mut Self::KvPool, copies: &[(u32, u32)]) -> Result<()>;
}
