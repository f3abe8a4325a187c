//! Vectors of sixteen lanes, for kernels that are written once for all instruction sets.
//!
//! A kernel is a generic function over an [`Isa`] and an [`Element`]. Operands of products are kept
//! in 32-bit *words*: one f32, or two neighbouring bf16 values. The same kernel steps over k word
//! by word for both. The generic functions are inlined into entry points that enable the
//! instruction set ([`super::kernels`]).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod integers;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::{Avx512, Avx512Bf16};
#[cfg(target_arch = "x86_64")]
pub(super) use integers::{Avx2Integers, Avx512Integers, Avx512VnniIntegers, AvxVnniIntegers};
pub(super) use integers::{Integers, PortableIntegers};
pub(super) use portable::Portable;

/// Lanes of a vector.
pub(super) const LANES: usize = 16;

/// Sixteen f32 lanes and their operations.
///
/// # Safety
///
/// Every method may only run where the CPU has the instruction set, and pointers must be valid for
/// sixteen elements. No alignment is assumed.
pub(super) trait Isa: Copy + Send + Sync + 'static {
    /// Sixteen f32.
    type F: Copy;
    /// Sixteen 32-bit words.
    type W: Copy;
    /// Most rows of a tile of a matrix product.
    const GEMM_ROWS: usize;
    /// Most rows of a tile of attention.
    const ATTENTION_ROWS: usize;
    /// Most accumulators (rows times vectors) of a tile that has more than one vector per row.
    const ACCUMULATORS: usize;
    /// Whether products of bf16 are computed in f32. The rows' side is then expanded to f32 once
    /// for all its products ([`Element::expands`]); the other side is expanded in registers, once
    /// for all rows of a tile.
    const EXPANDS: bool;

    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn store(p: *mut f32, v: Self::F);
    unsafe fn load_words(p: *const u32) -> Self::W;
    unsafe fn splat_word(x: u32) -> Self::W;
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `acc + w * x`, words as f32.
    unsafe fn dot_f32(acc: Self::F, w: Self::W, x: Self::W) -> Self::F;
    /// `acc + w.low * x.low + w.high * x.high`, words as pairs of bf16.
    unsafe fn dot_bf16(acc: Self::F, w: Self::W, x: Self::W) -> Self::F;
    /// The low bf16 of each word, as f32; [`Self::high_bf16`] gives the high one.
    unsafe fn low_bf16(w: Self::W) -> Self::F;
    unsafe fn high_bf16(w: Self::W) -> Self::F;
    /// Rounds to nearest even and stores sixteen bf16.
    unsafe fn store_bf16(p: *mut u16, v: Self::F);
    /// The values that [`Self::store_bf16`] would store, as f32. No lane may be NaN.
    unsafe fn round_bf16(v: Self::F) -> Self::F;
    /// Rounds to the nearest integer, ties to even.
    unsafe fn round(v: Self::F) -> Self::F;
    /// `x * 2^n` for integral `n` in -127..=127; -127 gives zero.
    unsafe fn scale_by_power_of_two(x: Self::F, n: Self::F) -> Self::F;
    /// Largest lane.
    unsafe fn reduce_max(v: Self::F) -> f32;
    /// Sum of the lanes: halves added, then quarters, eighths, sixteenths.
    unsafe fn reduce_add(v: Self::F) -> f32;
    /// Prefetches the cache line at `p`. `p` may point anywhere.
    unsafe fn prefetch(p: *const u8);
    /// Returns `p`. An instruction set may hide the origin of the result from the compiler, which
    /// then reads a cheap value again instead of keeping it in a register, and keeps a pointer
    /// instead of computing it from strides.
    #[inline(always)]
    fn opaque(p: *const u32) -> *const u32 {
        p
    }

    /// `e^x` to about 2 ulp for `x <= 0`; zero for `x` below about -87.7, and for -inf.
    ///
    /// Cody-Waite reduction and a degree-6 polynomial (Cephes `expf`), with the same operations on
    /// every instruction set.
    #[inline(always)]
    unsafe fn exp_nonpositive(x: Self::F) -> Self::F {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let x = Self::max(x, Self::splat(-88.0));
            let n = Self::round(Self::mul(x, Self::splat(std::f32::consts::LOG2_E)));
            let r = Self::fma(n, Self::splat(-0.693_359_4), x);
            let r = Self::fma(n, Self::splat(2.121_944_4e-4), r);
            let mut p = Self::splat(1.987_569_1e-4);
            for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
                p = Self::fma(p, r, Self::splat(c));
            }
            let p = Self::fma(p, Self::mul(r, r), Self::add(r, Self::splat(1.0)));
            Self::scale_by_power_of_two(p, n)
        }
    }
}

