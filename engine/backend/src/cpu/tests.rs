//! Tests of every operation against float64 on every instruction set, and of row invariance bit by bit.

mod batches;
mod observe;
mod quantised;

use super::*;
use crate::testing::*;
use crate::{
    AttentionParams, Backend, BackendError, Batch, DecoderOps, DeviceMemory, InputToken, KvFormat,
    KvShape, KvView, OperandFormat, RopeParams, Selected, SelectedIds, SeqSpan,
};

/// The instruction sets of this machine whose products of floats are different code.
fn float_instruction_sets() -> impl Iterator<Item = InstructionSet> {
    let is_own = |isa: &InstructionSet| isa.is_available() && isa.of_same_bits() == *isa;
    InstructionSet::ALL.into_iter().filter(is_own)
}

/// Every backend this machine can run, with 1 and 3 threads.
pub(super) fn backends() -> Vec<CpuBackend> {
    let mut all = Vec::new();
    for instruction_set in float_instruction_sets() {
        for formats in [Formats::F32, Formats::BF16] {
            for n_threads in [1, 3] {
                let config = CpuConfig {
                    n_threads: Some(n_threads),
                    instruction_set: Some(instruction_set),
                    formats,
                };
                all.push(CpuBackend::new(config).unwrap());
            }
        }
    }
    all
}

#[test]
fn formats_that_no_kernel_mixes_are_refused() {
    let mixed = Formats { kv: KvFormat::F32, ..Formats::BF16 };
    let error = CpuBackend::new(CpuConfig { formats: mixed, ..CpuConfig::default() });
    assert!(matches!(error, Err(BackendError::Format { setting: "kv", .. })));
    let mut backend = CpuBackend::new(CpuConfig::default()).unwrap();
    let shape = KvShape { format: KvFormat::F32, ..one_head_shape(2) };
    assert!(matches!(backend.kv_pool(shape), Err(BackendError::Format { setting: "kv", .. })));
}

impl TestBackend for CpuBackend {
    fn write(&self, tensor: &mut Tensor, row: usize, values: &[f32]) {
        let at = tensor.words.as_mut_ptr().wrapping_add(row * tensor.stride);
        assert!(row < tensor.shape.max_rows && values.len() <= tensor.shape.cols);
        for (i, &x) in values.iter().enumerate() {
            // SAFETY: the row was checked to hold as many values.
            unsafe {
                match tensor.format {
                    OperandFormat::Bf16 => {
                        <simd::Bf16 as simd::Element>::store_one(at, i, x);
                    }
                    OperandFormat::F32 => <simd::F32 as simd::Element>::store_one(at, i, x),
                }
            }
        }
    }

    fn read(&self, tensor: &Tensor, row: usize) -> Vec<f32> {
        assert!(row < tensor.shape.max_rows);
        let at = tensor.words.as_ptr().wrapping_add(row * tensor.stride);
        let read = |i| {
            // SAFETY: the row holds `cols` values.
            unsafe {
                match tensor.format {
                    OperandFormat::Bf16 => half::bf16::from_bits(*at.cast::<u16>().add(i)).to_f32(),
                    OperandFormat::F32 => *at.cast::<f32>().add(i),
                }
            }
        };
        (0..tensor.shape.cols).map(read).collect()
    }
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
            let tolerance = tolerance(backend.formats.operands);
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
            let got: Vec<f32> = (0..n_rows).flat_map(|r| backend.read(&out, r)).collect();
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
            let tokens = [2, 0, 1].map(InputToken::known);
            let batch =
                Batch { tokens: &tokens, positions: &[0, 1, 2], seqs: &[], logit_rows: &[] };
            let mut embedded = backend.f32_rows(3, cols).unwrap();
            backend.embed(&table, &batch, &mut embedded).unwrap();
            assert_eq!(embedded.f32_row(0), &x[2 * cols..], "embedding is exact");
            assert_eq!(embedded.f32_row(1), &x[..cols]);
            let bad = Batch { tokens: &[InputToken::known(3)], ..batch };
            assert!(backend.embed(&table, &bad, &mut embedded).is_err());

