//! Shared parts of the backends' tests: random data, KV caches, and expected results in float64.

mod selection_case;

pub(crate) use selection_case::{ObservedBy, SelectionCase, slack};

use crate::sample::{SampleRow, SamplingParams};
use crate::{
    AttentionParams, Backend, Batch, InputToken, KvFormat, KvShape, KvView, OperandFormat, Rope,
    RopeParams, SeqSpan,
};

/// A small deterministic generator (SplitMix64): values in -1..1.
pub(crate) struct Values(pub(crate) u64);

impl Values {
    pub(crate) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 23) as f32;
        // Rounding to bf16 makes both formats hold the same numbers.
        half::bf16::from_f32(unit - 1.0).to_f32()
    }

    pub(crate) fn take(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((self.next() + 1.0) / 2.0 * n as f32) as usize % n
    }
}

/// A backend with tensors that a test can write and read.
pub(crate) trait TestBackend: Backend {
    /// Writes the first values of a row.
    fn write(&self, tensor: &mut Self::Tensor, row: usize, values: &[f32]);
    /// Reads a row of either kind.
    fn read(&self, tensor: &Self::Tensor, row: usize) -> Vec<f32>;
}

/// Largest error that rounding of operands may cause, relative to the size of the values.
pub(crate) fn tolerance(format: OperandFormat) -> f64 {
    match format {
        OperandFormat::F32 => 2e-5,
        OperandFormat::Bf16 => 1.6e-2,
    }
}

/// A tensor of operand rows, `cols` values each, that holds `rows`.
pub(crate) fn operand<B: TestBackend>(backend: &mut B, rows: &[f32], cols: usize) -> B::Tensor {
    let mut tensor = backend.operand_rows(rows.len() / cols, cols).unwrap();
    for (row, values) in rows.chunks(cols).enumerate() {
        backend.write(&mut tensor, row, values);
    }
    tensor
}

/// Fails unless errors are within `tolerance`, relative to the largest value.
pub(crate) fn assert_close(case: &str, expected: &[f64], got: &[f32], tolerance: f64) {
    assert_eq!(expected.len(), got.len(), "{case}");
    let size = expected.iter().fold(1e-3_f64, |m, x| m.max(x.abs()));
    for (i, (e, g)) in expected.iter().zip(got).enumerate() {
        let error = (e - f64::from(*g)).abs() / size;
        assert!(error <= tolerance, "{case}[{i}]: expected {e}, got {g}");
    }
}

/// A matrix of `values`, row by row.
pub(crate) fn load<B: TestBackend>(
    backend: &mut B,
    rows: usize,
    cols: usize,
    values: &[f32],
) -> B::Matrix {
    backend
        .load_matrix(rows, cols, &|row: usize, out: &mut [f32]| {
            out.copy_from_slice(&values[row * cols..][..cols])
        })
        .unwrap()
}

/// `x Wᵀ` in float64.
pub(crate) fn product(x: &[f32], w: &[f32], cols: usize) -> Vec<f64> {
    let dot =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    x.chunks(cols).flat_map(|x| w.chunks(cols).map(move |w| dot(x, w))).collect()
}

/// A pool of `n_blocks` blocks of 16 tokens in bf16: one layer, and one KV head of 16 values.
pub(crate) fn one_head_shape(n_blocks: usize) -> KvShape {
    let format = KvFormat::Bf16;
    KvShape { n_layers: 1, n_kv_heads: 1, head_dim: 16, block_size: 16, n_blocks, format }
}

/// The seed of [`sample_row`].
pub(crate) const SEED: u64 = 11;

/// A row of the sampler with the first row of logits, without history, draft tokens or banned tokens.
pub(crate) fn sample_row(sampling: &SamplingParams, position: u32) -> SampleRow<'_> {
    SampleRow {
        logits_row: 0,
        sampling,
        seed: SEED,
        position,
        seen: None,
        drafted: &[],
        banned: &[],
        early_ends: &[],
        reports: true,
        rejection: None,
    }
}

