//! The integer products of AVX2 and AVX-512, by the names of their intrinsics.

/// Defines an instruction set in two variants: with VNNI, one instruction adds the products of a quad to a
/// 32-bit lane; without it, products are added up in pairs of 16 bits.
///
/// `load_bytes` loads a byte for each lane, and `load_halves` 16 bits. `sign_i8(x, weight)` negates the bytes
/// of `x` whose weight is negative; where the weight is zero, the result has no effect.
macro_rules! x86_integers {
    (
        $(#[$doc:meta])*
        $name:ident: $w:ty, $f:ty, $lanes:literal lanes, $rows:literal rows;
        load: $load:ident, load_bytes: $load_bytes:ident, load_halves: $load_halves:ident,
        store: $store:ident, splat: $splat:ident, splat_f32: $splat_f32:ident,
        splat_i16: $splat_i16:ident, splat_i8: $splat_i8:ident, zero: $zero:ident,
        widen_u8: $widen_u8:ident, widen_i8: $widen_i8:ident, widen_f16: $widen_f16:ident,
        and: $and:ident, or: $or:ident, xor: $xor:ident, xor_f32: $xor_f32:ident,
        shl: $shl:ident, shl_constant: $shl_constant:ident, shr: $shr:ident,
        table: $table:ident, lookup: $lookup:ident,
        add: $add:ident, sub: $sub:ident, mul: $mul:ident, add_i16: $add_i16:ident,
        dot_pairs_i8: $dot_pairs_i8:ident, dot_pairs_i16: $dot_pairs_i16:ident,
        dot_quads: $dot_quads:ident, abs_i8: $abs_i8:ident, sign_i8: $sign_i8:ident,
        to_f32: $to_f32:ident, mul_f32: $mul_f32:ident, fma: $fma:ident,
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(in super::super::super) struct $name<const VNNI: bool>;

        impl<const VNNI: bool> Integers for $name<VNNI> {
            type W = $w;
            type F = $f;
            const LANES: usize = $lanes;
            const ROWS: usize = $rows;

            #[inline(always)]
            unsafe fn load(p: *const u8) -> $w {
                // SAFETY: the caller vouches for the instruction set and the pointer. The same holds below.
                unsafe { $load(p.cast()) }
            }
            #[inline(always)]
            unsafe fn load_u8(p: *const u8) -> $w {
                // SAFETY: see `load`.
                unsafe { $widen_u8($load_bytes(p.cast())) }
            }
            #[inline(always)]
            unsafe fn load_i8(p: *const u8) -> $w {
                // SAFETY: see `load`.
                unsafe { $widen_i8($load_bytes(p.cast())) }
            }
            #[inline(always)]
            unsafe fn load_f16(p: *const u8) -> $f {
                // SAFETY: see `load`.
                unsafe { $widen_f16($load_halves(p.cast())) }
            }
            #[inline(always)]
            unsafe fn splat(x: i32) -> $w {
                // SAFETY: see `load`.
                unsafe { $splat(x) }
            }
            #[inline(always)]
            unsafe fn splat_f32(x: f32) -> $f {
                // SAFETY: see `load`.
                unsafe { $splat_f32(x) }
            }
            #[inline(always)]
            unsafe fn and(a: $w, b: $w) -> $w {
                // SAFETY: see `load`.
                unsafe { $and(a, b) }
            }
            #[inline(always)]
            unsafe fn or(a: $w, b: $w) -> $w {
                // SAFETY: see `load`.
                unsafe { $or(a, b) }
            }
            #[inline(always)]
            unsafe fn add(a: $w, b: $w) -> $w {
                // SAFETY: see `load`.
                unsafe { $add(a, b) }
            }
            #[inline(always)]
            unsafe fn sub(a: $w, b: $w) -> $w {
                // SAFETY: see `load`.
                unsafe { $sub(a, b) }
            }
            #[inline(always)]
            unsafe fn mul(a: $w, b: $w) -> $w {
                // SAFETY: see `load`.
                unsafe { $mul(a, b) }
            }
            #[inline(always)]
            unsafe fn shl<const N: u32>(a: $w) -> $w {
                // SAFETY: see `load`.
                unsafe { $shl(a, _mm_cvtsi32_si128(N.cast_signed())) }
            }
            #[inline(always)]
            unsafe fn shr<const N: u32>(a: $w) -> $w {
                // SAFETY: see `load`.
                unsafe { $shr(a, _mm_cvtsi32_si128(N.cast_signed())) }
            }
            #[inline(always)]
            unsafe fn lookup(table: &[u8; 16], bytes: $w) -> $w {
                // SAFETY: see `load`.
                unsafe { $lookup($table(_mm_loadu_si128(table.as_ptr().cast())), bytes) }
            }
            #[inline(always)]
            unsafe fn begin(sum: $w) -> $w {
                // SAFETY: see `load`.
                unsafe { if VNNI { sum } else { $zero() } }
            }
            #[inline(always)]
            unsafe fn dot(chain: $w, codes: [$w; 2], x: [$w; 2]) -> $w {
                // SAFETY: see `load`. In 16 bits, four products are within 4 · 63 · 127 = 32004, eight of codes
                // below 32 within 31496, and sixteen of codes below 16 within 30480.
                unsafe {
                    if VNNI {
                        return $dot_quads($dot_quads(chain, codes[0], x[0]), codes[1], x[1]);
                    }
                    let first = $dot_pairs_i8(codes[0], x[0]);
                    let pairs = $add_i16(first, $dot_pairs_i8(codes[1], x[1]));
                    $add_i16(chain, pairs)
                }
            }
            #[inline(always)]
            unsafe fn end(sum: $w, chain: $w) -> $w {
                // SAFETY: see `load`.
                unsafe { if VNNI { chain } else { $add(sum, $dot_pairs_i16(chain, $splat_i16(1))) } }
            }
            #[inline(always)]
            unsafe fn start_wide(negated_sum: $w) -> $w {
                // SAFETY: see `load`.
                unsafe { if VNNI { $shl_constant::<7>(negated_sum) } else { $zero() } }
            }
            #[inline(always)]
            unsafe fn dot_wide(acc: $w, codes: [$w; 2], x: [$w; 2]) -> $w {
                // SAFETY: see `load`. Without VNNI, the sign of a weight moves to its activation: two products of
                // at most 128 · 127 fit 16 bits, which an unsigned code times an activation would not.
                unsafe {
                    if VNNI {
                        return Self::dot(acc, codes, x);
                    }
                    let pairs = |code, x| {
                        let weight = $xor(code, $splat_i8(-128));
                        let pairs = $dot_pairs_i8($abs_i8(weight), $sign_i8(x, weight));
                        $dot_pairs_i16(pairs, $splat_i16(1))
                    };
                    $add(acc, $add(pairs(codes[0], x[0]), pairs(codes[1], x[1])))
                }
            }
            #[inline(always)]
            unsafe fn to_f32(a: $w) -> $f {
                // SAFETY: see `load`.
                unsafe { $to_f32(a) }
            }
            #[inline(always)]
            unsafe fn mul_f32(a: $f, b: $f) -> $f {
                // SAFETY: see `load`.
                unsafe { $mul_f32(a, b) }
            }
            #[inline(always)]
            unsafe fn fma(a: $f, b: $f, c: $f) -> $f {
                // SAFETY: see `load`.
                unsafe { $fma(a, b, c) }
            }
            #[inline(always)]
            unsafe fn negate(a: $f) -> $f {
                // SAFETY: see `load`.
                unsafe { $xor_f32(a, $splat_f32(-0.0)) }
            }
            #[inline(always)]
            unsafe fn store(p: *mut f32, a: $f) {
                // SAFETY: see `load`.
                unsafe { $store(p, a) }
            }
            #[inline(always)]
            unsafe fn prefetch(p: *const u8) {
                // SAFETY: prefetching has no effect that a program can see.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
            }
        }
    };
}
pub(super) use x86_integers;
