//! The statistics of every step of the engine, in order: counts over them do not depend on the timing of this thread.

use anyhow::{Context, Error, Result, anyhow, ensure};
use galley_engine::{Engine, Stats, Watch};
use std::num::NonZeroU64;
use std::time::Duration;

/// The statistics after the latest step that was read, and a queue of the following steps. An engine has one.
pub(super) struct Turns {
    watch: Watch,
    last: Stats,
}

impl Turns {
    /// The steps of an engine that has had no request.
    pub(super) fn of(engine: &Engine) -> Self {
        Self { watch: engine.watch(), last: engine.stats() }
    }

    pub(super) fn last(&self) -> &Stats {
        &self.last
    }

    /// Waits for the next step.
    pub(super) fn next(&mut self) -> Result<&Stats> {
        self.last = self.watch.next().context("the engine has stopped")?;
        Ok(&self.last)
    }

    /// Waits until `n` sequences have ended since the engine's start. Returns the number of steps that decode `batch`
    /// sequences.
    pub(super) fn until_finished(&mut self, n: u64, batch: usize) -> Result<usize> {
        let mut n_full = 0;
        while self.last.finished < n {
            n_full += usize::from(decodes_all(self.next()?, batch));
        }
        Ok(n_full)
    }
}

/// Whether `batch` sequences ran in the last step, and none of them was in its prefill.
pub(super) fn decodes_all(stats: &Stats, batch: usize) -> bool {
    stats.last_step.n_seqs == batch && stats.last_step.n_prompt_rows == 0
}

/// The error for a row without a measured step.
pub(super) fn nothing_measured(mode: &str, batch: usize) -> Error {
    anyhow!(
        "nothing was measured: no turn of {mode} had all {batch} sequences in it and no prompt to read. Raise --gen or \
         --kv-cache-tokens, or take a shorter --context or a smaller --batch"
    )
}

/// Measured steps: at least one, and more than zero time, so that every mean exists.
#[derive(Clone, Debug)]
pub(super) struct StepSpan {
    before: Stats,
    after: Stats,
    n_steps: NonZeroU64,
    seconds: f64,
}

impl StepSpan {
    /// The steps from `before` to `after`. None if there is no step, or no time.
    pub(super) fn between(before: &Stats, after: &Stats) -> Option<Self> {
        let n_steps = NonZeroU64::new(after.steps.checked_sub(before.steps)?)?;
        let time = |s: &Stats| s.drafting + s.forward + s.sampling + s.bookkeeping;
        let seconds = (time(after) - time(before)).as_secs_f64();
        let (before, after) = (before.clone(), after.clone());
        (seconds > 0.0).then_some(Self { before, after, n_steps, seconds })
    }

    /// The change of a counter over the steps.
    pub(super) fn count(&self, of: fn(&Stats) -> u64) -> u64 {
        of(&self.after) - of(&self.before)
    }

    pub(super) fn n_steps(&self) -> NonZeroU64 {
        self.n_steps
    }

    /// Milliseconds per step of one part.
    pub(super) fn ms(&self, of: fn(&Stats) -> Duration) -> f64 {
        self.spent(of) * 1e3 / self.n_steps.get() as f64
    }

    /// Milliseconds per step of all parts together.
    pub(super) fn step_ms(&self) -> f64 {
        self.seconds * 1e3 / self.n_steps.get() as f64
    }

    /// The share of part `of` in the time of all parts.
    pub(super) fn share(&self, of: fn(&Stats) -> Duration) -> f64 {
        self.spent(of) / self.seconds
    }

    /// Generated tokens per second.
    pub(super) fn speed(&self) -> f64 {
        self.count(|s| s.generated_tokens) as f64 / self.seconds
    }

    /// Draft tokens accepted at each position of a draft.
    pub(super) fn accepted_per_position(&self) -> Vec<u64> {
        let before = &self.before.drafts.accepted_per_position;
        let after = self.after.drafts.accepted_per_position.iter().enumerate();
        after.map(|(i, n)| n - before.get(i).copied().unwrap_or(0)).collect()
    }

    fn spent(&self, of: fn(&Stats) -> Duration) -> f64 {
        (of(&self.after) - of(&self.before)).as_secs_f64()
    }
}

/// Seconds of `time`. A time of zero is an error, because rates divide by it.
pub(super) fn seconds(time: Duration, phase: &str) -> Result<f64> {
    ensure!(!time.is_zero(), "{phase} took no time that the clock shows: raise --gen or --context");
    Ok(time.as_secs_f64())
}

/// `part` over `of`; None if `of` is zero.
pub(super) fn ratio(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_mean_of_no_steps() {
        let ms = Duration::from_millis;
        let stats = |steps, generated_tokens, forward, bookkeeping| {
            let mut stats = Stats::default();
            (stats.steps, stats.generated_tokens) = (steps, generated_tokens);
            (stats.forward, stats.bookkeeping) = (ms(forward), ms(bookkeeping));
            stats
        };
        let begin = stats(3, 9, 5, 0);
        assert!(StepSpan::between(&begin, &begin).is_none());
        let timeless = stats(4, 9, 5, 0);
        assert!(StepSpan::between(&begin, &timeless).is_none());
        let before = stats(2, 9, 5, 0);
        assert!(StepSpan::between(&begin, &before).is_none());

        let end = stats(7, 29, 13, 2);
        let span = StepSpan::between(&begin, &end).expect("four steps");
        assert_eq!((span.n_steps().get(), span.ms(|s| s.forward)), (4, 2.0));
        assert_eq!((span.step_ms(), span.share(|s| s.bookkeeping)), (2.5, 0.2));
        assert_eq!(span.speed(), 2000.0);
        assert!(seconds(Duration::ZERO, "decoding").is_err());
        assert_eq!((ratio(0, 0), ratio(0, 4), ratio(1, 4)), (None, Some(0.0), Some(0.25)));
    }
}