/// The number format of a 32-bit word.
pub(super) trait Element: Copy + Send + Sync + 'static {
    /// Values per word.
    const PER_WORD: usize;
    /// `acc + w · x`.
    ///
    /// # Safety
    /// As for [`Isa`].
    unsafe fn dot<I: Isa>(acc: I::F, w: I::W, x: I::W) -> I::F;
    /// `acc[r][n] + w[n] · x[r]` for N vectors of words at `w` and the multipliers of word `k` of R
    /// rows, with the same bits as [`Self::dot`].
    ///
    /// # Safety
    /// As for [`Isa`].
    #[inline(always)]
    unsafe fn dots<I: Isa, const R: usize, const N: usize>(
        acc: &mut [[I::F; N]; R],
        w: [*const u32; N],
        x: [*const u32; R],
        k: usize,
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let w = w.map(|w| I::load_words(w));
            for (acc, x) in acc.iter_mut().zip(x) {
                let x = I::splat_word(*x.add(k));
                for (acc, w) in acc.iter_mut().zip(w) {
                    *acc = Self::dot::<I>(*acc, w, x);
                }
            }
        }
    }
    /// Whether *multipliers* (the rows' side of [`Self::dots`]) are one f32 per value. Otherwise
    /// they are the words of the rows.
    #[inline(always)]
    fn expands<I: Isa>() -> bool {
        I::EXPANDS && Self::PER_WORD > 1
    }
    /// Words that `n` multipliers take; `n` is a multiple of [`Self::PER_WORD`].
    #[inline(always)]
    fn multiplier_words<I: Isa>(n: usize) -> usize {
        if Self::expands::<I>() { n } else { n / Self::PER_WORD }
    }
    /// Turns `n` words into multipliers.
    ///
    /// # Safety
    /// The pointers must be valid for the words and for their multipliers.
    unsafe fn expand(words: *const u32, n: usize, out: *mut u32);
    /// Reads the values of the words at `p` from value index `at` on.
    ///
    /// # Safety
    /// `p` must be valid for the words of these values.
    unsafe fn read(p: *const u32, at: usize, out: &mut [f32]);
    /// Stores sixteen multipliers at value index `at` of the multipliers at `p`.
    ///
    /// # Safety
    /// As for [`Isa`].
    #[inline(always)]
    unsafe fn store_multipliers<I: Isa>(p: *mut u32, at: usize, v: I::F) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match Self::expands::<I>() {
                true => I::store(p.cast::<f32>().add(at), I::round_bf16(v)),
                false => Self::store::<I>(p, at, v),
            }
        }
    }
    /// Stores sixteen values at value index `at` of the words at `p`.
    ///
    /// # Safety
    /// As for [`Isa`].
    unsafe fn store<I: Isa>(p: *mut u32, at: usize, v: I::F);
    /// Stores one value at value index `at` of the words at `p`.
    ///
    /// # Safety
    /// `p` must be valid for the word that holds it.
    unsafe fn store_one(p: *mut u32, at: usize, v: f32);
}

/// Words of one f32.
#[derive(Clone, Copy)]
pub(super) struct F32;

/// Words of two bf16, the first in the low half.
#[derive(Clone, Copy)]
pub(super) struct Bf16;

