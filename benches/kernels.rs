//! The CPU kernels compared with their lower bound:
//! `cargo bench -p galley-benches --bench kernels`.
//!
//! Shapes are SmolLM2-135M's. Each line gives the time, the rate of the limiting resource, and that
//! rate as a share of the rate that this machine provided in the same minute.

use galley_backend::cpu::{CpuBackend, CpuConfig, InstructionSet, peak_flops, read_bandwidth};
use galley_backend::{
    AttentionParams, Backend, Batch, DecoderOps, DeviceMemory, Dtype, InputToken, KvShape, KvView,
    Rope, RopeParams, SeqSpan,
};
use galley_benches::{median, median_s, seconds};

type Matrix = <CpuBackend as DeviceMemory>::Matrix;
type Tensor = <CpuBackend as DeviceMemory>::Tensor;
type KvPool = <CpuBackend as DeviceMemory>::KvPool;

fn main() {
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let config = CpuConfig::default();
    let mut backend = CpuBackend::new(config).expect("a CPU backend");
    let peak = peak_flops(InstructionSet::best(), Dtype::Bf16, n_threads);
    println!("{}, {:.0} GFLOP/s at best", backend.description(), peak / 1e9);
    // `-- linears`, `-- attention` or `-- verification` measures one part only.
    let only = std::env::args().nth(1).filter(|arg| !arg.starts_with("--"));
    let names = ["linears", "attention", "verification"];
    let is_known = only.as_deref().is_none_or(|only| names.contains(&only));
    assert!(is_known, "{only:?} measures nothing: one of {names:?}");
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if wanted("linears") {
        linears(&mut backend, n_threads);
    }
    if wanted("verification") {
        verification(&mut backend, n_threads);
    }
    if !wanted("attention") {
        return;
    }
    for (n_seqs, n_rows, context) in [
        (1, 1, 4096),
        (1, 1, 7900),
        (8, 1, 4096),
        (32, 1, 4096),
        (8, 3, 4096),
        (8, 8, 4096),
        (1, 512, 512),
        (1, 512, 4096),
        (1, 512, 7900),
    ] {
        attention(&mut backend, n_threads, n_seqs, n_rows, context);
    }
}

/// Bytes a second that memory delivers at the moment. Without enough free memory to measure, there
/// is no lower bound to compare with.
fn bandwidth_now(n_threads: usize) -> f64 {
    let bandwidth = read_bandwidth(InstructionSet::best(), n_threads);
    assert!(bandwidth > 0.0, "the bandwidth cannot be measured: is there a GiB of memory free?");
    bandwidth
}

/// The products of a large step: all linear layers and the output head, and buffers for their rows.
struct Linears {
    layers: Vec<[Matrix; 4]>,
    head: Matrix,
    x: Tensor,
    qkv: Tensor,
    residual: Tensor,
    gated: Tensor,
    logits: Tensor,
}

/// Parameters of one layer.
const PER_LAYER: usize = 960 * 576 + 576 * 576 + 3 * 1536 * 576;
/// Parameters of the output head.
const HEAD: usize = 49152 * 576;
const LAYERS: usize = 30;

impl Linears {
    fn new(b: &mut CpuBackend, max_rows: usize) -> Self {
        let fill = |row: usize, out: &mut [f32]| {
            for (i, x) in out.iter_mut().enumerate() {
                *x = ((row * 31 + i * 17) % 64) as f32 / 64.0 - 0.5;
            }
        };
        let load =
            |b: &mut CpuBackend, rows, cols| b.load_matrix(rows, cols, &fill).expect("a matrix");
        let layer = |_| {
            let gated = b.load_gated(1536, 576, &fill, &fill).expect("a matrix");
            [load(b, 960, 576), load(b, 576, 576), gated, load(b, 576, 1536)]
        };
        Self {
            layers: (0..LAYERS).map(layer).collect(),
            head: load(b, 49152, 576),
            x: b.operand_rows(max_rows, 576).expect("rows"),
            qkv: b.f32_rows(max_rows, 960).expect("rows"),
            residual: b.f32_rows(max_rows, 576).expect("rows"),
            gated: b.operand_rows(max_rows, 1536).expect("rows"),
            logits: b.f32_rows(max_rows, 49152).expect("rows"),
        }
    }

