//! What the engine thread lets others see: statistics as of the last turn, or of every turn.

use super::lock;
use crate::stats::Stats;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::sync::Mutex;

/// What the engine thread lets others see.
#[derive(Default)]
pub(super) struct Board {
    pub(super) stats: Mutex<Stats>,
    /// To the [`Watch`], if there is one.
    watcher: Mutex<Option<Sender<Stats>>>,
    /// Why the thread has ended.
    pub(super) stopped: Mutex<Option<String>>,
}

/// The statistics of every turn, none left out: what counts turns with it does not depend on when its own thread runs. An
/// iterator that waits for the next turn, and ends with the engine.
#[derive(Debug)]
pub struct Watch {
    turns: Receiver<Stats>,
}

impl Watch {
    pub(super) fn new(board: &Board) -> Self {
        let (sender, turns) = unbounded();
        *lock(&board.watcher) = Some(sender);
        Self { turns }
    }
}

impl Iterator for Watch {
    type Item = Stats;

    fn next(&mut self) -> Option<Stats> {
        self.turns.recv().ok()
    }
}

impl Board {
    /// Shows the statistics of a turn.
    pub(super) fn publish(&self, stats: Stats) {
        let mut watcher = lock(&self.watcher);
        if watcher.as_ref().is_some_and(|watcher| watcher.send(stats.clone()).is_err()) {
            *watcher = None; // the other end was dropped
        }
        *lock(&self.stats) = stats;
    }

    /// Ends the [`Watch`].
    pub(super) fn close(&self) {
        *lock(&self.watcher) = None;
    }
}
