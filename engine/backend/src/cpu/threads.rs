//! A persistent pool of threads for work that lasts microseconds.
//!
//! A decode step makes some two hundred dispatches. After each, a worker looks for units for a
//! while, so that the next dispatch starts within a fraction of a microsecond; it sleeps when no
//! dispatch comes. A dispatch waits only for units that a worker has taken, not for workers
//! ([`crew`]). If other programs need the cores, fewer workers take part ([`turnout`]). The thread
//! that computes a unit affects nothing but the time.

mod crew;
#[cfg(test)]
mod model_tests;
mod turnout;

use crate::{BackendError, Result};
use crew::Crew;
use std::sync::Arc;
use std::thread::JoinHandle;
use turnout::Turnout;

/// Most threads of a pool. A system may refuse a smaller number with an error. A system that starts
/// as many threads as it can leaves no memory for the next allocation of the process.
pub const MAX_THREADS: usize = 1024;

/// Yields after which a wait for the smallest unit is late: 0.1 to 0.3 ms, less than another
/// program's turn on a core.
const PATIENCE_YIELDS: usize = 400;

/// Multiply-adds that any machine does during one yield.
const WORK_PER_YIELD: usize = 256;

/// The primitives of [`crew`]; `model_tests` replaces them with loom's.
mod sync {
    pub(super) use std::hint::spin_loop;
    pub(super) use std::sync::atomic::{
        AtomicBool, AtomicIsize, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    };
    pub(super) use std::sync::{Condvar, Mutex};
    pub(super) use std::thread::yield_now;

    /// Iterations of an idle worker's loop, 2 to 20 µs, before it yields its core at each iteration.
    pub(super) const IDLE_SPINS: usize = 400;

    /// Further iterations, about 1 ms, before a worker sleeps: longer than the pauses inside a
    /// step, and too short for a person to notice on an idle machine.
    pub(super) const IDLE_YIELDS: usize = 2500;

    /// Iterations for which a dispatcher waits for a unit before it yields its core.
    pub(super) const WAIT_SPINS: usize = 400;

    pub(super) fn fence() {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }

    pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(super) fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        pub(super) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
            read(self.0.get())
        }

        pub(super) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
            write(self.0.get())
        }
    }
}

/// The calling thread and `n_threads - 1` workers.
pub(super) struct ThreadPool {
    crew: Arc<Crew>,
    workers: Vec<JoinHandle<()>>,
    turnout: Turnout,
    n_at_once: usize,
}

impl ThreadPool {
    /// Starts `n_threads` threads. At first as many of them work at once as there are usable cores.
    pub(super) fn new(n_threads: usize) -> Result<Self> {
        Self::on_cores(n_threads, usable_cores())
    }

    fn on_cores(n_threads: usize, n_cores: usize) -> Result<Self> {
        if n_threads == 0 || n_threads > MAX_THREADS {
            let error = format!("a number from 1 to {MAX_THREADS} is needed");
            return Err(BackendError::Threads { n_threads, error });
        }
        let n_at_once = n_threads.min(n_cores).max(1);
        let n_called = n_at_once - 1;
        let crew = Arc::new(Crew::new(n_called));
        let turnout = Turnout::new(n_threads - 1, n_called);
        // If an error returns early, dropping the pool ends the workers that have started.
        let mut pool = Self { crew, workers: Vec::new(), turnout, n_at_once };
        for thread in 1..n_threads {
            let crew = Arc::clone(&pool.crew);
            let worker = std::thread::Builder::new()
                .name(format!("galley-cpu-{thread}"))
                .spawn(move || crew.work(thread));
            pool.workers.push(worker.map_err(|error| BackendError::Threads {
                n_threads,
                error: format!("the system refused thread {}: {error}", thread + 1),
            })?);
        }
        Ok(pool)
    }

    /// The number of threads; the thread numbers are below it.
    pub(super) fn n_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// The number of threads to make units for: the threads that have a core.
    pub(super) fn n_at_once(&self) -> usize {
        self.n_at_once
    }

