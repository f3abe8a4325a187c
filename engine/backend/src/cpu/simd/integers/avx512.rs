//! AVX-512: sixteen outputs in a register; with VNNI, one instruction for the products of a quad.

use super::Integers;
use std::arch::x86_64::*;

/// AVX-512 F, BW, VL and DQ.
#[derive(Clone, Copy)]
pub(in super::super::super) struct Avx512Integers;

/// AVX-512 with VNNI: `vpdpbusd`.
#[derive(Clone, Copy)]
pub(in super::super::super) struct Avx512VnniIntegers;

macro_rules! avx512_integers {
    ($name:ident, $begin:item, $dot:item, $end:item, $start_wide:item, $dot_wide:item) => {
        impl Integers for $name {
            type W = __m512i;
            type F = __m512;
            const LANES: usize = 16;
            const ROWS: usize = 12;

            #[inline(always)]
            unsafe fn load(p: *const u8) -> __m512i {
                // SAFETY: the caller vouches for the instruction set and the pointer. The same holds below.
                unsafe { _mm512_loadu_si512(p.cast()) }
            }
            #[inline(always)]
            unsafe fn load_u8(p: *const u8) -> __m512i {
                // SAFETY: see `load`.
                unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())) }
            }
            #[inline(always)]
            unsafe fn load_i8(p: *const u8) -> __m512i {
                // SAFETY: see `load`.
                unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())) }
            }
            #[inline(always)]
            unsafe fn load_f16(p: *const u8) -> __m512 {
                // SAFETY: see `load`.
                unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
            }
            #[inline(always)]
            unsafe fn splat(x: i32) -> __m512i {
                // SAFETY: see `load`.
                unsafe { _mm512_set1_epi32(x) }
            }
            #[inline(always)]
            unsafe fn splat_f32(x: f32) -> __m512 {
                // SAFETY: see `load`.
                unsafe { _mm512_set1_ps(x) }
            }
            #[inline(always)]
            unsafe fn and(a: __m512i, b: __m512i) -> __m512i {
                // SAFETY: see `load`.
                unsafe { _mm512_and_si512(a, b) }
            }
            #[inline(always)]
            unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
                // SAFETY: see `load`.
                unsafe { _mm512_or_si512(a, b) }
            }
            #[inline(always)]
            unsafe fn add(a: __m512i, b: __m512i) -> __m512i {
                // SAFETY: see `load`.
                unsafe { _mm512_add_epi32(a, b) }
            }
            #[inline(always)]
            unsafe fn sub(a: __m512i, b: __m512i) -> __m512i {
                // SAFETY: see `load`.
                unsafe { _mm512_sub_epi32(a, b) }
            }
            #[inline(always)]
            unsafe fn mul(a: __m512i, b: __m512i) -> __m512i {
                // SAFETY: see `load`.
                unsafe { _mm512_mullo_epi32(a, b) }
            }
            #[inline(always)]
            unsafe fn shl<const N: u32>(a: __m512i) -> __m512i {
                // SAFETY: see `load`.
                unsafe { _mm512_slli_epi32::<N>(a) }
            }
            #[inline(always)]
            unsafe fn shr<const N: u32>(a: __m512i) -> __m512i {
                // SAFETY: see `load`.
                unsafe { _mm512_srli_epi32::<N>(a) }
            }
            #[inline(always)]
            unsafe fn lookup(table: &[u8; 16], bytes: __m512i) -> __m512i {
                // SAFETY: see `load`.
                unsafe {
                    let table = _mm_loadu_si128(table.as_ptr().cast());
                    _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), bytes)
                }
            }
            $begin
            $dot
            $end
            $start_wide
            $dot_wide
            #[inline(always)]
            unsafe fn to_f32(a: __m512i) -> __m512 {
                // SAFETY: see `load`.
                unsafe { _mm512_cvtepi32_ps(a) }
            }
            #[inline(always)]
            unsafe fn mul_f32(a: __m512, b: __m512) -> __m512 {
                // SAFETY: see `load`.
                unsafe { _mm512_mul_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
                // SAFETY: see `load`.
                unsafe { _mm512_fmadd_ps(a, b, c) }
            }
            #[inline(always)]
            unsafe fn negate(a: __m512) -> __m512 {
                // SAFETY: see `load`.
                unsafe { _mm512_xor_ps(a, _mm512_set1_ps(-0.0)) }
            }
            #[inline(always)]
            unsafe fn store(p: *mut f32, a: __m512) {
                // SAFETY: see `load`.
                unsafe { _mm512_storeu_ps(p, a) }
            }
            #[inline(always)]
            unsafe fn prefetch(p: *const u8) {
                // SAFETY: prefetching has no effect that a program can see.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
            }
        }
    };
}

