//! The forward on the CPU. Shapes are checked here, so that kernels need not.

use crate::checks::{check_tokens, for_each_slot};
use crate::cpu::buffer::DisjointPtr;
use crate::cpu::gemm::Sink;
use crate::cpu::observe::{MAX_KEPT_BYTES, Observed};
use crate::cpu::rope::RopeStore;
use crate::cpu::{CpuBackend, KvPool, Matrix, Tensor, Vector};
use crate::shapes::{
    RowKind, TensorShape, check_embed, check_linear, check_logits, check_rms_norm,
    check_rope_and_store_kv,
};
use crate::{
    AttentionParams, Batch, DecoderOps, Observation, OperandFormat, Result, Rope, RopeParams,
};

impl DecoderOps for CpuBackend {
    fn begin(
        &mut self,
        _: &Batch<'_>,
        _: &KvPool,
        _: &Rope,
        _: usize,
        _: AttentionParams,
    ) -> Result<()> {
        Ok(()) // every operation reads the batch from the caller's memory
    }

    fn embed(&mut self, table: &Matrix, batch: &Batch<'_>, out: &mut Tensor) -> Result<()> {
        let is_live = |placeholder| self.pending.is_live(placeholder);
        check_embed(&table.shape, batch, &out.shape, is_live)?;
        let tokens = self.pending.resolve(batch.tokens);
        check_tokens(&tokens, table.shape.rows, |_| false)?;
        let (stride, cols) = (out.stride, out.shape.cols);
        let out = DisjointPtr::<f32>::new(&mut out.words);
        self.threads.for_each(batch.tokens.len(), cols, |row, _| {
            // SAFETY: `out` holds the row, and one unit writes it.
            let to = unsafe { std::slice::from_raw_parts_mut(out.ptr().add(row * stride), cols) };
            let id = tokens[row].id().expect("every placeholder is resolved");
            table.read_row(id as usize, to);
        });
        Ok(())
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
        self.norm_rows(x, weight, eps, |i| i, n_rows, out);
        Ok(())
    }

    fn linear(
        &mut self,
        x: &Tensor,
        n_rows: usize,
        w: &Matrix,
        bias: Option<&Vector>,
        out: &mut Tensor,
    ) -> Result<()> {
        let n_biases = bias.map(|bias| bias.len);
        check_linear("linear", &x.shape, n_rows, (&w.shape, false), n_biases, &out.shape)?;
        let bias = bias.map_or(std::ptr::null(), |b| b.values.as_ptr());
        let sink = Sink::Store { out: out.words.as_mut_ptr().cast(), bias };
        self.multiply(x, n_rows, w, out.stride, sink);
        Ok(())
    }

    fn linear_add(
        &mut self,
        x: &Tensor,
        n_rows: usize,
        w: &Matrix,
        out: &mut Tensor,
    ) -> Result<()> {
        check_linear("linear_add", &x.shape, n_rows, (&w.shape, false), None, &out.shape)?;
        let sink = Sink::Add { out: out.words.as_mut_ptr().cast() };
        self.multiply(x, n_rows, w, out.stride, sink);
        Ok(())
    }

    fn linear_silu_mul(
        &mut self,
        x: &Tensor,
        n_rows: usize,
        gate_up: &Matrix,
        out: &mut Tensor,
    ) -> Result<()> {
        let gate_up_shape = (&gate_up.shape, true);
        check_linear("linear_silu_mul", &x.shape, n_rows, gate_up_shape, None, &out.shape)?;
        let is_f32 = out.format == OperandFormat::F32;
        let sink = Sink::SiluMul { out: out.words.as_mut_ptr(), is_f32 };
        self.multiply(x, n_rows, gate_up, out.stride, sink);
        Ok(())
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
        let (n_rows, kv) = (batch.tokens.len(), (layer, &pool.shape));
        let len = |vector: &Vector| vector.len;
        let n_heads = check_rope_and_store_kv(&qkv.shape, rope_params, len, n_rows, kv, &q.shape)?;
        self.check_query_format("rope_and_store_kv", q)?;
        self.angles.prepare(rope_params.rope, batch.positions);
        self.slots.clear();
        for_each_slot(batch, &pool.shape, |slot| self.slots.push(slot))?;
        let call = RopeStore {
            qkv: qkv.words.as_ptr().cast(),
            qkv_stride: qkv.stride,
            q_stride: q.stride,
            q: q.words.as_mut_ptr(),
            n_heads,
            head_dim: pool.shape.head_dim,
            angles: &self.angles,
            qk_norm: rope_params.qk_norm.as_ref().map(|n| (n.q.get(), n.k.get(), n.eps)),
            slots: &self.slots,
            layout: pool.layout,
            kv: pool.words.as_mut_ptr(),
            layer,
        };
        let kernel = self.kernels.rope_and_store;
        let per_unit = self.rows_per_unit(n_rows);
        self.threads.for_each(
            n_rows.div_ceil(per_unit),
            per_unit * qkv.shape.cols * 4,
            |unit, _| {
                let first = unit * per_unit;
                // SAFETY: shapes and slots were checked, and each row belongs to one unit. Two rows
                // share a slot only if the caller passes one position of one sequence twice.
                unsafe { kernel(&call, first..(first + per_unit).min(n_rows)) };
            },
        );
        Ok(())
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
        let call = self.attention_call(q, pool, layer, batch, params, out)?;
        self.attend_all(&call, batch, pool.shape.n_kv_heads, &Observed::default());
        Ok(())
    }

    fn observed_attention(
        &mut self,
        q: &Tensor,
        pool: &KvPool,
        layer: usize,
        batch: &Batch<'_>,
        params: AttentionParams,
        observations: &mut [Observation<'_>],
        out: &mut Tensor,
    ) -> Result<()> {
        let call = self.attention_call(q, pool, layer, batch, params, out)?;
        self.attend_and_observe(&call, pool, batch, observations, MAX_KEPT_BYTES)
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

    fn finish_observing(&mut self, _: &mut [Observation<'_>]) -> Result<()> {
        Ok(()) // `observe` has written the ids
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
        let rows = batch.logit_rows;
        if rows.is_empty() {
            return Ok(());
        }
        check_logits(&x.shape, norm.len, &head.shape, batch, &out.shape)?;
        let format = if head.has_strips { OperandFormat::F32 } else { self.formats.operands };
        let suits = |kept: &Tensor| kept.shape.cols == x.shape.cols && kept.format == format;
        let kept = self.head_rows.iter().position(suits);
        let kept = kept.map(|at| self.head_rows.swap_remove(at));
        let mut normed = match kept.filter(|kept| kept.shape.max_rows >= rows.len()) {
            Some(kept) => kept,
            None => {
                let (max_rows, cols) = (out.shape.max_rows, x.shape.cols);
                Tensor::new(TensorShape { kind: RowKind::Operand, max_rows, cols }, format)?
            }
        };
        self.norm_rows(x, norm, eps, |i| rows[i] as usize, rows.len(), &mut normed);
        let result = self.linear(&normed, rows.len(), head, None, out);
        self.head_rows.push(normed);
        result
    }
}
