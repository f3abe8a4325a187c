//! Operations on single rows: norms and rotation.
//!
//! Each function is plain arithmetic over one row, compiled once per instruction set by the entry
//! points in [`super::kernels`].

use super::simd::{Element, Isa, LANES};

/// Mean of squares, summed over sixteen lanes and then across the lanes.
#[inline(always)]
unsafe fn mean_square<I: Isa>(x: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x * x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += x * x;
    }
    // SAFETY: the caller vouches for the instruction set.
    let sum = unsafe { I::reduce_add(I::load(lanes.as_ptr())) };
    sum / x.len() as f32
}

/// `out = x / sqrt(mean(x²) + eps) * weight`, written as operand words.
///
/// # Safety
///
/// `out` must be valid for a row of `x.len()` values, padded to sixteen; the CPU must have the
/// instruction set.
#[inline(always)]
pub(super) unsafe fn rms_norm<I: Isa, E: Element>(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: *mut u32,
) {
    // SAFETY: vectors stay within the row; the tail is stored value by value.
    unsafe {
        let scale = 1.0 / (mean_square::<I>(x) + eps).sqrt();
        let whole = x.len() / LANES * LANES;
        let mut i = 0;
        while i < whole {
            let v = I::mul(I::load(x.as_ptr().add(i)), I::splat(scale));
            E::store::<I>(out, i, I::mul(v, I::load(weight.as_ptr().add(i))));
            i += LANES;
        }
        for i in whole..x.len() {
            E::store_one(out, i, x[i] * scale * weight[i]);
        }
    }
}

/// RMS norm of one head, in place.
///
/// # Safety
///
/// The CPU must have the instruction set.
#[inline(always)]
pub(super) unsafe fn norm_head<I: Isa>(head: &mut [f32], weight: &[f32], eps: f32) {
    // SAFETY: guaranteed by the caller.
    let scale = 1.0 / (unsafe { mean_square::<I>(head) } + eps).sqrt();
    for (x, w) in head.iter_mut().zip(weight) {
        *x = *x * scale * w;
    }
}

/// Rotates the pairs `(i, i + half)` of one head by the angles with cosines `cos` and sines `sin`.
#[inline(always)]
pub(super) fn rotate_head(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = head.split_at_mut(cos.len());
    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

/// Rounds f32 values to operand words.
///
/// # Safety
///
/// `out` must be valid for `x.len()` values; the CPU must have the instruction set.
#[inline(always)]
pub(super) unsafe fn to_operand<I: Isa, E: Element>(x: &[f32], out: *mut u32) {
    // SAFETY: guaranteed by the caller. A factor of one changes no value.
    unsafe { store_scaled::<I, E>(x, 1.0, out, 0) }
}

/// Stores values times `factor` at value index `at` of the words at `out`.
///
/// # Safety
///
/// `out` must be valid for `at` and the values after it; the CPU must have the instruction set.
#[inline(always)]
pub(super) unsafe fn store_scaled<I: Isa, E: Element>(
    values: &[f32],
    factor: f32,
    out: *mut u32,
    at: usize,
) {
    let (whole, rest) = values.as_chunks::<LANES>();
    // SAFETY: guaranteed by the caller; values after the last whole vector are stored one by one.
    unsafe {
        for (i, vector) in whole.iter().enumerate() {
            let v = I::mul(I::load(vector.as_ptr()), I::splat(factor));
            E::store::<I>(out, at + i * LANES, v);
        }
        for (i, value) in rest.iter().enumerate() {
            E::store_one(out, at + whole.len() * LANES + i, value * factor);
        }
    }
}