impl Element for F32 {
    const PER_WORD: usize = 1;
    #[inline(always)]
    unsafe fn dot<I: Isa>(acc: I::F, w: I::W, x: I::W) -> I::F {
        // SAFETY: guaranteed by the caller.
        unsafe { I::dot_f32(acc, w, x) }
    }
    #[inline(always)]
    unsafe fn expand(words: *const u32, n: usize, out: *mut u32) {
        // SAFETY: guaranteed by the caller.
        unsafe { std::ptr::copy_nonoverlapping(words, out, n) }
    }
    #[inline(always)]
    unsafe fn read(p: *const u32, at: usize, out: &mut [f32]) {
        for (i, value) in out.iter_mut().enumerate() {
            // SAFETY: guaranteed by the caller.
            *value = unsafe { *p.cast::<f32>().add(at + i) };
        }
    }
    #[inline(always)]
    unsafe fn store<I: Isa>(p: *mut u32, at: usize, v: I::F) {
        // SAFETY: guaranteed by the caller.
        unsafe { I::store(p.cast::<f32>().add(at), v) }
    }
    #[inline(always)]
    unsafe fn store_one(p: *mut u32, at: usize, v: f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { *p.cast::<f32>().add(at) = v }
    }
}

impl Element for Bf16 {
    const PER_WORD: usize = 2;
    #[inline(always)]
    unsafe fn dot<I: Isa>(acc: I::F, w: I::W, x: I::W) -> I::F {
        // SAFETY: guaranteed by the caller.
        unsafe { I::dot_bf16(acc, w, x) }
    }
    #[inline(always)]
    unsafe fn dots<I: Isa, const R: usize, const N: usize>(
        acc: &mut [[I::F; N]; R],
        w: [*const u32; N],
        x: [*const u32; R],
        k: usize,
    ) {
        // SAFETY: guaranteed by the caller; multipliers are f32, two per word.
        unsafe {
            if !I::EXPANDS {
                let words = w.map(|w| I::load_words(w));
                for (acc, x) in acc.iter_mut().zip(x) {
                    let x = I::splat_word(*x.add(k));
                    for (acc, w) in acc.iter_mut().zip(words) {
                        *acc = I::dot_bf16(*acc, w, x);
                    }
                }
                return;
            }
            if I::ACCUMULATORS > 6 {
                // Thirty-two registers hold both halves of the words beside 24 sums.
                let words = w.map(|w| I::load_words(w));
                let (low, high) = (words.map(|w| I::low_bf16(w)), words.map(|w| I::high_bf16(w)));
                for (acc, x) in acc.iter_mut().zip(x) {
                    let x = x.cast::<f32>().add(2 * k);
                    let (first, second) = (I::splat(*x), I::splat(*x.add(1)));
                    for n in 0..N {
                        acc[n] = I::fma(high[n], second, I::fma(low[n], first, acc[n]));
                    }
                }
                return;
            }
            // The sixteen registers of AVX2 hold twelve sums, one half of a vector of words and a
            // multiplier. Every other value is read again for each use.
            for half in 0..2 {
                for n in 0..N {
                    let w = match half {
                        0 => I::low_bf16(I::load_words(w[n])),
                        _ if R < 3 => I::high_bf16(I::load_words(w[n])),
                        _ => I::high_bf16(I::load_words(I::opaque(w[n]))),
                    };
                    for r in 0..R {
                        let x = if n == 0 || R < 3 { x[r] } else { I::opaque(x[r]) };
                        let x = I::splat(*x.cast::<f32>().add(2 * k + half));
                        acc[r][n] = I::fma(w, x, acc[r][n]);
                    }
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn expand(words: *const u32, n: usize, out: *mut u32) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let values = words.cast::<u16>();
            for i in 0..2 * n {
                *out.add(i) = u32::from(*values.add(i)) << 16;
            }
        }
    }
    #[inline(always)]
    unsafe fn read(p: *const u32, at: usize, out: &mut [f32]) {
        for (i, value) in out.iter_mut().enumerate() {
            // SAFETY: guaranteed by the caller.
            *value = f32::from_bits(u32::from(unsafe { *p.cast::<u16>().add(at + i) }) << 16);
        }
    }
    #[inline(always)]
    unsafe fn store<I: Isa>(p: *mut u32, at: usize, v: I::F) {
        // SAFETY: guaranteed by the caller.
        unsafe { I::store_bf16(p.cast::<u16>().add(at), v) }
    }
    #[inline(always)]
    unsafe fn store_one(p: *mut u32, at: usize, v: f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { *p.cast::<u16>().add(at) = bf16_bits(v) }
    }
}

/// Rounds to the nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
pub(super) fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}
