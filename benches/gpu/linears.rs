//! Matrix products of real models, for several numbers of rows.

use crate::bed::{self, BLOCK};
use crate::gpu::{Gpu, Model};
use crate::measure::{check, seconds_each, value};
use galley_backend::cuda::{CudaBackend, Matrix, Tensor};
use galley_backend::{
    AttentionParams, Batch, DecoderOps, DeviceMemory, InputToken, KvView, Rope, SeqSpan,
};

/// Rows of the table from which operands are made.
const N_TOKENS: usize = 256;
/// Limit on the rows of an output head, which sees few rows: a prompt needs logits only for its
/// last token.
const MAX_HEAD_ROWS: usize = 256;
/// Outputs of a row that are compared with float64.
const N_CHECKED: usize = 64;

/// One product of a model.
struct Product {
    name: &'static str,
    n_out: usize,
    n_in: usize,
    is_gated: bool,
    max_rows: usize,
}

impl Product {
    /// Number of bytes in its weights.
    fn bytes(&self) -> usize {
        2 * self.n_out * self.n_in * (1 + usize::from(self.is_gated))
    }
}

/// Measures every product of every model for every number of rows.
pub(crate) fn measure(gpu: &mut Gpu) {
    println!(
        "\n| product | out × in | rows | µs | GB/s | of copy bandwidth | TFLOP/s |\n|---|---|---:|---:|---:|---:|---:|"
    );
    let most = gpu.sizes.n_rows.iter().max().copied().unwrap_or(1);
    for model in gpu.sizes.models {
        for product in products(model, most) {
            measure_product(gpu, model, &product);
        }
    }
}

fn products(model: &Model, most: usize) -> [Product; 5] {
    let Model { hidden, n_heads, n_kv_heads, head_dim, inner, vocabulary, .. } = *model;
    let product =
        |name, n_out, n_in| Product { name, n_out, n_in, is_gated: false, max_rows: most };
    [
        product("qkv", (n_heads + 2 * n_kv_heads) * head_dim, hidden),
        product("out", hidden, n_heads * head_dim),
        Product { is_gated: true, ..product("gate, up", inner, hidden) },
        product("down", hidden, inner),
        Product { max_rows: most.min(MAX_HEAD_ROWS), ..product("head", vocabulary, hidden) },
    ]
}

/// A value of the up matrix (`is_up`), or of the gate matrix or only matrix.
fn weight(is_up: bool, row: usize, i: usize) -> f32 {
    value(row * 2 + usize::from(is_up) + 5000, i) / 16.0
}

/// The value of operand row `row` at `i`: a sign times a factor. The norm keeps it exact.
fn operand(row: usize, i: usize) -> f32 {
    sign(row % N_TOKENS, i) * factor(i)
}

fn sign(token: usize, i: usize) -> f32 {
    if value(token, i) < 0.0 { -1.0 } else { 1.0 }
}

fn factor(i: usize) -> f32 {
    value(4999, i)
}

/// A product with all matrices and buffers that it needs.
struct Bench {
    /// Copies of the same weights in several places, so that L2 does not hold them.
    weights: Vec<Matrix>,
    x: Tensor,
    out: Tensor,
    is_gated: bool,
    n_out: usize,
    /// Indices of the compared outputs, and a matrix that selects them from operand rows.
    checked: Vec<usize>,
    selector: Matrix,
    selected: Tensor,
}

impl Bench {
    fn new(backend: &mut CudaBackend, product: &Product, weight_bytes: usize) -> Self {
        let &Product { n_out, n_in, is_gated, max_rows, .. } = product;
        let write = |is_up: bool| {
            move |row: usize, out: &mut [f32]| {
                out.iter_mut().enumerate().for_each(|(i, x)| *x = weight(is_up, row, i));
            }
        };
        let n_copies = weight_bytes.div_ceil(product.bytes());
        let load = |_| match is_gated {
            true => backend.load_gated(n_out, n_in, &write(false), &write(true)).expect("memory"),
            false => backend.load_matrix(n_out, n_in, &write(false)).expect("memory"),
        };
        let weights = (0..n_copies).map(load).collect();
        let checked: Vec<usize> =
            (0..N_CHECKED).map(|i| i * (n_out - 1) / (N_CHECKED - 1)).collect();
        let select = |row: usize, out: &mut [f32]| {
            out.fill(0.0);
            out[checked[row]] = 1.0;
        };
        // Only gated products write operand rows, so only they need the selecting matrix.
        let selector = match is_gated {
            true => backend.load_matrix(N_CHECKED, n_out, &select),
            false => backend.load_matrix(1, 1, &|_, out: &mut [f32]| out.fill(1.0)),
        };
        let out = match is_gated {
            true => backend.operand_rows(max_rows, n_out),
            false => backend.f32_rows(max_rows, n_out),
        };
        Self {
            weights,
            x: operands(backend, max_rows, n_in),
            out: out.expect("memory"),
            is_gated,
            n_out,
            selector: selector.expect("memory"),
            selected: backend.f32_rows(max_rows, N_CHECKED).expect("memory"),
            checked,
        }
    }

    fn multiply(&mut self, backend: &mut CudaBackend, n_rows: usize, copy: usize) {
        let Self { weights, x, out, is_gated, .. } = self;
        let w = &weights[copy % weights.len()];
        let done = match is_gated {
            true => backend.linear_silu_mul(x, n_rows, w, out),
            false => backend.linear(x, n_rows, w, None, out),
        };
        done.expect("a product");
    }

