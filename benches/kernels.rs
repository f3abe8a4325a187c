//! The CPU kernels against their floor: `cargo bench -p galley-benches --bench kernels`.
//!
//! Shapes are those of SmolLM2-135M. Each line gives the time, the rate of the resource that
//! limits it, and the share of what this machine had of that resource in the same minute.

use galley_backend::cpu::{CpuBackend, CpuConfig, InstructionSet, peak_flops, read_bandwidth};
use galley_backend::{Backend, Batch, Dtype, KvShape, KvView, Reach, Rope, Rotation, SeqSpan};
use galley_benches::median_s;

fn main() {
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let config = CpuConfig::default();
    let mut backend = CpuBackend::new(config).expect("a CPU backend");
    let peak = peak_flops(InstructionSet::best(), Dtype::Bf16, n_threads);
    println!("{}, {:.0} GFLOP/s at best", backend.description(), peak / 1e9);
    // `-- linears` or `-- attention` measures one of the two.
    let only = std::env::args().nth(1).filter(|arg| !arg.starts_with("--"));
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if wanted("linears") {
        linears(&mut backend, n_threads);
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

/// All linear layers of a step, the output head included for decodes.
fn linears(backend: &mut CpuBackend, n_threads: usize) {
    let fill = |row: usize, out: &mut [f32]| {
        for (i, x) in out.iter_mut().enumerate() {
            *x = ((row * 31 + i * 17) % 64) as f32 / 64.0 - 0.5;
        }
    };
    let n_layers = 30;
    let load = |b: &mut CpuBackend, rows, cols| b.load_matrix(rows, cols, &fill).expect("a matrix");
    let layers: Vec<_> = (0..n_layers)
        .map(|_| {
            let gated = backend.load_gated(1536, 576, &fill, &fill).expect("a matrix");
            (load(backend, 960, 576), load(backend, 576, 576), gated, load(backend, 576, 1536))
        })
        .collect();
    let head = load(backend, 49152, 576);
    for n_rows in [1, 2, 4, 8, 12, 16, 32, 64, 512] {
        let x = backend.operand_rows(n_rows, 576).expect("rows");
        let mut qkv = backend.f32_rows(n_rows, 960).expect("rows");
        let mut residual = backend.f32_rows(n_rows, 576).expect("rows");
        let mut gated = backend.operand_rows(n_rows, 1536).expect("rows");
        let mut logits = backend.f32_rows(n_rows, 49152).expect("rows");
        let with_head = n_rows <= 64;
        let bandwidth = read_bandwidth(InstructionSet::best(), n_threads);
        let seconds = median_s(9, || {
            for (a, b, c, d) in &layers {
                backend.linear(&x, n_rows, a, None, &mut qkv).expect("shapes");
                backend.linear_add(&x, n_rows, b, &mut residual).expect("shapes");
                backend.linear_silu_mul(&x, n_rows, c, &mut gated).expect("shapes");
                backend.linear_add(&gated, n_rows, d, &mut residual).expect("shapes");
            }
            if with_head {
                backend.linear(&x, n_rows, &head, None, &mut logits).expect("shapes");
            }
        });
        let per_layer = 960 * 576 + 576 * 576 + 3 * 1536 * 576;
        let parameters = n_layers * per_layer + if with_head { 49152 * 576 } else { 0 };
        let bytes = 2.0 * f64::from(parameters);
        let flops = bytes * n_rows as f64;
        println!(
            "linears rows {n_rows:4}: {:8.3} ms  {:6.1} GB/s ({:3.0} % of {:.0})  {:7.1} GFLOP/s",
            seconds * 1e3,
            bytes / seconds / 1e9,
            bytes / seconds / bandwidth * 100.0,
            bandwidth / 1e9,
            flops / seconds / 1e9,
        );
    }
}

/// Attention of all layers over paged caches of `context` tokens.
fn attention(
    backend: &mut CpuBackend,
    n_threads: usize,
    n_seqs: usize,
    n_rows: usize,
    context: usize,
) {
    const LAYERS: usize = 30;
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
    let rotation = Rotation { rope: &rope, qk_norm: None };
    let reach = Reach { scale: 0.125, window: None };
    let rows = n_seqs * n_rows;
    let max_rows = rows.max(512);
    let mut qkv = backend.f32_rows(max_rows, 960).expect("rows");
    // Random weights times zero rows leave zeros; a bias makes queries, keys and values something.
    let zero = backend.operand_rows(max_rows, 32).expect("rows");
    let w = backend.load_matrix(960, 32, &|_, out: &mut [f32]| out.fill(0.0)).expect("a matrix");
    let bias: Vec<f32> = (0..960).map(|i| (i % 13) as f32 / 13.0 - 0.5).collect();
    let bias = backend.load_vector(&bias).expect("a vector");
    backend.linear(&zero, max_rows, &w, Some(&bias), &mut qkv).expect("shapes");
    let mut q = backend.operand_rows(max_rows, 576).expect("rows");
    let mut out = backend.operand_rows(max_rows, 576).expect("rows");
    let tables: Vec<Vec<u32>> = (0..n_seqs)
        .map(|s| (0..blocks_per_seq).map(|b| (s * blocks_per_seq + b) as u32).collect())
        .collect();
    // Touch the whole pool, 512 rows at a time.
    for table in &tables {
        for first in (0..context).step_by(512) {
            let n_rows = 512.min(context - first);
            let positions: Vec<u32> = (first..first + n_rows).map(|p| p as u32).collect();
            let tokens = vec![0; n_rows];
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
                    .rope_and_store_kv(&qkv, &rotation, &batch, layer, &mut pool, &mut q)
                    .expect("shapes");
            }
        }
    }
    let positions: Vec<u32> =
        (0..n_seqs).flat_map(|_| context - n_rows..context).map(|p| p as u32).collect();
    let tokens = vec![0; rows];
    let seqs: Vec<_> = tables
        .iter()
        .enumerate()
        .map(|(s, table)| SeqSpan {
            first_row: s * n_rows,
            n_rows,
            block_table: table,
            writes_kv: true,
            view: KvView::default(),
        })
        .collect();
    let batch = Batch { tokens: &tokens, positions: &positions, seqs: &seqs, logit_rows: &[] };
    let bandwidth = read_bandwidth(InstructionSet::best(), n_threads);
    let seconds = median_s(9, || {
        for layer in 0..LAYERS {
            backend.attention(&q, &pool, layer, &batch, reach, &mut out).expect("shapes");
        }
    });
    let bytes = (n_seqs * context * shape.bytes_per_token()) as f64;
    let seen = (0..n_rows).map(|i| context - i).sum::<usize>() * n_seqs;
    let flops = seen as f64 * (LAYERS * 9 * 64 * 4) as f64;
    println!(
        "attention {n_seqs:2} x {n_rows:3} rows over {context}: {:8.3} ms  {:6.1} GB/s ({:3.0} % of {:.0})  {:7.1} GFLOP/s",
        seconds * 1e3,
        bytes / seconds / 1e9,
        bytes / seconds / bandwidth * 100.0,
        bandwidth / 1e9,
        flops / seconds / 1e9,
    );
}
