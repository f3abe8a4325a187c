//! AVX-512: one register per vector; with BF16, one instruction per dot product of pairs.

use super::Isa;
use std::arch::x86_64::*;

/// AVX-512 F, BW, VL and DQ: bf16 products in f32.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx512;

/// AVX-512 with BF16: `vdpbf16ps`.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx512Bf16;

#[inline(always)]
unsafe fn even(v: __m512i) -> __m512 {
    // SAFETY: the caller vouches for the instruction set. The same holds in this whole file.
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(v)) }
}

#[inline(always)]
unsafe fn odd(v: __m512i) -> __m512 {
    // SAFETY: see `even`.
    unsafe {
        let high = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
        _mm512_castsi512_ps(_mm512_and_si512(v, high))
    }
}

/// bf16 bits of each lane, in the low half of its word.
#[inline(always)]
unsafe fn rounded(v: __m512) -> __m512i {
    // SAFETY: see `even`.
    unsafe {
        let bits = _mm512_castps_si512(v);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
        let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x40_0000));
        _mm512_srli_epi32::<16>(_mm512_mask_mov_epi32(up, nan, quiet))
    }
}

macro_rules! avx512 {
    ($name:ident, expands: $expands:literal, $dot_bf16:item, $store_bf16:item) => {
        impl Isa for $name {
            type F = __m512;
            type W = __m512i;
            const GEMM_ROWS: usize = 12;
            const ATTENTION_ROWS: usize = 6;
            const ACCUMULATORS: usize = 24;
            const EXPANDS: bool = $expands;

            #[inline(always)]
            unsafe fn splat(x: f32) -> __m512 {
                // SAFETY: the caller vouches for the instruction set. The same holds below.
                unsafe { _mm512_set1_ps(x) }
            }
            #[inline(always)]
            unsafe fn load(p: *const f32) -> __m512 {
                // SAFETY: see `splat`; the caller vouches for the pointer. The same holds below.
                unsafe { _mm512_loadu_ps(p) }
            }
            #[inline(always)]
            unsafe fn store(p: *mut f32, v: __m512) {
                // SAFETY: see `load`.
                unsafe { _mm512_storeu_ps(p, v) }
            }
            #[inline(always)]
            unsafe fn load_words(p: *const u32) -> __m512i {
                // SAFETY: see `load`.
                unsafe { _mm512_loadu_si512(p.cast()) }
            }
            #[inline(always)]
            unsafe fn splat_word(x: u32) -> __m512i {
                // SAFETY: see `splat`.
                unsafe { _mm512_set1_epi32(x.cast_signed()) }
            }
            #[inline(always)]
            unsafe fn add(a: __m512, b: __m512) -> __m512 {
                // SAFETY: see `splat`.
                unsafe { _mm512_add_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn sub(a: __m512, b: __m512) -> __m512 {
                // SAFETY: see `splat`.
                unsafe { _mm512_sub_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn mul(a: __m512, b: __m512) -> __m512 {
                // SAFETY: see `splat`.
                unsafe { _mm512_mul_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn div(a: __m512, b: __m512) -> __m512 {
                // SAFETY: see `splat`.
                unsafe { _mm512_div_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn max(a: __m512, b: __m512) -> __m512 {
                // SAFETY: see `splat`.
                unsafe { _mm512_max_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
                // SAFETY: see `splat`.
                unsafe { _mm512_fmadd_ps(a, b, c) }
            }
            #[inline(always)]
            unsafe fn dot_f32(acc: __m512, w: __m512i, x: __m512i) -> __m512 {
                // SAFETY: see `splat`.
                unsafe { _mm512_fmadd_ps(_mm512_castsi512_ps(w), _mm512_castsi512_ps(x), acc) }
            }
            $dot_bf16
            #[inline(always)]
            unsafe fn low_bf16(w: __m512i) -> __m512 {
                // SAFETY: see `splat`.
                unsafe { even(w) }
            }
            #[inline(always)]
            unsafe fn high_bf16(w: __m512i) -> __m512 {
                // SAFETY: see `splat`.
                unsafe { odd(w) }
            }
            #[inline(always)]
            unsafe fn round_bf16(v: __m512) -> __m512 {
                // SAFETY: see `splat`.
                unsafe { even(rounded(v)) }
            }
            $store_bf16
            #[inline(always)]
            unsafe fn round(v: __m512) -> __m512 {
                // SAFETY: see `splat`.
                unsafe { _mm512_roundscale_ps::<0>(v) }
            }
            #[inline(always)]
            unsafe fn scale_by_power_of_two(x: __m512, n: __m512) -> __m512 {
                // SAFETY: see `splat`.
                unsafe {
                    let n = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
                    _mm512_mul_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32::<23>(n)))
                }
            }
            #[inline(always)]
            unsafe fn reduce_max(v: __m512) -> f32 {
                // SAFETY: see `splat`.
                unsafe { _mm512_reduce_max_ps(v) }
            }
            #[inline(always)]
            unsafe fn reduce_add(v: __m512) -> f32 {
                // SAFETY: see `splat`.
                unsafe {
                    let high = _mm512_extractf32x8_ps::<1>(v);
                    let v = _mm256_add_ps(_mm512_castps512_ps256(v), high);
                    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
                    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
                    _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
                }
            }
            #[inline(always)]
            unsafe fn prefetch(p: *const u8) {
                // SAFETY: prefetching has no effect that a program can see.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
            }
        }
    };
}

avx512!(
    Avx512,
    expands: true,
    #[inline(always)]
    unsafe fn dot_bf16(acc: __m512, w: __m512i, x: __m512i) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_fmadd_ps(odd(w), odd(x), _mm512_fmadd_ps(even(w), even(x), acc)) }
    },
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: __m512) {
        // SAFETY: see `load`.
        unsafe { _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(rounded(v))) }
    }
);

avx512!(
    Avx512Bf16,
    expands: false,
    #[inline(always)]
    unsafe fn dot_bf16(acc: __m512, w: __m512i, x: __m512i) -> __m512 {
        // SAFETY: see `splat`; both types are 512 bits and have no invalid values.
        unsafe {
            let pairs = |words| std::mem::transmute::<__m512i, __m512bh>(words);
            _mm512_dpbf16_ps(acc, pairs(w), pairs(x))
        }
    },
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: __m512) {
        // SAFETY: see `load`; the types are 256 bits each and have no invalid values.
        unsafe {
            let narrow = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v));
            _mm256_storeu_si256(p.cast(), narrow);
        }
    }
);
