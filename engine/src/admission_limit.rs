//! The limit on requests that wait for admission.

use crate::error::SubmitError;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the requests that were submitted and not yet admitted.
#[derive(Debug)]
pub(crate) struct AdmissionLimit {
    n_waiting: AtomicUsize,
    max_waiting: usize,
}

/// The place of one request among the waiting ones. Dropping it frees the place.
#[derive(Debug)]
pub(crate) struct WaitingPlace(Arc<AdmissionLimit>);

impl AdmissionLimit {
    pub(crate) fn new(max_waiting: usize) -> Arc<Self> {
        Arc::new(AdmissionLimit { n_waiting: AtomicUsize::new(0), max_waiting })
    }

    /// Takes places for `n` requests: all of them, or none.
    pub(crate) fn take(self: &Arc<Self>, n: usize) -> Result<Vec<WaitingPlace>, SubmitError> {
        let max_waiting = self.max_waiting;
        if n > max_waiting {
            let reason = format!(
                "{n} requests at once are more than may wait, {max_waiting}: submit fewer at a time"
            );
            return Err(SubmitError::invalid("max_waiting", reason));
        }
        let take = |n_waiting: usize| {
            n_waiting.checked_add(n).filter(|&n_waiting| n_waiting <= self.max_waiting)
        };
        match self.n_waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok((0..n).map(|_| WaitingPlace(Arc::clone(self))).collect()),
            Err(n_waiting) => Err(SubmitError::Busy { n_waiting, max_waiting }),
        }
    }
}

impl Drop for WaitingPlace {
    fn drop(&mut self) {
        self.0.n_waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_together_and_freed_one_by_one() {
        let limit = AdmissionLimit::new(3);
        let mut places = limit.take(2).expect("two places");
        let busy = SubmitError::Busy { n_waiting: 2, max_waiting: 3 };
        assert_eq!(limit.take(2).expect_err("one place is left"), busy);
        let last = limit.take(1).expect("the last place");
        assert!(matches!(limit.take(1), Err(SubmitError::Busy { .. })));
        assert!(matches!(limit.take(4), Err(SubmitError::Invalid { .. })), "it never fits");
        places.pop();
        drop(last);
        assert_eq!(limit.take(2).expect("two places are free again").len(), 2);
    }
}
