//! Sharing the units of a dispatch between threads, and the dispatcher's wait for them.
//!
//! The dispatcher posts a job and sets the number of units left. A thread takes a unit by counting
//! that number down ([`Crew::take`]); the value before the decrement identifies the unit. The
//! dispatcher takes units too. When none is left, it waits for the units that workers took. It does
//! not wait for a worker that took no unit, however late the worker comes.
//!
//! Dispatches need no generation number. A worker reads the job after it has taken a unit, and from
//! then on the dispatch lasts until the worker has counted the unit as done. A worker that looked
//! at one dispatch and counts down in the next has taken a unit of the next.
//!
//! `model_tests.rs` checks this file under every order of execution and every stale read that the
//! orderings below allow.

use super::sync::{
    Acquire, AtomicBool, AtomicIsize, AtomicUsize, Condvar, IDLE_SPINS, IDLE_YIELDS, Mutex,
    Relaxed, Release, UnsafeCell, WAIT_SPINS, fence, spin_loop, yield_now,
};
use crossbeam_utils::CachePadded;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

/// Computes a unit: `job(unit, thread)`.
pub(super) type Job<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// State that a dispatcher and its workers share.
pub(super) struct Crew {
    units: CachePadded<Units>,
    /// Units of this dispatch that workers have finished.
    n_done: CachePadded<AtomicUsize>,
    /// The dispatcher writes it between dispatches; a worker that has taken a unit reads it.
    posted: UnsafeCell<Option<Posted>>,
    /// Workers with a greater number take no units.
    n_called: CachePadded<AtomicUsize>,
    stop: AtomicBool,
    panicked: AtomicBool,
    /// Whether a thread waited longer for another thread's unit than the unit can take.
    late: AtomicBool,
    /// Called workers sleep here until there are units.
    idle: Gate,
    /// Workers that are not called sleep here.
    off: Gate,
}

/// The units of the current dispatch.
struct Units {
    /// Units that no thread has taken; 0 or less when there are none.
    left: AtomicIsize,
    /// Odd during a dispatch, and different for each dispatch.
    number: AtomicUsize,
    /// Yields after which a wait for a unit shows that its thread has lost its core.
    patience: AtomicUsize,
}

#[derive(Clone, Copy)]
struct Posted {
    job: &'static Job<'static>,
    n_units: usize,
}

// SAFETY: `posted` is written by the one dispatcher while no unit is taken, and read by threads that hold a unit.
unsafe impl Sync for Crew {}

impl Crew {
    /// Workers 1 to `n_called` take units.
    pub(super) fn new(n_called: usize) -> Self {
        let units = Units {
            left: AtomicIsize::new(0),
            number: AtomicUsize::new(0),
            patience: AtomicUsize::new(0),
        };
        Self {
            units: CachePadded::new(units),
            n_done: CachePadded::new(AtomicUsize::new(0)),
            posted: UnsafeCell::new(None),
            n_called: CachePadded::new(AtomicUsize::new(n_called)),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            late: AtomicBool::new(false),
            idle: Gate::new(),
            off: Gate::new(),
        }
    }

    /// Runs `job(unit, thread)` once for every unit, on this thread (number 0) and on the workers
    /// that come in time. Returns when every unit is done.
    ///
    /// # Safety
    ///
    /// Only one dispatch may run at a time.
    pub(super) unsafe fn dispatch(&self, n_units: usize, patience: usize, job: &Job<'_>) {
        // SAFETY: this function neither returns nor unwinds before every unit that a worker took is
        // done (`DispatchGuard` waits), and a worker uses the job only while it holds a unit.
        let job = unsafe { std::mem::transmute::<&Job<'_>, &'static Job<'static>>(job) };
        // SAFETY: no thread holds a unit of the last dispatch any more, and no unit of this
        // dispatch can be taken yet.
        self.posted.with_mut(|posted| unsafe { *posted = Some(Posted { job, n_units }) });
        self.n_done.store(0, Relaxed);
        self.units.patience.store(patience, Relaxed);
        self.units.number.store(self.units.number.load(Relaxed).wrapping_add(1), Relaxed);
        let n_left = isize::try_from(n_units).expect("units are counted in an isize");
        // A swap, since a worker may still count down the number of the last dispatch, and loom
        // keeps only read-modify-writes in one order.
        self.units.left.swap(n_left, Release);
        self.idle.wake();
        let mut finish =
            DispatchGuard { crew: self, n_units, n_own: 0, none_left: false, patience };
        while let Some(left) = self.take() {
            finish.n_own += 1;
            job(n_units - left, 0);
        }
        finish.none_left = true;
        drop(finish);
        assert!(!self.panicked.swap(false, Relaxed), "a kernel panicked on a worker thread");
    }

    /// Takes a unit if one is left. Returns its number counted from the end, the last unit being 1.
    fn take(&self) -> Option<usize> {
        // The load comes first, so that threads that wait for units do not write.
        if self.units.left.load(Relaxed) <= 0 {
            return None;
        }
        let left = self.units.left.fetch_sub(1, Acquire);
        usize::try_from(left).ok().filter(|&left| left > 0)
    }

    /// The loop of worker `thread` until [`Crew::stop`].
    pub(super) fn work(&self, thread: usize) {
        let has_stopped = || self.stop.load(Relaxed);
        let is_called = || thread <= self.n_called.load(Relaxed);
        let mut waits = Waits::default();
        while !has_stopped() {
            if !is_called() {
                self.off.wait_until(|| has_stopped() || is_called());
            } else if let Some(left) = self.take() {
                self.run_unit(left, thread);
            } else if waits.go_on(self) {
                continue;
            } else {
                self.idle.wait_until(|| {
                    has_stopped() || !is_called() || self.units.left.load(Relaxed) > 0
                });
            }
            waits = Waits::default();
        }
    }

    /// Runs the unit that this worker has taken.
    fn run_unit(&self, left: usize, thread: usize) {
        // SAFETY: the dispatcher wrote `posted` before it set the number of units left, and writes
        // it again only after this unit is counted as done.
        let posted = self.posted.with(|posted| unsafe { *posted });
        let Posted { job, n_units } = posted.expect("units are left while a job is posted");
        if catch_unwind(AssertUnwindSafe(|| job(n_units - left, thread))).is_err() {
            self.panicked.store(true, Relaxed);
        }
        self.n_done.fetch_add(1, Release);
    }

    /// From the next dispatch on, workers 1 to `n_called` take units.
    pub(super) fn call(&self, n_called: usize) {
        self.n_called.store(n_called, Relaxed);
        self.off.wake();
    }

    /// Whether a thread was late since the last call.
    pub(super) fn take_late(&self) -> bool {
        let late = self.late.load(Relaxed);
        if late {
            self.late.store(false, Relaxed);
        }
        late
    }

    /// Ends [`Crew::work`] on every worker.
    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
        self.idle.wake();
        self.off.wake();
    }
}

