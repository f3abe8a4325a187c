//! Sixteen outputs in an array, for every CPU.

use super::Integers;
use half::f16;

const LANES: usize = 16;

/// Portable code, for no particular instruction set.
#[derive(Clone, Copy)]
pub(in super::super::super) struct PortableIntegers;

#[inline(always)]
fn each<T>(f: impl Fn(usize) -> T) -> [T; LANES] {
    std::array::from_fn(f)
}

/// The sum of `code(byte) · x` over the four bytes of a quad.
#[inline(always)]
fn dot_quad(codes: i32, x: i32, code: impl Fn(u8) -> i32) -> i32 {
    let (codes, x) = (codes.to_le_bytes(), x.to_le_bytes());
    (0..4).map(|i| code(codes[i]) * i32::from(x[i].cast_signed())).sum()
}

impl Integers for PortableIntegers {
    type W = [i32; LANES];
    type F = [f32; LANES];
    const LANES: usize = LANES;
    const ROWS: usize = 2;

    #[inline(always)]
    unsafe fn load(p: *const u8) -> Self::W {
        // SAFETY: the caller vouches for the elements of a vector. The same holds below.
        unsafe { p.cast::<Self::W>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> Self::W {
        // SAFETY: see `load`.
        unsafe { p.cast::<[u8; LANES]>().read_unaligned() }.map(i32::from)
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> Self::W {
        // SAFETY: see `load`.
        unsafe { p.cast::<[i8; LANES]>().read_unaligned() }.map(i32::from)
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> Self::F {
        // SAFETY: see `load`.
        let bits = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(|bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn splat(x: i32) -> Self::W {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn splat_f32(x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn and(a: Self::W, b: Self::W) -> Self::W {
        each(|i| a[i] & b[i])
    }
    #[inline(always)]
    unsafe fn or(a: Self::W, b: Self::W) -> Self::W {
        each(|i| a[i] | b[i])
    }
    #[inline(always)]
    unsafe fn add(a: Self::W, b: Self::W) -> Self::W {
        each(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn sub(a: Self::W, b: Self::W) -> Self::W {
        each(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    unsafe fn mul(a: Self::W, b: Self::W) -> Self::W {
        each(|i| a[i].wrapping_mul(b[i]))
    }
    #[inline(always)]
    unsafe fn shl<const N: u32>(a: Self::W) -> Self::W {
        a.map(|a| a << N)
    }
    #[inline(always)]
    unsafe fn shr<const N: u32>(a: Self::W) -> Self::W {
        a.map(|a| (a.cast_unsigned() >> N).cast_signed())
    }
    #[inline(always)]
    unsafe fn lookup(table: &[u8; 16], bytes: Self::W) -> Self::W {
        bytes.map(|quad| {
            i32::from_le_bytes(quad.to_le_bytes().map(|byte| table[usize::from(byte & 15)]))
        })
    }
    #[inline(always)]
    unsafe fn begin(sum: Self::W) -> Self::W {
        sum
    }
    #[inline(always)]
    unsafe fn dot(chain: Self::W, codes: [Self::W; 2], x: [Self::W; 2]) -> Self::W {
        let quad = |i: usize, half: usize| dot_quad(codes[half][i], x[half][i], i32::from);
        each(|i| chain[i] + quad(i, 0) + quad(i, 1))
    }
    #[inline(always)]
    unsafe fn end(_: Self::W, chain: Self::W) -> Self::W {
        chain
    }
    #[inline(always)]
    unsafe fn start_wide(_: Self::W) -> Self::W {
        [0; LANES]
    }
    #[inline(always)]
    unsafe fn dot_wide(acc: Self::W, codes: [Self::W; 2], x: [Self::W; 2]) -> Self::W {
        let weight = |code| i32::from(code) - 128;
        let quad = |i: usize, half: usize| dot_quad(codes[half][i], x[half][i], weight);
        each(|i| acc[i] + quad(i, 0) + quad(i, 1))
    }
    #[inline(always)]
    unsafe fn to_f32(a: Self::W) -> Self::F {
        a.map(|a| a as f32)
    }
    #[inline(always)]
    unsafe fn mul_f32(a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn negate(a: Self::F) -> Self::F {
        a.map(|a| -a)
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, a: Self::F) {
        // SAFETY: see `load`.
        unsafe { p.cast::<Self::F>().write_unaligned(a) }
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}
