//! The handle of one request.

use super::life::{Command, RequestKey};
use crate::error::RequestError;
use crate::event::{Event, Submitted};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::Duration;

/// A submitted request: an iterator over its events. Dropping it cancels its remaining sequences.
#[derive(Debug)]
#[must_use = "dropping it cancels the request"]
pub struct RequestHandle {
    pub(super) key: RequestKey,
    pub(super) submitted: Submitted,
    /// Sequences that have not ended.
    pub(super) n_open: u32,
    pub(super) events: Receiver<Event>,
    pub(super) commands: Sender<Command>,
}

impl RequestHandle {
    /// The facts with which another request can continue this one's output.
    pub fn submitted(&self) -> &Submitted {
        &self.submitted
    }

    /// The request's number, unique within the engine.
    pub fn id(&self) -> u64 {
        self.submitted.id
    }

    /// The seed: the request's own, or the seed that was drawn for it.
    pub fn seed(&self) -> u64 {
        self.submitted.seed
    }

    /// Number of prompt tokens.
    pub fn n_prompt_tokens(&self) -> usize {
        self.submitted.prompt_tokens.len()
    }

    /// Waits for the next event. None when the request is over.
    pub fn recv(&mut self) -> Option<Event> {
        if self.is_over() {
            return None;
        }
        let event = self.events.recv().unwrap_or_else(|_| engine_is_gone());
        Some(self.note(event))
    }

    /// The next event, if there is one now.
    pub fn try_recv(&mut self) -> Option<Event> {
        if self.is_over() {
            return None;
        }
        let event = match self.events.try_recv() {
            Ok(event) => event,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => engine_is_gone(),
        };
        Some(self.note(event))
    }

    /// The next event, if it comes within `timeout`.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<Event> {
        if self.is_over() {
            return None;
        }
        let event = match self.events.recv_timeout(timeout) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => engine_is_gone(),
        };
        Some(self.note(event))
    }

    /// Whether all sequences of the request have ended.
    pub fn is_over(&self) -> bool {
        self.n_open == 0
    }

    /// Ends the request's remaining sequences. [`crate::FinishReason::Cancelled`] follows for each of them.
    pub fn cancel(&self) {
        let _ = self.commands.send(Command::Cancel(vec![self.key]));
    }

    fn note(&mut self, event: Event) -> Event {
        match &event {
            Event::Started(_) | Event::Token(_) => {}
            Event::Finished { .. } => self.n_open -= 1,
            Event::Error(_) => self.n_open = 0,
        }
        event
    }
}

fn engine_is_gone() -> Event {
    Event::Error(RequestError::Stopped { reason: "the engine has stopped".into() })
}

impl Drop for RequestHandle {
    fn drop(&mut self) {
        if !self.is_over() {
            self.cancel();
        }
    }
}
