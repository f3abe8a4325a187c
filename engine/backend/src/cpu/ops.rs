//! [`Backend`] on the CPU. It checks shapes, so that kernels need not.

use super::*;
use std::ops::Range;

impl Backend for CpuBackend {
    type Matrix = Matrix;
    type Vector = Vector;
    type Tensor = Tensor;
    type KvPool = KvPool;

    fn description(&self) -> String {
        format!(
            "cpu ({}, {} threads, {})",
            self.instruction_set.name(),
            self.threads.n_threads(),
            self.dtype
        )
    }

    fn load_matrix(&mut self, rows: usize, cols: usize, fill: &RowSource<'_>) -> Result<Matrix> {
        Matrix::pack(&mut self.threads, self.dtype, (rows, cols), fill, None)
    }

    fn load_gated(
        &mut self,
        rows: usize,
        cols: usize,
        gate: &RowSource<'_>,
        up: &RowSource<'_>,
    ) -> Result<Matrix> {
        Matrix::pack(&mut self.threads, self.dtype, (rows, cols), gate, Some(up))
    }

    fn load_vector(&mut self, values: &[f32]) -> Result<Vector> {
        let mut padded = values.to_vec();
        padded.resize(values.len().next_multiple_of(PANEL), 0.0);
        Ok(Vector { values: padded, len: values.len() })
    }

    fn matrix_bytes(&self, matrix: &Matrix) -> usize {
        matrix.words.len() * 4
    }

    fn f32_rows(&mut self, max_rows: usize, cols: usize) -> Result<Tensor> {
        Tensor::new(Kind::F32, self.dtype, max_rows, cols)
    }

    fn operand_rows(&mut self, max_rows: usize, cols: usize) -> Result<Tensor> {
        Tensor::new(Kind::Operand, self.dtype, max_rows, cols)
    }

