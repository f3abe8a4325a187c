//! Every operation against float64, on every instruction set, and row invariance bit by bit.

mod batches;
mod observe;

use super::*;
use crate::{KvView, Rope, Selection};

/// A small deterministic generator (SplitMix64): values in -1..1.
struct Values(u64);

impl Values {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 23) as f32;
        // Rounded to bf16, so that both dtypes hold the same numbers.
        f32::from_bits(u32::from(simd::bf16_bits(unit - 1.0)) << 16)
    }

    fn take(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.next() + 1.0) / 2.0 * n as f32) as usize % n
    }
}

/// Every backend this machine can run, with 1 and 3 threads.
fn backends() -> Vec<CpuBackend> {
    let mut all = Vec::new();
    for instruction_set in InstructionSet::ALL {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            for n_threads in [1, 3] {
                if instruction_set.is_available() {
                    let config = CpuConfig {
                        n_threads: Some(n_threads),
                        instruction_set: Some(instruction_set),
                        dtype,
                    };
                    all.push(CpuBackend::new(config).unwrap());
                }
            }
        }
    }
    all
}

/// Largest error that rounding operands may leave, relative to the size of the values.
fn tolerance(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 2e-5,
        Dtype::Bf16 => 1.6e-2,
    }
}

fn operand(backend: &mut CpuBackend, rows: &[f32], cols: usize) -> Tensor {
    let mut tensor = backend.operand_rows(rows.len() / cols, cols).unwrap();
    for (row, values) in rows.chunks(cols).enumerate() {
        for (i, &x) in values.iter().enumerate() {
            write(&mut tensor, backend.dtype, row, i, x);
        }
    }
    tensor
}

fn write(tensor: &mut Tensor, dtype: Dtype, row: usize, i: usize, x: f32) {
    let at = tensor.words.as_mut_ptr().wrapping_add(row * tensor.stride);
    // SAFETY: tests stay within the row.
    unsafe {
        match (tensor.kind, dtype) {
            (Kind::Operand, Dtype::Bf16) => <simd::Bf16 as simd::Element>::store_one(at, i, x),
            _ => <simd::F32 as simd::Element>::store_one(at, i, x),
        }
    }
}

fn read_operand(tensor: &Tensor, dtype: Dtype, row: usize) -> Vec<f32> {
    let at = tensor.words.as_ptr().wrapping_add(row * tensor.stride);
    let read = |i| {
        // SAFETY: tests stay within the row.
        unsafe {
            match dtype {
                Dtype::Bf16 => f32::from_bits(u32::from(*at.cast::<u16>().add(i)) << 16),
                Dtype::F32 => *at.cast::<f32>().add(i),
            }
        }
    };
    (0..tensor.cols).map(read).collect()
}

fn assert_close(what: &str, expected: &[f64], got: &[f32], tolerance: f64) {
    assert_eq!(expected.len(), got.len(), "{what}");
    let size = expected.iter().fold(1e-3_f64, |m, x| m.max(x.abs()));
    for (i, (e, g)) in expected.iter().zip(got).enumerate() {
        let error = (e - f64::from(*g)).abs() / size;
        assert!(error <= tolerance, "{what}[{i}]: expected {e}, got {g}");
    }
}

fn load(backend: &mut CpuBackend, rows: usize, cols: usize, values: &[f32]) -> Matrix {
    backend
        .load_matrix(rows, cols, &|row, out| out.copy_from_slice(&values[row * cols..][..cols]))
        .unwrap()
}

fn product(x: &[f32], w: &[f32], cols: usize) -> Vec<f64> {
    let dot =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    x.chunks(cols).flat_map(|x| w.chunks(cols).map(move |w| dot(x, w))).collect()
}