/// Layers of a test pool; the tests use the last layer.
pub(crate) const LAYERS: usize = 2;
pub(crate) const LAYER: usize = LAYERS - 1;

/// A cache of one layer with random contents, and queries against it.
pub(crate) struct Cache {
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) block_size: usize,
    pub(crate) table: Vec<u32>,
    /// Queries, keys and values before rotation, per position; the pool holds rotated keys.
    pub(crate) qkv: Vec<f32>,
    pub(crate) rope: Rope,
}

impl Cache {
    pub(crate) fn new(
        values: &mut Values,
        (n_heads, n_kv_heads, head_dim): (usize, usize, usize),
        len: usize,
    ) -> Self {
        let block_size = 16 * (1 + values.below(2));
        let n_blocks = len.div_ceil(block_size);
        // A scattered table: ids in steps of 7, in random order.
        let mut table: Vec<u32> = (0..n_blocks as u32).map(|i| i * 7 + 3).collect();
        let mut order = Values(len as u64);
        for i in (1..n_blocks).rev() {
            table.swap(i, order.below(i + 1));
        }
        let width = (n_heads + 2 * n_kv_heads) * head_dim;
        let inv_freq = (0..head_dim / 2).map(|i| 0.5_f32.powi(i as i32)).collect();
        let qkv = values.take(len * width).iter().map(|v| v * 2.0).collect();
        let rope = Rope { inv_freq, attention_scale: 1.0 };
        Self { n_heads, n_kv_heads, head_dim, block_size, table, qkv, rope }
    }

