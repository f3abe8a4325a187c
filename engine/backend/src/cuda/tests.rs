//! Every operation on a device against float64 and the CPU, and row invariance bit by bit.
//!
//! The device is the emulation. In builds with `cuda`, `GALLEY_TEST_GPU` can name the ordinal of a
//! GPU to use instead.

mod attention;
#[cfg(feature = "emulate")]
mod counting;
#[cfg(feature = "emulate")]
mod device;
mod graphs;
mod logit_processors;
#[cfg(feature = "emulate")]
mod pending;
mod sampling;
#[cfg(feature = "emulate")]
mod selections;

use super::memory::bytes_of;
use super::*;
use crate::cpu::{CpuBackend, CpuConfig};
use crate::shapes::RowKind;
use crate::testing::*;
use crate::{
    AsyncSampling, Backend, Batch, DecoderOps, DeviceMemory, InputToken, KvFormat, KvShape, KvView,
    OperandFormat, Placeholders, Rope, Sampling, SeqSpan,
};
use half::bf16;

/// A backend on the device under test; None without the emulation and without `GALLEY_TEST_GPU`.
fn backend() -> Option<CudaBackend> {
    #[cfg(feature = "cuda")]
    if let Ok(number) = std::env::var("GALLEY_TEST_GPU") {
        let number = number.parse().expect("GALLEY_TEST_GPU is the number of a GPU");
        return Some(CudaBackend::new(CudaConfig::new(CudaDevice::Gpu(number))).unwrap());
    }
    #[cfg(feature = "emulate")]
    return Some(CudaBackend::new(CudaConfig::new(CudaDevice::Emulated)).unwrap());
    #[cfg(not(feature = "emulate"))]
    {
        println!("skipped: GALLEY_TEST_GPU names no GPU");
        None
    }
}

fn cpu() -> CpuBackend {
    CpuBackend::new(CpuConfig { n_threads: Some(1), ..CpuConfig::default() }).unwrap()
}

impl TestBackend for CudaBackend {
    fn write(&self, tensor: &mut Tensor, row: usize, values: &[f32]) {
        assert!(row < tensor.shape.max_rows && values.len() <= tensor.shape.cols);
        let at = row * tensor.stride;
        match tensor.shape.kind {
            RowKind::F32 => tensor.buffer.upload(at * 4, bytes_of(values)).unwrap(),
            RowKind::Operand => {
                let bits: Vec<u16> = values.iter().map(|x| bf16::from_f32(*x).to_bits()).collect();
                tensor.buffer.upload(at * 2, bytes_of(&bits)).unwrap();
            }
        }
    }

    fn read(&self, tensor: &Tensor, row: usize) -> Vec<f32> {
        assert!(row < tensor.shape.max_rows);
        if tensor.shape.kind == RowKind::F32 {
            return tensor.read_f32(row, 1).unwrap();
        }
        let bits: Vec<u16> =
            tensor.buffer.download(row * tensor.stride * 2, tensor.shape.cols).unwrap();
        bits.into_iter().map(|bits| bf16::from_bits(bits).to_f32()).collect()
    }
}

#[test]
fn packed_matrices_are_what_kernels_read() {
    let Some(backend) = backend() else { return };
    for (rows, cols) in [(1, 1), (64, 64), (70, 100), (130, 65)] {
        let value = |row: usize, i: usize| (row * 7 + i) as f32 % 251.0 + 1.0;
        let fill = |row: usize, out: &mut [f32]| {
            assert!(row < rows && out.len() == cols);
            (0..cols).for_each(|i| out[i] = value(row, i));
        };
        let fill_up = |row: usize, out: &mut [f32]| {
            fill(row, out);
            out.iter_mut().for_each(|x| *x = -*x);
        };
        let plain = Matrix::pack(&backend.device, (rows, cols), &fill, None).unwrap();
        let gated = Matrix::pack(&backend.device, (rows, cols), &fill, Some(&fill_up)).unwrap();
        for (matrix, is_gated) in [(plain, false), (gated, true)] {
            let n = matrix.buffer.len() / 2;
            let packed: Vec<u16> = matrix.buffer.download(0, n).unwrap();
            assert!(matrix.stride.is_multiple_of(64) && (n / matrix.stride).is_multiple_of(64));
            for (at, packed) in packed.chunks(matrix.stride).enumerate() {
                let (row, sign) = match is_gated {
                    false => (at, 1.0),
                    true => (at / 16 * 8 + at % 8, if at % 16 < 8 { 1.0 } else { -1.0 }),
                };
                for (i, bits) in packed.iter().enumerate() {
                    let inside = row < rows && i < cols;
                    let expected = if inside { sign * value(row, i) } else { 0.0 };
                    assert_eq!(bf16::from_bits(*bits).to_f32(), expected, "{at} {i}");
                }
            }
        }
    }
}

