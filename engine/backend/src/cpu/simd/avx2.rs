//! AVX2 and FMA: two registers per vector.

use super::Isa;
use std::arch::asm;
use std::arch::x86_64::*;

/// AVX2 with FMA.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx2;

/// Sixteen f32 in two registers.
#[derive(Clone, Copy)]
pub(in super::super) struct F(__m256, __m256);

/// Sixteen words in two registers.
#[derive(Clone, Copy)]
pub(in super::super) struct W(__m256i, __m256i);

#[inline(always)]
unsafe fn both(a: F, b: F, f: impl Fn(__m256, __m256) -> __m256) -> F {
    F(f(a.0, b.0), f(a.1, b.1))
}

#[inline(always)]
unsafe fn even(v: __m256i) -> __m256 {
    // SAFETY: the caller vouches for the instruction set. The same holds in this whole file.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(v)) }
}

#[inline(always)]
unsafe fn odd(v: __m256i) -> __m256 {
    // SAFETY: see `even`.
    unsafe {
        let high = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
        _mm256_castsi256_ps(_mm256_and_si256(v, high))
    }
}

/// Rounds the upper half of each word to the nearest bf16, ties to even.
#[inline(always)]
unsafe fn up(bits: __m256i) -> __m256i {
    // SAFETY: see `even`.
    unsafe {
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)))
    }
}

/// bf16 bits of each lane, in the low half of its word.
#[inline(always)]
unsafe fn rounded(v: __m256) -> __m256i {
    // SAFETY: see `even`.
    unsafe {
        let bits = _mm256_castps_si256(v);
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
        _mm256_srli_epi32::<16>(_mm256_blendv_epi8(up(bits), quiet, nan))
    }
}

impl Isa for Avx2 {
    type F = F;
    type W = W;
    const GEMM_ROWS: usize = 6;
    const ATTENTION_ROWS: usize = 6;
    const ACCUMULATORS: usize = 6;
    const EXPANDS: bool = true;

    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        // SAFETY: see `even`.
        unsafe { F(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> F {
        // SAFETY: see `even`; the caller vouches for the pointer. The same holds below.
        unsafe { F(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: F) {
        // SAFETY: see `load`.
        unsafe {
            _mm256_storeu_ps(p, v.0);
            _mm256_storeu_ps(p.add(8), v.1);
        }
    }
    #[inline(always)]
    unsafe fn load_words(p: *const u32) -> W {
        // SAFETY: see `load`.
        unsafe { W(_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(8).cast())) }
    }
    #[inline(always)]
    unsafe fn splat_word(x: u32) -> W {
        // SAFETY: see `even`.
        unsafe { W(_mm256_set1_epi32(x.cast_signed()), _mm256_set1_epi32(x.cast_signed())) }
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        // SAFETY: see `even`.
        unsafe { both(a, b, |a, b| _mm256_add_ps(a, b)) }
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        // SAFETY: see `even`.
        unsafe { both(a, b, |a, b| _mm256_sub_ps(a, b)) }
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        // SAFETY: see `even`.
        unsafe { both(a, b, |a, b| _mm256_mul_ps(a, b)) }
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        // SAFETY: see `even`.
        unsafe { both(a, b, |a, b| _mm256_div_ps(a, b)) }
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        // SAFETY: see `even`.
        unsafe { both(a, b, |a, b| _mm256_max_ps(a, b)) }
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        // SAFETY: see `even`.
        unsafe { F(_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)) }
    }
    #[inline(always)]
    unsafe fn dot_f32(acc: F, w: W, x: W) -> F {
        // SAFETY: see `even`.
        unsafe {
            let f = |v| _mm256_castsi256_ps(v);
            F(_mm256_fmadd_ps(f(w.0), f(x.0), acc.0), _mm256_fmadd_ps(f(w.1), f(x.1), acc.1))
        }
    }
    #[inline(always)]
    unsafe fn dot_bf16(acc: F, w: W, x: W) -> F {
        // SAFETY: see `even`.
        unsafe {
            let acc0 = _mm256_fmadd_ps(even(w.0), even(x.0), acc.0);
            let acc1 = _mm256_fmadd_ps(even(w.1), even(x.1), acc.1);
            F(_mm256_fmadd_ps(odd(w.0), odd(x.0), acc0), _mm256_fmadd_ps(odd(w.1), odd(x.1), acc1))
        }
    }
    #[inline(always)]
    unsafe fn low_bf16(w: W) -> F {
        // SAFETY: see `even`.
        unsafe { F(even(w.0), even(w.1)) }
    }
    #[inline(always)]
    unsafe fn high_bf16(w: W) -> F {
        // SAFETY: see `even`.
        unsafe { F(odd(w.0), odd(w.1)) }
    }
    #[inline(always)]
    unsafe fn round_bf16(v: F) -> F {
        // SAFETY: see `even`.
        unsafe { F(odd(up(_mm256_castps_si256(v.0))), odd(up(_mm256_castps_si256(v.1)))) }
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: F) {
        // SAFETY: see `load`.
        unsafe {
            let packed = _mm256_packus_epi32(rounded(v.0), rounded(v.1));
            _mm256_storeu_si256(p.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
        }
    }
    #[inline(always)]
    unsafe fn round(v: F) -> F {
        // SAFETY: see `even`.
        unsafe {
            const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
            F(_mm256_round_ps::<NEAREST>(v.0), _mm256_round_ps::<NEAREST>(v.1))
        }
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(x: F, n: F) -> F {
        // SAFETY: see `even`.
        unsafe {
            both(x, n, |x, n| {
                let n = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n)))
            })
        }
    }
    #[inline(always)]
    unsafe fn reduce_max(v: F) -> f32 {
        // SAFETY: see `even`.
        unsafe {
            let v = _mm256_max_ps(v.0, v.1);
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        }
    }
    #[inline(always)]
    unsafe fn reduce_add(v: F) -> f32 {
        // SAFETY: see `even`.
        unsafe {
            let v = _mm256_add_ps(v.0, v.1);
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
    }
    #[expect(clippy::pointers_in_nomem_asm_block, reason = "there is nothing in it")]
    #[inline(always)]
    fn opaque(mut p: *const u32) -> *const u32 {
        // SAFETY: the block contains no instruction.
        unsafe { asm!("/* {0} */", inout(reg) p, options(pure, nomem, nostack, preserves_flags)) };
        p
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        // SAFETY: prefetching has no effect that a program can see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}
