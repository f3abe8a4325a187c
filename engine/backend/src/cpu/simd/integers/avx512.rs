//! AVX-512: sixteen outputs in a register; with VNNI, one instruction for the products of a quad.

use super::{Integers, x86::x86_integers};
use std::arch::x86_64::*;

x86_integers! {
    /// AVX-512 F, BW, VL and DQ.
    Avx512: __m512i, __m512, 16 lanes, 12 rows;
    load: _mm512_loadu_si512, load_bytes: _mm_loadu_si128, load_halves: _mm256_loadu_si256,
    store: _mm512_storeu_ps, splat: _mm512_set1_epi32, splat_f32: _mm512_set1_ps,
    splat_i16: _mm512_set1_epi16, splat_i8: _mm512_set1_epi8, zero: _mm512_setzero_si512,
    widen_u8: _mm512_cvtepu8_epi32, widen_i8: _mm512_cvtepi8_epi32, widen_f16: _mm512_cvtph_ps,
    and: _mm512_and_si512, or: _mm512_or_si512, xor: _mm512_xor_si512, xor_f32: _mm512_xor_ps,
    shl: _mm512_sll_epi32, shl_constant: _mm512_slli_epi32, shr: _mm512_srl_epi32,
    table: _mm512_broadcast_i32x4, lookup: _mm512_shuffle_epi8,
    add: _mm512_add_epi32, sub: _mm512_sub_epi32, mul: _mm512_mullo_epi32, add_i16: _mm512_add_epi16,
    dot_pairs_i8: _mm512_maddubs_epi16, dot_pairs_i16: _mm512_madd_epi16,
    dot_quads: _mm512_dpbusd_epi32, abs_i8: _mm512_abs_epi8, sign_i8: sign_i8,
    to_f32: _mm512_cvtepi32_ps, mul_f32: _mm512_mul_ps, fma: _mm512_fmadd_ps,
}

/// Negates the bytes of `x` whose weight is negative.
#[inline(always)]
unsafe fn sign_i8(x: __m512i, weight: __m512i) -> __m512i {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(weight), _mm512_setzero_si512(), x) }
}

/// AVX-512 without dot products of bytes.
pub(in super::super::super) type Avx512Integers = Avx512<false>;

/// AVX-512 with VNNI: `vpdpbusd`.
pub(in super::super::super) type Avx512VnniIntegers = Avx512<true>;
