//! What this machine can do at this moment: the floors that measurements are held against.
//!
//! Shared machines change their speed from minute to minute, so a floor is measured beside every
//! row of a benchmark.

use super::InstructionSet;
use super::kernels::Kernels;
use super::simd::{Element, Isa};
use crate::Dtype;
use std::time::Instant;

/// Bytes a second that `n_threads` threads read from memory; about 0.1 s.
pub fn read_bandwidth(n_threads: usize) -> f64 {
    const BYTES: usize = 512 << 20;
    let part = BYTES / 8 / n_threads;
    let data: Vec<Vec<u64>> = (0..n_threads).map(|i| vec![i as u64 + 1; part]).collect();
    best_of(5, |n| {
        std::thread::scope(|scope| {
            for part in &data {
                scope.spawn(move || {
                    // Many sums, so that additions wait for memory and not for each other.
                    let mut sums = [0_u64; 64];
                    for chunk in part.as_chunks::<64>().0 {
                        for (sum, x) in sums.iter_mut().zip(chunk) {
                            *sum = sum.wrapping_add(*x);
                        }
                    }
                    std::hint::black_box((sums, n));
                });
            }
        });
        (part * 8 * n_threads) as f64
    })
}

/// Floating-point operations a second of dot products in registers, on `n_threads` threads.
pub fn peak_flops(instruction_set: InstructionSet, dtype: Dtype, n_threads: usize) -> f64 {
    let kernel = Kernels::choose(instruction_set, dtype).dots;
    const STEPS: usize = 1_000_000;
    best_of(5, |_| {
        std::thread::scope(|scope| {
            for _ in 0..n_threads {
                // SAFETY: `choose` vouches for the instruction set.
                scope.spawn(move || std::hint::black_box(unsafe { kernel(STEPS) }));
            }
        });
        (STEPS * n_threads * DOTS * super::simd::LANES * dtype.per_word() * 2) as f64
    })
}

/// Independent dot products of one step: more than latency times throughput.
const DOTS: usize = 16;

/// `steps` times sixteen dot products.
///
/// # Safety
///
/// The CPU must have the instruction set.
#[inline(always)]
pub(super) unsafe fn dots<I: Isa, E: Element>(steps: usize) -> f32 {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut acc = [I::splat(0.0); DOTS];
        let w = I::splat_word(std::hint::black_box(0x3f80_3f80));
        let x = I::splat_word(std::hint::black_box(0x3380_3380));
        for _ in 0..steps {
            for acc in &mut acc {
                *acc = E::dot::<I>(*acc, w, x);
            }
        }
        acc.into_iter().map(|acc| I::reduce_add(acc)).sum()
    }
}

/// Best rate of `n` runs of `f`, which returns how much it did.
fn best_of(n: usize, f: impl Fn(usize) -> f64) -> f64 {
    let rate = |i| {
        let start = Instant::now();
        let amount = f(i);
        amount / start.elapsed().as_secs_f64()
    };
    (0..n).map(rate).fold(0.0, f64::max)
}
