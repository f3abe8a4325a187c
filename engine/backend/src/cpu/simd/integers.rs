//! Integer products of quantised weights: several outputs side by side, four weights of each at once.
//!
//! A *quad* is four neighbouring weights or activations in a 32-bit word. Weights are unsigned codes and
//! activations signed bytes in -127..=127. Every sum here is exact, so every instruction set gives the
//! same integers; only the f32 chain over blocks may round differently (portable code has no fused
//! multiply-add).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "x86_64")]
pub(in super::super) use avx2::{Avx2Integers, AvxVnniIntegers};
#[cfg(target_arch = "x86_64")]
pub(in super::super) use avx512::{Avx512Integers, Avx512VnniIntegers};
pub(in super::super) use portable::PortableIntegers;

/// A vector of 32-bit lanes, one for each output, and its operations.
///
/// # Safety
///
/// Every method may only run where the CPU has the instruction set, and pointers must be valid for the
/// elements of a vector. No alignment is assumed.
pub(in super::super) trait Integers: Copy + 'static {
    /// Integer lanes, or quads.
    type W: Copy;
    /// f32 lanes.
    type F: Copy;
    /// Lanes of a vector: 8 or 16.
    const LANES: usize;
    /// Most rows of a tile.
    const ROWS: usize;

    /// Loads a quad for each lane.
    unsafe fn load(p: *const u8) -> Self::W;
    /// Loads an unsigned byte for each lane.
    unsafe fn load_u8(p: *const u8) -> Self::W;
    /// Loads a signed byte for each lane.
    unsafe fn load_i8(p: *const u8) -> Self::W;
    /// Loads an f16 for each lane.
    unsafe fn load_f16(p: *const u8) -> Self::F;
    unsafe fn splat(x: i32) -> Self::W;
    unsafe fn splat_f32(x: f32) -> Self::F;
    unsafe fn and(a: Self::W, b: Self::W) -> Self::W;
    unsafe fn or(a: Self::W, b: Self::W) -> Self::W;
    unsafe fn add(a: Self::W, b: Self::W) -> Self::W;
    unsafe fn sub(a: Self::W, b: Self::W) -> Self::W;
    /// The low 32 bits of the products.
    unsafe fn mul(a: Self::W, b: Self::W) -> Self::W;
    /// Shifts whole lanes; bits cross the bytes of a lane.
    unsafe fn shl<const N: u32>(a: Self::W) -> Self::W;
    /// Shifts zeros in.
    unsafe fn shr<const N: u32>(a: Self::W) -> Self::W;
    /// Replaces every byte, which must be below 16, by the byte of `table` at this place.
    unsafe fn lookup(table: &[u8; 16], bytes: Self::W) -> Self::W;
    /// The start of a chain of [`Self::dot`] on top of `sum`.
    unsafe fn begin(sum: Self::W) -> Self::W;
    /// Adds `codes · x` over two quads to a chain. Its sums may have 16 bits: a chain takes one call for
    /// codes below 64, two for codes below 32 and four for codes below 16.
    unsafe fn dot(chain: Self::W, codes: [Self::W; 2], x: [Self::W; 2]) -> Self::W;
    /// The sum of a chain that began on top of `sum`.
    unsafe fn end(sum: Self::W, chain: Self::W) -> Self::W;
    /// The start of a chain of [`Self::dot_wide`] over activations of the given sum, negated.
    unsafe fn start_wide(negated_sum: Self::W) -> Self::W;
    /// `acc + (codes - 128) · x` over two quads, codes up to 255. The -128 may lie in the chain's start.
    unsafe fn dot_wide(acc: Self::W, codes: [Self::W; 2], x: [Self::W; 2]) -> Self::W;
    /// Exact for integers below 2^24.
    unsafe fn to_f32(a: Self::W) -> Self::F;
    unsafe fn mul_f32(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once, but in portable code.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `-a`: exact.
    unsafe fn negate(a: Self::F) -> Self::F;
    unsafe fn store(p: *mut f32, a: Self::F);
    /// Prefetches the cache line at `p`. `p` may point anywhere.
    unsafe fn prefetch(p: *const u8);
}
