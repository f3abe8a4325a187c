//! The way of a request's events: to its own handle, or into a queue that many requests share.
//!
//! A queue is bounded, and its reader may stop to read. The engine then pauses the queue's sequences,
//! so that they neither fill the memory nor hold blocks, and goes on with all other requests.

use crate::event::{Event, QueuedEvent};
use crossbeam_channel::Sender;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The sender of one request's events.
#[derive(Debug)]
pub(crate) enum EventSink {
    /// The request has a handle of its own.
    Handle(Sender<Event>),
    /// The request shares a queue.
    Queue {
        /// The queue.
        queue: Arc<QueueInbox>,
        /// The caller's tag of the request.
        tag: u64,
        /// The request's number.
        id: u64,
    },
}

impl EventSink {
    /// Sends an event. `is_last` says that no event of the request follows. A receiver that was
    /// dropped is no error: its requests are cancelled by a command.
    pub(crate) fn send(&self, event: Event, is_last: bool) {
        match self {
            EventSink::Handle(sender) => {
                let _ = sender.send(event);
            }
            &EventSink::Queue { ref queue, tag, id } => {
                queue.send(QueuedEvent { tag, id, event, is_last });
            }
        }
    }

    /// Whether the reader has to read before the request may go on.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            EventSink::Handle(_) => false,
            EventSink::Queue { queue, .. } => queue.is_full(),
        }
    }
}

/// The engine's side of an [`EventQueue`](crate::EventQueue).
pub(crate) struct QueueInbox {
    events: Sender<QueuedEvent>,
    /// Unread events at which the queue's sequences are paused.
    capacity: usize,
    /// Called for the first event after the reader has asked for it.
    wake: Box<dyn Fn() + Send + Sync>,
    /// Whether the next event calls `wake`.
    is_armed: AtomicBool,
    /// Whether sequences may have been paused since the reader last asked.
    has_paused: AtomicBool,
}

impl QueueInbox {
    pub(crate) fn new(
        events: Sender<QueuedEvent>,
        capacity: usize,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        QueueInbox {
            events,
            capacity: capacity.max(1),
            wake,
            is_armed: AtomicBool::new(true),
            has_paused: AtomicBool::new(false),
        }
    }

    fn send(&self, event: QueuedEvent) {
        if self.events.send(event).is_ok() && self.is_armed.swap(false, Ordering::SeqCst) {
            (self.wake)();
        }
    }

    /// Has the next event call `wake`. Returns whether there are events already.
    pub(crate) fn rearm(&self) -> bool {
        self.is_armed.store(true, Ordering::SeqCst);
        !self.events.is_empty()
    }

    /// Whether the queue's sequences are to be paused. The reader is told that some may be
    /// ([`Self::take_paused`]).
    fn is_full(&self) -> bool {
        // The flag is set before the second look. So a reader that empties the queue in between sees
        // the flag, or its reading is seen here.
        let has_room = || self.events.len() < self.capacity;
        if has_room() {
            return false;
        }
        self.has_paused.store(true, Ordering::SeqCst);
        !has_room()
    }

    /// Whether sequences may be paused that can go on, because half of the queue is free again. Says
    /// so once.
    pub(crate) fn take_paused(&self) -> bool {
        self.events.len() <= self.capacity / 2 && self.has_paused.swap(false, Ordering::SeqCst)
    }
}

impl std::fmt::Debug for QueueInbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueueInbox").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}