#[test]
fn linear_layers_agree_with_float64() {
    let mut values = Values(1);
    let Some(mut backend) = backend() else { return };
    for (n_rows, outputs, inputs) in [(1, 64, 64), (2, 100, 72), (13, 33, 100), (70, 80, 48)] {
        let x = values.take(n_rows * inputs);
        let (w, u) = (values.take(outputs * inputs), values.take(outputs * inputs));
        let bias = values.take(outputs);
        let (xw, xu) = (product(&x, &w, inputs), product(&x, &u, inputs));
        let tolerance = tolerance(OperandFormat::Bf16);
        let xs = operand(&mut backend, &x, inputs);
        let ws = load(&mut backend, outputs, inputs, &w);
        let bias_vector = backend.load_vector(&bias).unwrap();
        let mut out = backend.f32_rows(n_rows, outputs).unwrap();
        backend.linear(&xs, n_rows, &ws, Some(&bias_vector), &mut out).unwrap();
        let with_bias: Vec<f64> =
            xw.iter().enumerate().map(|(i, v)| v + f64::from(bias[i % outputs])).collect();
        assert_close("linear", &with_bias, &backend.read_f32(&out, n_rows).unwrap(), tolerance);
        backend.linear_add(&xs, n_rows, &ws, &mut out).unwrap();
        let twice: Vec<f64> = with_bias.iter().zip(&xw).map(|(a, b)| a + b).collect();
        assert_close("add", &twice, &backend.read_f32(&out, n_rows).unwrap(), tolerance);

        let fill = |m: &[f32], row: usize, out: &mut [f32]| {
            out.copy_from_slice(&m[row * inputs..][..inputs]);
        };
        let gated = backend
            .load_gated(
                outputs,
                inputs,
                &|r: usize, out: &mut [f32]| fill(&w, r, out),
                &|r: usize, out: &mut [f32]| fill(&u, r, out),
            )
            .unwrap();
        let mut out = backend.operand_rows(n_rows, outputs).unwrap();
        backend.linear_silu_mul(&xs, n_rows, &gated, &mut out).unwrap();
        let expected: Vec<f64> =
            xw.iter().zip(&xu).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
        let got: Vec<f32> = (0..n_rows).flat_map(|row| backend.read(&out, row)).collect();
        assert_close("silu", &expected, &got, tolerance);
        assert!(backend.linear(&xs, n_rows, &gated, None, &mut out).is_err(), "a gated matrix");
    }
}

