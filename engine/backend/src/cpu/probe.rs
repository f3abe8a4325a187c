//! Probes of the machine's present speed: bounds that measurements are compared with.
//!
//! Shared machines change their speed from minute to minute, so a benchmark probes it beside every
//! row of results.

use super::InstructionSet;
use super::buffer::WordBuffer;
use super::kernels::Kernels;
use super::simd::{Element, Isa};
use crate::OperandFormat;
use std::time::Instant;

/// Bytes per second that `n_threads` threads read from memory. The probe takes about 0.1 s.
pub fn read_bandwidth(instruction_set: InstructionSet, n_threads: usize) -> f64 {
    const WORDS: usize = 128 << 20;
    let kernel = Kernels::choose(instruction_set, OperandFormat::F32).read;
    let part = WORDS / n_threads / READ_WORDS * READ_WORDS;
    let fill = |words: &mut WordBuffer| {
        // SAFETY: the buffer holds `part` words.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr(), part).fill(1) };
    };
    let mut data = Vec::new();
    for _ in 0..n_threads {
        // Without this memory there is nothing to measure.
        let Ok(mut words) = WordBuffer::zeroed("a probe", part) else { return 0.0 };
        fill(&mut words);
        data.push(words);
    }
    best_of(5, || {
        std::thread::scope(|scope| {
            for words in &data {
                scope.spawn(move || {
                    // SAFETY: `choose` vouches for the instruction set, and the buffer holds `part`
                    // words.
                    std::hint::black_box(unsafe { kernel(words.as_ptr(), part) })
                });
            }
        });
        (part * 4 * n_threads) as f64
    })
}

/// Words of one step of [`read`].
const READ_WORDS: usize = 8 * super::simd::LANES;

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
                *sum = I::add(*sum, I::load(words.add(at + i * super::simd::LANES).cast()));
            }
        }
        sums.into_iter().map(|sum| I::reduce_add(sum)).sum()
    }
}

/// Floating-point operations per second of dot products in registers, on `n_threads` threads.
pub fn peak_flops(instruction_set: InstructionSet, format: OperandFormat, n_threads: usize) -> f64 {
    let kernel = Kernels::choose(instruction_set, format).dots;
    const STEPS: usize = 1_000_000;
    best_of(5, || {
        std::thread::scope(|scope| {
            for _ in 0..n_threads {
                // SAFETY: `choose` vouches for the instruction set.
                scope.spawn(move || std::hint::black_box(unsafe { kernel(STEPS) }));
            }
        });
        (STEPS * n_threads * DOTS * super::simd::LANES * format.per_word() * 2) as f64
    })
}

/// Dot products of one step, over as many independent sums as registers hold.
const DOTS: usize = 24;

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

/// Best rate of `n` runs of `f`, which returns its amount of work.
fn best_of(n: usize, f: impl Fn() -> f64) -> f64 {
    let rate = |_| {
        let start = Instant::now();
        let amount = f();
        amount / start.elapsed().as_secs_f64()
    };
    (0..n).map(rate).fold(0.0, f64::max)
}
