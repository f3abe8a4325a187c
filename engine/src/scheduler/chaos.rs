//! The random schedule: random decisions that must not change the output.

use galley_backend::sample::philox::philox4x32_10;

/// Random decisions, reproducible by seed.
pub(super) struct Chaos {
    key: [u32; 2],
    n_drawn: u32,
}

impl Chaos {
    pub(super) fn new(seed: u64) -> Self {
        Chaos { key: [seed as u32, (seed >> 32) as u32], n_drawn: 0 }
    }

    /// A budget of 1 to `most` tokens.
    pub(super) fn budget(&mut self, most: usize) -> usize {
        if self.one_in(2) { most } else { 1 + self.below(most) }
    }

    /// Rows for a sequence that could have `most`: all, none or some.
    pub(super) fn chunk(&mut self, most: usize) -> usize {
        match self.below(4) {
            0 => most,
            1 => 0,
            _ => 1 + self.below(most),
        }
    }

    /// In one step of ten on average, the index of one of `n` running sequences, to preempt without need.
    pub(super) fn victim(&mut self, n: usize) -> Option<usize> {
        (n > 0 && self.one_in(10)).then(|| self.below(n))
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn below(&mut self, n: usize) -> usize {
        self.n_drawn = self.n_drawn.wrapping_add(1);
        philox4x32_10([self.n_drawn, 0, 2, 0], self.key)[0] as usize % n
    }
}
