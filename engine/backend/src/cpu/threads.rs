//! A persistent pool of threads for work that lasts microseconds.
//!
//! A decode step makes some two hundred dispatches. A worker spins for a while after each job, so
//! that the next one starts within a fraction of a microsecond, and parks when none comes.

use crossbeam_utils::CachePadded;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::thread::JoinHandle;

/// How often a worker looks for work before it parks: about 100 µs, longer than the pauses inside
/// a step and shorter than anyone would notice on an idle machine.
const SPINS: u32 = 20_000;

type Job<'a> = dyn Fn(usize) + Sync + 'a;

struct State {
    /// Counts jobs; a worker that sees it change runs `job`.
    epoch: CachePadded<AtomicU64>,
    /// Workers that have not finished the current job.
    unfinished: CachePadded<AtomicUsize>,
    /// Next unit of a [`ThreadPool::for_each`].
    next_unit: CachePadded<AtomicUsize>,
    job: Mutex<Option<&'static Job<'static>>>,
    n_parked: AtomicUsize,
    wake: Condvar,
    panicked: AtomicBool,
    stop: AtomicBool,
}

/// The calling thread and `n_threads - 1` workers.
pub(super) struct ThreadPool {
    state: Arc<State>,
    workers: Vec<JoinHandle<()>>,
}

impl ThreadPool {
    pub(super) fn new(n_threads: usize) -> Self {
        let state = Arc::new(State {
            epoch: CachePadded::new(AtomicU64::new(0)),
            unfinished: CachePadded::new(AtomicUsize::new(0)),
            next_unit: CachePadded::new(AtomicUsize::new(0)),
            job: Mutex::new(None),
            n_parked: AtomicUsize::new(0),
            wake: Condvar::new(),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let workers = (1..n_threads)
            .map(|index| {
                let state = Arc::clone(&state);
                std::thread::Builder::new()
                    .name(format!("galley-cpu-{index}"))
                    .spawn(move || work(&state, index))
                    .expect("the operating system refuses another thread")
            })
            .collect();
        Self { state, workers }
    }

    pub(super) fn n_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(thread)` once on every thread and waits for all.
    #[expect(clippy::needless_pass_by_ref_mut, reason = "one job at a time is what &mut promises")]
    pub(super) fn run(&mut self, job: &Job<'_>) {
        if self.workers.is_empty() {
            return job(0);
        }
        let state = &*self.state;
        // SAFETY: this function does not return, nor unwind, before every worker is done with the
        // job (`Finish` waits), so the borrow outlives its use.
        let lasting = unsafe { std::mem::transmute::<&Job<'_>, &'static Job<'static>>(job) };
        *state.job.lock() = Some(lasting);
        state.unfinished.store(self.workers.len(), Relaxed);
        state.epoch.fetch_add(1, SeqCst);
        if state.n_parked.load(SeqCst) > 0 {
            let _guard = state.job.lock();
            state.wake.notify_all();
        }
        let finish = Finish(state);
        job(0);
        drop(finish);
        assert!(!state.panicked.swap(false, Relaxed), "a kernel panicked on a worker thread");
    }

    /// Runs `f(unit, thread)` for every unit; threads take units in ascending order as they are
    /// free.
    pub(super) fn for_each(&mut self, n_units: usize, f: impl Fn(usize, usize) + Sync) {
        if n_units <= 1 || self.workers.is_empty() {
            return (0..n_units).for_each(|unit| f(unit, 0));
        }
        let state = Arc::clone(&self.state);
        state.next_unit.store(0, Relaxed);
        self.run(&|thread| {
            loop {
                let unit = state.next_unit.fetch_add(1, Relaxed);
                if unit >= n_units {
                    break;
                }
                f(unit, thread);
            }
        });
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.state.stop.store(true, SeqCst);
        self.state.epoch.fetch_add(1, SeqCst);
        {
            let _guard = self.state.job.lock();
            self.state.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

/// Waits for the workers when dropped, also while the caller's own share unwinds.
struct Finish<'a>(&'a State);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        let mut spins = 0_u32;
        while self.0.unfinished.load(Acquire) > 0 {
            spins = spins.wrapping_add(1);
            // A worker that lost its core needs this one.
            if spins.is_multiple_of(4096) {
                std::thread::yield_now()
            } else {
                std::hint::spin_loop()
            }
        }
    }
}

fn work(state: &State, index: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while state.epoch.load(Acquire) == seen {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                let mut guard = state.job.lock();
                // Announced before the epoch is read again: a dispatcher that changes it after
                // this read sees a parked worker and takes the lock to wake it.
                state.n_parked.fetch_add(1, SeqCst);
                if state.epoch.load(SeqCst) == seen {
                    state.wake.wait(&mut guard);
                }
                state.n_parked.fetch_sub(1, SeqCst);
            }
        }
        if state.stop.load(SeqCst) {
            return;
        }
        // One more job at most: the dispatcher waits for every worker before the next.
        seen += 1;
        let job = *state.job.lock();
        if let Some(job) = job {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(index)));
            if outcome.is_err() {
                state.panicked.store(true, Relaxed);
            }
        }
        state.unfinished.fetch_sub(1, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_runs_once() {
        for n_threads in [1, 2, 5] {
            let mut pool = ThreadPool::new(n_threads);
            for n_units in [0, 1, 2, 7, 1000] {
                let counts: Vec<_> = (0..n_units).map(|_| AtomicUsize::new(0)).collect();
                pool.for_each(n_units, |unit, thread| {
                    assert!(thread < n_threads);
                    counts[unit].fetch_add(1, Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Relaxed) == 1));
            }
        }
    }

    #[test]
    fn workers_wake_up_after_a_pause() {
        let mut pool = ThreadPool::new(3);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(30));
            let n = AtomicUsize::new(0);
            pool.run(&|_| {
                n.fetch_add(1, Relaxed);
            });
            assert_eq!(n.load(Relaxed), 3);
        }
    }

    #[test]
    fn a_panic_on_a_worker_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = ThreadPool::new(2);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(&|thread| assert_eq!(thread, 0, "worker"));
        }));
        assert!(outcome.is_err());
        let n = AtomicUsize::new(0);
        pool.run(&|_| {
            n.fetch_add(1, Relaxed);
        });
        assert_eq!(n.load(Relaxed), 2);
    }
}
