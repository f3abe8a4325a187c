//! Probes of the machine's present speed: bounds that measurements are compared with.
//!
//! Shared machines change their speed from minute to minute, so a benchmark probes it beside every
//! row of results.

use super::InstructionSet;
use super::buffer::WordBuffer;
use super::kernels::Kernels;
use super::probe_loops::{DOTS, READ_WORDS};
use super::simd::LANES;
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
        (STEPS * n_threads * DOTS * LANES * format.per_word() * 2) as f64
    })
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
