//! A queue for the events of many requests.

use super::life::{Command, RequestKey, Submission};
use super::{Accepted, Engine, lock};
use crate::error::SubmitError;
use crate::event::{QueuedEvent, Submitted};
use crate::event_sink::{EventSink, QueueInbox, QueueSink};
use crate::request::Request;
use crossbeam_channel::{Receiver, unbounded};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A queue for the events of many requests, each with a tag of the caller. All methods may be called
/// from any thread. The queue keeps the engine running. Dropping it cancels its requests; their blocks
/// are free within two steps.
///
/// The queue is bounded. A reader that leaves as many events unread as the queue's capacity has its
/// sequences paused: they give up their blocks, and go on when half of the events are read. No event
/// is lost, and other requests do not wait. More events than the capacity may come: of a step that has
/// begun, and the beginnings and ends of requests.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use galley_engine::{Engine, Event, Request};
/// # let model = "../tests/data/models/smollm2";
/// let engine = Engine::open(model)?.kv_cache_tokens(1024).build()?;
/// let queue = engine.event_queue(1024, || {});
/// for (tag, prompt) in [(1, "Once upon a time"), (2, "To be or not to be")] {
///     queue.submit(tag, Request::new(prompt).max_tokens(8))?;
/// }
/// while let Some(queued) = queue.recv() {
///     if let Event::Token(token) = queued.event {
///         println!("{}: {:?}", queued.tag, token.text);
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct EventQueue {
    engine: Engine,
    inbox: Arc<QueueInbox>,
    events: Receiver<QueuedEvent>,
    /// Requests with an end that was not read, by number.
    open: Mutex<HashMap<u64, RequestKey>>,
}

impl EventQueue {
    pub(super) fn new(engine: Engine, capacity: usize, wake: Box<dyn Fn() + Send + Sync>) -> Self {
        let (sender, events) = unbounded();
        let inbox = Arc::new(QueueInbox::new(sender, capacity, wake));
        EventQueue { engine, inbox, events, open: Mutex::default() }
    }

    /// Checks a request and sends it to the engine. Its events have the tag `tag`; the first one is
    /// [`Event::Started`](crate::Event::Started).
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]. A refused request has no events.
    pub fn submit(&self, tag: u64, request: impl Into<Request>) -> Result<Submitted, SubmitError> {
        let mut submitted = self.submit_all([(tag, request.into())])?;
        Ok(submitted.pop().expect("one request was submitted"))
    }

    /// [`EventQueue::submit`] for several requests with their tags, which the engine receives before
    /// the same step. If one request is refused, none is submitted.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`].
    pub fn submit_all(
        &self,
        requests: impl IntoIterator<Item = (u64, Request)>,
    ) -> Result<Vec<Submitted>, SubmitError> {
        let (tags, requests): (Vec<u64>, Vec<Request>) = requests.into_iter().unzip();
        let (mut tags, mut keys) = (tags.into_iter(), Vec::with_capacity(requests.len()));
        let submitted = self.engine.submit_each(requests, |accepted| {
            let Accepted { key, request, submitted, place } = accepted;
            let tag = tags.next().expect("a tag for each request");
            // Before the first event can be read.
            lock(&self.open).insert(key.number, key);
            keys.push(key.number);
            let sink = QueueSink::new(Arc::clone(&self.inbox), tag, key.number);
            let events = EventSink::Queue(sink);
            let started = Some(submitted.clone());
            (submitted, Submission { key, request, place, events, started })
        });
        if submitted.is_err() {
            let mut open = lock(&self.open);
            for number in &keys {
                open.remove(number);
            }
        }
        submitted
    }

    /// Waits for the next event. None when all requests have ended and their events are read.
    pub fn recv(&self) -> Option<QueuedEvent> {
        /// Another reader may have read the last event meanwhile.
        const SLICE: Duration = Duration::from_millis(100);
        while self.n_open() > 0 || !self.events.is_empty() {
            if let Some(event) = self.recv_timeout(SLICE) {
                return Some(event);
            }
        }
        None
    }

    /// The next event, if there is one now.
    pub fn try_recv(&self) -> Option<QueuedEvent> {
        self.events.try_recv().ok().map(|event| self.note(event))
    }

    /// The next event, if it comes within `timeout`.
    pub fn recv_timeout(&self, timeout: Duration) -> Option<QueuedEvent> {
        let event = match Instant::now().checked_add(timeout) {
            Some(deadline) => self.events.recv_deadline(deadline).ok(),
            None => self.events.recv().ok(),
        };
        event.map(|event| self.note(event))
    }

    /// Has the next event call the queue's `wake` function, once. Returns whether there are unread
    /// events already: read them, since `wake` may not be called for them.
    pub fn rearm(&self) -> bool {
        self.inbox.rearm()
    }

    /// Ends the remaining sequences of a request of this queue.
    /// [`FinishReason::Cancelled`](crate::FinishReason::Cancelled) follows for each. Returns whether
    /// the request is one of this queue with an end that was not read.
    pub fn cancel(&self, id: u64) -> bool {
        let key = lock(&self.open).get(&id).copied();
        if let Some(key) = key {
            self.command(Command::Cancel(vec![key]));
        }
        key.is_some()
    }

    /// Requests with an end that was not read.
    pub fn n_open(&self) -> usize {
        lock(&self.open).len()
    }

    /// The engine of the queue.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Records that an event was read.
    fn note(&self, event: QueuedEvent) -> QueuedEvent {
        if event.is_last {
            lock(&self.open).remove(&event.id);
        }
        if self.inbox.take_paused() {
            self.command(Command::Wake);
        }
        event
    }

    /// Sends a command. An engine that has stopped needs none.
    fn command(&self, command: Command) {
        let _ = self.engine.inner.commands.send(command);
    }
}

impl Drop for EventQueue {
    fn drop(&mut self) {
        let open: Vec<RequestKey> = lock(&self.open).drain().map(|(_, key)| key).collect();
        if !open.is_empty() {
            self.command(Command::Cancel(open));
        }
    }
}

impl std::fmt::Debug for EventQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventQueue").field("n_open", &self.n_open()).finish_non_exhaustive()
    }
}
