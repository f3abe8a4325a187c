//! Matrix products, every variant and epilogue: right, within bounds, and the same bits for a row in every batch.

use galley_kernels_cu::bindings::*;
use std::ptr::{null, null_mut};

/// What is planted where nothing may be read or written.
const POISON: f32 = f32::NAN;
/// The launcher's choice, and every variant.
const VARIANTS: std::ops::RangeInclusive<i32> = 0..=GK_LINEAR_VARIANTS as i32;

#[test]
fn products_agree_with_float64() {
    // Rows, inputs, outputs: ragged everywhere; a last step of k that is half there (299); ring shorter than the sum.
    for (n_rows, n_in, n_out) in
        [(1, 48, 80), (5, 64, 100), (9, 299, 299), (33, 1100, 72), (70, 128, 288), (131, 80, 132)]
    {
        let case = Case::new(n_rows, n_in, n_out, 7 + n_rows as u64);
        for variant in VARIANTS {
            // A stride of whole 16-byte runs, and one that is not.
            for out_stride in [n_out.next_multiple_of(4) + 4, n_out + (n_out + 1) % 2] {
                let bias = case.store(true, variant, out_stride);
                case.check_rows(&bias, out_stride, |row, n| {
                    f64::from(case.bias[n]) + case.dot(row, n)
                })
                .unwrap();
                let plain = case.store(false, variant, out_stride);
                case.check_rows(&plain, out_stride, |row, n| case.dot(row, n)).unwrap();

                let mut sum = case.residual(out_stride);
                let old = sum.clone();
                case.launch(GK_ADD, variant, None, &mut sum, out_stride).unwrap();
                let expected = |row, n| f64::from(old[row * out_stride + n]) + case.dot(row, n);
                case.check_rows(&sum, out_stride, expected).unwrap();
            }
        }
    }
}

#[test]
fn gated_products_agree_with_float64() {
    for (n_rows, n_in, n_out) in [(1, 48, 80), (8, 299, 20), (17, 64, 299), (130, 192, 100)] {
        let case = Case::new(n_rows, n_in, n_out, 99 + n_out as u64);
        for variant in VARIANTS {
            case.check_gated(&case.silu_mul(variant, false), false).unwrap();
        }
        let swapped = case.silu_mul(0, true);
        case.check_gated(&swapped, true).unwrap();
        case.check_gated(&swapped, false)
            .expect_err("gate and up in each other's place go unnoticed");
    }
}

/// The comparison above would notice one wrong value among all, and a write beyond the columns.
#[test]
fn wrong_values_are_noticed() {
    let case = Case::new(9, 299, 100, 3);
    let out = case.store(true, 0, 104);
    let expected = |row, n| f64::from(case.bias[n]) + case.dot(row, n);
    case.check_rows(&out, 104, expected).unwrap();
    let other_bias = |row, n| expected(row, n) + if n == 99 { 1e-3 } else { 0.0 };
    case.check_rows(&out, 104, other_bias).expect_err("a wrong bias goes unnoticed");
    let mut beyond = out.clone();
    beyond[100] = 0.0;
    case.check_rows(&beyond, 104, expected).expect_err("a write beyond the columns goes unnoticed");
    let shorter = |row: usize, n: usize| {
        expected(row, n) - f64::from(case.x_at(row, 298)) * f64::from(case.w_at(n, 298))
    };
    case.check_rows(&out, 104, shorter).expect_err("a missing product goes unnoticed");
}

#[test]
fn a_row_has_the_same_bits_in_every_batch_and_variant() {
    const N_ROWS: usize = 300;
    let (n_in, n_out) = (299, 80);
    let case = Case::new(N_ROWS, n_in, n_out, 1);
    let stored = case.store(true, 1, n_out);
    let gated = case.silu_mul(1, false);
    let gated_stride = case.gated_stride();
    let mut added = case.residual(n_out);
    case.launch(GK_ADD, 1, None, &mut added, n_out).unwrap();
    for n_rows in [300, 129, 128, 65, 64, 63, 33, 17, 16, 15, 9, 8, 7, 2, 1] {
        for variant in VARIANTS {
            for first in
                [1, 37, N_ROWS - n_rows].into_iter().filter(|first| first + n_rows <= N_ROWS)
            {
                let part = case.rows(first, n_rows);
                let (here, name) =
                    (first * n_out..(first + n_rows) * n_out, (n_rows, first, variant));
                assert!(
                    same_bits(&part.store(true, variant, n_out), &stored[here.clone()]),
                    "{name:?}"
                );
                let mut sum = case.residual(n_out)[here.clone()].to_vec();
                part.launch(GK_ADD, variant, None, &mut sum, n_out).unwrap();
                assert!(same_bits(&sum, &added[here]), "{name:?}");
                let here = first * gated_stride..(first + n_rows) * gated_stride;
                assert!(part.silu_mul(variant, false) == gated[here], "{name:?}");
            }
        }
    }
}