    /// Runs `f(unit, thread)` for every unit. Each free thread takes the next unit, in ascending
    /// order. A unit takes about `unit_work` multiply-adds.
    pub(super) fn for_each(
        &mut self,
        n_units: usize,
        unit_work: usize,
        f: impl Fn(usize, usize) + Sync,
    ) {
        if n_units <= 1 || self.workers.is_empty() {
            return (0..n_units).for_each(|unit| f(unit, 0));
        }
        if self.turnout.n_called() == 0 {
            (0..n_units).for_each(|unit| f(unit, 0));
        } else {
            let patience = PATIENCE_YIELDS + unit_work / WORK_PER_YIELD;
            // SAFETY: `&mut self` allows only one dispatch at a time.
            unsafe { self.crew.dispatch(n_units, patience, &f) };
        }
        let work = n_units as u64 * unit_work as u64;
        if self.turnout.note(work, self.crew.take_late()) {
            self.crew.call(self.turnout.n_called());
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.crew.stop();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

/// Cores that this process may use, by its affinity and its control group's share of processor time.
pub fn usable_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
    use std::time::Duration;

    #[test]
    fn every_unit_runs_once() {
        for n_threads in [1, 2, 5] {
            let mut pool = ThreadPool::on_cores(n_threads, n_threads).expect("threads");
            for n_units in [0, 1, 2, 7, 1000] {
                let counts: Vec<_> = (0..n_units).map(|_| AtomicUsize::new(0)).collect();
                pool.for_each(n_units, 1, |unit, thread| {
                    assert!(thread < n_threads);
                    counts[unit].fetch_add(1, Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Relaxed) == 1));
            }
        }
    }

    /// Dispatches two units that wait for each other, so two threads must take part.
    fn meet(pool: &mut ThreadPool) {
        let n_here = AtomicUsize::new(0);
        pool.for_each(2, usize::MAX >> 8, |_, _| {
            n_here.fetch_add(1, SeqCst);
            while n_here.load(SeqCst) < 2 {
                std::thread::yield_now();
            }
        });
    }

    #[test]
    fn workers_wake_up_after_a_pause() {
        let mut pool = ThreadPool::on_cores(3, 3).expect("threads");
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(30));
            meet(&mut pool);
        }
    }

    #[test]
    fn a_panic_on_a_worker_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = ThreadPool::on_cores(2, 2).expect("threads");
        let n_here = AtomicUsize::new(0);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.for_each(2, usize::MAX >> 8, |_, thread| {
                n_here.fetch_add(1, SeqCst);
                while n_here.load(SeqCst) < 2 {
                    std::thread::yield_now();
                }
                assert_eq!(thread, 0, "worker");
            });
        }));
        assert!(outcome.is_err());
        meet(&mut pool);
    }

    #[test]
    fn a_panic_of_the_caller_waits_for_units_that_workers_hold() {
        let mut pool = ThreadPool::on_cores(2, 2).expect("threads");
        let (has_begun, has_ended) = (AtomicBool::new(false), AtomicBool::new(false));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.for_each(1000, usize::MAX >> 12, |_, thread| {
                if thread == 0 {
                    while !has_begun.load(SeqCst) {
                        std::thread::yield_now();
                    }
                    panic!("the caller's unit");
                }
                has_begun.store(true, SeqCst);
                std::thread::sleep(Duration::from_millis(20));
                has_ended.store(true, SeqCst);
            });
        }));
        assert!(outcome.is_err() && has_ended.load(SeqCst));
        meet(&mut pool);
    }

    #[test]
    fn case_22_workers_that_take_no_unit_are_not_waited_for() {
        // The called workers never come, because no thread runs `work`.
        let crew = Crew::new(3);
        let n = AtomicUsize::new(0);
        for _ in 0..100 {
            // SAFETY: one dispatch at a time.
            unsafe {
                crew.dispatch(8, 0, &|_, thread| {
                    assert_eq!(thread, 0);
                    n.fetch_add(1, Relaxed);
                });
            }
        }
        assert_eq!(n.load(Relaxed), 800);
        assert!(!crew.take_late());
    }

    /// Runs two units. The worker's unit lasts until the dispatcher has waited for `time`. Returns
    /// whether the worker was late.
    fn is_late(pool: &mut ThreadPool, patience: usize, time: Duration) -> bool {
        let n_here = AtomicUsize::new(0);
        // SAFETY: one dispatch at a time.
        unsafe {
            pool.crew.dispatch(2, patience, &|_, thread| {
                n_here.fetch_add(1, SeqCst);
                while n_here.load(SeqCst) < 2 {
                    std::thread::yield_now();
                }
                if thread == 1 {
                    std::thread::sleep(time);
                }
            });
        }
        pool.crew.take_late()
    }

    #[test]
    fn case_22_a_worker_that_keeps_a_unit_is_late() {
        let mut pool = ThreadPool::on_cores(2, 2).expect("threads");
        // The dispatcher may lose its core itself: an iteration of its loop then takes longer than
        // the sleep.
        assert!((0..100).any(|_| is_late(&mut pool, 0, Duration::from_millis(20))));
        assert!((0..20).all(|_| !is_late(&mut pool, usize::MAX, Duration::from_millis(1))));
    }

    #[test]
    fn case_26_a_number_of_threads_that_cannot_be_is_an_error() {
        for n_threads in [0, MAX_THREADS + 1, 100_000, usize::MAX] {
            let error = ThreadPool::on_cores(n_threads, 2).err().expect("no pool").to_string();
            assert!(error.contains(&n_threads.to_string()) && error.contains("1024"), "{error}");
        }
    }
}
