//! The forward on the device. Shapes are checked here, because kernels do not check them.

use crate::cuda::{CudaBackend, KvPool, Matrix, Tensor, Vector, launch, window};
use crate::shapes::{
    RowKind, check_embed, check_linear, check_logits, check_queries, check_rms_norm,
    check_rope_and_store_kv,
};
use crate::{
    AttentionParams, Batch, DecoderOps, DeviceMemory, GraphKey, Observation, Result, Rope,
    RopeParams,
};
use galley_kernels_cu::bindings::{
    GK_ADD, GK_SILU_MUL, GK_STORE, gk_attention, gk_embed, gk_linear, gk_rms_norm, gk_rope_store,
};
use std::ptr::{null, null_mut};

impl DecoderOps for CudaBackend {
    fn begin(
        &mut self,
        batch: &Batch<'_>,
        pool: &KvPool,
        rope: &Rope,
        n_heads: usize,
        params: AttentionParams,
    ) -> Result<()> {
        self.observing.clear();
        // Working memory grows here, before a recording: nothing can be allocated during one.
        self.angles.begin(&self.device, rope, pool.shape.head_dim, batch.tokens.len())?;
        self.metadata.take(&self.device, batch, pool, n_heads, params)?;
        self.states.get(&self.device, self.metadata.states_len * size_of::<f32>())?;
        self.scale = params.scale;
        Ok(())
    }

    fn run_forward(
        &mut self,
        forward: &GraphKey<'_>,
        batch: &Batch<'_>,
        work: &mut dyn FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        self.launch_or_replay(forward, batch, work)
    }

    fn embed(&mut self, table: &Matrix, batch: &Batch<'_>, out: &mut Tensor) -> Result<()> {
        let is_live = |placeholder| self.sampler.is_live(placeholder);
        check_embed(&table.shape, batch, &out.shape, is_live)?;
        self.metadata.expect("embed", batch)?;
        self.n_tokens = table.shape.rows;
        let (sampled, n_sampled) = self.sampler.pending(&self.device)?;
        let call = gk_embed {
            table: table.buffer.at(0),
            tokens: self.metadata.gk_batch(&self.device)?.tokens,
            sampled,
            out: out.buffer.at(0),
            table_stride: table.stride as i64,
            out_stride: out.stride as i64,
            n_rows: batch.tokens.len() as i32,
            n_cols: table.shape.cols as i32,
            n_tokens: table.shape.rows as i32,
            n_sampled: n_sampled as i32,
        };
        launch(&self.device, "embed", self.device.kernels().embed, &call)
    }

    fn rms_norm(
        &mut self,
        x: &Tensor,
        n_rows: usize,
        weight: &Vector,
        eps: f32,
        out: &mut Tensor,
    ) -> Result<()> {
        check_rms_norm(&x.shape, n_rows, weight.len, &out.shape)?;
        self.norm_rows(x, n_rows, null(), weight, eps, out)
    }

    fn linear(
        &mut self,
        x: &Tensor,
        n_rows: usize,
        w: &Matrix,
        bias: Option<&Vector>,
        out: &mut Tensor,
    ) -> Result<()> {
        self.multiply("linear", GK_STORE, (x, n_rows, w), bias, out)
    }

    fn linear_add(
        &mut self,
        x: &Tensor,
        n_rows: usize,
        w: &Matrix,
        out: &mut Tensor,
    ) -> Result<()> {
        self.multiply("linear_add", GK_ADD, (x, n_rows, w), None, out)
    }

    fn linear_silu_mul(
        &mut self,
        x: &Tensor,
        n_rows: usize,
        gate_up: &Matrix,
        out: &mut Tensor,
    ) -> Result<()> {
        self.multiply("linear_silu_mul", GK_SILU_MUL, (x, n_rows, gate_up), None, out)
    }

    fn rope_and_store_kv(
        &mut self,
        qkv: &Tensor,
        rope_params: &RopeParams<'_, Vector>,
        batch: &Batch<'_>,
        layer: usize,
        pool: &mut KvPool,
        q: &mut Tensor,
    ) -> Result<()> {
        const OP: &str = "rope_and_store_kv";
        let (n_rows, kv) = (batch.tokens.len(), (layer, &pool.shape));
        let len = |vector: &Vector| vector.len;
        let n_heads = check_rope_and_store_kv(&qkv.shape, rope_params, len, n_rows, kv, &q.shape)?;
        self.metadata.expect_over(OP, batch, pool)?;
        let positions = self.metadata.gk_batch(&self.device)?.positions;
        let angles = self.angles.get(&self.device, OP, rope_params.rope, positions)?;
        let weight = |vector: &Vector| vector.buffer.at::<f32>(0).cast_const();
        let call = gk_rope_store {
            qkv: qkv.buffer.at(0),
            angles,
            q_norm: rope_params.qk_norm.as_ref().map_or(null(), |norm| weight(norm.q)),
            k_norm: rope_params.qk_norm.as_ref().map_or(null(), |norm| weight(norm.k)),
            slots: self.metadata.gk_batch(&self.device)?.slots,
            q: q.buffer.at(0),
            kv: pool.kv(layer),
            qkv_stride: qkv.stride as i64,
            q_stride: q.stride as i64,
            n_rows: n_rows as i32,
            n_heads: n_heads as i32,
            eps: rope_params.qk_norm.as_ref().map_or(0.0, |norm| norm.eps),
        };
        launch(&self.device, OP, self.device.kernels().rope_store, &call)
    }

