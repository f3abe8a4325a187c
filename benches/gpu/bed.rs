//! A paged cache with contents known to the host, queries against it, and attention over it in
//! float64.
//!
//! Row `t` of a table of known numbers holds the queries, keys and values of token `t`: the table
//! is embedded where a model would project, and RoPE rotates by zero. The cache is filled with some
//! tokens and copies of their blocks, in scattered order, as after hours of serving.

use crate::measure::{seconds_each, value};
use galley_backend::cuda::{CudaBackend, KvPool, Matrix, Tensor};
use galley_backend::{
    AttentionParams, Batch, DecoderOps, DeviceMemory, Dtype, InputToken, KvShape, KvView, Rope,
    RopeParams, SeqSpan,
};

/// Tokens in a block.
pub(crate) const BLOCK: usize = 16;
/// Layers that are used alternately, so that L2 does not hold a layer's cache when it is read
/// again.
pub(crate) const LAYERS: usize = 2;
/// Rows that are stored at once.
const CHUNK: usize = 1024;

/// The heads of a layer.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) head_dim: usize,
}

impl Heads {
    /// Number of values in a row before it is split.
    fn width(self) -> usize {
        (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
    }

    fn q_width(self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Bytes of a token's keys and values in one layer.
    pub(crate) fn bytes_per_token(self) -> usize {
        2 * self.n_kv_heads * self.head_dim * Dtype::Bf16.bytes()
    }

    fn params(self) -> AttentionParams {
        AttentionParams { scale: 1.0 / (self.head_dim as f32).sqrt(), window: None }
    }

    fn rope(self) -> Rope {
        Rope { inv_freq: vec![0.0; self.head_dim / 2], attention_scale: 1.0 }
    }
}

/// A pool of blocks of `block_size` tokens.
pub(crate) fn pool(
    backend: &mut CudaBackend,
    heads: Heads,
    n_layers: usize,
    block_size: usize,
    n_blocks: usize,
) -> KvPool {
    let Heads { n_kv_heads, head_dim, .. } = heads;
    let dtype = Dtype::Bf16;
    let shape = KvShape { n_layers, n_kv_heads, head_dim, block_size, n_blocks, dtype };
    backend.kv_pool(shape).expect("memory for a KV pool")
}

/// Stores the keys and values of `n_tokens` tokens in the first layer, in the blocks of
/// `block_table`: token `t` gets row `t % 1024` of the table.
pub(crate) fn fill(
    backend: &mut CudaBackend,
    heads: Heads,
    pool: &mut KvPool,
    block_table: &[u32],
    n_tokens: usize,
) {
    let mut rows = Rows::new(backend, heads, CHUNK);
    for first in (0..n_tokens).step_by(CHUNK) {
        let n_rows = CHUNK.min(n_tokens - first);
        let tokens: Vec<_> = (0..n_rows as u32).map(InputToken::known).collect();
        let positions: Vec<u32> = (first as u32..(first + n_rows) as u32).collect();
        let view = KvView::default();
        let seqs = [SeqSpan { first_row: 0, n_rows, block_table, writes_kv: true, view }];
        let batch = Batch { tokens: &tokens, positions: &positions, seqs: &seqs, logit_rows: &[] };
        rows.take(backend, heads, pool, &batch, &[0]);
    }
}

/// Buffers for the rows of a batch.
struct Rows {
    table: Matrix,
    qkv: Tensor,
    q: Tensor,
}

impl Rows {
    fn new(backend: &mut CudaBackend, heads: Heads, max_rows: usize) -> Self {
        let write = |row: usize, out: &mut [f32]| {
            out.iter_mut().enumerate().for_each(|(i, x)| *x = value(row, i));
        };
        Self {
            table: backend.load_matrix(CHUNK, heads.width(), &write).expect("a table"),
            qkv: backend.f32_rows(max_rows, heads.width()).expect("rows"),
            q: backend.operand_rows(max_rows, heads.q_width()).expect("rows"),
        }
    }

    /// Prepares a batch and computes its queries in `layers`, and stores its keys and values if its
    /// spans say so.
    fn take(
        &mut self,
        backend: &mut CudaBackend,
        heads: Heads,
        pool: &mut KvPool,
        batch: &Batch<'_>,
        layers: &[usize],
    ) {
        let rope = heads.rope();
        backend.begin(batch, pool, &rope, heads.n_heads, heads.params()).expect("a batch");
        backend.embed(&self.table, batch, &mut self.qkv).expect("rows");
        let rope_params = RopeParams { rope: &rope, qk_norm: None };
        for &layer in layers {
            backend
                .rope_and_store_kv(&self.qkv, &rope_params, batch, layer, pool, &mut self.q)
                .expect("stores");
        }
    }
}

/// A full cache, and buffers for queries against it.
pub(crate) struct Bed {
    pub(crate) heads: Heads,
    pool: KvPool,
    /// The blocks, in scattered order.
    blocks: Vec<u32>,
    n_filled: usize,
    rows: Rows,
    out: Tensor,
    /// Copies operand rows to f32 rows, which the host can read.
    identity: Matrix,
    plain: Tensor,
}

/// A batch of sequences with the same shape.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub(crate) n_seqs: usize,
    /// Rows of each sequence, from `position` on.
    pub(crate) n_rows: usize,
    pub(crate) position: usize,
    pub(crate) view: KvView<'a>,
}

impl Bed {
    /// A cache of `n_tokens` tokens, a multiple of the block size, and buffers for `max_rows` rows
    /// of queries.
    pub(crate) fn new(
        backend: &mut CudaBackend,
        heads: Heads,
        n_filled: usize,
        n_tokens: usize,
        max_rows: usize,
    ) -> Self {
        assert!(n_filled <= CHUNK);
        let n_blocks = n_tokens / BLOCK;
        let mut pool = pool(backend, heads, LAYERS, BLOCK, n_blocks);
        let mut rows = Rows::new(backend, heads, max_rows.max(n_filled));
        let filled = n_filled / BLOCK;
        let block_table: Vec<u32> = (0..filled as u32).collect();
        let positions: Vec<u32> = (0..n_filled as u32).collect();
        let tokens: Vec<_> = positions.iter().copied().map(InputToken::known).collect();
        let view = KvView::default();
        let seqs = [SeqSpan {
            first_row: 0,
            n_rows: n_filled,
            block_table: &block_table,
            writes_kv: true,
            view,
        }];
        let batch = Batch { tokens: &tokens, positions: &positions, seqs: &seqs, logit_rows: &[] };
        rows.take(backend, heads, &mut pool, &batch, &[0, 1]);
        let copies: Vec<_> =
            (filled..n_blocks).map(|block| ((block % filled) as u32, block as u32)).collect();
        backend.copy_blocks(&mut pool, &copies).expect("copies");
        let mut blocks: Vec<u32> = (0..n_blocks as u32).collect();
        let mut state = 1_u64;
        for i in (1..blocks.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            blocks.swap(i, (state >> 33) as usize % (i + 1));
        }
        let width = heads.q_width();
        let one = |row: usize, out: &mut [f32]| {
            out.fill(0.0);
            out[row] = 1.0;
        };
        Self {
            heads,
            pool,
            blocks,
            n_filled,
            rows,
            out: backend.operand_rows(max_rows, width).expect("rows"),
            identity: backend.load_matrix(width, width, &one).expect("a matrix"),
            plain: backend.f32_rows(max_rows, width).expect("rows"),
        }
    }

