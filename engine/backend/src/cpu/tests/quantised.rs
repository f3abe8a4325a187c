//! Quantised weights: every format on every instruction set against a scalar reference of its chain, bit
//! for bit.

use super::*;
use crate::{BLOCK_LEN, BlockFormat, IQ4_NL_VALUES, RowCodes, WeightFormat, WeightRows};
use half::f16;

/// Rows of random codes and scales.
struct RandomRows {
    formats: Vec<BlockFormat>,
    rows: Vec<RowCodes>,
}

impl RandomRows {
    /// `formats` gives the format of each row.
    fn new(values: &mut Values, formats: Vec<BlockFormat>, cols: usize) -> Self {
        let rows = formats.iter().map(|&format| random_row(values, format, cols)).collect();
        Self { formats, rows }
    }

    /// The value of each weight of a row.
    fn weights(&self, row: usize) -> Vec<f32> {
        let codes = &self.rows[row];
        let weight = |k| {
            let weight = Weight::new(self.formats[row], codes, k);
            weight.scale * f32::from(weight.integer) - weight.min
        };
        (0..codes.codes.len()).map(weight).collect()
    }
}

impl WeightRows for RandomRows {
    fn read_row(&self, row: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.weights(row));
    }

    fn block_format(&self, row: usize) -> Option<BlockFormat> {
        Some(self.formats[row])
    }

    fn read_codes(&self, row: usize, out: &mut RowCodes) {
        out.clone_from(&self.rows[row]);
    }
}

fn byte(values: &mut Values) -> u8 {
    values.below(256) as u8
}

fn random_row(values: &mut Values, format: BlockFormat, cols: usize) -> RowCodes {
    let mut row = RowCodes::new(format, cols);
    let largest = (1_u32 << format.bits()) - 1;
    for code in &mut row.codes {
        // Both ends of the range, -128 among them, more often than a uniform choice has them.
        *code = match values.below(8) {
            0 => 0,
            1 => largest as u8,
            _ => (u32::from(byte(values)) & largest) as u8,
        };
    }
    for scale in row.scales.iter_mut().chain(&mut row.mins) {
        *scale = match values.below(6) {
            0 => 0,
            // A subnormal f16.
            1 => 1 + u16::from(byte(values)),
            _ => f16::from_f32(values.next() / 64.0).to_bits(),
        };
    }
    let sub_mask = if format == BlockFormat::Q6_K { 255 } else { 63 };
    for sub_scale in row.sub_scales.iter_mut().chain(&mut row.sub_mins) {
        *sub_scale = byte(values) & sub_mask;
    }
    row
}

/// The parts of a weight: `scale · integer - min`.
struct Weight {
    scale: f32,
    /// Sub-scales of Q6_K included: these are applied to integers.
    integer: i16,
    min: f32,
}

impl Weight {
    fn new(format: BlockFormat, row: &RowCodes, k: usize) -> Self {
        let half = |bits: &[u16]| f16::from_bits(bits[k / format.scale_len()]).to_f32();
        let (code, scale) = (i16::from(row.codes[k]), half(&row.scales));
        let sub = |bytes: &[u8]| f32::from(bytes[k / BLOCK_LEN]);
        let (scale, integer, min) = match format {
            BlockFormat::Q8_0 => (scale, code - 128, 0.0),
            BlockFormat::Q5_0 => (scale, code - 16, 0.0),
            BlockFormat::Q4_0 => (scale, code - 8, 0.0),
            BlockFormat::IQ4_NL => (scale, i16::from(IQ4_NL_VALUES[usize::from(code as u8)]), 0.0),
            BlockFormat::Q4_1 | BlockFormat::Q5_1 => (scale, code, -half(&row.mins)),
            BlockFormat::Q4_K | BlockFormat::Q5_K => {
                (scale * sub(&row.sub_scales), code, half(&row.mins) * sub(&row.sub_mins))
            }
            BlockFormat::Q6_K => {
                let sub_scale = i16::from(row.sub_scales[k / 16].cast_signed());
                (scale, sub_scale * (code - 32), 0.0)
            }
        };
        Self { scale, integer, min }
    }
}

/// A block of activations as signed bytes and their scale, written as plainly as possible.
fn quantised(block: &[f32]) -> (Vec<i32>, f32) {
    let largest = block.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    if largest < 1e-30 {
        return (vec![0; block.len()], 0.0);
    }
    let inverse = 127.0 / largest;
    (block.iter().map(|x| (x * inverse).round_ties_even() as i32).collect(), largest / 127.0)
}

