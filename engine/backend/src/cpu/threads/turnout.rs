//! The number of workers that take part while other programs use the cores, too.
//!
//! A worker that loses its core in the middle of a unit costs as long as the other program's turn
//! on that core: milliseconds, in which a hundred dispatches would have been done without the
//! worker. So a dispatch in which a thread was late sends workers away for a pause. They are tried
//! again later: soon after one late dispatch, and ever less often if each trial soon ends late.
//! A late dispatch after a long quiet time is a disturbance of its own, of which a machine to itself
//! has some in a second too. The results do not depend on the number of workers.
//!
//! A pause is counted in multiply-adds of the dispatches that go by: the backend looks at no clock.

/// The shortest pause, some 2 ms of decoding: one disturbance, such as a system tick, costs no more.
const SHORTEST: u64 = 1 << 25;

/// The longest pause, about half a second: a trial that fails costs some 5 ms.
const LONGEST: u64 = 1 << 33;

/// Factor from one pause to the next.
const GROWTH: u64 = 8;

/// Quiet multiply-adds, some 16 ms, after which a late dispatch starts with the shortest pause again. A busy program
/// takes a core back sooner. Disturbances farther apart than this cost less time than absent workers would.
const QUIET: u64 = GROWTH * SHORTEST;

/// One decision adds or removes one in this many workers.
const STEP: usize = 8;

/// The number of workers that take part, and when it changes.
#[derive(Debug)]
pub(super) struct Turnout {
    n_workers: usize,
    n_called: usize,
    /// Multiply-adds until the next decision.
    rest: u64,
    /// Multiply-adds for which workers stay away after a late dispatch.
    pause: u64,
    /// Multiply-adds since the last late dispatch, or since workers were last called back.
    quiet: u64,
    /// Whether no dispatch was late since the last decision.
    is_clean: bool,
}

impl Turnout {
    /// At first, `n_called` of `n_workers` take part.
    pub(super) fn new(n_workers: usize, n_called: usize) -> Self {
        let n_called = n_called.min(n_workers);
        Self { n_workers, n_called, rest: SHORTEST, pause: SHORTEST, quiet: 0, is_clean: true }
    }

    /// The number of workers that take part.
    pub(super) fn n_called(&self) -> usize {
        self.n_called
    }

    /// Notes the end of a dispatch of `work` multiply-adds. Returns whether the number of workers
    /// has changed.
    pub(super) fn note(&mut self, work: u64, was_late: bool) -> bool {
        if was_late {
            if self.quiet >= QUIET {
                self.pause = SHORTEST;
            }
            self.quiet = 0;
            self.n_called -= self.n_called.div_ceil(STEP);
            self.rest = self.pause;
            self.pause = (self.pause * GROWTH).min(LONGEST);
            self.is_clean = false;
            return true;
        }
        self.quiet = self.quiet.saturating_add(work);
        self.rest = self.rest.saturating_sub(work);
        let n_away = self.n_workers - self.n_called;
        if self.rest > 0 || n_away == 0 {
            return false;
        }
        if self.is_clean {
            self.pause = (self.pause / GROWTH).max(SHORTEST);
        }
        self.is_clean = true;
        self.quiet = 0;
        self.rest = self.pause;
        self.n_called += n_away.div_ceil(STEP);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISPATCH: u64 = 1 << 20;

    /// Share of `n` dispatches in which workers take part. Dispatch `i` is late if workers take
    /// part and `is_late(i)`.
    fn share_called(turnout: &mut Turnout, n: u64, is_late: impl Fn(u64) -> bool) -> f64 {
        let mut n_with = 0;
        for i in 0..n {
            let calls = turnout.n_called() > 0;
            n_with += u64::from(calls);
            turnout.note(DISPATCH, calls && is_late(i));
        }
        n_with as f64 / n as f64
    }

    #[test]
    fn a_machine_to_itself_keeps_its_workers() {
        let mut turnout = Turnout::new(7, 7);
        for _ in 0..100_000 {
            assert!(!turnout.note(DISPATCH, false));
        }
        assert_eq!(turnout.n_called(), 7);
    }

    #[test]
    fn one_late_dispatch_costs_little() {
        let mut turnout = Turnout::new(1, 1);
        let share = share_called(&mut turnout, 10_000, |i| i % 5_000 == 17);
        assert!(share > 0.98, "{share}");
    }

    #[test]
    fn disturbances_far_apart_cost_little_each() {
        // Some 30 a second, as a virtual machine has them that shares its host.
        let apart = 2 * QUIET / DISPATCH;
        let mut turnout = Turnout::new(1, 1);
        let share = share_called(&mut turnout, 1000 * apart, |i| i % apart == apart / 2);
        assert!(share > 0.9, "{share}");
        // A busy program causes close ones.
        let share = share_called(&mut turnout, 1000 * apart, |i| i % (apart / 4) == 0);
        assert!(share < 0.1, "{share}");
    }

    #[test]
    fn a_busy_neighbour_is_left_alone_and_comes_to_be_forgotten() {
        let mut turnout = Turnout::new(1, 1);
        let n = 20 * LONGEST / DISPATCH;
        let share = share_called(&mut turnout, n, |_| true);
        assert!(share < 0.001, "{share}");
        // The other program has ended: all workers are back after the longest pause.
        let share = share_called(&mut turnout, 2 * LONGEST / DISPATCH, |_| false);
        assert!(share >= 0.5, "{share}");
        assert_eq!(turnout.n_called(), 1);
        // A single late dispatch costs little again after some time.
        share_called(&mut turnout, 4 * LONGEST / DISPATCH, |_| false);
        let share = share_called(&mut turnout, 10_000, |i| i == 17);
        assert!(share > 0.98, "{share}");
    }

    #[test]
    fn of_many_workers_a_few_leave_at_a_time_and_come_back() {
        let mut turnout = Turnout::new(63, 63);
        assert!(turnout.note(DISPATCH, true));
        assert_eq!(turnout.n_called(), 55);
        // 32 workers have cores of their own.
        for _ in 0..100_000 {
            let is_late = turnout.n_called() > 32;
            turnout.note(DISPATCH, is_late);
        }
        assert!((24..=36).contains(&turnout.n_called()), "{turnout:?}");
        for _ in 0..100_000 {
            turnout.note(DISPATCH, false);
        }
        assert_eq!(turnout.n_called(), 63);
    }

    #[test]
    fn more_threads_than_cores_are_tried_now_and_then() {
        let mut turnout = Turnout::new(7, 1);
        let n = 20 * LONGEST / DISPATCH;
        let mut n_late = 0;
        for _ in 0..n {
            let is_late = turnout.n_called() > 1;
            n_late += u64::from(is_late);
            turnout.note(DISPATCH, is_late);
            assert!(turnout.n_called() >= 1, "the first worker was never late");
        }
        assert!((10..60).contains(&n_late), "{n_late} of {n}");
    }
}