#[test]
fn linear_layers_agree_with_float64() {
    let mut values = Values(1);
    for (n_rows, outputs, inputs) in [(1, 64, 64), (2, 100, 72), (13, 33, 100), (30, 16, 31)] {
        let x = values.take(n_rows * inputs);
        let w = values.take(outputs * inputs);
        let u = values.take(outputs * inputs);
        let bias = values.take(outputs);
        let (xw, xu) = (product(&x, &w, inputs), product(&x, &u, inputs));
        for mut backend in backends() {
            let name = backend.description();
            let tolerance = tolerance(backend.dtype);
            let xs = operand(&mut backend, &x, inputs);
            let ws = load(&mut backend, outputs, inputs, &w);
            let bias_vector = backend.load_vector(&bias).unwrap();
            let mut out = backend.f32_rows(n_rows, outputs).unwrap();
            backend.linear(&xs, n_rows, &ws, Some(&bias_vector), &mut out).unwrap();
            let with_bias: Vec<f64> =
                xw.iter().enumerate().map(|(i, v)| v + f64::from(bias[i % outputs])).collect();
            assert_close(&name, &with_bias, &backend.read_f32(&out, n_rows).unwrap(), tolerance);

            backend.linear_add(&xs, n_rows, &ws, &mut out).unwrap();
            let twice: Vec<f64> = with_bias.iter().zip(&xw).map(|(a, b)| a + b).collect();
            assert_close(&name, &twice, &backend.read_f32(&out, n_rows).unwrap(), tolerance);

            let fill = |m: &'static [f32]| {
                move |row: usize, out: &mut [f32]| {
                    out.copy_from_slice(&m[row * inputs..][..inputs]);
                }
            };
            let (gate, up) = (fill(w.clone().leak()), fill(u.clone().leak()));
            let gated = backend.load_gated(outputs, inputs, &gate, &up).unwrap();
            let mut out = backend.operand_rows(n_rows, outputs).unwrap();
            backend.linear_silu_mul(&xs, n_rows, &gated, &mut out).unwrap();
            let expected: Vec<f64> =
                xw.iter().zip(&xu).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            let got: Vec<f32> =
                (0..n_rows).flat_map(|r| read_operand(&out, backend.dtype, r)).collect();
            assert_close(&name, &expected, &got, tolerance);
        }
    }
}

#[test]
fn norms_and_embeddings_agree_with_float64() {
    let mut values = Values(2);
    for cols in [64, 72, 31] {
        let (x, weight) = (values.take(3 * cols), values.take(cols));
        let expected: Vec<f64> = x
            .chunks(cols)
            .flat_map(|row| {
                let mean = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / cols as f64;
                let scale = 1.0 / (mean + 1e-5).sqrt();
                row.iter().zip(&weight).map(move |(v, w)| f64::from(*v) * scale * f64::from(*w))
            })
            .collect();
        for mut backend in backends() {
            let table = load(&mut backend, 3, cols, &x);
            let batch =
                Batch { tokens: &[2, 0, 1], positions: &[0, 1, 2], seqs: &[], logit_rows: &[] };
            let mut embedded = backend.f32_rows(3, cols).unwrap();
            backend.embed(&table, &batch, &mut embedded).unwrap();
            assert_eq!(embedded.f32_row(0), &x[2 * cols..], "embedding is exact");
            assert_eq!(embedded.f32_row(1), &x[..cols]);
            let bad = Batch { tokens: &[3], ..batch };
            assert!(backend.embed(&table, &bad, &mut embedded).is_err());

            let batch = Batch { tokens: &[0, 1, 2], ..batch };
            backend.embed(&table, &batch, &mut embedded).unwrap();
            let weight = backend.load_vector(&weight).unwrap();
            let mut out = backend.operand_rows(3, cols).unwrap();
            backend.rms_norm(&embedded, 3, &weight, 1e-5, &mut out).unwrap();
            let got: Vec<f32> = (0..3).flat_map(|r| read_operand(&out, backend.dtype, r)).collect();
            assert_close(&backend.description(), &expected, &got, tolerance(backend.dtype));
        }
    }
}

/// Layers of test pools, of which the last is used.
const LAYERS: usize = 2;
const LAYER: usize = LAYERS - 1;

/// A cache of one layer with random contents, and queries against it.
struct Cache {
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    block_size: usize,
    table: Vec<u32>,
    /// Rotated keys and values are what the pool holds; `qkv` is what went in, per position.
    qkv: Vec<f32>,
    rope: Rope,
}