/// The chain of an output and a row.
fn chain(format: BlockFormat, row: &RowCodes, x: &[f32], is_fused: bool) -> f32 {
    let fma = |a: f32, b: f32, c: f32| if is_fused { a.mul_add(b, c) } else { a * b + c };
    let mut acc = 0.0;
    for (block, x) in x.chunks(BLOCK_LEN).enumerate() {
        let (x, x_scale) = quantised(x);
        let weights: Vec<Weight> =
            (0..x.len()).map(|i| Weight::new(format, row, block * BLOCK_LEN + i)).collect();
        let products = weights.iter().zip(&x).map(|(w, x)| i32::from(w.integer) * x);
        let sum: i32 = products.sum();
        acc = fma(sum as f32, weights[0].scale * x_scale, acc);
        if format.has_minimums() {
            let scaled_sum = x_scale * x.iter().sum::<i32>() as f32;
            acc = fma(-weights[0].min, scaled_sum, acc);
        }
    }
    acc
}

/// A backend for every instruction set of the machine, with weights in `weights`, and operands in f32 with
/// one thread and in bf16 with three. Operands of a quantised model are f32 in both.
fn quantised_backends(weights: WeightFormat) -> Vec<CpuBackend> {
    let all = InstructionSet::ALL.into_iter().filter(|isa| isa.is_available());
    let backend = |isa, n_threads, formats: Formats| {
        let formats = Formats { weights, ..formats };
        let config = CpuConfig::default().instruction_set(isa).n_threads(n_threads);
        let mut backend = CpuBackend::new(config.formats(formats)).unwrap();
        backend.begin_model(1 << 20, true);
        backend
    };
    all.flat_map(|isa| [backend(isa, 1, Formats::F32), backend(isa, 3, Formats::BF16)]).collect()
}

fn is_fused(backend: &CpuBackend) -> bool {
    backend.instruction_set != InstructionSet::Portable
}

/// Stored, added to and gated products of `n_rows` rows.
fn products(
    backend: &mut CpuBackend,
    rows: &[f32],
    n_rows: usize,
    w: &Matrix,
    gated: &Matrix,
) -> Vec<(Vec<f32>, Vec<f32>)> {
    let (cols, outputs) = (w.shape.cols, w.shape.rows);
    let xs = operand(backend, &rows[..n_rows * cols], cols);
    let mut out = backend.f32_rows(n_rows, outputs).unwrap();
    backend.linear(&xs, n_rows, w, None, &mut out).unwrap();
    let mut silu = backend.operand_rows(n_rows, gated.shape.rows).unwrap();
    backend.linear_silu_mul(&xs, n_rows, gated, &mut silu).unwrap();
    (0..n_rows).map(|r| (out.f32_row(r).to_vec(), backend.read(&silu, r))).collect()
}

#[test]
fn every_format_equals_its_scalar_chain_bit_for_bit_for_any_number_of_rows() {
    const MOST_ROWS: usize = 27;
    let mut values = Values(41);
    for format in BlockFormat::ALL {
        // Two whole groups of blocks, and in formats that allow it a part of one.
        let (outputs, cols) = (70, if format.scale_len() == BLOCK_LEN { 608 } else { 512 });
        let source = RandomRows::new(&mut values, vec![format; outputs], cols);
        let up = RandomRows::new(&mut values, vec![BlockFormat::Q4_1; outputs], cols);
        let mut x = values.take(MOST_ROWS * cols);
        // A block of zeros, one of very small numbers, and one of very large numbers.
        x[..32].fill(0.0);
        x[32..64].iter_mut().for_each(|x| *x *= 1e-34);
        x[64..96].iter_mut().for_each(|x| *x *= 1e34);
        for mut backend in quantised_backends(WeightFormat::Native) {
            let name = format!("{format} {}", backend.description());
            let w = backend.load_matrix(outputs, cols, &source).unwrap();
            let gated = backend.load_gated(outputs, cols, &source, &up).unwrap();
            let expected_panels = PanelFormats::of(&w);
            assert_eq!(expected_panels, PanelFormats { words: 0, strips: 3 }, "{name}");
            let alone: Vec<_> =
                x.chunks(cols).flat_map(|row| products(&mut backend, row, 1, &w, &gated)).collect();
            for (row, (out, _)) in x.chunks(cols).zip(&alone) {
                for (output, value) in out.iter().enumerate() {
                    let expected = chain(format, &source.rows[output], row, is_fused(&backend));
                    assert_eq!(value.to_bits(), expected.to_bits(), "{name} output {output}");
                }
            }
            assert!(alone.windows(2).all(|pair| pair[0] != pair[1]), "rows differ");
            for n in [2, 3, 4, 5, 7, 11, 12, 13, MOST_ROWS] {
                let together = products(&mut backend, &x, n, &w, &gated);
                assert!(together == alone[..n], "{name} {n} rows");
            }
        }
    }
}

/// Panels of a matrix, by kind.
#[derive(Debug, PartialEq, Eq)]
struct PanelFormats {
    words: usize,
    strips: usize,
}