    fn kv_pool(&mut self, shape: KvShape) -> Result<KvPool> {
        if shape.dtype != self.dtype {
            return Err(BackendError::Unsupported(format!(
                "a KV cache in {} beside weights in {}",
                shape.dtype, self.dtype
            )));
        }
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
        expect_tensor("embed", out, Kind::F32, batch.tokens.len(), table.cols)?;
        check_tokens(batch.tokens, table.rows, |sampled| self.pending.is_live(sampled))?;
        let tokens = self.pending.resolve(batch.tokens);
        check_tokens(&tokens, table.rows, |_| false)?;
        let (stride, cols) = (out.stride, out.cols);
        let out = Shared::<f32>::new(&mut out.words);
        self.threads.for_each(batch.tokens.len(), cols, |row, _| {
            // SAFETY: `out` holds the row, and one unit writes it.
            let to = unsafe { std::slice::from_raw_parts_mut(out.ptr().add(row * stride), cols) };
            table.read_row(tokens[row] as usize, to);
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
        expect("rms_norm", "weights", x.cols, weight.len)?;
        expect_tensor("rms_norm", out, Kind::Operand, n_rows, x.cols)?;
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
        expect_tensor("linear", x, Kind::Operand, n_rows, w.cols)?;
        expect_tensor("linear", out, Kind::F32, n_rows, w.rows)?;
        if let Some(bias) = bias {
            expect("linear", "biases", w.rows, bias.len)?;
        }
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
        expect_tensor("linear_add", x, Kind::Operand, n_rows, w.cols)?;
        expect_tensor("linear_add", out, Kind::F32, n_rows, w.rows)?;
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
        assert!(gate_up.gated, "the matrix was not loaded as gate and up");
        expect_tensor("linear_silu_mul", x, Kind::Operand, n_rows, gate_up.cols)?;
        expect_tensor("linear_silu_mul", out, Kind::Operand, n_rows, gate_up.rows)?;
        let sink = Sink::SiluMul { out: out.words.as_mut_ptr() };
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
        const OP: &str = "rope_and_store_kv";
        let KvShape { n_kv_heads, head_dim, .. } = pool.shape;
        let n_rows = batch.tokens.len();
        let n_heads = q.cols / head_dim;
        expect(OP, "inverse frequencies", head_dim / 2, rope_params.rope.inv_freq.len())?;
        expect_tensor(OP, qkv, Kind::F32, n_rows, (n_heads + 2 * n_kv_heads) * head_dim)?;
        expect_tensor(OP, q, Kind::Operand, n_rows, n_heads * head_dim)?;
        if let Some(norm) = &rope_params.qk_norm {
            expect(OP, "query norm weights", head_dim, norm.q.len)?;
            expect(OP, "key norm weights", head_dim, norm.k.len)?;
        }
        expect_layer(OP, layer, &pool.shape)?;
        self.angles.prepare(rope_params.rope, batch.positions);
        self.slots.clear();
        for_each_slot(batch, &pool.shape, |slot| self.slots.push(slot))?;
        let call = RopeStore {
            qkv: qkv.words.as_ptr().cast(),
            qkv_stride: qkv.stride,
            q_stride: q.stride,
            q: q.words.as_mut_ptr(),
            n_heads,
            head_dim,
            angles: &self.angles,
            qk_norm: rope_params.qk_norm.as_ref().map(|n| (n.q.get(), n.k.get(), n.eps)),
            slots: &self.slots,
            layout: pool.layout,
            kv: pool.words.as_mut_ptr(),
            layer,
        };
        let kernel = self.kernels.rope_and_store;
        let per_unit = self.rows_per_unit(n_rows);
        self.threads.for_each(n_rows.div_ceil(per_unit), per_unit * qkv.cols * 4, |unit, _| {
            let first = unit * per_unit;
            // SAFETY: shapes and slots were checked, and each row belongs to one unit. Two rows
            // share a slot only if the caller passes one position of one sequence twice.
            unsafe { kernel(&call, first..(first + per_unit).min(n_rows)) };
        });
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
        const OP: &str = "attention";
        let n_rows = batch.tokens.len();
        expect_tensor(OP, q, Kind::Operand, n_rows, out.cols)?;
        expect_tensor(OP, out, Kind::Operand, n_rows, q.cols)?;
        let call = Call {
            out_stride: out.stride,
            out: out.words.as_mut_ptr(),
            ..self.call(OP, q, n_rows, pool, layer, params)?
        };
        for seq in batch.seqs {
            check_view(OP, seq, batch, &pool.shape, layer)?;
        }
        self.attend_all(&call, batch, pool.shape.n_kv_heads);
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
        expect("logits", "norm weights", x.cols, norm.len)?;
        expect_tensor("logits", out, Kind::F32, rows.len(), head.rows)?;
        expect_tensor("logits", x, Kind::F32, batch.tokens.len(), head.cols)?;
        assert!(rows.iter().all(|&r| (r as usize) < batch.tokens.len()), "logits of a missing row");
        let kept = self.head_rows.iter().position(|kept| kept.cols == x.cols);
        let kept = kept.map(|at| self.head_rows.swap_remove(at));
        let mut normed = match kept.filter(|kept| kept.max_rows >= rows.len()) {
            Some(kept) => kept,
            None => self.operand_rows(out.max_rows, x.cols)?,
        };
        self.norm_rows(x, norm, eps, |i| rows[i] as usize, rows.len(), &mut normed);
        let result = self.linear(&normed, rows.len(), head, None, out);
        self.head_rows.push(normed);
        result
    }

    fn sample(&mut self, logits: &Tensor, rows: &[SampleRow<'_>]) -> Result<Vec<SampledToken>> {
        let mut sampled: Vec<Option<SampledToken>> = vec![None; rows.len()];
        let out = Shared::of(&mut sampled);
        let samplers = Shared::of(&mut self.samplers);
        self.threads.for_each(rows.len(), logits.cols * WORK_PER_LOGIT, |i, thread| {
            let row = &rows[i];
            // SAFETY: one unit writes `out[i]`, and each thread has its own sampler.
            unsafe {
                let scratch = &mut *samplers.ptr().add(thread);
                *out.ptr().add(i) =
                    Some(crate::sample::sample_token(logits.f32_row(row.logits_row), row, scratch));
            }
        });
        Ok(sampled.into_iter().flatten().collect())
    }

    fn sample_async(&mut self, logits: &Tensor, rows: &[SampleRow<'_>]) -> Result<Range<u32>> {
        let sampled = self.sample(logits, rows)?;
        let tokens: Vec<u32> = sampled.iter().map(|sampled| sampled.token).collect();
        Ok(self.pending.push(&tokens))
    }

    fn start_token_copy(&mut self) -> Result<()> {
        self.pending.send();
        Ok(())
    }

    fn wait_tokens(&mut self) -> Result<SampledTokens> {
        Ok(self.pending.take())
    }

    fn read_f32(&self, tensor: &Tensor, n_rows: usize) -> Result<Vec<f32>> {
        expect_tensor("read_f32", tensor, Kind::F32, n_rows, tensor.cols)?;
        Ok((0..n_rows).flat_map(|row| tensor.f32_row(row)).copied().collect())
    }

    fn copy_blocks(&mut self, pool: &mut KvPool, copies: &[(u32, u32)]) -> Result<()> {
        check_copies(copies, &pool.shape)?;
        pool.copy_blocks(copies);
        Ok(())
    }
}

/// Most rows per unit in operations with little work per row.
const MAX_ROWS_PER_UNIT: usize = 8;

/// Rows per unit of an expansion: a row takes about 0.1 µs, and a dispatch about 1 µs.
const EXPANDED_ROWS_PER_UNIT: usize = 32;

/// Approximate cost of sampling per logit, in multiply-adds: passes over the row and a share of the
/// sorting.
const WORK_PER_LOGIT: usize = 32;

/// Most query tokens of a sequence for which attention spreads tiles over threads. Longer spans
/// have enough rows.
const SPLIT_TOKENS: usize = 16;

impl CpuBackend {
    /// Rows per unit in operations of about 1 µs per row: several units per thread.
    fn rows_per_unit(&self, n_rows: usize) -> usize {
        (n_rows / (self.threads.n_at_once() * 2)).clamp(1, MAX_ROWS_PER_UNIT)
    }

    /// An attention call over `layer` of `pool` for the first `n_rows` rows of `q`, without an output.
    pub(super) fn call(
        &mut self,
        op: &'static str,
        q: &Tensor,
        n_rows: usize,
        pool: &KvPool,
        layer: usize,
        params: AttentionParams,
    ) -> Result<Call> {
        let KvShape { n_kv_heads, head_dim, block_size, .. } = pool.shape;
        let n_heads = q.cols / head_dim;
        expect_tensor(op, q, Kind::Operand, n_rows, n_heads * head_dim)?;
        expect(op, "heads in whole groups", 0, n_heads % n_kv_heads)?;
        expect_layer(op, layer, &pool.shape)?;
        let (queries, q_stride) = self.multipliers(q, n_rows, q.cols / self.dtype.per_word());
        Ok(Call {
            q: queries,
            q_stride,
            out: std::ptr::null_mut(),
            out_stride: 0,
            kv: pool.words.as_ptr(),
            layout: pool.layout,
            layer,
            head_dim,
            group_size: n_heads / n_kv_heads,
            groups_per_block: block_size / GROUP,
            scale: params.scale,
            window: params.window,
        })
    }

    /// The rows of `x` as multipliers of a product, and the number of words from one row to the next.
    pub(super) fn multipliers(
        &mut self,
        x: &Tensor,
        n_rows: usize,
        k_words: usize,
    ) -> (*const u32, usize) {
        let Some(expand) = self.kernels.expand else {
            return (x.words.as_ptr(), x.stride);
        };
        let stride = k_words * self.dtype.per_word();
        if self.expanded.len() < n_rows * stride {
            self.expanded.resize(n_rows * stride, 0);
        }
        let out = Shared::of(&mut self.expanded);
        let unit_work = EXPANDED_ROWS_PER_UNIT * stride;
        self.threads.for_each(n_rows.div_ceil(EXPANDED_ROWS_PER_UNIT), unit_work, |unit, _| {
            let first = unit * EXPANDED_ROWS_PER_UNIT;
            for row in first..(first + EXPANDED_ROWS_PER_UNIT).min(n_rows) {
                // SAFETY: `x` has the row, the buffer was made to hold it, and one unit writes it.
                unsafe {
                    expand(
                        x.words.as_ptr().add(row * x.stride),
                        k_words,
                        out.ptr().add(row * stride),
                    );
                }
            }
        });
        (self.expanded.as_ptr(), stride)
    }

    fn norm_rows(
        &mut self,
        x: &Tensor,
        weight: &Vector,
        eps: f32,
        source: impl Fn(usize) -> usize + Sync,
        n_rows: usize,
        out: &mut Tensor,
    ) {
        let kernel = self.kernels.rms_norm;
        let per_unit = self.rows_per_unit(n_rows);
        let stride = out.stride;
        let out = Shared::<u32>::new(&mut out.words);
        self.threads.for_each(n_rows.div_ceil(per_unit), per_unit * x.cols * 2, |unit, _| {
            let first = unit * per_unit;
            for row in first..(first + per_unit).min(n_rows) {
                // SAFETY: the caller has checked the shapes, and one unit writes the row.
                unsafe {
                    let to = out.ptr().add(row * stride);
                    kernel(x.f32_row(source(row)), weight.get(), eps, to);
                }
            }
        });
    }

    fn attend_all(&mut self, call: &Call, batch: &Batch<'_>, n_kv_heads: usize) {
        let memory = &mut self.attention;
        let shape = (call.head_dim, call.group_size);
        let kept = memory.scratch.iter().position(|(kept, _)| *kept == shape);
        let at = kept.unwrap_or_else(|| {
            let new = || Scratch::new(&call.layout, call.group_size);
            let of_threads = (0..self.threads.n_threads()).map(|_| new()).collect();
            memory.scratch.push((shape, of_threads));
            memory.scratch.len() - 1
        });
        let mut whole = Vec::new();
        let mut split = Vec::new();
        let mut n_states = 0;
        for seq in batch.seqs {
            let per_pass = (MAX_ROWS / call.group_size).max(1);
            for first in (0..seq.n_rows).step_by(per_pass) {
                for kv_head in 0..n_kv_heads {
                    let rows = Rows {
                        first_row: seq.first_row + first,
                        first_position: batch.positions[seq.first_row + first],
                        n_tokens: per_pass.min(seq.n_rows - first),
                        kv_head,
                        block_table: seq.block_table,
                        view: seq.view,
                    };
                    if seq.n_rows <= SPLIT_TOKENS {
                        let n_tiles = rows.n_tiles(call);
                        let len = SoftmaxState::len(
                            rows.n_tokens * call.group_size,
                            call.layout.padded_dim,
                        );
                        split.push((rows, n_states, len, n_tiles));
                        n_states += len * n_tiles;
                    } else {
                        whole.push(rows);
                    }
                }
            }
        }
        // The longest passes come first, so that threads finish together.
        whole.sort_by_key(|rows| std::cmp::Reverse(rows.first_position));
        if memory.states.len() < n_states {
            memory.states.resize(n_states, 0.0);
        }
        // A unit is a run of tiles: short enough for threads to finish together, long enough to stream.
        let all_tiles: usize = split.iter().map(|(.., n_tiles)| n_tiles).sum();
        let run = (all_tiles / (self.threads.n_at_once() * 8)).clamp(1, 16);
        let units: Vec<(usize, usize)> = split
            .iter()
            .enumerate()
            .flat_map(|(i, &(.., n_tiles))| (0..n_tiles).step_by(run).map(move |tile| (i, tile)))
            .collect();
        let scratch = Shared::of(&mut memory.scratch[at].1);
        let states = Shared::of(&mut memory.states);
        let kernels = self.kernels;
        // Bound of a unit's work: the largest state of one tile, times the number of tiles of the
        // longest unit.
        let state_work = MAX_ROWS.max(call.group_size) * TILE * 2 * call.head_dim;
        let longest = whole.iter().map(|rows| rows.n_tiles(call)).max().unwrap_or(0);
        let unit_work = state_work * longest.max(if units.is_empty() { 0 } else { run });
        self.threads.for_each(whole.len() + units.len(), unit_work, |unit, thread| {
            // SAFETY: each thread has its own scratch; the caller has checked views and shapes;
            // units write disjoint rows, heads and states.
            unsafe {
                let scratch = &mut *scratch.ptr().add(thread);
                if let Some(rows) = whole.get(unit) {
                    return (kernels.attend)(call, rows, scratch);
                }
                let (i, first) = units[unit - whole.len()];
                let (rows, at, len, n_tiles) = &split[i];
                let end = (first + run).min(*n_tiles);
                for tile in first..end {
                    let values =
                        std::slice::from_raw_parts_mut(states.ptr().add(at + tile * len), *len);
                    let mut state = SoftmaxState::over(values, rows.n_tokens * call.group_size);
                    (kernels.tile_state)(call, rows, (tile, end), scratch, &mut state);
                }
            }
        });
        let per_unit = split.len().div_ceil(self.threads.n_at_once()).max(1);
        let unit_work = split.iter().map(|(_, _, len, n_tiles)| len * n_tiles).max().unwrap_or(0);
        self.threads.for_each(
            split.len().div_ceil(per_unit),
            per_unit * unit_work,
            |unit, thread| {
                for (rows, at, len, n_tiles) in split.iter().skip(unit * per_unit).take(per_unit) {
                    // SAFETY: as above.
                    unsafe {
                        let values =
                            std::slice::from_raw_parts_mut(states.ptr().add(*at), len * n_tiles);
                        (kernels.merge_states)(call, rows, values, &mut *scratch.ptr().add(thread));
                    }
                }
            },
        );
    }
}
