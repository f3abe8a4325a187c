//! The protocol of [`crew`](super::crew) under every order of execution, and under every stale read
//! that its orderings allow: loom runs it on atomics, cells and locks of its own. Weakened variants
//! of the protocol must fail.

use self::crew::Crew;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use std::cell::Cell;
use std::process::Command;

// `crew.rs` is compiled again, over the `sync` module below.
#[path = "crew.rs"]
#[expect(dead_code, reason = "the protocol alone is checked, not when a thread counts as late")]
#[expect(
    clippy::absurd_extreme_comparisons,
    reason = "waits have no turns here, elsewhere they do"
)]
#[expect(clippy::duplicate_mod, reason = "the same protocol over other atomics")]
mod crew;

/// The part that a test removes from the protocol.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Without {
    Nothing,
    /// Writes before a unit is done, or before units are posted, are not published.
    Release,
    /// A unit is taken without seeing the writes before the post.
    Acquire,
    /// A sleeping thread and a waking thread may miss each other.
    Fence,
}

std::thread_local! {
    /// loom runs the threads of a model on the thread that checks it.
    static WITHOUT: Cell<Without> = const { Cell::new(Without::Nothing) };
}

mod sync {
    use super::{WITHOUT, Without};
    pub(super) use loom::cell::UnsafeCell;
    pub(super) use loom::hint::spin_loop;
    use loom::sync::atomic;
    pub(super) use loom::sync::atomic::{
        AtomicBool, Ordering,
        Ordering::{Acquire, Relaxed, Release},
    };
    pub(super) use loom::sync::{Condvar, Mutex};
    pub(super) use loom::thread::yield_now;

    // loom tries every outcome of a loop's iteration: one iteration is as good as a thousand.
    pub(super) const IDLE_SPINS: usize = 0;
    pub(super) const IDLE_YIELDS: usize = 0;
    pub(super) const WAIT_SPINS: usize = 0;

    pub(super) fn fence() {
        if WITHOUT.get() != Without::Fence {
            atomic::fence(Ordering::SeqCst);
        }
    }

    fn weaken(order: Ordering) -> Ordering {
        match (WITHOUT.get(), order) {
            (Without::Release, Release) | (Without::Acquire, Acquire) => Relaxed,
            _ => order,
        }
    }

    macro_rules! atomics {
        ($($name:ident: $int:ty),*) => {$(
            pub(super) struct $name(atomic::$name);

            #[expect(dead_code, reason = "each type needs its own part of the methods")]
            impl $name {
                pub(super) fn new(value: $int) -> Self {
                    Self(atomic::$name::new(value))
                }

                pub(super) fn load(&self, order: Ordering) -> $int {
                    self.0.load(weaken(order))
                }

                pub(super) fn store(&self, value: $int, order: Ordering) {
                    self.0.store(value, weaken(order));
                }

                pub(super) fn swap(&self, value: $int, order: Ordering) -> $int {
                    self.0.swap(value, weaken(order))
                }

                pub(super) fn fetch_add(&self, value: $int, order: Ordering) -> $int {
                    self.0.fetch_add(value, weaken(order))
                }

                pub(super) fn fetch_sub(&self, value: $int, order: Ordering) -> $int {
                    self.0.fetch_sub(value, weaken(order))
                }
            }
        )*};
    }

    atomics!(AtomicIsize: isize, AtomicUsize: usize);
}

/// Outputs of units. Each unit writes its own; the dispatcher reads and writes them between dispatches.
struct Outputs(Vec<UnsafeCell<usize>>);

// SAFETY: loom reports concurrent accesses to a cell.
unsafe impl Sync for Outputs {}
// SAFETY: as above.
unsafe impl Send for Outputs {}

impl Outputs {
    fn add(&self, unit: usize, value: usize) {
        // SAFETY: loom reports concurrent accesses to a cell.
        self.0[unit].with_mut(|output| unsafe { *output += value });
    }
}

/// Runs a dispatch with units that add `value` to outputs, and drops the outputs after it.
fn dispatch(crew: &Crew, n_units: usize, value: usize) {
    let outputs = Outputs((0..n_units).map(|_| UnsafeCell::new(0)).collect());
    // SAFETY: one dispatch at a time.
    unsafe { crew.dispatch(n_units, 0, &|unit, _| outputs.add(unit, value)) };
    for output in outputs.0 {
        // A unit that is not done, or not seen as done, would be a race that loom finds.
        // SAFETY: all units are done.
        output.with_mut(|output| assert_eq!(unsafe { *output }, value, "each unit runs once"));
    }
}

/// Runs dispatches of `sizes` units beside `n_workers` workers, which run until the last dispatch
/// is done.
fn dispatches(n_workers: usize, sizes: &'static [usize]) {
    let crew = Arc::new(Crew::new(n_workers));
    let workers: Vec<_> = (1..=n_workers)
        .map(|thread| {
            let crew = Arc::clone(&crew);
            loom::thread::spawn(move || crew.work(thread))
        })
        .collect();
    for (&n_units, round) in sizes.iter().zip(1..) {
        dispatch(&crew, n_units, round);
    }
    crew.stop();
    for worker in workers {
        worker.join().expect("a worker");
    }
}

/// Checks `model` with at most `n_preemptions` preemptions in one execution. A fault is a panic.
fn check(n_preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(n_preemptions);
    builder.max_branches = 100_000;
    builder.check(model);
}

#[test]
fn no_order_of_execution_loses_a_unit_or_uses_a_job_that_is_over() {
    check(3, || dispatches(1, &[2, 2]));
    check(2, || dispatches(2, &[2]));
}

#[test]
fn workers_that_leave_and_come_back_lose_no_unit() {
    check(3, || {
        let crew = Arc::new(Crew::new(0));
        let worker = {
            let crew = Arc::clone(&crew);
            loom::thread::spawn(move || crew.work(1))
        };
        for n_called in [1, 0] {
            crew.call(n_called);
            dispatch(&crew, 2, 1);
        }
        crew.stop();
        worker.join().expect("the worker");
    });
}

const VARIABLE: &str = "GALLEY_TEST_PROTOCOL_WITHOUT";

/// A fault that loom finds may end the process, since it unwinds threads that hold locks. So this
/// test starts its own binary again for each part of the protocol that it removes.
#[test]
fn a_weaker_protocol_is_found() {
    let weakened = [Without::Release, Without::Acquire, Without::Fence];
    if let Ok(name) = std::env::var(VARIABLE) {
        WITHOUT.set(*weakened.iter().find(|w| format!("{w:?}") == name).expect("a known name"));
        return check(3, || dispatches(1, &[2, 2]));
    }
    let faults = ["Causality violation", "Causality violation", "deadlock"];
    for (without, fault) in weakened.into_iter().zip(faults) {
        let output = Command::new(std::env::current_exe().expect("this test's file"))
            .args([
                "--exact",
                "--nocapture",
                "cpu::threads::model_tests::a_weaker_protocol_is_found",
            ])
            .env(VARIABLE, format!("{without:?}"))
            .output()
            .expect("this test once more");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(fault), "without {without:?}: {text}");
    }
}