    /// The blocks of sequence `seq`, if every sequence has `n_tokens` tokens.
    fn table(&self, seq: usize, n_tokens: usize) -> &[u32] {
        let n = n_tokens.div_ceil(BLOCK);
        &self.blocks[seq * n..][..n]
    }

    /// The token that supplies the queries of a row.
    fn asking(&self, seq: usize, position: usize) -> usize {
        (seq * 131 + position * 17) % self.n_filled
    }

    /// Computes the queries of a pass in a context of `n_tokens`, and calls `then` with the
    /// arguments of its attention.
    fn begin<R>(
        &mut self,
        backend: &mut CudaBackend,
        pass: Pass<'_>,
        n_tokens: usize,
        then: impl FnOnce(&mut CudaBackend, &Batch<'_>, &Tensor, &KvPool, &mut Tensor) -> R,
    ) -> R {
        let Pass { n_seqs, n_rows, position, view } = pass;
        let at = position..position + n_rows;
        let (mut tokens, mut positions, mut seqs) = (vec![], vec![], vec![]);
        for seq in 0..n_seqs {
            let first_row = tokens.len();
            tokens.extend(at.clone().map(|p| InputToken::known(self.asking(seq, p) as u32)));
            positions.extend(at.clone().map(|p| p as u32));
            let block_table = &self.blocks[seq * n_tokens.div_ceil(BLOCK)..];
            let block_table = &block_table[..n_tokens.div_ceil(BLOCK)];
            seqs.push(SeqSpan { first_row, n_rows, block_table, writes_kv: false, view });
        }
        let batch = Batch { tokens: &tokens, positions: &positions, seqs: &seqs, logit_rows: &[] };
        self.rows.take(backend, self.heads, &mut self.pool, &batch, &[0]);
        then(backend, &batch, &self.rows.q, &self.pool, &mut self.out)
    }

    /// The output of a pass in the first layer, one vector a row.
    pub(crate) fn output(
        &mut self,
        backend: &mut CudaBackend,
        pass: Pass<'_>,
        n_tokens: usize,
    ) -> Vec<Vec<f32>> {
        let params = self.heads.params();
        self.begin(backend, pass, n_tokens, |backend, batch, q, pool, out| {
            backend.attention(q, pool, 0, batch, params, out).expect("attention");
        });
        let n_rows = pass.n_seqs * pass.n_rows;
        backend.linear(&self.out, n_rows, &self.identity, None, &mut self.plain).expect("rows");
        let values = backend.read_f32(&self.plain, n_rows).expect("rows");
        values.chunks(self.heads.q_width()).map(<[f32]>::to_vec).collect()
    }

    /// Seconds of a pass's attention in one layer.
    pub(crate) fn seconds(
        &mut self,
        backend: &mut CudaBackend,
        pass: Pass<'_>,
        n_tokens: usize,
    ) -> f64 {
        let params = self.heads.params();
        self.begin(backend, pass, n_tokens, |backend, batch, q, pool, out| {
            seconds_each(backend, |backend, i| {
                backend.attention(q, pool, i % LAYERS, batch, params, out).expect("attention");
            })
        })
    }

    /// The output of head `head` for the row at `position` of `seq`, attending to the positions
    /// `seen`, in float64.
    pub(crate) fn expected(
        &self,
        (seq, position, head): (usize, usize, usize),
        n_tokens: usize,
        seen: impl Iterator<Item = usize>,
    ) -> Vec<f64> {
        let Heads { n_heads, n_kv_heads, head_dim } = self.heads;
        let kv_head = head / (n_heads / n_kv_heads);
        let known = |token: usize, part: usize| {
            (0..head_dim).map(move |i| f64::from(value(token, part * head_dim + i)))
        };
        let q: Vec<f64> = known(self.asking(seq, position), head).collect();
        let table = self.table(seq, n_tokens);
        let (mut sum, mut out) = (0.0, vec![0.0; head_dim]);
        for at in seen {
            let block = table[at / BLOCK] as usize % (self.n_filled / BLOCK);
            let token = block * BLOCK + at % BLOCK;
            let dot: f64 = known(token, n_heads + kv_head).zip(&q).map(|(k, q)| k * q).sum();
            let weight = (dot / (head_dim as f64).sqrt()).exp();
            sum += weight;
            let values = known(token, n_heads + n_kv_heads + kv_head);
            out.iter_mut().zip(values).for_each(|(out, v)| *out += weight * v);
        }
        out.into_iter().map(|x| x / sum).collect()
    }
}