impl Cache {
    fn new(
        values: &mut Values,
        (n_heads, n_kv_heads, head_dim): (usize, usize, usize),
        len: usize,
    ) -> Self {
        let block_size = 16 * (1 + values.below(2));
        let n_blocks = len.div_ceil(block_size);
        // A scattered table: odd ids descending, then even ones.
        let table = (0..n_blocks as u32).map(|i| (i * 7 + 3) % (n_blocks as u32 * 7 + 1)).collect();
        let width = (n_heads + 2 * n_kv_heads) * head_dim;
        let inv_freq = (0..head_dim / 2).map(|i| 0.5_f32.powi(i as i32)).collect();
        let qkv = values.take(len * width).iter().map(|v| v * 2.0).collect();
        let rope = Rope { inv_freq, attention_scale: 1.0 };
        Self { n_heads, n_kv_heads, head_dim, block_size, table, qkv, rope }
    }

    fn width(&self) -> usize {
        (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
    }

    /// Runs the positions through a backend in the given chunks; returns one output per position,
    /// with `view` applied to rows that are not before its tail.
    fn run(
        &self,
        backend: &mut CpuBackend,
        chunks: &[usize],
        view: KvView<'_>,
        window: Option<u32>,
    ) -> Vec<Vec<f32>> {
        let n = *chunks.iter().max().unwrap();
        let mut out = backend.operand_rows(n, self.n_heads * self.head_dim).unwrap();
        let reach = Reach { scale: self.scale(), window };
        let mut outputs = Vec::new();
        self.run_chunks(backend, chunks, view, |backend, q, pool, batch| {
            backend.attention(q, pool, LAYER, batch, reach, &mut out).unwrap();
            let n_rows = batch.tokens.len();
            outputs.extend((0..n_rows).map(|row| read_operand(&out, backend.dtype, row)));
        });
        outputs
    }

    /// Runs the positions through a backend in the given chunks, up to queries, keys and values;
    /// then calls `each`.
    fn run_chunks(
        &self,
        backend: &mut CpuBackend,
        chunks: &[usize],
        view: KvView<'_>,
        mut each: impl FnMut(&mut CpuBackend, &Tensor, &mut KvPool, &Batch<'_>),
    ) {
        let shape = KvShape {
            n_layers: LAYERS,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            block_size: self.block_size,
            n_blocks: self.table.iter().max().map_or(1, |&m| m as usize + 1),
            dtype: backend.dtype,
        };
        let mut pool = backend.kv_pool(shape).unwrap();
        let n = *chunks.iter().max().unwrap();
        let mut qkv = backend.f32_rows(n, self.width()).unwrap();
        let mut q = backend.operand_rows(n, self.n_heads * self.head_dim).unwrap();
        let rotation = Rotation { rope: &self.rope, qk_norm: None };
        let mut first = 0;
        for &n_rows in chunks {
            let positions: Vec<u32> = (first..first + n_rows).map(|p| p as u32).collect();
            let applies = view.tail_start as usize <= first;
            let view = if applies { view } else { KvView::default() };
            let seqs =
                [SeqSpan { first_row: 0, n_rows, block_table: &self.table, writes_kv: true, view }];
            let tokens = vec![0; n_rows];
            let batch =
                Batch { tokens: &tokens, positions: &positions, seqs: &seqs, logit_rows: &[] };
            for row in 0..n_rows {
                for (i, &x) in
                    self.qkv[(first + row) * self.width()..][..self.width()].iter().enumerate()
                {
                    write(&mut qkv, backend.dtype, row, i, x);
                }
            }
            backend.rope_and_store_kv(&qkv, &rotation, &batch, LAYER, &mut pool, &mut q).unwrap();
            each(backend, &q, &mut pool, &batch);
            first += n_rows;
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// A rotated query or key in float64.
    fn rotated(&self, at: usize, head: usize) -> Vec<f64> {
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

    /// How much query head `head` of position `p` attends to each position of `seen`, in float64.
    fn probabilities(&self, p: usize, head: usize, seen: &[usize]) -> Vec<f64> {
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

    /// Output of position `p` in float64, over the positions that `sees(kv_head, position)`.
    fn expected(&self, p: usize, sees: impl Fn(usize, usize) -> bool) -> Vec<f64> {
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
fn attention_tolerance(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 2e-5,
        Dtype::Bf16 => 3e-2,
    }
}

const SHAPES: [(usize, usize, usize); 5] =
    [(3, 1, 64), (4, 4, 16), (7, 1, 24), (4, 2, 96), (2, 2, 128)];

#[test]
fn attention_agrees_with_float64() {
    let mut values = Values(3);
    for shape in SHAPES {
        let len = 300 + values.below(300);
        let cache = Cache::new(&mut values, shape, len);
        let probes = [0, 1, 15, 16, 255, 256, 257, len - 1];
        for window in [None, Some(1), Some(40), Some(270)] {
            let expected = probes
                .map(|p| cache.expected(p, |_, at| window.is_none_or(|w| at + w as usize > p)));
            for mut backend in backends() {
                let got = cache.run(&mut backend, &[len], KvView::default(), window);
                for (p, expected) in probes.into_iter().zip(&expected) {
                    let what = format!(
                        "{} {shape:?} position {p} window {window:?}",
                        backend.description()
                    );
                    assert_close(&what, expected, &got[p], attention_tolerance(backend.dtype));
                }
            }
        }
    }
}

#[test]
fn attention_over_views_agrees_with_float64() {
    let mut values = Values(4);
    for shape in SHAPES {
        let len = 700;
        let cache = Cache::new(&mut values, shape, len);
        let per_head = 300;
        // Ascending random ids, another set for every layer and KV head.
        let mut choose = |below: usize, n: usize| -> Vec<u32> {
            let one = |_| {
                let mut chosen: Vec<u32> = (0..below as u32).collect();
                while chosen.len() > n {
                    chosen.remove(values.below(chosen.len()));
                }
                chosen
            };
            (0..LAYERS * shape.1).flat_map(one).collect()
        };
        let positions = choose(600, per_head);
        let tokens = Selection { ids: &positions, n: per_head, n_kv_heads: shape.1 };
        let blocks = choose(600 / cache.block_size, 17);
        let per_head = Selection { ids: &blocks, n: 17, n_kv_heads: shape.1 };
        let everywhere = Selection::everywhere(&blocks[..17]);
        let views = [
            KvView { selected: Selected::None, tail_start: 600 },
            KvView { selected: Selected::Blocks(everywhere), tail_start: 609 },
            KvView { selected: Selected::Blocks(per_head), tail_start: 609 },
            KvView { selected: Selected::Tokens(tokens), tail_start: 600 },
        ];
        let p = len - 1;
        for view in views {
            for window in [None, Some(333)] {
                let sees = |kv_head: usize, at: usize| {
                    let selected = match view.selected {
                        Selected::None => false,
                        Selected::Blocks(b) => {
                            b.of(LAYER, kv_head).contains(&((at / cache.block_size) as u32))
                        }
                        Selected::Tokens(t) => t.of(LAYER, kv_head).contains(&(at as u32)),
                    };
                    let tail = at >= view.tail_start as usize;
                    (selected || tail) && window.is_none_or(|w: u32| at + w as usize > p)
                };
                let expected = cache.expected(p, sees);
                for mut backend in backends() {
                    let got = cache.run(&mut backend, &[650, 49, 1], view, window);
                    let what = format!("{} {shape:?} {view:?} {window:?}", backend.description());
                    assert_close(&what, &expected, &got[p], attention_tolerance(backend.dtype));
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_however_it_is_batched() {
    let mut values = Values(5);
    for shape in [(3, 1, 64), (4, 2, 96)] {
        let len = 600;
        let cache = Cache::new(&mut values, shape, len);
        for mut backend in backends() {
            let whole = cache.run(&mut backend, &[len], KvView::default(), Some(500));
            let chunked = cache.run(
                &mut backend,
                &[7, 250, 40, 1, 1, 200, 101],
                KvView::default(),
                Some(500),
            );
            let ones = vec![1; len];
            let single = cache.run(&mut backend, &ones, KvView::default(), Some(500));
            assert!(whole == chunked && whole == single, "{} {shape:?}", backend.description());
        }
    }
    let (outputs, inputs, n_rows) = (70, 96, 29);
    let x = values.take(n_rows * inputs);
    let w = values.take(outputs * inputs);
    for mut backend in backends() {
        let ws = load(&mut backend, outputs, inputs, &w);
        let together = operand(&mut backend, &x, inputs);
        let mut out = backend.f32_rows(n_rows, outputs).unwrap();
        backend.linear(&together, n_rows, &ws, None, &mut out).unwrap();
        for (row, x) in x.chunks(inputs).enumerate() {
            let alone = operand(&mut backend, x, inputs);
            let mut one = backend.f32_rows(1, outputs).unwrap();
            backend.linear(&alone, 1, &ws, None, &mut one).unwrap();
            assert_eq!(one.f32_row(0), out.f32_row(row), "{}", backend.description());
        }
    }
}

/// The negative control of the test above: attention whose tiles start at the chunk instead of at
/// fixed positions, or a product that sums k in halves, does change bits on the same data.
#[test]
fn other_orders_of_summation_do_change_bits() {
    let mut values = Values(5);
    let cache = Cache::new(&mut values, (3, 1, 64), 600);
    let mut backend = CpuBackend::new(CpuConfig::default()).unwrap();
    let full = cache.run(&mut backend, &[599, 1], KvView::default(), None);
    // The same set of tokens, the first 512 of them in a selected part whose tiles are not those
    // of the tail.
    let blocks: Vec<u32> = (0..(480 / cache.block_size) as u32).collect();
    let view =
        KvView { selected: Selected::Blocks(Selection::everywhere(&blocks)), tail_start: 480 };
    let shifted = cache.run(&mut backend, &[599, 1], view, None);
    assert_ne!(full[599], shifted[599]);
    let close: Vec<f64> = full[599].iter().map(|&x| f64::from(x)).collect();
    assert_close("shifted tiles", &close, &shifted[599], 2e-2);

    let x = values.take(512);
    let dot = |w: &[f32], range: std::ops::Range<usize>| {
        x[range.clone()].iter().zip(&w[range]).fold(0.0_f32, |acc, (x, w)| x.mul_add(*w, acc))
    };
    let changed = (0..64)
        .map(|_| values.take(512))
        .filter(|w| dot(w, 0..512) != dot(w, 0..256) + dot(w, 256..512));
    assert!(changed.count() > 0);
}

#[test]
fn lying_batches_are_refused() {
    let mut values = Values(6);
    let cache = Cache::new(&mut values, (2, 1, 16), 40);
    let mut backend = CpuBackend::new(CpuConfig::default()).unwrap();
    let shape = KvShape {
        n_layers: 1,
        n_kv_heads: 1,
        head_dim: 16,
        block_size: 16,
        n_blocks: 2,
        dtype: Dtype::Bf16,
    };
    let mut pool = backend.kv_pool(shape).unwrap();
    let qkv = backend.f32_rows(2, 64).unwrap();
    let mut q = backend.operand_rows(2, 32).unwrap();
    let mut out = backend.operand_rows(2, 32).unwrap();
    let rotation = Rotation { rope: &cache.rope, qk_norm: None };
    let reach = Reach { scale: 1.0, window: None };
    let mut run = |positions: &[u32], table: &[u32], view: KvView<'_>| {
        let seqs = [SeqSpan { first_row: 0, n_rows: 2, block_table: table, writes_kv: true, view }];
        let batch = Batch { tokens: &[0, 0], positions, seqs: &seqs, logit_rows: &[] };
        backend.rope_and_store_kv(&qkv, &rotation, &batch, 0, &mut pool, &mut q)?;
        backend.attention(&q, &pool, 0, &batch, reach, &mut out)
    };
    let full = KvView::default();
    run(&[16, 17], &[0, 1], full).unwrap();
    assert!(run(&[16, 17], &[0], full).is_err(), "a table too short");
    assert!(run(&[16, 17], &[0, 2], full).is_err(), "a block outside the pool");
    assert!(run(&[16, 18], &[0, 1], full).is_err(), "positions with a gap");
    assert!(
        run(&[16, 17], &[0, 1], KvView { tail_start: 17, ..full }).is_err(),
        "a tail after a row"
    );
    let blocks = KvView { selected: Selected::Blocks(Selection::everywhere(&[1])), tail_start: 16 };
    assert!(run(&[16, 17], &[0, 1], blocks).is_err(), "a selected block inside the tail");
    let few = Selection { ids: &[0], n: 1, n_kv_heads: 2 };
    let few = KvView { selected: Selected::Blocks(few), tail_start: 16 };
    assert!(run(&[16, 17], &[0, 1], few).is_err(), "blocks of another number of heads");
}
