//! The budget of one rendering: steps, bytes of memory, depth.

use super::error::{Error, ErrorKind, Result};
use std::cell::Cell;

/// Greatest depth of the evaluation. Every nested statement, expression and macro call counts.
const MAX_DEPTH: u32 = 6_000;
/// Bytes of text that cost as much as one evaluation step.
const BYTES_PER_STEP: u64 = 256;

/// Remaining steps and bytes, and the current depth. A template that exceeds them is stopped.
#[derive(Debug)]
pub(super) struct RenderBudget {
    steps: Cell<u64>,
    bytes: Cell<u64>,
    depth: Cell<u32>,
}

impl RenderBudget {
    pub(super) fn new(steps: u64, bytes: u64) -> Self {
        Self { steps: Cell::new(steps), bytes: Cell::new(bytes), depth: Cell::new(0) }
    }

    /// Charges `count` steps.
    pub(super) fn steps(&self, count: usize) -> Result<()> {
        let left = self.steps.get().checked_sub(count as u64).ok_or_else(|| {
            Error::new(
                ErrorKind::Stopped,
                "the chat template does not come to an end: it was stopped",
            )
        })?;
        self.steps.set(left);
        Ok(())
    }

    /// Charges the steps for reading `count` bytes of text.
    pub(super) fn scan(&self, count: usize) -> Result<()> {
        self.steps((count as u64 / BYTES_PER_STEP) as usize)
    }

    /// Charges `count` written bytes. Freeing memory does not refund them.
    pub(super) fn bytes(&self, count: usize) -> Result<()> {
        let left = self.bytes.get().checked_sub(count as u64).ok_or_else(|| {
            Error::new(ErrorKind::Stopped, "the chat template uses too much memory: it was stopped")
        })?;
        self.bytes.set(left);
        self.scan(count)
    }

    /// Enters one level, which ends when the guard is dropped.
    pub(super) fn enter(&self) -> Result<NestingLevel<'_>> {
        self.steps(1)?;
        let depth = self.depth.get() + 1;
        if depth > MAX_DEPTH {
            return Err(Error::new(ErrorKind::Other, "maximum recursion depth exceeded"));
        }
        self.depth.set(depth);
        Ok(NestingLevel(self))
    }
}

/// A guard for one level of the evaluation.
pub(super) struct NestingLevel<'a>(&'a RenderBudget);

impl Drop for NestingLevel<'_> {
    fn drop(&mut self) {
        self.0.depth.set(self.0.depth.get() - 1);
    }
}