            let tokens = [0, 1, 2].map(InputToken::known);
            let batch = Batch { tokens: &tokens, ..batch };
            backend.embed(&table, &batch, &mut embedded).unwrap();
            let weight = backend.load_vector(&weight).unwrap();
            let mut out = backend.operand_rows(3, cols).unwrap();
            backend.rms_norm(&embedded, 3, &weight, 1e-5, &mut out).unwrap();
            let got: Vec<f32> = (0..3).flat_map(|r| backend.read(&out, r)).collect();
            assert_close(
                &backend.description(),
                &expected,
                &got,
                tolerance(backend.formats.operands),
            );
        }
    }
}

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
                    let case = format!(
                        "{} {shape:?} position {p} window {window:?}",
                        backend.description()
                    );
                    assert_close(
                        &case,
                        expected,
                        &got[p],
                        attention_tolerance(backend.formats.operands),
                    );
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
        // Ascending random ids, a different set for every layer and KV head.
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
        let tokens = SelectedIds { ids: &positions, n: per_head, n_kv_heads: shape.1, version: 0 };
        let blocks = choose(600 / cache.block_size, 17);
        let per_head = SelectedIds { ids: &blocks, n: 17, n_kv_heads: shape.1, version: 0 };
        let everywhere = SelectedIds::everywhere(&blocks[..17]);
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
                    let case = format!("{} {shape:?} {view:?} {window:?}", backend.description());
                    assert_close(
                        &case,
                        &expected,
                        &got[p],
                        attention_tolerance(backend.formats.operands),
                    );
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

/// Negative control of the test above: attention over shifted tiles, or a product that sums k in
/// halves, does change bits on the same data.
#[test]
fn other_orders_of_summation_do_change_bits() {
    let mut values = Values(5);
    let cache = Cache::new(&mut values, (3, 1, 64), 600);
    let mut backend = CpuBackend::new(CpuConfig::default()).unwrap();
    let full = cache.run(&mut backend, &[599, 1], KvView::default(), None);
    // The same set of tokens, the first 480 of them in a selected part. Its tiles differ from the
    // tiles of the tail.
    let blocks: Vec<u32> = (0..(480 / cache.block_size) as u32).collect();
    let view =
        KvView { selected: Selected::Blocks(SelectedIds::everywhere(&blocks)), tail_start: 480 };
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
    let shape = one_head_shape(2);
    let mut pool = backend.kv_pool(shape).unwrap();
    let qkv = backend.f32_rows(2, 64).unwrap();
    let mut q = backend.operand_rows(2, 32).unwrap();
    let mut out = backend.operand_rows(2, 32).unwrap();
    let rope_params = RopeParams { rope: &cache.rope, qk_norm: None };
    let params = AttentionParams { scale: 1.0, window: None };
    let mut run = |positions: &[u32], table: &[u32], view: KvView<'_>| {
        let seqs = [SeqSpan { first_row: 0, n_rows: 2, block_table: table, writes_kv: true, view }];
        let tokens = [InputToken::known(0); 2];
        let batch = Batch { tokens: &tokens, positions, seqs: &seqs, logit_rows: &[] };
        backend.rope_and_store_kv(&qkv, &rope_params, &batch, 0, &mut pool, &mut q)?;
        backend.attention(&q, &pool, 0, &batch, params, &mut out)
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
    let blocks =
        KvView { selected: Selected::Blocks(SelectedIds::everywhere(&[1])), tail_start: 16 };
    assert!(run(&[16, 17], &[0, 1], blocks).is_err(), "a selected block inside the tail");
    let few = SelectedIds { ids: &[0], n: 1, n_kv_heads: 2, version: 0 };
    let few = KvView { selected: Selected::Blocks(few), tail_start: 16 };
    assert!(run(&[16, 17], &[0, 1], few).is_err(), "blocks of another number of heads");
}
