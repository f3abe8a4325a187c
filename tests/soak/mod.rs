//! A soak: random requests, with random drafters, on random engines, each compared bit for bit with
//! the same request run alone without drafts.
//!
//! [`dimensions`] makes all random choices; a feature that affects sampling joins there. A workload
//! follows from the seed and its number, so a difference can be reproduced with that workload
//! alone. If requests come in bursts or are given up, the schedule also depends on the clock, and
//! reproducing may take several runs.

pub mod alone;
pub mod controls;
pub mod dimensions;
pub mod drafters;
pub mod drive;
pub mod prompts;
pub mod random;
pub mod report;
pub mod resume;
pub mod stream;
pub mod target;

pub use controls::Control;
pub use dimensions::Workload;
pub use report::Report;
pub use target::Target;

use alone::Alone;
use controls::Faults;
use dimensions::{Job, is_plain};
use drive::{Outcome, follow, settle};
use galley_engine::{Engine, FinishReason};
use random::Random;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Instant;
use stream::Stream;

/// The settings of a soak.
pub struct Soak {
    /// Seed of all random choices.
    pub seed: u64,
    /// The models: tiny models, and a real one if it is given.
    pub targets: Vec<Target>,
    /// The only workload to run, repeatedly; None runs the workloads in order.
    pub only: Option<u64>,
    /// A fault that must be found.
    pub control: Option<Control>,
}

/// One of this many workloads runs the real model, because it takes as long as about fifty on tiny
/// models.
const REAL_ONE_IN: usize = 40;

impl Soak {
    /// Runs until `is_enough`, which is called after every workload, returns true, or until an
    /// engine is stuck.
    pub fn run(&self, mut is_enough: impl FnMut(&Report) -> bool) -> Report {
        let started = Instant::now();
        let mut report = Report { seed: self.seed, ..Report::default() };
        let mut alone = Alone::default();
        let faults = Faults::new(self.control);
        loop {
            let number = self.only.unwrap_or(report.n_workloads);
            self.run_one(number, &mut alone, &faults, &mut report);
            report.n_workloads += 1;
            report.elapsed = started.elapsed();
            if report.is_stuck || is_enough(&report) {
                return report;
            }
        }
    }

    /// The workload `number` and its model.
    pub fn draw(&self, number: u64) -> (&Target, Workload) {
        let mut random = Random::new(self.seed, number);
        let (tiny, real): (Vec<_>, Vec<_>) = self.targets.iter().partition(|target| target.is_tiny);
        let is_real = tiny.is_empty() || random.one_in(REAL_ONE_IN) && !real.is_empty();
        let target = random.of(if is_real { &real } else { &tiny });
        (target, Workload::draw(&mut random, target, &self.targets))
    }

    fn run_one(&self, number: u64, alone: &mut Alone, faults: &Faults, report: &mut Report) {
        let (target, workload) = self.draw(number);
        let place = || format!("workload {number} on {}, {workload}", target.name);
        let model = target.load(workload.arithmetic, workload.n_threads, workload.load);
        let engine = Engine::start_with_drafters(
            faults.put_into(model),
            Some(Arc::clone(&target.tokenizer)),
            workload.engine.clone(),
            &workload.drafting(),
        );
        let engine = match engine {
            Ok(engine) => engine,
            Err(error) => return report.unfinished(&place(), &format!("no engine: {error}")),
        };
        let outcomes = follow(&engine, &workload.jobs);
        let again = resume::resumed(&workload.jobs, &outcomes);
        let resumed: Vec<Job> = again.iter().map(|resumed| resumed.job.clone()).collect();
        let ends = match has_trouble(&workload.jobs, &outcomes, &place, report) {
            true => Vec::new(),
            false => follow(&engine, &resumed),
        };
        if report.is_stuck || has_trouble(&resumed, &ends, &place, report) {
            // The engine may never end, so its thread is not joined.
            let _ = ManuallyDrop::new(engine);
            return;
        }
        let (n_blocks, n_sequences) = settle(&engine);
        report.add_stats(&engine.stats());
        if n_sequences > 0 {
            report.unfinished(&place(), &format!("{n_sequences} sequences are left over"));
        }
        if n_blocks > 0 {
            report.leaked(&place(), n_blocks);
        }
        let most = engine.max_tokens_of_sequence();
        engine.shutdown();
        let runs_alone = alone.engine(target, workload.arithmetic);
        for (at, (job, outcome)) in workload.jobs.iter().zip(&outcomes).enumerate() {
            let place = || format!("{}, request {at}", place());
            if !is_plain(&job.request, &workload) {
                check_ends(job, outcome, &place, report);
                continue;
            }
            let n_prompt = prompts::n_tokens(&job.request.prompt, target);
            let expected = alone::run(runs_alone, &job.request, most, n_prompt);
            compare(job, outcome, &expected, &place, report);
        }
        for (resumed, outcome) in again.iter().zip(&ends) {
            let place = || format!("{}, request {} resumed", place(), resumed.at);
            report.n_resumed += 1;
            compare(&resumed.job, outcome, &[resumed.expected()], &place, report);
        }
    }
}

/// Reports requests that did not end. The engine then counts as stuck.
fn has_trouble(
    jobs: &[Job],
    outcomes: &[Outcome],
    place: &dyn Fn() -> String,
    report: &mut Report,
) -> bool {
    for (job, outcome) in jobs.iter().zip(outcomes) {
        if let Some(trouble) = &outcome.trouble {
            report.unfinished(&place(), &format!("{trouble}\n    {:?}", job.request));
            report.is_stuck = true;
        }
    }
    report.is_stuck
}

/// Compares the sequences of a request with its sequences when it runs alone.
fn compare(
    job: &Job,
    outcome: &Outcome,
    expected: &[Stream],
    place: &dyn Fn() -> String,
    report: &mut Report,
) {
    for (index, (got, expected)) in outcome.streams.iter().zip(expected).enumerate() {
        report.n_comparisons += 1;
        report.n_tokens += got.tokens.len() as u64;
        if let Some(difference) = got.difference(expected, outcome.is_given_up) {
            let request = &job.request;
            report.differs(&place(), &format!("sequence {index}: {difference}\n    {request:?}"));
        }
    }
}

/// Checks that the sequences of a request end as they should. Its tokens cannot be predicted.
fn check_ends(job: &Job, outcome: &Outcome, place: &dyn Fn() -> String, report: &mut Report) {
    for stream in &outcome.streams {
        report.n_by_rejection += 1;
        if let Some(trouble) = trouble_of(stream, job, outcome.is_given_up) {
            report.unfinished(&place(), &format!("{trouble}\n    {:?}", job.request));
        }
    }
}

/// The fault in the end of a sequence with unpredictable tokens.
fn trouble_of(stream: &Stream, job: &Job, is_given_up: bool) -> Option<String> {
    let most = job.request.max_tokens.map_or(usize::MAX, |n| n as usize);
    match &stream.finish {
        None | Some(FinishReason::Cancelled) if is_given_up => None,
        None | Some(FinishReason::Cancelled) => Some("it did not end by itself".to_owned()),
        Some(_) if stream.tokens.is_empty() || stream.tokens.len() > most => {
            Some(format!("{} tokens, and {most} at most", stream.tokens.len()))
        }
        Some(_) => None,
    }
}
