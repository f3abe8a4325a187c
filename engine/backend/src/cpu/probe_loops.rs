//! Loops with a known amount of work, which `probe.rs` times: reads of memory, and dot products in registers.

use super::simd::{Element, Isa, LANES};

/// Words of one step of [`read`].
pub(super) const READ_WORDS: usize = 8 * LANES;

/// Reads `n` words, a multiple of [`READ_WORDS`], and adds them up as f32.
///
/// # Safety
///
/// The CPU must have the instruction set, and `words` must be valid for `n`.
#[inline(always)]
pub(super) unsafe fn read<I: Isa>(words: *const u32, n: usize) -> f32 {
    // SAFETY: guaranteed by the caller.
    unsafe {
        // Eight independent sums, so that additions wait for memory and not for each other.
        let mut sums = [I::splat(0.0); 8];
        for at in (0..n).step_by(READ_WORDS) {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = I::add(*sum, I::load(words.add(at + i * LANES).cast()));
            }
        }
        sums.into_iter().map(|sum| I::reduce_add(sum)).sum()
    }
}

/// Dot products of one step, over as many independent sums as registers hold.
pub(super) const DOTS: usize = 24;

/// Computes `steps` times [`DOTS`] dot products.
///
/// # Safety
///
/// The CPU must have the instruction set.
#[inline(always)]
pub(super) unsafe fn dots<I: Isa, E: Element>(steps: usize) -> f32 {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut acc = [I::splat(0.0); DOTS];
        let w = I::splat_word(std::hint::black_box(0x3f80_3f80));
        let x = I::splat_word(std::hint::black_box(0x3380_3380));
        let n_sums = if I::ACCUMULATORS == DOTS { DOTS } else { 6 };
        for _ in 0..steps * (DOTS / n_sums) {
            for acc in &mut acc[..n_sums] {
                *acc = E::dot::<I>(*acc, w, x);
            }
        }
        acc.into_iter().map(|acc| I::reduce_add(acc)).sum()
    }
}
