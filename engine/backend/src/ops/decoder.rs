//! Operations of a decoder layer and of the output head.

use crate::{Batch, DeviceMemory, LayerMask, Observation, Result};
use std::sync::atomic::{AtomicU64, Ordering};

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

/// The forward of a batch, operation by operation. The batch gives the number of rows.
pub trait DecoderOps: DeviceMemory {
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
    /// host, nor [`Self::observe`] or [`Self::observed_attention`]. It may be called twice if
    /// recording fails.
    fn run_forward(
        &mut self,
        forward: &GraphKey<'_>,
        batch: &Batch<'_>,
        work: &mut dyn FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let _ = (forward, batch);
        work(self)
    }
    /// `out[row] = table[token]`, f32 rows. `table` is `vocab × hidden`. Tokens may be
    /// placeholders until [`AsyncSampling::wait_tokens`] returns their tokens.
    ///
    /// [`AsyncSampling::wait_tokens`]: crate::AsyncSampling::wait_tokens
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
    /// Rotates queries and keys, after their optional norm. Writes queries to `q` ([`DeviceMemory::query_rows`]),
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
    /// [`Self::finish_observing`]. The selection of an observation does not depend on the rest
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
    /// [`Self::attention`] and [`Self::observe`] of the same rows, with the same results. A device may
    /// do both with one reading of the keys.
    #[expect(clippy::too_many_arguments, reason = "the arguments of both operations")]
    fn observed_attention(
        &mut self,
        q: &Self::Tensor,
        pool: &Self::KvPool,
        layer: usize,
        batch: &Batch<'_>,
        params: AttentionParams,
        observations: &mut [Observation<'_>],
        out: &mut Self::Tensor,
    ) -> Result<()> {
        self.observe(q, pool, layer, batch, params, observations)?;
        self.attention(q, pool, layer, batch, params, out)
    }
    /// Writes the selections of all [`Self::observe`] and [`Self::observed_attention`] calls since
    /// `begin` to `out`. `observations` are the same as in these calls.
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
}
