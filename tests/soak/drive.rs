//! Submits requests over time and collects their outcomes.

use super::dimensions::{End, Job};
use super::stream::Stream;
use galley_engine::{Engine, Event, Request, RequestHandle, TokenEvent};
use std::time::{Duration, Instant};

/// An engine without an event for this long counts as stuck. The limit leaves room for a busy
/// machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// The outcome of a request.
#[derive(Debug)]
pub struct Outcome {
    /// Its sequences.
    pub streams: Vec<Stream>,
    /// Whether it was cancelled or dropped.
    pub is_given_up: bool,
    /// The reason why it did not end: a refusal, an error of the engine, or silence.
    pub trouble: Option<String>,
}

/// A submitted request.
struct Open {
    /// None once it has been dropped.
    handle: Option<RequestHandle>,
    end: End,
    outcome: Outcome,
}

impl Open {
    fn submit(engine: &Engine, jobs: &[Job]) -> Vec<Open> {
        let requests: Vec<Request> = jobs.iter().map(|job| job.request.clone()).collect();
        let (handles, refusal) = match engine.submit_all(requests) {
            Ok(handles) => (handles.into_iter().map(Some).collect(), None),
            Err(error) => (vec![], Some(format!("refused: {error}"))),
        };
        let handles = handles.into_iter().chain(std::iter::repeat_with(|| None));
        let open = |(job, handle): (&Job, Option<RequestHandle>)| {
            let mut streams = vec![Stream::default(); job.request.n as usize];
            if let Some(handle) = handle.as_ref().filter(|_| !job.request.generated.is_empty()) {
                streams[0].tokens.clone_from(&job.request.generated);
                streams[0].text.clone_from(&handle.submitted().resumed_text);
            }
            let outcome = Outcome { streams, is_given_up: false, trouble: refusal.clone() };
            let mut open = Open { handle, end: job.end, outcome };
            open.give_up_in_time();
            open
        };
        jobs.iter().zip(handles).map(open).collect()
    }

    /// Takes all available events. Returns their number.
    fn take_events(&mut self) -> usize {
        let mut n_events = 0;
        while let Some(event) = self.handle.as_mut().and_then(RequestHandle::try_recv) {
            n_events += 1;
            match event {
                Event::Token(TokenEvent { index, .. }) | Event::Finished { index, .. } => {
                    self.outcome.streams[index as usize].push(event);
                }
                Event::Error(error) => self.outcome.trouble = Some(error.to_string()),
                _ => {}
            }
            self.give_up_in_time();
        }
        n_events
    }

    fn give_up_in_time(&mut self) {
        let n_tokens: usize = self.outcome.streams.iter().map(|stream| stream.tokens.len()).sum();
        let Some(handle) = self.handle.as_ref().filter(|handle| !handle.is_over()) else { return };
        match self.end {
            End::Cancelled(after) if n_tokens >= after && !self.outcome.is_given_up => {
                handle.cancel();
                self.outcome.is_given_up = true;
            }
            End::Dropped(after) if n_tokens >= after => {
                self.handle = None;
                self.outcome.is_given_up = true;
            }
            _ => {}
        }
    }

    fn is_over(&self) -> bool {
        self.handle.as_ref().is_none_or(RequestHandle::is_over)
    }
}

/// Submits `jobs` over time and follows them to their ends. A job that waits for events of earlier
/// jobs is submitted at the latest when no earlier job can produce more events.
pub fn follow(engine: &Engine, jobs: &[Job]) -> Vec<Outcome> {
    let (mut open, mut n_events, mut heard) = (Vec::new(), 0, Instant::now());
    loop {
        let n_new: usize = open.iter_mut().map(Open::take_events).sum();
        n_events += n_new;
        let is_idle = open.iter().all(Open::is_over);
        let waiting = &jobs[open.len()..];
        let n_come = waiting.iter().take_while(|job| job.after_events <= n_events).count();
        let n_come = n_come.max(usize::from(is_idle)).min(waiting.len());
        match n_come {
            0 if is_idle => break,
            0 => {}
            n => open.extend(Open::submit(engine, &waiting[..n])),
        }
        if n_new + n_come > 0 {
            heard = Instant::now();
        } else if heard.elapsed() > PATIENCE {
            let silence = format!("no event for {} s", PATIENCE.as_secs());
            let unfinished = open.iter_mut().filter(|open| !open.is_over());
            unfinished.for_each(|open| open.outcome.trouble = Some(silence.clone()));
            break;
        } else {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    open.into_iter().map(|open| open.outcome).collect()
}

/// Waits until the engine's statistics show that it is idle. Returns how many blocks it still
/// counts as used, and how many sequences as running or waiting.
pub fn settle(engine: &Engine) -> (usize, usize) {
    let started = Instant::now();
    loop {
        let stats = engine.stats();
        let left = (stats.kv_blocks_used, stats.running + stats.waiting);
        if left == (0, 0) || started.elapsed() > Duration::from_secs(10) {
            return left;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}