    /// The compared outputs of the first and the last row.
    fn outputs(&mut self, backend: &mut CudaBackend, n_rows: usize) -> [Vec<f32>; 2] {
        let rows = if self.is_gated {
            let Self { out, selector, selected, .. } = self;
            backend.linear(out, n_rows, selector, None, selected).expect("rows");
            backend.read_f32(selected, n_rows).expect("rows")
        } else {
            let rows = backend.read_f32(&self.out, n_rows).expect("rows");
            rows.chunks(self.n_out).flat_map(|row| self.checked.iter().map(|i| row[*i])).collect()
        };
        [0, n_rows - 1].map(|row| rows[row * N_CHECKED..][..N_CHECKED].to_vec())
    }

    /// The compared outputs of `row`, in float64.
    fn expected(&self, row: usize, n_in: usize) -> Vec<f64> {
        let sum = |is_up: bool, output: usize| -> f64 {
            (0..n_in)
                .map(|i| f64::from(operand(row, i)) * f64::from(weight(is_up, output, i)))
                .sum()
        };
        let output = |output: &usize| match self.is_gated {
            true => {
                let gate = sum(false, *output);
                gate / (1.0 + (-gate).exp()) * sum(true, *output)
            }
            false => sum(false, *output),
        };
        self.checked.iter().map(output).collect()
    }
}

fn measure_product(gpu: &mut Gpu, model: &Model, product: &Product) {
    let &Product { name, n_out, n_in, is_gated, max_rows } = product;
    let mut bench = Bench::new(&mut gpu.backend, product, gpu.sizes.weight_bytes);
    // Gated products round their outputs to operands; other products only have the error of f32
    // sums.
    let tolerance = if is_gated { 1e-2 } else { 2e-3 };
    let mut alone = None;
    for &n_rows in gpu.sizes.n_rows.iter().filter(|n| **n <= max_rows) {
        // The outputs are from the last copy of the weights, so every copy is used once first.
        for copy in 0..bench.weights.len() {
            bench.multiply(&mut gpu.backend, n_rows, copy);
        }
        let [first, last] = bench.outputs(&mut gpu.backend, n_rows);
        let label = format!("{} {name}, {n_rows} rows", model.name);
        check(&label, &bench.expected(n_rows - 1, n_in), &last, tolerance);
        let alone = alone.get_or_insert_with(|| first.clone());
        assert!(*alone == first, "{label}: the first row has other bits than with fewer");
        assert!(n_rows == 1 || first != last, "{label}: rows do not differ");
        let time = seconds_each(&mut gpu.backend, |backend, i| bench.multiply(backend, n_rows, i));
        let n_gated = 1 + usize::from(is_gated);
        let activations = n_rows * (2 * n_in + if is_gated { 2 } else { 4 } * n_out);
        let operations = 2.0 * (n_rows * n_out * n_in * n_gated) as f64;
        println!(
            "| {} {name} | {} × {n_in} | {n_rows} | {:.1} | {} | {:.1} |",
            model.name,
            n_out * n_gated,
            time * 1e6,
            gpu.rate(product.bytes() + activations, time),
            operations / time / 1e12,
        );
    }
}

/// Operand rows of `n_cols` values each; see [`operand`].
fn operands(backend: &mut CudaBackend, n_rows: usize, n_cols: usize) -> Tensor {
    // `embed` needs a batch over some cache.
    let heads = bed::Heads { n_heads: 1, n_kv_heads: 1, head_dim: 16 };
    let pool = bed::pool(backend, heads, 1, BLOCK, n_rows.div_ceil(BLOCK));
    let rope = Rope { inv_freq: vec![0.0; 8], attention_scale: 1.0 };
    let params = AttentionParams { scale: 1.0, window: None };
    let block_table: Vec<u32> = (0..n_rows.div_ceil(BLOCK) as u32).collect();
    let token = |row: usize| InputToken::known((row % N_TOKENS) as u32);
    let tokens: Vec<_> = (0..n_rows).map(token).collect();
    let positions: Vec<u32> = (0..n_rows as u32).collect();
    let view = KvView::default();
    let seqs =
        [SeqSpan { first_row: 0, n_rows, block_table: &block_table, writes_kv: false, view }];
    let batch = Batch { tokens: &tokens, positions: &positions, seqs: &seqs, logit_rows: &[] };
    let write = |token: usize, out: &mut [f32]| {
        out.iter_mut().enumerate().for_each(|(i, x)| *x = sign(token, i));
    };
    let table = backend.load_matrix(N_TOKENS, n_cols, &write).expect("memory");
    let factors: Vec<f32> = (0..n_cols).map(factor).collect();
    let norm = backend.load_vector(&factors).expect("memory");
    let mut signs = backend.f32_rows(n_rows, n_cols).expect("memory");
    let mut x = backend.operand_rows(n_rows, n_cols).expect("memory");
    backend.begin(&batch, &pool, &rope, 1, params).expect("a batch");
    backend.embed(&table, &batch, &mut signs).expect("rows");
    // Each row of signs has a root mean square of 1.
    backend.rms_norm(&signs, n_rows, &norm, 0.0, &mut x).expect("rows");
    x
}
