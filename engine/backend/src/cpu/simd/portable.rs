//! Sixteen lanes in an array, for every CPU: the reference for the other instruction sets.

use super::{Isa, LANES, bf16_bits};

/// Portable code, for no particular instruction set.
#[derive(Clone, Copy)]
pub(in super::super) struct Portable;

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    std::array::from_fn(f)
}

fn low(word: u32) -> f32 {
    f32::from_bits(word << 16)
}

fn high(word: u32) -> f32 {
    f32::from_bits(word & 0xffff_0000)
}

impl Isa for Portable {
    type F = [f32; LANES];
    type W = [u32; LANES];
    const GEMM_ROWS: usize = 2;
    const ATTENTION_ROWS: usize = 1;
    const ACCUMULATORS: usize = 4;
    const EXPANDS: bool = false;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::F {
        // SAFETY: the caller vouches for sixteen elements. The same holds below.
        unsafe { p.cast::<Self::F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::F) {
        // SAFETY: see `load`.
        unsafe { p.cast::<Self::F>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_words(p: *const u32) -> Self::W {
        // SAFETY: see `load`.
        unsafe { p.cast::<Self::W>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn splat_word(x: u32) -> Self::W {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        // Like the x86 instruction: the second operand if the two do not compare.
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    /// Rounds twice, because a fused multiply-add without the instruction is a slow library call.
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn dot_f32(acc: Self::F, w: Self::W, x: Self::W) -> Self::F {
        each(|i| acc[i] + f32::from_bits(w[i]) * f32::from_bits(x[i]))
    }
    #[inline(always)]
    unsafe fn dot_bf16(acc: Self::F, w: Self::W, x: Self::W) -> Self::F {
        each(|i| (acc[i] + low(w[i]) * low(x[i])) + high(w[i]) * high(x[i]))
    }
    #[inline(always)]
    unsafe fn low_bf16(w: Self::W) -> Self::F {
        w.map(low)
    }
    #[inline(always)]
    unsafe fn high_bf16(w: Self::W) -> Self::F {
        w.map(high)
    }
    #[inline(always)]
    unsafe fn round_bf16(v: Self::F) -> Self::F {
        v.map(|x| low(u32::from(bf16_bits(x))))
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: Self::F) {
        // SAFETY: see `load`.
        unsafe { p.cast::<[u16; LANES]>().write_unaligned(v.map(bf16_bits)) }
    }
    #[inline(always)]
    unsafe fn round(v: Self::F) -> Self::F {
        // Adding and subtracting 1.5 * 2^23 rounds to nearest even.
        const MAGIC: f32 = 12_582_912.0;
        each(|i| (v[i] + MAGIC) - MAGIC)
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(x: Self::F, n: Self::F) -> Self::F {
        each(|i| x[i] * f32::from_bits(((n[i] as i32 + 127) << 23).cast_unsigned()))
    }
    #[inline(always)]
    unsafe fn reduce_max(v: Self::F) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn reduce_add(mut v: Self::F) -> f32 {
        let mut n = LANES;
        while n > 1 {
            n /= 2;
            for i in 0..n {
                v[i] += v[i + n];
            }
        }
        v[0]
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}