#[test]
fn embeddings_norms_and_logits_agree_with_the_cpu() {
    /// Embeds four tokens, and computes the logits of two of them.
    fn run<B: TestBackend>(backend: &mut B, table: &[f32], weight: &[f32]) -> [Vec<f32>; 3] {
        let cols = weight.len();
        let shape = one_head_shape(1);
        let pool = backend.kv_pool(shape).unwrap();
        let rope = Rope { inv_freq: vec![1.0; 8], attention_scale: 1.0 };
        let params = AttentionParams { scale: 1.0, window: None };
        let table = load(backend, table.len() / cols, cols, table);
        let view = KvView::default();
        let seqs = [SeqSpan { first_row: 0, n_rows: 4, block_table: &[0], writes_kv: true, view }];
        let tokens = [2, 0, 1, 2].map(InputToken::known);
        let batch =
            Batch { tokens: &tokens, positions: &[0, 1, 2, 3], seqs: &seqs, logit_rows: &[1, 3] };
        let mut x = backend.f32_rows(4, cols).unwrap();
        backend.begin(&batch, &pool, &rope, 1, params).unwrap();
        backend.embed(&table, &batch, &mut x).unwrap();
        let norm = backend.load_vector(weight).unwrap();
        let mut normed = backend.operand_rows(4, cols).unwrap();
        backend.rms_norm(&x, 4, &norm, 1e-5, &mut normed).unwrap();
        let mut logits = backend.f32_rows(2, 5).unwrap();
        backend.logits(&x, &norm, 1e-5, &table, &batch, &mut logits).unwrap();
        let outside = [2, 0, 5, 1].map(InputToken::known);
        let bad = Batch { tokens: &outside, ..batch };
        assert!(backend.embed(&table, &bad, &mut x).is_err(), "a token outside of the table");
        let unknown: Vec<_> = Placeholders::of_numbers(0..4).map(InputToken::pending).collect();
        let bad = Batch { tokens: &unknown, ..batch };
        let error = backend.embed(&table, &bad, &mut x).unwrap_err().to_string();
        assert!(error.contains("placeholders of tokens that are not taken yet"), "{error}");
        let normed = (0..4).flat_map(|row| backend.read(&normed, row)).collect();
        [backend.read_f32(&x, 4).unwrap(), normed, backend.read_f32(&logits, 2).unwrap()]
    }
    let Some(mut backend) = backend() else { return };
    let mut values = Values(2);
    for cols in [64, 72, 100] {
        let (table, weight) = (values.take(5 * cols), values.take(cols));
        let expected = run(&mut cpu(), &table, &weight);
        let got = run(&mut backend, &table, &weight);
        assert_eq!(expected[0], got[0], "embeddings are exact");
        for (expected, got) in expected.iter().zip(&got) {
            let expected: Vec<f64> = expected.iter().map(|&x| f64::from(x)).collect();
            assert_close("norms and logits", &expected, got, tolerance(OperandFormat::Bf16));
        }
    }
}

#[test]
fn what_was_not_begun_is_refused() {
    let Some(mut backend) = backend() else { return };
    let mut values = Values(3);
    let cache = Cache::new(&mut values, (2, 1, 16), 40);
    let mut out = backend.operand_rows(40, 32).unwrap();
    cache.run_chunks(&mut backend, &[40], KvView::default(), None, |backend, q, pool, batch| {
        let params = cache.params(None);
        backend.attention(q, pool, LAYER, batch, params, &mut out).unwrap();
        let other = Batch { positions: &batch.positions[..39], ..*batch };
        assert!(backend.attention(q, pool, LAYER, &other, params, &mut out).is_err());
        let narrow = AttentionParams { window: Some(3), ..params };
        assert!(backend.attention(q, pool, LAYER, batch, narrow, &mut out).is_err());
        let pool = backend.kv_pool(pool.shape).unwrap();
        assert!(backend.attention(q, &pool, LAYER, batch, params, &mut out).is_err());
        // A batch that is refused leaves no prepared batch behind.
        assert!(backend.begin(&other, &pool, &cache.rope, 2, params).is_err());
        assert!(backend.attention(q, &pool, LAYER, batch, params, &mut out).is_err());
    });
    let bf16 = one_head_shape(2);
    let f32 = KvShape { format: KvFormat::F32, ..bf16 };
    for (shape, word) in [
        (f32, "bf16"),
        (KvShape { head_dim: 20, ..bf16 }, "multiple of 8"),
        (KvShape { head_dim: 264, ..bf16 }, "256"),
        (KvShape { block_size: 8, ..bf16 }, "block size 8"),
        (KvShape { n_blocks: 1 << 28, ..bf16 }, "fewer blocks"),
    ] {
        let error = backend.kv_pool(shape).err().expect("refused").to_string();
        assert!(error.contains(word), "{error}");
    }
}
