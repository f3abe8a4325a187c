//! A running drafter: activation, callbacks, and the rules for setting it aside.

mod feedback;

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use galley_drafter_abi as abi;
use galley_drafter_abi::{GD_OK, gd_drafter, gd_status};

use crate::host::{Host, LentBatch, Phase};
use crate::status::{reason, refused};
use crate::tables::HostTable;
use crate::{
    Cost, DraftRow, DrafterLimits, Library, LoadError, Mask, MaskId, Matcher, ModelLoader,
    NoSuffixes, Outcome, Program, SuffixSource, Timings, View, Work,
};
pub(crate) use feedback::Feedback;

/// A created drafter. It may move to another thread between calls.
pub struct Drafter {
    pub(crate) host: Arc<Host>,
    pub(crate) plugin: NonNull<gd_drafter>,
    /// Its callbacks, read up to its `struct_size`.
    pub(crate) calls: gd_drafter,
    /// None if the drafter has no feedback table.
    pub(crate) feedback: Option<Feedback>,
    pub(crate) is_active: bool,
    pub(crate) views: Vec<View>,
    pub(crate) masks: Vec<Mask>,
    pub(crate) matchers: Vec<Matcher>,
    /// Recorded programs, by the number of rows and the longest draft length.
    pub(crate) recorded: HashMap<(u32, u32), Program>,
    pub(crate) timings: Timings,
    pub(crate) n_failures: [u32; 2],
    pub(crate) n_slow: u32,
    pub(crate) n_quick: u32,
    pub(crate) set_aside: Option<String>,
    /// Keeps the manifest alive. The code itself is never unloaded.
    pub(crate) _library: Arc<Library>,
    /// Freed after the drafter has been destroyed.
    pub(crate) _table: HostTable,
}

// SAFETY: the pointers are used only through `&mut self`, so by one thread at a time; the header
// promises drafters one callback at a time.
unsafe impl Send for Drafter {}

impl Drafter {
    /// The name that `--drafter` takes.
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// Lets the drafter make its views and masks, and load its models with `loader`. An active
    /// drafter is deactivated first.
    pub fn activate(
        &mut self,
        limits: DrafterLimits,
        loader: &mut dyn ModelLoader,
    ) -> Result<(), LoadError> {
        self.deactivate();
        if let Some(reason) = &self.set_aside {
            let drafter = self.name().to_owned();
            return Err(LoadError::SetAside { drafter, reason: reason.clone() });
        }
        let limits = abi::gd_limits {
            struct_size: size_of::<abi::gd_limits>(),
            max_rows: limits.max_rows,
            max_draft_length: limits.max_draft_length,
            max_context_tokens: limits.max_context_tokens,
        };
        let mut loader = loader;
        let lent =
            LentBatch { loader: Some(NonNull::from(&mut loader).cast()), ..LentBatch::default() };
        let activate = self.calls.activate.expect("create checked that it is there");
        let status = self.host.within(Phase::Activate, lent, |_| {
            // SAFETY: create gave this drafter, it is not destroyed, and it is not active.
            unsafe { activate(self.plugin.as_ptr(), &raw const limits) }
        });
        if status != GD_OK {
            self.host.state().void_handles();
            return Err(refused(&self.host, "be activated", status));
        }
        let mut state = self.host.state();
        self.views = state.views.iter().copied().collect();
        self.masks = state.masks.iter().map(|scored| scored.mask.clone()).collect();
        self.matchers = state.matchers.iter().copied().collect();
        state.masks_changed = false;
        self.is_active = true;
        Ok(())
    }

    /// Deactivates the drafter and voids every handle that it made since `activate`.
    pub fn deactivate(&mut self) {
        if !self.is_active {
            return;
        }
        self.is_active = false;
        if let Some(deactivate) = self.calls.deactivate {
            self.host.within(Phase::Deactivate, LentBatch::default(), |_| {
                // SAFETY: create gave this drafter, it is not destroyed, and it is active.
                unsafe { deactivate(self.plugin.as_ptr()) }
            });
        }
        self.host.state().void_handles();
        self.views.clear();
        self.masks.clear();
        self.matchers.clear();
        self.recorded.clear();
    }

    /// Whether the drafter is active, so that `guess` may be called.
    pub fn is_active(&self) -> bool {
        self.is_active
    }

    /// The drafter's views, indexed by [`crate::ViewId`].
    pub fn views(&self) -> &[View] {
        &self.views
    }

    /// The drafter's masks, indexed by [`MaskId`], in their state after the latest callback.
    pub fn masks(&self) -> &[Mask] {
        &self.masks
    }

    /// The drafter's matchers, indexed by [`crate::MatcherId`].
    pub fn matchers(&self) -> &[Matcher] {
        &self.matchers
    }

