//! The identity of a sequence and its place in its life.

use crate::stop::FinishReason;

/// The order of service: the lower priority number, then the earlier request, then the lower index.
/// The last sequence in this order is preempted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SequenceKey {
    pub(crate) priority: i32,
    /// The request's number, counted in the order of submission.
    pub(crate) request: u64,
    pub(crate) index: u32,
}

impl SequenceKey {
    /// The lowest key that a sequence of the request can have.
    pub(crate) fn first_of(priority: i32, request: u64) -> Self {
        SequenceKey { priority, request, index: 0 }
    }

    /// The highest key that a sequence of the request can have.
    pub(crate) fn last_of(priority: i32, request: u64) -> Self {
        SequenceKey { priority, request, index: u32::MAX }
    }

    /// An id that no other sequence of the engine has.
    pub(crate) fn id(&self) -> u64 {
        self.request << 24 | u64::from(self.index)
    }
}

/// The state of a sequence. Prefill and decode are no states: they follow from the number of tokens
/// without KV.
///
/// ```text
///              admit            drain
///   Waiting ─────────▶ Running ───────▶ Draining
///      ▲     preempt      │                │
///      └──────────────────┤                │
///                         ▼    accept      ▼
///                      Finished ◀──────────┘
/// ```
///
/// A preempted sequence may finish while it waits, because its last token was pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SequenceState {
    /// Holds no blocks and waits for admission, for the first time or after a preemption.
    Waiting,
    /// Holds blocks and has rows in steps.
    Running,
    /// Holds no blocks and needs none: its last token has been sampled and is pending.
    Draining,
    /// Computes and emits no more.
    Finished(FinishReason),
}