avx512_integers!(
    Avx512Integers,
    #[inline(always)]
    unsafe fn begin(_: __m512i) -> __m512i {
        // SAFETY: see `load`.
        unsafe { _mm512_setzero_si512() }
    },
    #[inline(always)]
    unsafe fn dot(chain: __m512i, codes: [__m512i; 2], x: [__m512i; 2]) -> __m512i {
        // SAFETY: see `load`. Four products are within 4 · 63 · 127 = 32004, eight of codes below 32 within
        // 31496, and sixteen of codes below 16 within 30480.
        unsafe {
            let first = _mm512_maddubs_epi16(codes[0], x[0]);
            let pairs = _mm512_add_epi16(first, _mm512_maddubs_epi16(codes[1], x[1]));
            _mm512_add_epi16(chain, pairs)
        }
    },
    #[inline(always)]
    unsafe fn end(sum: __m512i, chain: __m512i) -> __m512i {
        // SAFETY: see `load`.
        unsafe { _mm512_add_epi32(sum, _mm512_madd_epi16(chain, _mm512_set1_epi16(1))) }
    },
    #[inline(always)]
    unsafe fn start_wide(_: __m512i) -> __m512i {
        // SAFETY: see `load`.
        unsafe { _mm512_setzero_si512() }
    },
    #[inline(always)]
    unsafe fn dot_wide(acc: __m512i, codes: [__m512i; 2], x: [__m512i; 2]) -> __m512i {
        // SAFETY: see `load`. The sign of a weight moves to its activation: two products of at most
        // 128 · 127 fit 16 bits, which an unsigned code times an activation would not.
        unsafe {
            let pairs = |code, x| {
                let weight = _mm512_xor_si512(code, _mm512_set1_epi8(-128));
                let negative = _mm512_movepi8_mask(weight);
                let x = _mm512_mask_sub_epi8(x, negative, _mm512_setzero_si512(), x);
                let pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(weight), x);
                _mm512_madd_epi16(pairs, _mm512_set1_epi16(1))
            };
            let both = _mm512_add_epi32(pairs(codes[0], x[0]), pairs(codes[1], x[1]));
            _mm512_add_epi32(acc, both)
        }
    }
);

avx512_integers!(
    Avx512VnniIntegers,
    #[inline(always)]
    unsafe fn begin(sum: __m512i) -> __m512i {
        sum
    },
    #[inline(always)]
    unsafe fn dot(chain: __m512i, codes: [__m512i; 2], x: [__m512i; 2]) -> __m512i {
        // SAFETY: see `load`.
        unsafe {
            let chain = _mm512_dpbusd_epi32(chain, codes[0], x[0]);
            _mm512_dpbusd_epi32(chain, codes[1], x[1])
        }
    },
    #[inline(always)]
    unsafe fn end(_: __m512i, chain: __m512i) -> __m512i {
        chain
    },
    #[inline(always)]
    unsafe fn start_wide(negated_sum: __m512i) -> __m512i {
        // SAFETY: see `load`.
        unsafe { _mm512_slli_epi32::<7>(negated_sum) }
    },
    #[inline(always)]
    unsafe fn dot_wide(acc: __m512i, codes: [__m512i; 2], x: [__m512i; 2]) -> __m512i {
        // SAFETY: see `load`.
        unsafe { Self::dot(acc, codes, x) }
    }
);