/// When dropped, waits for the units that workers took, also while the dispatcher's own unit unwinds.
struct DispatchGuard<'a> {
    crew: &'a Crew,
    n_units: usize,
    n_own: usize,
    none_left: bool,
    patience: usize,
}

impl Drop for DispatchGuard<'_> {
    fn drop(&mut self) {
        let Units { left, number, .. } = &*self.crew.units;
        let n_left = if self.none_left { 0 } else { left.swap(0, Relaxed).max(0) as usize };
        let n_taken_by_workers = self.n_units - self.n_own - n_left;
        let mut n_waits = 0_usize;
        while self.crew.n_done.load(Acquire) != n_taken_by_workers {
            n_waits += 1;
            if n_waits <= WAIT_SPINS {
                spin_loop();
            } else {
                yield_now(); // a worker that lost its core may need this one
            }
        }
        if n_waits > WAIT_SPINS.saturating_add(self.patience) {
            self.crew.late.store(true, Relaxed);
        }
        number.store(number.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

/// The time for which a worker has found no unit, in iterations of its loop.
#[derive(Default)]
struct Waits {
    n: usize,
    /// The dispatch that the worker sees, and the yields since it first saw this dispatch.
    number: usize,
    n_yields: usize,
}

impl Waits {
    /// Waits a moment. Returns false when the worker should sleep instead.
    fn go_on(&mut self, crew: &Crew) -> bool {
        self.n += 1;
        if self.n <= IDLE_SPINS {
            spin_loop();
            return true;
        }
        if self.n > IDLE_SPINS + IDLE_YIELDS {
            return false;
        }
        yield_now();
        let number = crew.units.number.load(Relaxed);
        if number != self.number {
            (self.number, self.n_yields) = (number, 0);
        }
        self.n_yields += 1;
        // No unit is left, and the dispatch goes on: another thread has held a unit for all that time.
        if number % 2 == 1 && self.n_yields == crew.units.patience.load(Relaxed) {
            crew.late.store(true, Relaxed);
        }
        true
    }
}

/// A place to sleep until a condition holds.
struct Gate {
    n_sleeping: AtomicUsize,
    mutex: Mutex<()>,
    opened: Condvar,
}

impl Gate {
    fn new() -> Self {
        Self { n_sleeping: AtomicUsize::new(0), mutex: Mutex::new(()), opened: Condvar::new() }
    }

    /// Sleeps until `ready()` holds. A thread that makes it hold calls [`Gate::wake`] afterwards.
    fn wait_until(&self, ready: impl Fn() -> bool) {
        let mut guard = self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
        self.n_sleeping.fetch_add(1, Relaxed);
        // Either this thread sees the writes before the waking thread's fence, or the waking thread
        // sees `n_sleeping`.
        fence();
        while !ready() {
            guard = self.opened.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.n_sleeping.fetch_sub(1, Relaxed);
    }

    fn wake(&self) {
        fence();
        if self.n_sleeping.load(Relaxed) > 0 {
            // A thread that is about to sleep holds the lock until it sleeps.
            drop(self.mutex.lock().unwrap_or_else(PoisonError::into_inner));
            self.opened.notify_all();
        }
    }
}
