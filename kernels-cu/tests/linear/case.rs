//! A matrix product, and its expected results.

use galley_kernels_cu::bindings::*;
use std::ptr::{null, null_mut};

/// Fills memory that a kernel must not read or write.
const POISON: f32 = f32::NAN;

/// A product: its rows, one or two matrices, and its launch.
pub(crate) struct Case {
    n_rows: usize,
    n_in: usize,
    n_out: usize,
    /// `n_rows × x_stride`: zero from `n_in` to the next step, then poison.
    pub(crate) x: Vec<f32>,
    x_stride: usize,
    /// `n_out × n_in`; `up` has the same shape.
    pub(crate) w: Vec<f32>,
    up: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl Case {
    pub(crate) fn new(n_rows: usize, n_in: usize, n_out: usize, seed: u64) -> Self {
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
    pub(crate) fn rows(&self, first: usize, n_rows: usize) -> Self {
        let x = self.x[first * self.x_stride..][..n_rows * self.x_stride].to_vec();
        Self { n_rows, x, w: self.w.clone(), up: self.up.clone(), bias: self.bias.clone(), ..*self }
    }

    /// The same product over some of its inputs; `first` is a multiple of the step.
    pub(crate) fn inputs(&self, first: usize, end: usize) -> Self {
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

    pub(crate) fn x_at(&self, row: usize, k: usize) -> f32 {
        self.x[row * self.x_stride + k]
    }

    pub(crate) fn w_at(&self, n: usize, k: usize) -> f32 {
        self.w[n * self.n_in + k]
    }

    /// The float64 dot product of a row of x and row n of a matrix, and the sum of its terms' absolute values.
    pub(crate) fn sums(&self, w: &[f32], row: usize, n: usize) -> (f64, f64) {
        let terms =
            (0..self.n_in).map(|k| f64::from(self.x_at(row, k)) * f64::from(w[n * self.n_in + k]));
        terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
    }

    pub(crate) fn dot(&self, row: usize, n: usize) -> f64 {
        self.sums(&self.w, row, n).0
    }

    /// The largest error of a sum in f32: tensor cores align sixteen terms at a time to the largest, and truncate them.
    pub(crate) fn bound(&self, size: f64) -> f64 {
        2.0 * (self.n_in as f64 / 16.0 + 4.0) * 2_f64.powi(-23) * (size / 4.0 + 1.0)
    }

    pub(crate) fn residual(&self, out_stride: usize) -> Vec<f32> {
        let mut random = Random(77);
        let mut out: Vec<f32> = (0..self.n_rows * out_stride).map(|_| random.value()).collect();
        out.chunks_mut(out_stride).for_each(|row| row[self.n_out..].fill(POISON));
        out
    }

    pub(crate) fn store(&self, with_bias: bool, variant: i32, out_stride: usize) -> Vec<f32> {
        let mut out = vec![POISON; self.n_rows * out_stride];
        let bias = with_bias.then_some(&self.bias[..]);
        self.launch(GK_STORE, variant, bias, &mut out, out_stride).unwrap();
        out
    }

    pub(crate) fn launch(
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

    /// The whole output, `n_rows × stride`. Each row ends with a step that the product does not own.
    pub(crate) fn silu_mul(&self, variant: i32, swapped: bool) -> Vec<u16> {
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

    pub(crate) fn gated_stride(&self) -> usize {
        self.n_out.next_multiple_of(64) + 64
    }

    pub(crate) fn call(
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

    pub(crate) fn check_rows(
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

    pub(crate) fn check_gated(&self, out: &[u16], swapped: bool) -> Result<(), String> {
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
                // silu's slope is at most 1.1. The result is then rounded to 8 bits.
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

pub(crate) fn launch(call: &gk_linear) -> Result<(), i32> {
    let linear = galley_kernels_cu::emulated().linear.expect("the table is full");
    // SAFETY: an accepted call has pointers to the buffers that `Case` made for its shapes.
    let error = unsafe { linear(call, null_mut()) };
    if error == 0 { Ok(()) } else { Err(error) }
}

/// Eight bf16, aligned to 16 bytes.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub(crate) struct Chunk([u16; 8]);

/// Rows of n_in values, padded with zeros in both directions.
pub(crate) fn packed(rows: &[f32], n_in: usize) -> Vec<Chunk> {
    let columns = n_in.next_multiple_of(GK_K_STEP as usize);
    let n_rows = (rows.len() / n_in).next_multiple_of(GK_N_STEP as usize);
    let mut packed = vec![0.0; n_rows * columns];
    for (to, from) in packed.chunks_mut(columns).zip(rows.chunks(n_in)) {
        to[..n_in].copy_from_slice(from);
    }
    operands(&packed)
}

pub(crate) fn operands(values: &[f32]) -> Vec<Chunk> {
    values.chunks(8).map(|run| Chunk(std::array::from_fn(|i| to_bf16(run[i])))).collect()
}

pub(crate) fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Truncates: exact for the values of `Case`, and a NaN stays NaN.
pub(crate) fn to_bf16(value: f32) -> u16 {
    (value.to_bits() >> 16) as u16
}

pub(crate) fn same_bits(a: &[f32], b: &[f32]) -> bool {
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

    /// A value that bf16 represents exactly.
    fn operand(&mut self) -> f32 {
        from_bf16(to_bf16(self.value()))
    }
}
