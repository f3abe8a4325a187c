//! AVX2: eight outputs in a register; with AVX-VNNI, one instruction for the products of a quad.

use super::Integers;
use std::arch::x86_64::*;

/// AVX2 with FMA and F16C.
#[derive(Clone, Copy)]
pub(in super::super::super) struct Avx2Integers;

/// AVX2 with FMA, F16C and AVX-VNNI: `vpdpbusd`.
#[derive(Clone, Copy)]
pub(in super::super::super) struct AvxVnniIntegers;

macro_rules! avx2_integers {
    ($name:ident, $begin:item, $dot:item, $end:item, $start_wide:item, $dot_wide:item) => {
        impl Integers for $name {
            type W = __m256i;
            type F = __m256;
            const LANES: usize = 8;
            const ROWS: usize = 4;

            #[inline(always)]
            unsafe fn load(p: *const u8) -> __m256i {
                // SAFETY: the caller vouches for the instruction set and the pointer. The same holds below.
                unsafe { _mm256_loadu_si256(p.cast()) }
            }
            #[inline(always)]
            unsafe fn load_u8(p: *const u8) -> __m256i {
                // SAFETY: see `load`.
                unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())) }
            }
            #[inline(always)]
            unsafe fn load_i8(p: *const u8) -> __m256i {
                // SAFETY: see `load`.
                unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())) }
            }
            #[inline(always)]
            unsafe fn load_f16(p: *const u8) -> __m256 {
                // SAFETY: see `load`.
                unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
            }
            #[inline(always)]
            unsafe fn splat(x: i32) -> __m256i {
                // SAFETY: see `load`.
                unsafe { _mm256_set1_epi32(x) }
            }
            #[inline(always)]
            unsafe fn splat_f32(x: f32) -> __m256 {
                // SAFETY: see `load`.
                unsafe { _mm256_set1_ps(x) }
            }
            #[inline(always)]
            unsafe fn and(a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: see `load`.
                unsafe { _mm256_and_si256(a, b) }
            }
            #[inline(always)]
            unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: see `load`.
                unsafe { _mm256_or_si256(a, b) }
            }
            #[inline(always)]
            unsafe fn add(a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: see `load`.
                unsafe { _mm256_add_epi32(a, b) }
            }
            #[inline(always)]
            unsafe fn sub(a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: see `load`.
                unsafe { _mm256_sub_epi32(a, b) }
            }
            #[inline(always)]
            unsafe fn mul(a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: see `load`.
                unsafe { _mm256_mullo_epi32(a, b) }
            }
            #[inline(always)]
            unsafe fn shl<const N: u32>(a: __m256i) -> __m256i {
                // SAFETY: see `load`.
                unsafe { _mm256_sll_epi32(a, _mm_cvtsi32_si128(N.cast_signed())) }
            }
            #[inline(always)]
            unsafe fn shr<const N: u32>(a: __m256i) -> __m256i {
                // SAFETY: see `load`.
                unsafe { _mm256_srl_epi32(a, _mm_cvtsi32_si128(N.cast_signed())) }
            }
            #[inline(always)]
            unsafe fn lookup(table: &[u8; 16], bytes: __m256i) -> __m256i {
                // SAFETY: see `load`.
                unsafe {
                    let table = _mm_loadu_si128(table.as_ptr().cast());
                    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), bytes)
                }
            }
            $begin
            $dot
            $end
            $start_wide
            $dot_wide
            #[inline(always)]
            unsafe fn to_f32(a: __m256i) -> __m256 {
                // SAFETY: see `load`.
                unsafe { _mm256_cvtepi32_ps(a) }
            }
            #[inline(always)]
            unsafe fn mul_f32(a: __m256, b: __m256) -> __m256 {
                // SAFETY: see `load`.
                unsafe { _mm256_mul_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
                // SAFETY: see `load`.
                unsafe { _mm256_fmadd_ps(a, b, c) }
            }
            #[inline(always)]
            unsafe fn negate(a: __m256) -> __m256 {
                // SAFETY: see `load`.
                unsafe { _mm256_xor_ps(a, _mm256_set1_ps(-0.0)) }
            }
            #[inline(always)]
            unsafe fn store(p: *mut f32, a: __m256) {
                // SAFETY: see `load`.
                unsafe { _mm256_storeu_ps(p, a) }
            }
            #[inline(always)]
            unsafe fn prefetch(p: *const u8) {
                // SAFETY: prefetching has no effect that a program can see.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
            }
        }
    };
}

avx2_integers!(
    Avx2Integers,
    #[inline(always)]
    unsafe fn begin(_: __m256i) -> __m256i {
        // SAFETY: see `load`.
        unsafe { _mm256_setzero_si256() }
    },
    #[inline(always)]
    unsafe fn dot(chain: __m256i, codes: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        // SAFETY: see `load`. Four products are within 4 · 63 · 127 = 32004, eight of codes below 32 within
        // 31496, and sixteen of codes below 16 within 30480.
        unsafe {
            let first = _mm256_maddubs_epi16(codes[0], x[0]);
            let pairs = _mm256_add_epi16(first, _mm256_maddubs_epi16(codes[1], x[1]));
            _mm256_add_epi16(chain, pairs)
        }
    },
    #[inline(always)]
    unsafe fn end(sum: __m256i, chain: __m256i) -> __m256i {
        // SAFETY: see `load`.
        unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(chain, _mm256_set1_epi16(1))) }
    },
    #[inline(always)]
    unsafe fn start_wide(_: __m256i) -> __m256i {
        // SAFETY: see `load`.
        unsafe { _mm256_setzero_si256() }
    },
    #[inline(always)]
    unsafe fn dot_wide(acc: __m256i, codes: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        // SAFETY: see `load`. The sign of a weight moves to its activation: two products of at most
        // 128 · 127 fit 16 bits, which an unsigned code times an activation would not.
        unsafe {
            let pairs = |code, x| {
                let weight = _mm256_xor_si256(code, _mm256_set1_epi8(-128));
                let pairs =
                    _mm256_maddubs_epi16(_mm256_abs_epi8(weight), _mm256_sign_epi8(x, weight));
                _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
            };
            let both = _mm256_add_epi32(pairs(codes[0], x[0]), pairs(codes[1], x[1]));
            _mm256_add_epi32(acc, both)
        }
    }
);

avx2_integers!(
    AvxVnniIntegers,
    #[inline(always)]
    unsafe fn begin(sum: __m256i) -> __m256i {
        sum
    },
    #[inline(always)]
    unsafe fn dot(chain: __m256i, codes: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        // SAFETY: see `load`.
        unsafe {
            let chain = _mm256_dpbusd_avx_epi32(chain, codes[0], x[0]);
            _mm256_dpbusd_avx_epi32(chain, codes[1], x[1])
        }
    },
    #[inline(always)]
    unsafe fn end(_: __m256i, chain: __m256i) -> __m256i {
        chain
    },
    #[inline(always)]
    unsafe fn start_wide(negated_sum: __m256i) -> __m256i {
        // SAFETY: see `load`.
        unsafe { _mm256_slli_epi32::<7>(negated_sum) }
    },
    #[inline(always)]
    unsafe fn dot_wide(acc: __m256i, codes: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        // SAFETY: see `load`.
        unsafe { Self::dot(acc, codes, x) }
    }
);