    fn attention(
        &mut self,
        q: &Tensor,
        pool: &KvPool,
        layer: usize,
        batch: &Batch<'_>,
        params: AttentionParams,
        out: &mut Tensor,
    ) -> Result<()> {
        const OP: &str = "attention";
        let n_rows = batch.tokens.len();
        let n_heads = check_queries(OP, &q.shape, n_rows, (layer, &pool.shape))?;
        out.shape.expect(OP, RowKind::Operand, n_rows, q.shape.cols)?;
        self.metadata.expect_heads(OP, batch, pool, n_heads, params)?;
        let device = &self.device;
        // Launches run in stream order, so they can share the memory for states.
        let states_len = self.metadata.states_len;
        let states = self.states.get(device, states_len * size_of::<f32>())?.at(0);
        let batch = self.metadata.gk_batch(device)?;
        for at in 0..self.metadata.launches.len() {
            let (units, merges) = self.metadata.work(device, at)?;
            let work = &self.metadata.launches[at];
            let call = gk_attention {
                q: q.buffer.at(0),
                out: out.buffer.at(0),
                units,
                merges,
                states,
                batch,
                kv: pool.kv(layer),
                q_stride: q.stride as i64,
                out_stride: out.stride as i64,
                n_heads: n_heads as i32,
                n_units: work.n_units as i32,
                n_merges: work.n_merges as i32,
                queries_per_unit: work.queries_per_unit as i32,
                scale: params.scale,
                window: window(params),
            };
            launch(device, OP, device.kernels().attention, &call)?;
        }
        Ok(())
    }

    fn observe(
        &mut self,
        q: &Tensor,
        pool: &KvPool,
        layer: usize,
        batch: &Batch<'_>,
        params: AttentionParams,
        observations: &mut [Observation<'_>],
    ) -> Result<()> {
        self.observe_layer(q, pool, layer, batch, params, observations)
    }

    fn finish_observing(&mut self, observations: &mut [Observation<'_>]) -> Result<()> {
        self.fetch_observed(observations)
    }

    fn logits(
        &mut self,
        x: &Tensor,
        norm: &Vector,
        eps: f32,
        head: &Matrix,
        batch: &Batch<'_>,
        out: &mut Tensor,
    ) -> Result<()> {
        let n_rows = batch.logit_rows.len();
        if n_rows == 0 {
            return Ok(());
        }
        check_logits(&x.shape, norm.len, &head.shape, batch, &out.shape)?;
        self.metadata.expect("logits", batch)?;
        let rows = self.metadata.logit_rows(&self.device)?;
        let cols = x.shape.cols;
        let fits = |kept: &Tensor| kept.shape.cols == cols && kept.shape.max_rows >= n_rows;
        let at = match self.head_rows.iter().position(fits) {
            Some(at) => at,
            None => {
                let normed = self.operand_rows(out.shape.max_rows, cols)?;
                self.head_rows.retain(|kept| kept.shape.cols != cols);
                self.head_rows.push(normed);
                self.head_rows.len() - 1
            }
        };
        let normed = &self.head_rows[at];
        self.norm_rows(x, n_rows, rows, norm, eps, normed)?;
        self.multiply("logits", GK_STORE, (normed, n_rows, head), None, out)
    }
}

impl CudaBackend {
    /// Norms rows of `x`: the first `n_rows`, or the rows listed in `rows` on the device.
    fn norm_rows(
        &self,
        x: &Tensor,
        n_rows: usize,
        rows: *const u32,
        weight: &Vector,
        eps: f32,
        out: &Tensor,
    ) -> Result<()> {
        let call = gk_rms_norm {
            x: x.buffer.at(0),
            weight: weight.buffer.at(0),
            rows,
            out: out.buffer.at(0),
            x_stride: x.stride as i64,
            out_stride: out.stride as i64,
            n_rows: n_rows as i32,
            n_cols: x.shape.cols as i32,
            eps,
        };
        launch(&self.device, "rms_norm", self.device.kernels().rms_norm, &call)
    }

    /// Multiplies `n_rows` of `x` by `w`: a gated matrix gives operand rows, a plain one f32 rows.
    fn multiply(
        &self,
        op: &'static str,
        epilogue: u32,
        (x, n_rows, w): (&Tensor, usize, &Matrix),
        bias: Option<&Vector>,
        out: &Tensor,
    ) -> Result<()> {
        let is_gated = epilogue == GK_SILU_MUL;
        let n_biases = bias.map(|bias| bias.len);
        check_linear(op, &x.shape, n_rows, (&w.shape, is_gated), n_biases, &out.shape)?;
        let call = gk_linear {
            w: w.buffer.at(0),
            x: x.buffer.at(0),
            bias: bias.map_or(null(), |bias| bias.buffer.at::<f32>(0).cast_const()),
            out: if is_gated { null_mut() } else { out.buffer.at(0) },
            operand_out: if is_gated { out.buffer.at(0) } else { null_mut() },
            x_stride: x.stride as i64,
            out_stride: out.stride as i64,
            n_rows: n_rows as i32,
            n_in: w.shape.cols as i32,
            n_out: w.shape.rows as i32,
            epilogue: epilogue as i32,
            variant: 0,
        };
        launch(&self.device, op, self.device.kernels().linear, &call)
    }
}