impl PanelFormats {
    fn of(matrix: &Matrix) -> Self {
        let is_words = |panel: &&matrix::Panel| panel.format == matrix::PanelFormat::Words;
        let words = matrix.panels.iter().filter(is_words).count();
        Self { words, strips: matrix.panels.len() - words }
    }
}

#[test]
fn rows_of_several_formats_stack_and_a_strip_of_several_formats_is_expanded() {
    let mut values = Values(42);
    let cols = 256;
    let x = values.take(2 * cols);
    let formats = |runs: &[(BlockFormat, usize)]| -> Vec<BlockFormat> {
        runs.iter().flat_map(|&(format, n)| std::iter::repeat_n(format, n)).collect()
    };
    let whole = [(BlockFormat::Q4_K, 48), (BlockFormat::Q6_K, 16), (BlockFormat::Q8_0, 5)];
    let torn = [(BlockFormat::Q4_K, 40), (BlockFormat::Q6_K, 56)];
    let cases = [
        (&whole[..], PanelFormats { words: 0, strips: 3 }),
        (&torn, PanelFormats { words: 1, strips: 2 }),
    ];
    for (runs, expected_panels) in cases {
        let source = RandomRows::new(&mut values, formats(runs), cols);
        let weights: Vec<f32> = (0..source.rows.len()).flat_map(|r| source.weights(r)).collect();
        let expected = product(&x, &weights, cols);
        for mut backend in quantised_backends(WeightFormat::Native) {
            let w = backend.load_matrix(source.rows.len(), cols, &source).unwrap();
            assert_eq!(PanelFormats::of(&w), expected_panels);
            let xs = operand(&mut backend, &x, cols);
            let mut out = backend.f32_rows(2, source.rows.len()).unwrap();
            backend.linear(&xs, 2, &w, None, &mut out).unwrap();
            // Activations have eight bits.
            assert_close(
                &backend.description(),
                &expected,
                &backend.read_f32(&out, 2).unwrap(),
                1e-2,
            );
        }
    }
}

#[test]
fn embeddings_of_quantised_tables_are_exact() {
    let mut values = Values(43);
    for format in BlockFormat::ALL {
        let source = RandomRows::new(&mut values, vec![format; 37], 512);
        let mut backend = CpuBackend::new(CpuConfig::default()).unwrap();
        let table = backend.load_table(37, 512, &source).unwrap();
        assert_eq!(PanelFormats::of(&table).words, 0);
        let mut row = vec![f32::NAN; 512];
        for token in 0..37 {
            table.read_row(token, &mut row);
            for (k, (value, expected)) in row.iter().zip(source.weights(token)).enumerate() {
                // Sub-scales of Q6_K are exact in f32 in any order, but for the last rounding.
                let tolerance =
                    if format == BlockFormat::Q6_K { expected.abs() * 2e-7 } else { 0.0 };
                assert!((value - expected).abs() <= tolerance, "{format} {token} {k}");
            }
        }
    }
}

#[test]
fn any_weights_are_quantised_while_loading_and_odd_rows_are_padded() {
    let mut values = Values(44);
    for (weights, tolerance) in [(WeightFormat::Q8, 8e-3), (WeightFormat::Q4, 0.15)] {
        for (outputs, cols) in [(40, 96), (33, 31), (16, 2), (70, 129)] {
            let x = values.take(3 * cols);
            let w = values.take(outputs * cols);
            let expected = product(&x, &w, cols);
            for mut backend in quantised_backends(weights) {
                let matrix = load(&mut backend, outputs, cols, &w);
                assert_eq!(PanelFormats::of(&matrix).words, 0);
                let xs = operand(&mut backend, &x, cols);
                let mut out = backend.f32_rows(3, outputs).unwrap();
                backend.linear(&xs, 3, &matrix, None, &mut out).unwrap();
                let size = (cols as f64).sqrt();
                for (e, g) in expected.iter().zip(backend.read_f32(&out, 3).unwrap()) {
                    let error = (e - f64::from(g)).abs() / size;
                    assert!(error < tolerance, "{} {e} {g}", backend.description());
                }
            }
        }
    }
}

#[test]
fn activations_that_are_not_finite_stay_so() {
    let mut values = Values(45);
    let source = RandomRows::new(&mut values, vec![BlockFormat::Q8_0; 16], 64);
    for mut backend in quantised_backends(WeightFormat::Native) {
        let w = backend.load_matrix(16, 64, &source).unwrap();
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = values.take(64);
            x[5] = bad;
            let xs = operand(&mut backend, &x, 64);
            let mut out = backend.f32_rows(1, 16).unwrap();
            backend.linear(&xs, 1, &w, None, &mut out).unwrap();
            let all = backend.read_f32(&out, 1).unwrap();
            assert!(all.iter().all(|v| !v.is_finite()), "{} {bad}: {all:?}", backend.description());
        }
    }
}
