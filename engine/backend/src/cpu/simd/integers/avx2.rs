//! AVX2: eight outputs in a register; with AVX-VNNI, one instruction for the products of a quad.

use super::{Integers, x86::x86_integers};
use std::arch::x86_64::*;

x86_integers! {
    /// AVX2 with FMA and F16C.
    Avx2: __m256i, __m256, 8 lanes, 4 rows;
    load: _mm256_loadu_si256, load_bytes: _mm_loadl_epi64, load_halves: _mm_loadu_si128,
    store: _mm256_storeu_ps, splat: _mm256_set1_epi32, splat_f32: _mm256_set1_ps,
    splat_i16: _mm256_set1_epi16, splat_i8: _mm256_set1_epi8, zero: _mm256_setzero_si256,
    widen_u8: _mm256_cvtepu8_epi32, widen_i8: _mm256_cvtepi8_epi32, widen_f16: _mm256_cvtph_ps,
    and: _mm256_and_si256, or: _mm256_or_si256, xor: _mm256_xor_si256, xor_f32: _mm256_xor_ps,
    shl: _mm256_sll_epi32, shl_constant: _mm256_slli_epi32, shr: _mm256_srl_epi32,
    table: _mm256_broadcastsi128_si256, lookup: _mm256_shuffle_epi8,
    add: _mm256_add_epi32, sub: _mm256_sub_epi32, mul: _mm256_mullo_epi32, add_i16: _mm256_add_epi16,
    dot_pairs_i8: _mm256_maddubs_epi16, dot_pairs_i16: _mm256_madd_epi16,
    dot_quads: _mm256_dpbusd_avx_epi32, abs_i8: _mm256_abs_epi8, sign_i8: _mm256_sign_epi8,
    to_f32: _mm256_cvtepi32_ps, mul_f32: _mm256_mul_ps, fma: _mm256_fmadd_ps,
}

/// AVX2 without dot products of bytes.
pub(in super::super::super) type Avx2Integers = Avx2<false>;

/// AVX2 with AVX-VNNI: `vpdpbusd`.
pub(in super::super::super) type AvxVnniIntegers = Avx2<true>;
