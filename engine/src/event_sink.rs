//! The way of a request's events: to its own handle, or into a queue that many requests share.
//!
//! A queue is bounded, and its reader may stop to read. The engine then pauses the queue's sequences,
//! so that they neither fill the memory nor hold blocks, and goes on with all other requests.

use crate::error::RequestError;
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
    Queue(QueueSink),
}

impl EventSink {
    /// Sends an event. `is_last` says that no event of the request follows. A receiver that was
    /// dropped is no error: its requests are cancelled by a command.
    pub(crate) fn send(&self, event: Event, is_last: bool) {
        match self {
            EventSink::Handle(sender) => {
                let _ = sender.send(event);
            }
            EventSink::Queue(sink) => sink.send(event, is_last),
        }
    }

    /// Whether the reader has to read before the request may go on.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            EventSink::Handle(_) => false,
            EventSink::Queue(sink) => sink.queue.is_full(),
        }
    }

    /// Identifies the queue that the request shares; None if it has a handle of its own.
    pub(crate) fn queue(&self) -> Option<usize> {
        match self {
            EventSink::Handle(_) => None,
            EventSink::Queue(sink) => Some(Arc::as_ptr(&sink.queue).addr()),
        }
    }

    /// Takes back a request that the engine never received: it has no events.
    pub(crate) fn take_back(&self) {
        if let EventSink::Queue(sink) = self {
            sink.has_ended.store(true, Ordering::Relaxed);
        }
    }
}

/// The place of one request in a queue. Dropped before the request's last event, it sends an error: a
/// queue does not notice that the engine thread is gone.
#[derive(Debug)]
pub(crate) struct QueueSink {
    queue: Arc<QueueInbox>,
    /// The caller's tag of the request.
    tag: u64,
    /// The request's number.
    id: u64,
    has_ended: AtomicBool,
}

impl QueueSink {
    pub(crate) fn new(queue: Arc<QueueInbox>, tag: u64, id: u64) -> Self {
        QueueSink { queue, tag, id, has_ended: AtomicBool::new(false) }
    }

    fn send(&self, event: Event, is_last: bool) {
        if !self.has_ended.fetch_or(is_last, Ordering::Relaxed) {
            self.queue.send(QueuedEvent { tag: self.tag, id: self.id, event, is_last });
        }
    }
}

impl Drop for QueueSink {
    fn drop(&mut self) {
        let reason = "the engine has stopped".into();
        self.send(Event::Error(RequestError::Stopped { reason }), true);
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
    /// Whether the queue's sequences are paused: from a full queue until half of it is read.
    is_paused: AtomicBool,
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
            is_paused: AtomicBool::new(false),
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

    /// Whether the queue's sequences are paused.
    fn is_full(&self) -> bool {
        if !self.is_paused.load(Ordering::SeqCst) {
            if self.events.len() < self.capacity {
                return false;
            }
            self.is_paused.store(true, Ordering::SeqCst);
        }
        // The reader may have read before the mark was there, and then has not seen it.
        !self.take_paused()
    }

    /// Ends a pause if half of the queue is free, and returns whether it did.
    pub(crate) fn take_paused(&self) -> bool {
        self.events.len() <= self.capacity / 2 && self.is_paused.swap(false, Ordering::SeqCst)
    }
}

impl std::fmt::Debug for QueueInbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueueInbox").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;

    /// The events of a sink that `work` has used and that is dropped then.
    fn events(work: impl FnOnce(&EventSink)) -> Vec<(bool, bool)> {
        let (sender, receiver) = unbounded();
        let inbox = Arc::new(QueueInbox::new(sender, 8, Box::new(|| {})));
        let sink = EventSink::Queue(QueueSink::new(inbox, 1, 2));
        work(&sink);
        drop(sink);
        let is_error = |queued: QueuedEvent| matches!(queued.event, Event::Error(_));
        receiver.try_iter().map(|queued| (queued.is_last, is_error(queued))).collect()
    }

    #[test]
    fn a_request_ends_once_even_if_the_engine_forgets_it() {
        let stopped = || Event::Error(RequestError::Stopped { reason: "it is over".into() });
        assert_eq!(events(|_| {}), [(true, true)]);
        assert_eq!(events(|sink| sink.send(stopped(), true)), [(true, true)]);
        assert_eq!(events(EventSink::take_back), [], "the engine never received it");
        let after_the_end = |sink: &EventSink| {
            sink.send(stopped(), true);
            sink.send(stopped(), false);
        };
        assert_eq!(events(after_the_end).len(), 1);
    }

    #[test]
    fn a_full_queue_is_paused_until_half_of_it_is_read() {
        let (sender, receiver) = unbounded();
        let inbox = Arc::new(QueueInbox::new(sender, 4, Box::new(|| {})));
        let sink = EventSink::Queue(QueueSink::new(Arc::clone(&inbox), 1, 2));
        let send = || sink.send(Event::Error(RequestError::Failed { reason: "a".into() }), false);
        (0..3).for_each(|_| send());
        assert!(!sink.is_full());
        send();
        assert!(sink.is_full());
        drop(receiver.try_recv());
        assert!(!inbox.take_paused() && sink.is_full(), "three are unread");
        drop(receiver.try_recv());
        assert!(inbox.take_paused() && !inbox.take_paused(), "it is said once");
        assert!(!sink.is_full());
    }
}