/// The control: a sum over k in two halves has other bits on the same data, however close.
#[test]
fn a_sum_in_halves_has_other_bits() {
    let (n_rows, n_in, n_out) = (16, 299, 80);
    let case = Case::new(n_rows, n_in, n_out, 1);
    let whole = case.store(false, 0, n_out);
    let mut halves = case.inputs(0, 128).store(false, 0, n_out);
    case.inputs(128, n_in).launch(GK_ADD, 0, None, &mut halves, n_out).unwrap();
    case.check_rows(&halves, n_out, |row, n| case.dot(row, n)).unwrap();
    let n_other = whole.iter().zip(&halves).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    assert!(n_other > whole.len() / 10, "{n_other} of {}", whole.len());
    assert!(!same_bits(&whole, &halves));
}

#[test]
fn bad_calls_are_refused() {
    let case = Case::new(3, 48, 80, 5);
    let mut out = vec![0.0; 3 * 80];
    let mut gated = operands(&[0.0; 3 * 128]);
    let (w, x) = (packed(&case.w, 48), operands(&case.x));
    let mut call = case.call(&w, &x, GK_STORE, 0, 80);
    call.out = out.as_mut_ptr();
    call.operand_out = gated.as_mut_ptr().cast();
    let refused = |change: &dyn Fn(&mut gk_linear)| {
        let mut changed = call;
        change(&mut changed);
        launch(&changed) == Err(GK_BAD_CALL)
    };
    assert!(!refused(&|_| ()));
    let changes: [&dyn Fn(&mut gk_linear); 17] = [
        &|call| call.n_rows = -1,
        &|call| call.n_in = 0,
        &|call| call.n_in = 129,
        &|call| call.n_out = 0,
        &|call| call.n_out = i32::MAX,
        &|call| call.x_stride = 65,
        &|call| call.x_stride = 0,
        &|call| call.out_stride = 79,
        &|call| call.epilogue = 3,
        &|call| call.variant = -1,
        &|call| call.variant = GK_LINEAR_VARIANTS as i32 + 1,
        &|call| call.w = null(),
        &|call| call.x = call.x.wrapping_add(1),
        &|call| call.out = null_mut(),
        &|call| (call.epilogue, call.bias) = (GK_ADD as i32, [0.0; 80].as_ptr()),
        &|call| (call.epilogue, call.out_stride) = (GK_SILU_MUL as i32, 80),
        &|call| {
            (call.epilogue, call.out_stride) = (GK_SILU_MUL as i32, 128);
            call.operand_out = call.operand_out.wrapping_add(1);
        },
    ];
    for (i, change) in changes.iter().enumerate() {
        assert!(refused(change), "change {i}");
    }
    assert!(!refused(&|call| (call.n_rows, call.x, call.out) = (0, null(), null_mut())));
}

// ---- A product, and what it should be

struct Case {
    n_rows: usize,
    n_in: usize,
    n_out: usize,
    /// `n_rows × x_stride`: zero to the next step, then poison.
    x: Vec<f32>,
    x_stride: usize,
    /// `n_out × n_in`, and as many for up.
    w: Vec<f32>,
    up: Vec<f32>,
    bias: Vec<f32>,
}

impl Case {
    fn new(n_rows: usize, n_in: usize, n_out: usize, seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut values = |n| -> Vec<f32> { (0..n).map(|_| random.operand()).collect() };
        let (w, up, bias) = (values(n_out * n_in), values(n_out * n_in), values(n_out));
        let xs = values(n_rows * n_in);
        let (step, x_stride) = (n_in.next_multiple_of(64), n_in.next_multiple_of(64) + 64);
        let mut x = vec![POISON; n_rows * x_stride];
        for row in 0..n_rows {
            x[row * x_stride..][..n_in].copy_from_slice(&xs[row * n_in..][..n_in]);
            x[row * x_stride..][n_in..step].fill(0.0);
        }
        Self { n_rows, n_in, n_out, x, x_stride, w, up, bias }
    }