    fn step(&mut self, b: &mut CpuBackend, n_rows: usize, with_head: bool) {
        for [qkv, out, gate_up, down] in &self.layers {
            b.linear(&self.x, n_rows, qkv, None, &mut self.qkv).expect("shapes");
            b.linear_add(&self.x, n_rows, out, &mut self.residual).expect("shapes");
            b.linear_silu_mul(&self.x, n_rows, gate_up, &mut self.gated).expect("shapes");
            b.linear_add(&self.gated, n_rows, down, &mut self.residual).expect("shapes");
        }
        if with_head {
            b.linear(&self.x, n_rows, &self.head, None, &mut self.logits).expect("shapes");
        }
    }
}

/// All linear layers of a step; decodes include the output head.
fn linears(backend: &mut CpuBackend, n_threads: usize) {
    let mut step = Linears::new(backend, 512);
    for n_rows in [1, 2, 4, 8, 12, 16, 24, 32, 64, 512] {
        let with_head = n_rows <= 64;
        let bandwidth = bandwidth_now(n_threads);
        let seconds = median_s(9, || step.step(backend, n_rows, with_head));
        let bytes = 2.0 * (LAYERS * PER_LAYER + if with_head { HEAD } else { 0 }) as f64;
        println!(
            "linears rows {n_rows:4}: {:8.3} ms  {:6.1} GB/s ({:3.0} % of {:.0})  {:7.1} GFLOP/s",
            seconds * 1e3,
            bytes / seconds / 1e9,
            bytes / seconds / bandwidth * 100.0,
            bandwidth / 1e9,
            bytes * n_rows as f64 / seconds / 1e9,
        );
    }
}

/// The cost of verification compared with decoding: eight sequences of 8192 tokens, with one to
/// four rows each.
fn verification(backend: &mut CpuBackend, n_threads: usize) {
    const SEQS: usize = 8;
    const ROWS: [usize; 4] = [1, 2, 3, 4];
    let mut step = Linears::new(backend, SEQS * ROWS[3]);
    let mut cached = Cached::new(backend, SEQS, 8192);
    let mut times = ROWS.map(|_| [Vec::new(), Vec::new()]);
    let mut bandwidths = Vec::new();
    // The measurements alternate, so that a slow minute affects all of them.
    for _ in 0..11 {
        bandwidths.push(bandwidth_now(n_threads));
        for (n_rows, [linears, attention]) in ROWS.into_iter().zip(&mut times) {
            linears.push(seconds(|| step.step(backend, SEQS * n_rows, true)));
            attention.push(seconds(|| cached.attend(backend, n_rows)));
        }
    }
    let bandwidth = median(bandwidths);
    let peak = peak_flops(InstructionSet::best(), Dtype::Bf16, n_threads);
    let [one, ..] = times.each_ref().map(|[l, a]| (median(l.clone()), median(a.clone())));
    for (n_rows, [linears, attention]) in ROWS.into_iter().zip(times) {
        let (linears, attention) = (median(linears), median(attention));
        let operations = |parameters: usize| 2.0 * (parameters * SEQS * n_rows) as f64 / peak;
        let parameters = LAYERS * PER_LAYER + HEAD;
        let linears_floor = operations(parameters).max(2.0 * parameters as f64 / bandwidth);
        let attention_floor = (cached.flops(n_rows) / peak).max(cached.bytes() / bandwidth);
        println!(
            "verification {SEQS} x {n_rows} over 8192: linears {:7.2} ms (floor {:6.2}, {:.2}x of 1)  \
             attention {:7.2} ms (floor {:6.2}, {:.2}x)  both {:7.2} ms (floor {:6.2}, {:.2}x)",
            linears * 1e3,
            linears_floor * 1e3,
            linears / one.0,
            attention * 1e3,
            attention_floor * 1e3,
            attention / one.1,
            (linears + attention) * 1e3,
            (linears_floor + attention_floor) * 1e3,
            (linears + attention) / (one.0 + one.1),
        );
    }
    println!("  {:.1} GB/s, {:.0} GFLOP/s", bandwidth / 1e9, peak / 1e9);
}

/// Paged caches of all layers, and queries at their last positions.
struct Cached {
    pool: KvPool,
    tables: Vec<Vec<u32>>,
    context: usize,
    q: Tensor,
    out: Tensor,
}

