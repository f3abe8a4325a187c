//! [`Backend`] on the device. Shapes are checked here, because kernels do not check them.

use super::matrix::Kind;
use super::*;
use crate::checks::{check_copies, check_tokens, expect, expect_layer};
use crate::sample::{SampleRow, SampledToken, SampledTokens};
use crate::{Backend, Batch, GraphKey, KvShape, Observation, Rope, RopeParams, RowSource};
use galley_kernels_cu::bindings::{
    GK_ADD, GK_SILU_MUL, GK_STORE, gk_attention, gk_copy_blocks, gk_embed, gk_linear, gk_rms_norm,
    gk_rope_store,
};
use std::ops::Range;
use std::ptr::{null, null_mut};

impl Backend for CudaBackend {
    type Matrix = Matrix;
    type Vector = Vector;
    type Tensor = Tensor;
    type KvPool = KvPool;

    fn description(&self) -> String {
        let given_up = self.graphs.given_up.as_ref();
        let why = given_up.map_or(String::new(), |why| format!(", forwards not recorded: {why}"));
        format!("{}, {}{why}", self.device.description(), self.dtype())
    }

    fn load_matrix(&mut self, rows: usize, cols: usize, fill: &RowSource<'_>) -> Result<Matrix> {
        Matrix::pack(&self.device, (rows, cols), fill, None)
    }

    fn load_gated(
        &mut self,
        rows: usize,
        cols: usize,
        gate: &RowSource<'_>,
        up: &RowSource<'_>,
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
        Tensor::new(&self.device, Kind::F32, max_rows, cols)
    }

    fn operand_rows(&mut self, max_rows: usize, cols: usize) -> Result<Tensor> {
        Tensor::new(&self.device, Kind::Operand, max_rows, cols)
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
        out.expect("embed", Kind::F32, batch.tokens.len(), table.cols)?;
        table.expect_gated("embed", false)?;
        check_tokens(batch.tokens, table.rows, |sampled| self.sampler.is_live(sampled))?;
        self.metadata.expect("embed", batch)?;
        self.n_tokens = table.rows;
        let (sampled, n_sampled) = self.sampler.pending(&self.device)?;
        let call = gk_embed {
            table: table.buffer.at(0),
            tokens: self.metadata.gk_batch(&self.device)?.tokens,
            sampled,
            out: out.buffer.at(0),
            table_stride: table.stride as i64,
            out_stride: out.stride as i64,
            n_rows: batch.tokens.len() as i32,
            n_cols: table.cols as i32,
            n_tokens: table.rows as i32,
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
        expect("rms_norm", "weights", x.cols, weight.len)?;
        x.expect("rms_norm", Kind::F32, n_rows, x.cols)?;
        out.expect("rms_norm", Kind::Operand, n_rows, x.cols)?;
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
        let KvShape { n_kv_heads, head_dim, .. } = pool.shape;
        let n_rows = batch.tokens.len();
        let n_heads = q.cols / head_dim;
        qkv.expect(OP, Kind::F32, n_rows, (n_heads + 2 * n_kv_heads) * head_dim)?;
        q.expect(OP, Kind::Operand, n_rows, n_heads * head_dim)?;
        if let Some(norm) = &rope_params.qk_norm {
            expect(OP, "query norm weights", head_dim, norm.q.len)?;
            expect(OP, "key norm weights", head_dim, norm.k.len)?;
        }
        expect_layer(OP, layer, &pool.shape)?;
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
        let n_heads = q.cols / pool.shape.head_dim;
        q.expect(OP, Kind::Operand, n_rows, n_heads * pool.shape.head_dim)?;
        out.expect(OP, Kind::Operand, n_rows, q.cols)?;
        expect_layer(OP, layer, &pool.shape)?;
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
        expect("logits", "norm weights", x.cols, norm.len)?;
        out.expect("logits", Kind::F32, n_rows, head.rows)?;
        x.expect("logits", Kind::F32, batch.tokens.len(), head.cols)?;
        head.expect_gated("logits", false)?;
        self.metadata.expect("logits", batch)?;
        let rows = self.metadata.logit_rows(&self.device)?;
        let fits = |kept: &Tensor| kept.cols == x.cols && kept.max_rows >= n_rows;
        let at = match self.head_rows.iter().position(fits) {
            Some(at) => at,
            None => {
                let normed = self.operand_rows(out.max_rows, x.cols)?;
                self.head_rows.retain(|kept| kept.cols != x.cols);
                self.head_rows.push(normed);
                self.head_rows.len() - 1
            }
        };
        let normed = &self.head_rows[at];
        self.norm_rows(x, n_rows, rows, norm, eps, normed)?;
        self.multiply("logits", GK_STORE, (normed, n_rows, head), None, out)
    }

    fn sample(&mut self, logits: &Tensor, rows: &[SampleRow<'_>]) -> Result<Vec<SampledToken>> {
        self.sampler.sample(&self.device, logits, rows)
    }

    fn sample_async(&mut self, logits: &Tensor, rows: &[SampleRow<'_>]) -> Result<Range<u32>> {
        self.sampler.sample_pending(&self.device, logits, rows)
    }

    fn start_token_copy(&mut self) -> Result<()> {
        self.sampler.start_token_copy()
    }

    fn wait_tokens(&mut self) -> Result<SampledTokens> {
        self.sampler.wait_tokens()
    }

    fn is_asynchronous(&self) -> bool {
        true
    }

    fn read_f32(&self, tensor: &Tensor, n_rows: usize) -> Result<Vec<f32>> {
        tensor.expect("read_f32", Kind::F32, n_rows, tensor.cols)?;
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
            n_cols: x.cols as i32,
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
        w.expect_gated(op, is_gated)?;
        x.expect(op, Kind::Operand, n_rows, w.cols)?;
        out.expect(op, if is_gated { Kind::Operand } else { Kind::F32 }, n_rows, w.rows)?;
        if let Some(bias) = bias {
            expect(op, "biases", w.rows, bias.len)?;
        }
        let call = gk_linear {
            w: w.buffer.at(0),
            x: x.buffer.at(0),
            bias: bias.map_or(null(), |bias| bias.buffer.at::<f32>(0).cast_const()),
            out: if is_gated { null_mut() } else { out.buffer.at(0) },
            operand_out: if is_gated { out.buffer.at(0) } else { null_mut() },
            x_stride: x.stride as i64,
            out_stride: out.stride as i64,
            n_rows: n_rows as i32,
            n_in: w.cols as i32,
            n_out: w.rows as i32,
            epilogue: epilogue as i32,
            variant: 0,
        };
        launch(&self.device, op, self.device.kernels().linear, &call)
    }
}