    /// The same product for some of its rows.
    fn rows(&self, first: usize, n_rows: usize) -> Self {
        let x = self.x[first * self.x_stride..][..n_rows * self.x_stride].to_vec();
        Self { n_rows, x, w: self.w.clone(), up: self.up.clone(), bias: self.bias.clone(), ..*self }
    }

    /// The same product over some of its inputs; `first` is a multiple of the step.
    fn inputs(&self, first: usize, end: usize) -> Self {
        let mut part = Self::new(self.n_rows, end - first, self.n_out, 0);
        let columns = |from: &[f32]| -> Vec<f32> {
            from.chunks(self.n_in).flat_map(|row| row[first..end].to_vec()).collect()
        };
        (part.w, part.up) = (columns(&self.w), columns(&self.up));
        for (to, from) in part.x.chunks_mut(part.x_stride).zip(self.x.chunks(self.x_stride)) {
            to[..end - first].copy_from_slice(&from[first..end]);
        }
        part
    }

    fn x_at(&self, row: usize, k: usize) -> f32 {
        self.x[row * self.x_stride + k]
    }

    fn w_at(&self, n: usize, k: usize) -> f32 {
        self.w[n * self.n_in + k]
    }

    /// Σ_k, in float64, of a row of x and row n of a matrix; and of its terms' sizes.
    fn sums(&self, w: &[f32], row: usize, n: usize) -> (f64, f64) {
        let terms =
            (0..self.n_in).map(|k| f64::from(self.x_at(row, k)) * f64::from(w[n * self.n_in + k]));
        terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
    }

    fn dot(&self, row: usize, n: usize) -> f64 {
        self.sums(&self.w, row, n).0
    }

    /// How far a sum in f32 may be off: tensor cores align terms to the largest, sixteen at a time, and cut them.
    fn bound(&self, size: f64) -> f64 {
        2.0 * (self.n_in as f64 / 16.0 + 4.0) * 2_f64.powi(-23) * (size / 4.0 + 1.0)
    }

    fn residual(&self, out_stride: usize) -> Vec<f32> {
        let mut random = Random(77);
        let mut out: Vec<f32> = (0..self.n_rows * out_stride).map(|_| random.value()).collect();
        out.chunks_mut(out_stride).for_each(|row| row[self.n_out..].fill(POISON));
        out
    }

    fn store(&self, with_bias: bool, variant: i32, out_stride: usize) -> Vec<f32> {
        let mut out = vec![POISON; self.n_rows * out_stride];
        let bias = with_bias.then_some(&self.bias[..]);
        self.launch(GK_STORE, variant, bias, &mut out, out_stride).unwrap();
        out
    }

    fn launch(
        &self,
        epilogue: u32,
        variant: i32,
        bias: Option<&[f32]>,
        out: &mut [f32],
        out_stride: usize,
    ) -> Result<(), i32> {
        assert_eq!(out.len(), self.n_rows * out_stride);
        let (w, x) = (packed(&self.w, self.n_in), operands(&self.x));
        let call = gk_linear {
            bias: bias.map_or(null(), <[f32]>::as_ptr),
            out: out.as_mut_ptr(),
            ..self.call(&w, &x, epilogue, variant, out_stride)
        };
        launch(&call)
    }

    /// All of `n_rows × stride`, where each row ends with a step that is not the product's.
    fn silu_mul(&self, variant: i32, swapped: bool) -> Vec<u16> {
        let out_stride = self.gated_stride();
        let mut out = operands(&vec![POISON; self.n_rows * out_stride]);
        let (gate, up) = if swapped { (&self.up, &self.w) } else { (&self.w, &self.up) };
        let zeros = vec![0.0; 8 * self.n_in];
        let mut rows = Vec::new();
        for at in (0..self.n_out * self.n_in).step_by(8 * self.n_in) {
            for from in [gate, up] {
                let run = &from[at..from.len().min(at + zeros.len())];
                rows.extend_from_slice(run);
                rows.extend_from_slice(&zeros[run.len()..]);
            }
        }
        let (w, x) = (packed(&rows, self.n_in), operands(&self.x));
        let call = gk_linear {
            operand_out: out.as_mut_ptr().cast(),
            ..self.call(&w, &x, GK_SILU_MUL, variant, out_stride)
        };
        launch(&call).unwrap();
        out.iter().flat_map(|chunk| chunk.0).collect()
    }

    fn gated_stride(&self) -> usize {
        self.n_out.next_multiple_of(64) + 64
    }

