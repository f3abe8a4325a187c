//! The state behind `gd_host`: described views, masks and matchers, enqueued work, and the running callback.
//!
//! The state is locked only inside host functions, never while the drafter's own code runs.

use std::ptr::NonNull;
use std::thread::ThreadId;

use galley_drafter_abi::{GD_INVALID, GD_WRONG_PHASE, gd_status};
use parking_lot::{Mutex, MutexGuard};

use crate::handles::{self, Arena, HandleKind};
use crate::{DraftRow, Mask, Matcher, ModelFacts, ModelId, Program, SuffixMatch, View};

/// The object behind `host_data`. Host functions may reach it from any thread.
pub(crate) struct Host {
    name: String,
    state: Mutex<State>,
}

/// Everything that host functions read or change.
pub(crate) struct State {
    pub(crate) phase: Phase,
    thread: Option<ThreadId>,
    serial: u64,
    pub(crate) lent: LentPointers,
    pub(crate) program: Program,
    /// The callback read or changed something that a recorded program could not repeat.
    pub(crate) is_unrecordable: bool,
    pub(crate) must_rerecord: bool,
    /// The highest row number with a push in this callback.
    pub(crate) highest_pushed: Option<u32>,
    pub(crate) masks_changed: bool,
    pub(crate) target: ModelFacts,
    pub(crate) models: Arena<(ModelId, ModelFacts)>,
    pub(crate) views: Arena<View>,
    pub(crate) masks: Arena<ScoredMask>,
    pub(crate) matchers: Arena<Matcher>,
    /// The result of the latest query, reused.
    pub(crate) found: SuffixMatch,
    /// The last error that the running callback logged.
    pub(crate) last_error: Option<String>,
    /// The host's reason for a refusal, where the status alone would say too little.
    pub(crate) refusal: Option<String>,
    /// The number of models, views, masks and matchers that outlive deactivate: all that create made.
    n_kept: [usize; 4],
}

/// A mask, and the counts of the replays of its current version.
pub(crate) struct ScoredMask {
    pub(crate) mask: Mask,
    pub(crate) n_matched: u64,
    pub(crate) n_compared: u64,
}

/// The running callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Outside,
    Create,
    Activate,
    Deactivate,
    AfterPrefill,
    Guess,
    End,
    Cost,
    Feedback,
    /// The drafter is asked for a table.
    Extension,
}

impl Phase {
    /// Whether `[control]` functions may be called.
    pub(crate) fn is_control(self) -> bool {
        matches!(self, Phase::Create | Phase::Activate | Phase::Deactivate)
    }

    /// Whether `[step]` functions may be called. Functions with a queue also check the queue; `end`,
    /// `cost` and `feedback` have none.
    pub(crate) fn is_step(self) -> bool {
        use Phase::{AfterPrefill, Cost, End, Feedback, Guess};
        matches!(self, AfterPrefill | Guess | End | Cost | Feedback)
    }

    /// Whether draft tokens may be enqueued.
    pub(crate) fn is_guess(self) -> bool {
        self == Phase::Guess
    }

    /// Whether functions for any callback may be called.
    pub(crate) fn is_inside(self) -> bool {
        self.is_control() || self.is_step()
    }
}

/// Objects that a callback may use while it runs.
#[derive(Default)]
pub(crate) struct LentBatch<'a> {
    pub(crate) rows: &'a [DraftRow<'a>],
    pub(crate) program: Option<&'a mut Program>,
    /// Points to a `&mut dyn ModelLoader`.
    pub(crate) loader: Option<NonNull<()>>,
    /// Points to a `&mut dyn SuffixSource`.
    pub(crate) suffixes: Option<NonNull<()>>,
}

/// A [`LentBatch`] without lifetimes: set when a callback starts, cleared when it returns.
#[derive(Default)]
pub(crate) struct LentPointers {
    rows: Option<NonNull<DraftRow<'static>>>,
    n_rows: usize,
    pub(crate) loader: Option<NonNull<()>>,
    pub(crate) suffixes: Option<NonNull<()>>,
}

// SAFETY: `State::check` lets only the thread inside the callback use the pointers.
unsafe impl Send for LentPointers {}