impl Cached {
    fn new(backend: &mut CpuBackend, n_seqs: usize, context: usize) -> Self {
        let blocks_per_seq = context / 16 + 1;
        let shape = KvShape {
            n_layers: LAYERS,
            n_kv_heads: 3,
            head_dim: 64,
            block_size: 16,
            n_blocks: n_seqs * blocks_per_seq,
            dtype: Dtype::Bf16,
        };
        let mut pool = backend.kv_pool(shape).expect("a pool");
        let rope = Rope { inv_freq: vec![0.01; 32], attention_scale: 1.0 };
        let rope_params = RopeParams { rope: &rope, qk_norm: None };
        let max_rows = 512;
        let mut qkv = backend.f32_rows(max_rows, 960).expect("rows");
        // The matrix and its input are zero; the bias gives queries, keys and values non-zero
        // elements.
        let zero = backend.operand_rows(max_rows, 32).expect("rows");
        let w =
            backend.load_matrix(960, 32, &|_, out: &mut [f32]| out.fill(0.0)).expect("a matrix");
        let bias: Vec<f32> = (0..960).map(|i| (i % 13) as f32 / 13.0 - 0.5).collect();
        let bias = backend.load_vector(&bias).expect("a vector");
        backend.linear(&zero, max_rows, &w, Some(&bias), &mut qkv).expect("shapes");
        let mut q = backend.operand_rows(max_rows, 576).expect("rows");
        let out = backend.operand_rows(max_rows, 576).expect("rows");
        let tables: Vec<Vec<u32>> = (0..n_seqs)
            .map(|s| (0..blocks_per_seq).map(|b| (s * blocks_per_seq + b) as u32).collect())
            .collect();
        // Write to the whole pool, 512 rows at a time.
        for table in &tables {
            for first in (0..context).step_by(512) {
                let n_rows = 512.min(context - first);
                let positions: Vec<u32> = (first..first + n_rows).map(|p| p as u32).collect();
                let tokens = vec![InputToken::known(0); n_rows];
                let seqs = [SeqSpan {
                    first_row: 0,
                    n_rows,
                    block_table: table,
                    writes_kv: true,
                    view: KvView::default(),
                }];
                let batch =
                    Batch { tokens: &tokens, positions: &positions, seqs: &seqs, logit_rows: &[] };
                for layer in 0..LAYERS {
                    backend
                        .rope_and_store_kv(&qkv, &rope_params, &batch, layer, &mut pool, &mut q)
                        .expect("shapes");
                }
            }
        }
        Self { pool, tables, context, q, out }
    }

    /// Runs the attention of all layers for the last `n_rows` positions of every sequence.
    fn attend(&mut self, backend: &mut CpuBackend, n_rows: usize) {
        let params = AttentionParams { scale: 0.125, window: None };
        let at = self.context - n_rows..self.context;
        let positions: Vec<u32> =
            self.tables.iter().flat_map(|_| at.clone()).map(|p| p as u32).collect();
        let span = |(s, table)| SeqSpan {
            first_row: s * n_rows,
            n_rows,
            block_table: table,
            writes_kv: true,
            view: KvView::default(),
        };
        let tables = self.tables.iter().map(Vec::as_slice);
        let seqs: Vec<_> = tables.enumerate().map(span).collect();
        let tokens = vec![InputToken::known(0); positions.len()];
        let batch = Batch { tokens: &tokens, positions: &positions, seqs: &seqs, logit_rows: &[] };
        for layer in 0..LAYERS {
            backend
                .attention(&self.q, &self.pool, layer, &batch, params, &mut self.out)
                .expect("shapes");
        }
    }

    /// Number of bytes in the caches.
    fn bytes(&self) -> f64 {
        (self.tables.len() * self.context * LAYERS * 3 * 64 * 2 * 2) as f64
    }

    /// Number of floating-point operations in [`Self::attend`].
    fn flops(&self, n_rows: usize) -> f64 {
        let seen = (0..n_rows).map(|i| self.context - i).sum::<usize>() * self.tables.len();
        seen as f64 * (LAYERS * 9 * 64 * 4) as f64
    }
}

/// Measures the attention of all layers over paged caches of `context` tokens.
fn attention(
    backend: &mut CpuBackend,
    n_threads: usize,
    n_seqs: usize,
    n_rows: usize,
    context: usize,
) {
    let mut cached = Cached::new(backend, n_seqs, context);
    let bandwidth = bandwidth_now(n_threads);
    let seconds = median_s(9, || cached.attend(backend, n_rows));
    let (bytes, flops) = (cached.bytes(), cached.flops(n_rows));
    println!(
        "attention {n_seqs:2} x {n_rows:3} rows over {context}: {:8.3} ms  {:6.1} GB/s ({:3.0} % of {:.0})  {:7.1} GFLOP/s",
        seconds * 1e3,
        bytes / seconds / 1e9,
        bytes / seconds / bandwidth * 100.0,
        bandwidth / 1e9,
        flops / seconds / 1e9,
    );
}
