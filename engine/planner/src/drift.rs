//! The machine's speed as it changes: measured over predicted times.
//!
//! The speed of a shared machine changes within minutes, for all phases of a round together. So the logarithm of measured
//! over predicted time is a sum of three parts: one that all phases share and that follows within a few steps, one a phase,
//! and one for the size of the batch, which correct the table where it is wrong. A choice between strategies compares
//! phases, so the shared part cancels in it, and a change of the machine's speed changes no choice.

use std::collections::HashMap;

/// Share of a step's error that goes to the part which all phases have in common.
const COMMON_GAIN: f64 = 0.3;
/// Least share of the remaining error that goes to the phase and to the size of the batch, so that both keep learning.
const LEAST_GAIN: f64 = 0.012;
/// A larger error (as a logarithm) is cut: a step that waited for the operating system says nothing about the model.
const LARGEST_ERROR: f64 = 0.7;

/// A part of the work of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// A forward without draft tokens.
    Plain,
    /// The verification of drafts, of a strategy by its index.
    Verify(u16),
    /// The drafting of a strategy by its index.
    Draft(u16),
}

/// The size of a forward, for corrections by size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SizeClass {
    rows: u8,
    kv_tokens: u8,
}

impl SizeClass {
    /// The class of forwards of any size, for phases whose corrections do not depend on it.
    pub const ANY: Self = SizeClass { rows: 0, kv_tokens: 0 };

    /// The class of a forward of `rows` rows that attend to `kv_tokens` tokens in all.
    pub fn new(rows: u32, kv_tokens: u64) -> Self {
        let octave = |n: u64| n.checked_ilog2().map_or(0, |log| log as u8 + 1);
        // Half octaves: tiles of rows make steps of a factor of 1.5.
        SizeClass { rows: octave(u64::from(rows) * u64::from(rows)), kv_tokens: octave(kv_tokens) }
    }

    /// The first number of rows that is in a later class.
    pub fn end_of_rows(self) -> u32 {
        f64::exp2(f64::from(self.rows) / 2.0).ceil() as u32
    }
}

/// Measured over predicted times, as they change.
#[derive(Clone, Debug, Default)]
pub struct Drift {
    common: f64,
    phases: HashMap<Phase, Learned>,
    sizes: HashMap<(Phase, SizeClass), Learned>,
    is_frozen: bool,
}

/// A value that is learned from errors.
#[derive(Clone, Copy, Debug, Default)]
struct Learned {
    value: f64,
    n: u32,
}

impl Learned {
    /// Takes the share of `error` that the number of earlier errors leaves, and returns the rest.
    fn learn(&mut self, error: f64) -> f64 {
        self.n += 1;
        let taken = error * f64::max(1.0 / f64::from(self.n + 1), LEAST_GAIN);
        self.value += taken;
        error - taken
    }
}

impl Drift {
    /// A drift that stays 1, for measurements of the table alone.
    pub fn frozen() -> Self {
        Drift { is_frozen: true, ..Drift::default() }
    }

    /// The factor by which a predicted time is multiplied.
    pub fn factor(&self, phase: Phase, size: SizeClass) -> f64 {
        let of_phase = self.phases.get(&phase).map_or(0.0, |learned| learned.value);
        let of_size = self.sizes.get(&(phase, size)).map_or(0.0, |learned| learned.value);
        (self.common + of_phase + of_size).exp()
    }

    /// Learns from a measured time, in the unit of `predicted` (before any factor).
    pub fn observe(&mut self, phase: Phase, size: SizeClass, predicted: f64, measured: f64) {
        let ratio = measured / predicted;
        if self.is_frozen || !ratio.is_finite() || ratio <= 0.0 {
            return;
        }
        let error = ratio.ln() - self.factor(phase, size).ln();
        let is_first = self.phases.is_empty();
        // The first error of all is the machine's; no later step may move the choice that far.
        let error = if is_first { error } else { error.clamp(-LARGEST_ERROR, LARGEST_ERROR) };
        let to_common = if is_first { error } else { error * COMMON_GAIN };
        self.common += to_common;
        let rest = self.phases.entry(phase).or_default().learn(error - to_common);
        self.sizes.entry((phase, size)).or_default().learn(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: fn(u32) -> SizeClass = |rows| SizeClass::new(rows, 1000);
    const VERIFY: Phase = Phase::Verify(0);

    #[test]
    fn a_change_of_the_machine_moves_all_phases_together() {
        let mut drift = Drift::default();
        for _ in 0..200 {
            drift.observe(Phase::Plain, SIZE(1), 1.0, 2.0);
            drift.observe(VERIFY, SIZE(3), 1.0, 3.0);
        }
        let ratio =
            |drift: &Drift| drift.factor(VERIFY, SIZE(3)) / drift.factor(Phase::Plain, SIZE(1));
        assert!((ratio(&drift) - 1.5).abs() < 0.02, "{}", ratio(&drift));
        // The machine becomes 1.7 times slower, and only verifications are measured.
        for _ in 0..10 {
            drift.observe(VERIFY, SIZE(3), 1.0, 5.1);
        }
        assert!((drift.factor(VERIFY, SIZE(3)) - 5.1).abs() < 0.3);
        assert!((drift.factor(Phase::Plain, SIZE(1)) - 3.4).abs() < 0.5, "plain has followed");
        assert!((ratio(&drift) - 1.5).abs() < 0.15, "the choice has not: {}", ratio(&drift));
    }

    #[test]
    fn a_table_that_is_wrong_at_one_size_is_corrected_there() {
        let mut drift = Drift::default();
        for _ in 0..300 {
            drift.observe(Phase::Plain, SIZE(1), 1.0, 1.0);
            drift.observe(Phase::Plain, SIZE(16), 1.0, 1.4);
        }
        assert!((drift.factor(Phase::Plain, SIZE(1)) - 1.0).abs() < 0.03);
        assert!((drift.factor(Phase::Plain, SIZE(16)) - 1.4).abs() < 0.03);
    }

    #[test]
    fn one_step_that_waited_changes_little_and_a_frozen_drift_nothing() {
        let mut drift = Drift::default();
        drift.observe(Phase::Plain, SIZE(1), 1.0, 1.0);
        drift.observe(Phase::Plain, SIZE(1), 1.0, 1000.0);
        assert!(drift.factor(Phase::Plain, SIZE(1)) < 2.0);
        let mut frozen = Drift::frozen();
        frozen.observe(Phase::Plain, SIZE(1), 1.0, 3.0);
        assert_eq!(frozen.factor(Phase::Plain, SIZE(1)), 1.0);
    }
}