    /// Tells the drafter that the prompts of these rows have been read. It may enqueue replays.
    pub fn after_prefill(&mut self, rows: &[DraftRow<'_>], program: &mut Program) -> Outcome {
        clear(program);
        if self.set_aside.is_some() {
            return Outcome::SetAside;
        }
        match self.calls.after_prefill {
            Some(callback) if self.is_active && !rows.is_empty() => {
                let lent = LentBatch { rows, program: Some(program), ..LentBatch::default() };
                self.step(Phase::AfterPrefill, callback, lent)
            }
            _ => Outcome::NoGuess,
        }
    }

    /// [`Self::guess_with`] for rows without suffix indexes.
    pub fn guess(&mut self, rows: &[DraftRow<'_>], program: &mut Program) -> Outcome {
        self.guess_with(rows, &mut NoSuffixes, program)
    }

    /// Asks the drafter to enqueue work that drafts tokens, or repeats the program recorded for a
    /// batch of this shape. On [`Outcome::NoGuess`] the program holds only replays. The drafter may
    /// search `suffixes`, the indexes of the rows.
    pub fn guess_with(
        &mut self,
        rows: &[DraftRow<'_>],
        suffixes: &mut dyn SuffixSource,
        program: &mut Program,
    ) -> Outcome {
        clear(program);
        if self.set_aside.is_some() {
            return Outcome::SetAside;
        }
        if !self.is_active || rows.is_empty() {
            return Outcome::NoGuess;
        }
        if std::mem::take(&mut self.host.state().must_rerecord) {
            self.recorded.clear();
        }
        let shape = shape(rows);
        if let Some(kept) = self.recorded.get(&shape) {
            program.work.clone_from(&kept.work);
            return Outcome::Ready;
        }
        let guess = self.calls.guess.expect("create checked that it is there");
        let mut suffixes = suffixes;
        let suffixes = Some(NonNull::from(&mut suffixes).cast());
        let lent =
            LentBatch { rows, program: Some(&mut *program), suffixes, ..LentBatch::default() };
        let outcome = self.step(Phase::Guess, guess, lent);
        let state = self.host.state();
        let is_repeatable = outcome == Outcome::Ready
            && !program.work.is_empty()
            && !state.is_unrecordable
            && !state.must_rerecord;
        if is_repeatable && self.recorded.len() < MAX_SHAPES {
            self.recorded.insert(shape, program.clone());
        }
        outcome
    }

    /// Tells the drafter that a sequence has ended.
    pub fn end(&mut self, sequence: u64) {
        if !self.is_active || self.set_aside.is_some() {
            return;
        }
        if let Some(end) = self.calls.end {
            self.host.within(Phase::End, LentBatch::default(), |_| {
                // SAFETY: create gave this drafter, it is not destroyed, and it is active.
                unsafe { end(self.plugin.as_ptr(), sequence) }
            });
            self.refresh_masks();
        }
    }

    /// The drafter's estimate for one draft token at a context length. None if the drafter gives no
    /// estimate, fails, or returns an amount that is negative or not finite.
    pub fn cost(&mut self, context_tokens: u64, budget_tokens: u32) -> Option<Cost> {
        let cost = self.calls.cost.filter(|_| self.set_aside.is_none())?;
        let struct_size = size_of::<abi::gd_cost>();
        let mut out = abi::gd_cost { struct_size, weights_read: 0.0, kv_tokens_read: 0.0 };
        let status = self.host.within(Phase::Cost, LentBatch::default(), |_| {
            // SAFETY: create gave this drafter, it is not destroyed, and `out` is a whole
            // `gd_cost`.
            unsafe { cost(self.plugin.as_ptr(), context_tokens, budget_tokens, &raw mut out) }
        });
        self.refresh_masks();
        let is_amount = |x: f64| x.is_finite() && x >= 0.0;
        (status == GD_OK && is_amount(out.weights_read) && is_amount(out.kv_tokens_read))
            .then_some(Cost { weights_read: out.weights_read, kv_tokens_read: out.kv_tokens_read })
    }

    /// Adds the counts of a replay, unless the mask has changed since `version`.
    pub fn add_replay_score(
        &mut self,
        mask: MaskId,
        version: u64,
        n_matched: u64,
        n_compared: u64,
    ) {
        let mut state = self.host.state();
        if (mask.0 as usize) < state.masks.len() {
            let scored = state.masks.at_mut(mask.0);
            if scored.mask.version == version {
                scored.n_matched += n_matched;
                scored.n_compared += n_compared;
            }
        }
    }

    /// Durations of the `guess` callbacks. A repeated program is not a callback.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// The reason why the drafter was set aside; None while it is in use.
    pub fn set_aside(&self) -> Option<&str> {
        self.set_aside.as_deref()
    }

    fn step(
        &mut self,
        phase: Phase,
        callback: unsafe extern "C" fn(*mut gd_drafter, *const abi::gd_batch) -> gd_status,
        mut lent: LentBatch<'_>,
    ) -> Outcome {
        let (n_rows, draft_length) = shape(lent.rows);
        let program = lent.program.take().expect("a step has a program");
        let lent = LentBatch { program: Some(&mut *program), ..lent };
        let (status, duration) = self.host.within(phase, lent, |queue| {
            let batch = abi::gd_batch {
                struct_size: size_of::<abi::gd_batch>(),
                queue: abi::gd_queue { id: queue },
                n_rows,
                draft_length,
            };
            let started = Instant::now();
            // SAFETY: create gave this drafter, it is not destroyed, and it is active.
            let status = unsafe { callback(self.plugin.as_ptr(), &raw const batch) };
            (status, started.elapsed())
        });
        self.refresh_masks();
        if phase == Phase::Guess {
            self.timings.n_calls += 1;
            self.timings.total += duration;
            self.timings.longest = self.timings.longest.max(duration);
        }
        self.judge_duration(duration);
        let n_failures = &mut self.n_failures[usize::from(phase == Phase::Guess)];
        if status < 0 {
            clear(program);
            *n_failures += 1;
            let n_failures = *n_failures;
            let reason = reason(&self.host, status);
            tracing::debug!(drafter = self.name(), n_failures, "no guess: {reason}");
            if n_failures >= MAX_FAILURES {
                self.put_aside(format!("failed {n_failures} times in a row: {reason}"));
            }
            return if self.set_aside.is_some() { Outcome::SetAside } else { Outcome::Failed };
        }
        *n_failures = 0;
        if status == GD_OK {
            return Outcome::Ready;
        }
        program.work.retain(|work| matches!(work, Work::Replay { .. }));
        program.pushed.clear();
        Outcome::NoGuess
    }

    fn judge_duration(&mut self, duration: Duration) {
        if duration <= SLOW {
            self.n_quick += 1;
            if self.n_quick >= N_QUICK_FORGIVES {
                (self.n_quick, self.n_slow) = (0, 0);
            }
            return;
        }
        self.n_quick = 0;
        self.n_slow += 1;
        if self.n_slow >= MAX_SLOW {
            let (n_slow, slow_ms) = (self.n_slow, SLOW.as_millis());
            self.put_aside(format!("held up {n_slow} rounds for more than {slow_ms} ms"));
        }
    }

    fn put_aside(&mut self, reason: String) {
        if self.set_aside.is_none() {
            tracing::warn!("drafter {} is set aside: {reason}", self.name());
            self.recorded.clear();
            self.set_aside = Some(reason);
        }
    }

    /// Copies changed masks in place: a mask keeps its shape.
    fn refresh_masks(&mut self) {
        let mut state = self.host.state();
        if std::mem::take(&mut state.masks_changed) {
            for (mask, scored) in self.masks.iter_mut().zip(state.masks.iter()) {
                mask.clone_from(&scored.mask);
            }
        }
    }
}

impl Drop for Drafter {
    fn drop(&mut self) {
        self.deactivate();
        if let Some(destroy) = self.calls.destroy {
            // SAFETY: create gave this drafter, it is not active, and nothing uses it after this.
            unsafe { destroy(self.plugin.as_ptr()) };
        }
    }
}

impl std::fmt::Debug for Drafter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drafter")
            .field("name", &self.name())
            .field("is_active", &self.is_active)
            .field("set_aside", &self.set_aside)
            .finish_non_exhaustive()
    }
}

fn shape(rows: &[DraftRow<'_>]) -> (u32, u32) {
    let n_rows = u32::try_from(rows.len()).expect("a round has far fewer rows");
    (n_rows, rows.iter().map(|row| row.draft_length).max().unwrap_or(0))
}

fn clear(program: &mut Program) {
    program.work.clear();
    program.pushed.clear();
}

/// Limit on recorded programs: enough for the batch sizes and draft lengths that alternate.
const MAX_SHAPES: usize = 64;

/// One failure may be due to a sequence; three in a row are the drafter's fault.
const MAX_FAILURES: u32 = 3;

/// Longer than a whole step usually is. A callback only describes work, which takes microseconds.
const SLOW: Duration = Duration::from_millis(50);

/// More than one, because a busy machine may stop any thread for this long.
const MAX_SLOW: u32 = 8;

/// After this many quick calls in a row, slow calls are forgotten, because a server runs for
/// months.
const N_QUICK_FORGIVES: u32 = 1000;