    fn call(
        &self,
        w: &[Chunk],
        x: &[Chunk],
        epilogue: u32,
        variant: i32,
        out_stride: usize,
    ) -> gk_linear {
        gk_linear {
            w: w.as_ptr().cast(),
            x: x.as_ptr().cast(),
            bias: null(),
            out: null_mut(),
            operand_out: null_mut(),
            x_stride: self.x_stride as i64,
            out_stride: out_stride as i64,
            n_rows: self.n_rows as i32,
            n_in: self.n_in as i32,
            n_out: self.n_out as i32,
            epilogue: epilogue as i32,
            variant,
        }
    }

    fn check_rows(
        &self,
        out: &[f32],
        out_stride: usize,
        expected: impl Fn(usize, usize) -> f64,
    ) -> Result<(), String> {
        for (row, values) in out.chunks(out_stride).enumerate() {
            for (n, &value) in values[..self.n_out].iter().enumerate() {
                let (expected, bound) =
                    (expected(row, n), self.bound(self.sums(&self.w, row, n).1));
                if f64::from(value).is_nan() || (f64::from(value) - expected).abs() > bound {
                    return Err(format!(
                        "row {row}, output {n}: {value}, not {expected} ± {bound}"
                    ));
                }
            }
            if !values[self.n_out..].iter().all(|value| value.is_nan()) {
                return Err(format!("row {row}: written beyond output {}", self.n_out));
            }
        }
        Ok(())
    }

    fn check_gated(&self, out: &[u16], swapped: bool) -> Result<(), String> {
        let (stride, step) = (self.gated_stride(), self.n_out.next_multiple_of(64));
        for (row, values) in out.chunks(stride).enumerate() {
            for (n, &value) in values[..self.n_out].iter().enumerate() {
                let ((mut gate, gate_size), (mut up, up_size)) =
                    (self.sums(&self.w, row, n), self.sums(&self.up, row, n));
                if swapped {
                    (gate, up) = (up, gate);
                }
                let (value, expected) =
                    (f64::from(from_bf16(value)), gate / (1.0 + (-gate).exp()) * up);
                // silu's slope is at most 1.1; then a rounding to 8 bits.
                let sums = 1.1 * self.bound(gate_size.max(up_size)) * (gate.abs() + up.abs() + 1.0);
                if value.is_nan() || (value - expected).abs() > sums + expected.abs() / 256.0 {
                    return Err(format!("row {row}, output {n}: {value}, not {expected}"));
                }
            }
            if !values[self.n_out..step].iter().all(|&value| value == 0) {
                return Err(format!("row {row}: not zero up to the step"));
            }
            if !values[step..].iter().all(|&value| from_bf16(value).is_nan()) {
                return Err(format!("row {row}: written beyond the step"));
            }
        }
        Ok(())
    }
}

fn launch(call: &gk_linear) -> Result<(), i32> {
    let linear = galley_kernels_cu::emulated().linear.expect("the table is full");
    // SAFETY: what is not refused has pointers to as much as `Case` made for its shapes.
    let error = unsafe { linear(call, null_mut()) };
    if error == 0 { Ok(()) } else { Err(error) }
}

/// Eight bf16, from a multiple of 16 bytes.
#[derive(Clone, Copy)]
#[repr(align(16))]
struct Chunk([u16; 8]);

/// Rows of n_in values, padded with zeros in both directions.
fn packed(rows: &[f32], n_in: usize) -> Vec<Chunk> {
    let columns = n_in.next_multiple_of(GK_K_STEP as usize);
    let n_rows = (rows.len() / n_in).next_multiple_of(GK_N_STEP as usize);
    let mut packed = vec![0.0; n_rows * columns];
    for (to, from) in packed.chunks_mut(columns).zip(rows.chunks(n_in)) {
        to[..n_in].copy_from_slice(from);
    }
    operands(&packed)
}

fn operands(values: &[f32]) -> Vec<Chunk> {
    values.chunks(8).map(|run| Chunk(std::array::from_fn(|i| to_bf16(run[i])))).collect()
}

fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// By cutting: exact for what `Case` holds, and a NaN stays one.
fn to_bf16(value: f32) -> u16 {
    (value.to_bits() >> 16) as u16
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// xorshift64, as values between -1 and 1.
struct Random(u64);

impl Random {
    fn value(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    /// One that bf16 holds.
    fn operand(&mut self) -> f32 {
        from_bf16(to_bf16(self.value()))
    }
}