impl LentPointers {
    /// A row of the batch.
    pub(crate) fn row(&self, index: u32) -> Result<DraftRow<'_>, gd_status> {
        let rows = self.rows.filter(|_| (index as usize) < self.n_rows).ok_or(GD_INVALID)?;
        // SAFETY: `Host::within` set the pointer to a slice of `n_rows` rows that outlives the
        // callback, and clears it before it returns.
        Ok(unsafe { *rows.add(index as usize).as_ref() })
    }
}

impl Host {
    pub(crate) fn new(name: String, target: ModelFacts) -> Self {
        let state = State {
            phase: Phase::Outside,
            thread: None,
            serial: 0,
            lent: LentPointers::default(),
            program: Program::default(),
            is_unrecordable: false,
            must_rerecord: false,
            highest_pushed: None,
            masks_changed: false,
            target,
            models: Arena::new(HandleKind::Model),
            views: Arena::new(HandleKind::View),
            masks: Arena::new(HandleKind::Mask),
            matchers: Arena::new(HandleKind::Matcher),
            found: SuffixMatch::default(),
            last_error: None,
            refusal: None,
            n_kept: [0; 4],
        };
        Host { name, state: Mutex::new(state) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Runs a callback of the drafter and passes it the handle of its queue. Until it returns, host
    /// functions on this thread see `phase` and may use `lent`.
    pub(crate) fn within<R>(
        &self,
        phase: Phase,
        lent: LentBatch<'_>,
        callback: impl FnOnce(u64) -> R,
    ) -> R {
        let LentBatch { rows, mut program, loader, suffixes } = lent;
        let mut state = self.state();
        state.serial += 1;
        state.phase = phase;
        state.thread = Some(std::thread::current().id());
        state.lent = LentPointers {
            rows: NonNull::new(rows.as_ptr().cast_mut().cast()),
            n_rows: rows.len(),
            loader,
            suffixes,
        };
        state.is_unrecordable = false;
        state.highest_pushed = None;
        (state.last_error, state.refusal) = (None, None);
        if let Some(program) = &mut program {
            std::mem::swap(&mut state.program, program);
        }
        let queue = state.queue();
        drop(state);

        let result = callback(queue);

        let mut state = self.state();
        state.phase = Phase::Outside;
        state.thread = None;
        state.lent = LentPointers::default();
        if let Some(program) = &mut program {
            std::mem::swap(&mut state.program, program);
        }
        result
    }

    /// Runs a host function that is allowed in some phases, and only on the callback's thread.
    pub(crate) fn at<R>(
        &self,
        is_allowed: fn(Phase) -> bool,
        call: impl FnOnce(&mut State) -> Result<R, gd_status>,
    ) -> Result<R, gd_status> {
        let mut state = self.state();
        state.check(is_allowed)?;
        call(&mut state)
    }
}

impl State {
    fn check(&self, is_allowed: fn(Phase) -> bool) -> Result<(), gd_status> {
        let is_here = self.thread == Some(std::thread::current().id());
        if is_here && is_allowed(self.phase) { Ok(()) } else { Err(GD_WRONG_PHASE) }
    }

    fn queue(&self) -> u64 {
        handles::queue(self.serial)
    }

    /// Checks that `id` is the queue of the running callback, and that the callback has rows.
    pub(crate) fn check_queue(&self, id: u64) -> Result<(), gd_status> {
        let is_open = self.lent.n_rows > 0 && id == self.queue();
        if is_open { Ok(()) } else { Err(GD_INVALID) }
    }

    /// Marks everything made so far to be kept when the drafter is deactivated.
    pub(crate) fn mark_kept(&mut self) {
        self.n_kept = [self.models.len(), self.views.len(), self.masks.len(), self.matchers.len()];
    }

    /// Makes every handle since `mark_kept` stale.
    pub(crate) fn void_handles(&mut self) {
        let [n_models, n_views, n_masks, n_matchers] = self.n_kept;
        self.models.truncate(n_models);
        self.views.truncate(n_views);
        self.masks.truncate(n_masks);
        self.matchers.truncate(n_matchers);
    }
}
