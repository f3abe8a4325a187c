//! Reproducible random numbers.

use galley_backend::sample::philox::philox4x32_10;
use std::ops::RangeInclusive;

/// A sequence of random numbers that follows from a seed and the number of a workload.
pub struct Random {
    key: [u32; 2],
    workload: [u32; 2],
    n_drawn: u32,
}

impl Random {
    /// The numbers of workload `number` under `seed`.
    pub fn new(seed: u64, number: u64) -> Self {
        let halves = |x: u64| [x as u32, (x >> 32) as u32];
        Random { key: halves(seed), workload: halves(number), n_drawn: 0 }
    }

    /// 32 random bits.
    pub fn word(&mut self) -> u32 {
        self.n_drawn += 1;
        philox4x32_10([self.n_drawn, self.workload[0], self.workload[1], 5], self.key)[0]
    }

    /// A number from 0 to `n - 1`; `n` is at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        self.word() as usize % n
    }

    /// A number from a range, which must not be empty.
    pub fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// True in one of `n` cases.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of the values. A value that occurs twice is chosen twice as often.
    pub fn of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }
}
