//! The wake-up of a queue's readers: threads that wait, and a file descriptor that is readable.

#[cfg_attr(not(any(target_os = "linux", target_os = "android")), path = "signal/absent.rs")]
mod descriptor;

use crate::codes;
use crate::failure::Failure;
use descriptor::Descriptor;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Whether a queue may have unread events. Several threads may wait for it.
#[derive(Default)]
pub(crate) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_ready: bool,
    is_closed: bool,
    /// Made when it is asked for first, so that a queue without it costs no call of the system. Readable while
    /// `is_ready`.
    descriptor: Option<Descriptor>,
}

/// The end of a wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// There may be events.
    Ready,
    /// The time is over.
    TimedOut,
    /// [`Signal::close`] was called.
    Closed,
}

impl Signal {
    /// Wakes all waiting threads, and makes the descriptor readable. Called by the engine's thread too: it blocks for
    /// a few instructions only.
    pub(crate) fn set(&self) {
        let mut state = self.lock();
        if !state.is_ready && !state.is_closed {
            state.is_ready = true;
            if let Some(descriptor) = &state.descriptor {
                descriptor.set();
            }
            self.changed.notify_all();
        }
    }

    /// Forgets earlier calls of [`Signal::set`].
    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        state.is_ready = false;
        if let Some(descriptor) = &state.descriptor {
            descriptor.clear();
        }
    }

    /// Waits until the signal is set, until `deadline` (None: without end), or until it is closed.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Woken {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return Woken::Closed;
            }
            if state.is_ready {
                return Woken::Ready;
            }
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => LONG,
            };
            if left.is_zero() {
                return Woken::TimedOut;
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The descriptor, which lives until [`Signal::close`].
    pub(crate) fn descriptor(&self) -> Result<i32, Failure> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(Failure::new(codes::GALLEY_CLOSED, "the queue is closed"));
        }
        if state.descriptor.is_none() {
            let made = Descriptor::new()?;
            // A reader that finds no event takes the mark away again.
            state.is_ready = true;
            made.set();
            self.changed.notify_all();
            state.descriptor = Some(made);
        }
        Ok(state.descriptor.as_ref().map_or(-1, Descriptor::number))
    }

    /// Ends all waits, now and later, and closes the descriptor.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.descriptor = None;
        self.changed.notify_all();
    }

    /// A panic inside leaves the state whole: it consists of independent marks.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The moment of a timeout; None: no limit, also for a moment that the clock does not have.
pub(crate) fn deadline(timeout_ms: i64) -> Option<Instant> {
    let timeout = Duration::from_millis(u64::try_from(timeout_ms).ok()?);
    Instant::now().checked_add(timeout)
}

/// One wait of the system, where the caller set no limit.
const LONG: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn soon() -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(1))
    }

    #[test]
    fn a_wait_ends_by_the_signal_the_time_or_the_close() {
        let signal = Arc::new(Signal::default());
        assert_eq!(signal.wait(soon()), Woken::TimedOut);
        signal.set();
        assert_eq!(signal.wait(None), Woken::Ready);
        signal.clear();
        assert_eq!(signal.wait(soon()), Woken::TimedOut);
        let waits: Vec<_> = (0..3)
            .map(|_| {
                let signal = Arc::clone(&signal);
                std::thread::spawn(move || signal.wait(None))
            })
            .collect();
        signal.close();
        waits
            .into_iter()
            .for_each(|wait| assert_eq!(wait.join().expect("no panic"), Woken::Closed));
        signal.set();
        assert_eq!(signal.wait(None), Woken::Closed);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_descriptor_is_readable_while_the_signal_is_set() {
        let signal = Signal::default();
        let fd = signal.descriptor().expect("an eventfd");
        assert_eq!(signal.descriptor(), Ok(fd), "there is one");
        assert!(descriptor::is_readable(fd), "events may have come before");
        signal.clear();
        assert!(!descriptor::is_readable(fd));
        signal.set();
        signal.set();
        assert!(descriptor::is_readable(fd) && descriptor::is_readable(fd), "level-triggered");
        signal.clear();
        assert!(!descriptor::is_readable(fd));
        signal.close();
        assert_eq!(signal.descriptor().expect_err("closed").code, codes::GALLEY_CLOSED);
    }
}
