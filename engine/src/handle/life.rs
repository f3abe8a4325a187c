//! The engine thread: takes commands, runs a step, and repeats until it is shut down.

use super::lock;
use super::published::Published;
use crate::admission_limit::WaitingPlace;
use crate::error::RequestError;
use crate::event::{Event, Submitted};
use crate::event_sink::EventSink;
use crate::request::ValidRequest;
use crate::step::EngineCore;
use crossbeam_channel::{Receiver, Sender};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A command to the engine thread.
pub(super) enum Command {
    Submit(Vec<Submission>),
    Cancel(Vec<RequestKey>),
    /// Has the engine look again at sequences that were paused because their events were not read.
    Wake,
    /// Asks for a message when no request is left.
    Drain(Sender<()>),
    Shutdown,
}

impl Command {
    /// Number of requests in the command.
    fn n_requests(&self) -> usize {
        match self {
            Command::Submit(submissions) => submissions.len(),
            Command::Cancel(requests) => requests.len(),
            Command::Wake | Command::Drain(_) | Command::Shutdown => 1,
        }
    }
}

/// Most requests that are added or cancelled between two steps, unless one command brings more.
/// That many take a few milliseconds, so running sequences get tokens while tens of thousands of
/// commands arrive.
const REQUESTS_BETWEEN_STEPS: usize = 4096;

/// The place of a request in the order of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestKey {
    pub(super) priority: i32,
    pub(super) number: u64,
}

/// A request on its way to the engine thread.
pub(super) struct Submission {
    pub(super) key: RequestKey,
    pub(super) request: ValidRequest,
    pub(super) place: WaitingPlace,
    pub(super) events: EventSink,
    /// The event with which the request begins, for readers of a queue.
    pub(super) started: Option<Submitted>,
}

/// Runs the engine thread.
pub(super) fn run(mut core: EngineCore, commands: &Receiver<Command>, published: &Published) {
    let outcome = catch_unwind(AssertUnwindSafe(|| serve(&mut core, commands, published)));
    let reason = match outcome {
        Ok(Ok(())) => "it was shut down".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            format!("the engine thread panicked: {}", message.unwrap_or("no message"))
        }
    };
    *lock(&published.stopped) = Some(reason.clone());
    // Requests submitted in the meantime end with the same error.
    for command in commands.try_iter() {
        if let Command::Submit(submissions) = command {
            add(&mut core, submissions);
        }
    }
    core.fail_all(&RequestError::Stopped { reason });
    published.publish(core.stats());
    published.close();
}

/// Runs steps while there is work and waits while there is none, until shutdown.
fn serve(
    core: &mut EngineCore,
    commands: &Receiver<Command>,
    published: &Published,
) -> galley_model::Result<()> {
    let mut drains: Vec<Sender<()>> = Vec::new();
    loop {
        if core.is_empty() {
            for drained in drains.drain(..) {
                let _ = drained.send(()); // its caller may wait no longer
            }
        }
        let waited = if core.is_idle() { commands.recv().ok() } else { None };
        if core.is_idle() && waited.is_none() {
            return Ok(()); // no handle is left
        }
        let mut room = REQUESTS_BETWEEN_STEPS;
        let mut next = waited.or_else(|| commands.try_recv().ok());
        while let Some(command) = next {
            room = room.saturating_sub(command.n_requests());
            match command {
                Command::Submit(submissions) => add(core, submissions),
                Command::Cancel(requests) => {
                    for RequestKey { priority, number } in requests {
                        core.cancel(priority, number);
                    }
                }
                Command::Wake => {}
                Command::Drain(drained) => drains.push(drained),
                Command::Shutdown => {
                    core.cancel_all();
                    return Ok(());
                }
            }
            next = if room > 0 { commands.try_recv().ok() } else { None };
        }
        if !core.is_idle() {
            core.step()?;
        }
        published.publish(core.stats());
    }
}

fn add(core: &mut EngineCore, submissions: Vec<Submission>) {
    for Submission { key, request, place, events, started } in submissions {
        if let Some(started) = started {
            events.send(Event::Started(started), false);
        }
        core.add(request, key.number, events, Some(place));
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Command::Submit(_) => "Submit",
            Command::Cancel(_) => "Cancel",
            Command::Wake => "Wake",
            Command::Drain(_) => "Drain",
            Command::Shutdown => "Shutdown",
        })
    }
}
