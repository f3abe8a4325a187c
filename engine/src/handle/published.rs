//! State that the engine thread publishes: statistics as of the last step, or of every step.

use super::lock;
use crate::stats::Stats;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::sync::Mutex;

/// State that the engine thread publishes to its handles.
#[derive(Default)]
pub(super) struct Published {
    pub(super) stats: Mutex<Stats>,
    /// Channel to the [`Watch`], if there is one.
    watcher: Mutex<Option<Sender<Stats>>>,
    /// Why the engine thread has ended.
    pub(super) stopped: Mutex<Option<String>>,
}

/// Statistics after every step, with no step left out, and after commands that start no step. A
/// count of steps therefore does not depend on when the reader's thread runs. The iterator waits
/// for the next snapshot and ends with the engine.
#[derive(Debug)]
pub struct Watch {
    turns: Receiver<Stats>,
}

impl Watch {
    pub(super) fn new(published: &Published) -> Self {
        let (sender, turns) = unbounded();
        *lock(&published.watcher) = Some(sender);
        Self { turns }
    }
}

impl Iterator for Watch {
    type Item = Stats;

    fn next(&mut self) -> Option<Stats> {
        self.turns.recv().ok()
    }
}

impl Published {
    /// Publishes the statistics of a step.
    pub(super) fn publish(&self, stats: Stats) {
        let mut watcher = lock(&self.watcher);
        if watcher.as_ref().is_some_and(|watcher| watcher.send(stats.clone()).is_err()) {
            *watcher = None; // the `Watch` was dropped
        }
        *lock(&self.stats) = stats;
    }

    /// Ends the [`Watch`].
    pub(super) fn close(&self) {
        *lock(&self.watcher) = None;
    }
}