    pub(crate) fn width(&self) -> usize {
        (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
    }

    /// Runs the positions through a backend in the given chunks and returns one output per
    /// position. `view` applies to chunks that do not begin before its tail.
    pub(crate) fn run<B: TestBackend>(
        &self,
        backend: &mut B,
        chunks: &[usize],
        view: KvView<'_>,
        window: Option<u32>,
    ) -> Vec<Vec<f32>> {
        let n = *chunks.iter().max().unwrap();
        let mut out = backend.operand_rows(n, self.n_heads * self.head_dim).unwrap();
        let params = self.params(window);
        let mut outputs = Vec::new();
        self.run_chunks(backend, chunks, view, window, |backend, q, pool, batch| {
            backend.attention(q, pool, LAYER, batch, params, &mut out).unwrap();
            let n_rows = batch.tokens.len();
            outputs.extend((0..n_rows).map(|row| backend.read(&out, row)));
        });
        outputs
    }

    /// Runs the positions through a backend in the given chunks, up to queries, keys and values,
    /// and calls `each` for every chunk.
    pub(crate) fn run_chunks<B: TestBackend>(
        &self,
        backend: &mut B,
        chunks: &[usize],
        view: KvView<'_>,
        window: Option<u32>,
        mut each: impl FnMut(&mut B, &B::Tensor, &mut B::KvPool, &Batch<'_>),
    ) {
        let shape = KvShape {
            n_layers: LAYERS,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            block_size: self.block_size,
            n_blocks: self.table.iter().max().map_or(1, |&m| m as usize + 1),
            format: backend.formats().kv,
        };
        let mut pool = backend.kv_pool(shape).unwrap();
        let n = *chunks.iter().max().unwrap();
        let mut qkv = backend.f32_rows(n, self.width()).unwrap();
        let mut q = backend.query_rows(n, self.n_heads * self.head_dim).unwrap();
        let rope_params = RopeParams { rope: &self.rope, qk_norm: None };
        let mut first = 0;
        for &n_rows in chunks {
            let positions: Vec<u32> = (first..first + n_rows).map(|p| p as u32).collect();
            let applies = view.tail_start as usize <= first;
            let view = if applies { view } else { KvView::default() };
            let seqs =
                [SeqSpan { first_row: 0, n_rows, block_table: &self.table, writes_kv: true, view }];
            let tokens = vec![InputToken::known(0); n_rows];
            let batch =
                Batch { tokens: &tokens, positions: &positions, seqs: &seqs, logit_rows: &[] };
            for row in 0..n_rows {
                let values = &self.qkv[(first + row) * self.width()..][..self.width()];
                backend.write(&mut qkv, row, values);
            }
            self.begin(backend, &batch, &pool, window);
            backend
                .rope_and_store_kv(&qkv, &rope_params, &batch, LAYER, &mut pool, &mut q)
                .unwrap();
            each(backend, &q, &mut pool, &batch);
            first += n_rows;
        }
    }

    /// Prepares a batch over this cache.
    pub(crate) fn begin<B: TestBackend>(
        &self,
        backend: &mut B,
        batch: &Batch<'_>,
        pool: &B::KvPool,
        window: Option<u32>,
    ) {
        backend.begin(batch, pool, &self.rope, self.n_heads, self.params(window)).unwrap();
    }

    pub(crate) fn params(&self, window: Option<u32>) -> AttentionParams {
        AttentionParams { scale: self.scale(), window }
    }

    pub(crate) fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// A rotated query or key in float64.
    pub(crate) fn rotated(&self, at: usize, head: usize) -> Vec<f64> {
        let dim = self.head_dim;
        let x = &self.qkv[at * self.width() + head * dim..][..dim];
        let mut out = vec![0.0; dim];
        for i in 0..dim / 2 {
            let (sin, cos) = (at as f64 * f64::from(self.rope.inv_freq[i])).sin_cos();
            let (a, b) = (f64::from(x[i]), f64::from(x[i + dim / 2]));
            out[i] = a * cos - b * sin;
            out[i + dim / 2] = b * cos + a * sin;
        }
        out
    }

    /// Attention probabilities of query head `head` at position `p` over the positions `seen`, in
    /// float64.
    pub(crate) fn probabilities(&self, p: usize, head: usize, seen: &[usize]) -> Vec<f64> {
        let kv_head = head / (self.n_heads / self.n_kv_heads);
        let q = self.rotated(p, head);
        let score = |&at: &usize| {
            let k = self.rotated(at, self.n_heads + kv_head);
            q.iter().zip(&k).map(|(a, b)| a * b).sum::<f64>() * f64::from(self.scale())
        };
        let scores: Vec<f64> = seen.iter().map(score).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect()
    }

    /// Output of position `p` in float64, over the positions for which `sees(kv_head, position)` is
    /// true.
    pub(crate) fn expected(&self, p: usize, sees: impl Fn(usize, usize) -> bool) -> Vec<f64> {
        let dim = self.head_dim;
        let mut out = Vec::new();
        for head in 0..self.n_heads {
            let kv_head = head / (self.n_heads / self.n_kv_heads);
            let seen: Vec<usize> = (0..=p).filter(|&at| sees(kv_head, at)).collect();
            let weights = self.probabilities(p, head, &seen);
            for d in 0..dim {
                let value = |at: usize| {
                    let v = (self.n_heads + self.n_kv_heads + kv_head) * dim + d;
                    f64::from(self.qkv[at * self.width() + v])
                };
                out.push(seen.iter().zip(&weights).map(|(&at, w)| w * value(at)).sum());
            }
        }
        out
    }
}

/// Attention in bf16 rounds queries, keys, values and probabilities.
pub(crate) fn attention_tolerance(format: OperandFormat) -> f64 {
    match format {
        OperandFormat::F32 => 2e-5,
        OperandFormat::Bf16 => 3e-2,
    }
}

pub(crate) const SHAPES: [(usize, usize, usize); 5] =
    [(3, 1, 64), (4, 4, 16), (7, 1, 24), (4, 2, 96), (2, 2, 128)];
