//! A soak: random requests, with random drafters, on random engines, each compared bit for bit with itself run alone
//! and plain.
//!
//! What is random is in [`dimensions`]; a feature that picks tokens joins there. A workload follows from the seed and its
//! number, so a difference can be run again by itself. Where requests come in bursts, or are given up, the clock has a
//! part in the schedule, and it may take several runs.

pub mod alone;
pub mod controls;
pub mod dimensions;
pub mod drive;
pub mod prompts;
pub mod random;
pub mod report;
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

/// What a soak is asked for.
pub struct Soak {
    /// Where all random choices come from.
    pub seed: u64,
    /// The models; tiny ones, and then a real one where there is one.
    pub targets: Vec<Target>,
    /// The only workload to run, again and again; None runs one after the other.
    pub only: Option<u64>,
    /// A fault to be found.
    pub control: Option<Control>,
}

/// One of so many workloads runs a real model: it takes as long as some fifty on tiny ones.
const REAL_ONE_IN: usize = 40;

impl Soak {
    /// Runs until `is_enough`, which is asked after every workload, or until something is stuck.
    pub fn run(&self, mut is_enough: impl FnMut(&Report) -> bool) -> Report {
        let begin = Instant::now();
        let mut report = Report { seed: self.seed, ..Report::default() };
        let mut alone = Alone::default();
        let faults = Faults::new(self.control);
        loop {
            let number = self.only.unwrap_or(report.n_workloads);
            self.run_one(number, &mut alone, &faults, &mut report);
            report.n_workloads += 1;
            report.elapsed = begin.elapsed();
            if report.is_stuck || is_enough(&report) {
                return report;
            }
        }
    }

    /// The workload `number`, and the model that it is for.
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
        if outcomes.iter().any(|outcome| outcome.trouble.is_some()) {
            for (job, outcome) in workload.jobs.iter().zip(&outcomes) {
                if let Some(trouble) = &outcome.trouble {
                    report.unfinished(&place(), &format!("{trouble}\n    {:?}", job.request));
                }
            }
            report.is_stuck = true;
            // It may never end: it is not waited for.
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
    }
}

/// Compares the sequences of a request with those of itself alone.
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

/// Checks of a request whose tokens nothing foretells that its sequences end as they should.
fn check_ends(job: &Job, outcome: &Outcome, place: &dyn Fn() -> String, report: &mut Report) {
    for stream in &outcome.streams {
        report.n_by_rejection += 1;
        if let Some(trouble) = trouble_of(stream, job, outcome.is_given_up) {
            report.unfinished(&place(), &format!("{trouble}\n    {:?}", job.request));
        }
    }
}

/// What is wrong with the end of a sequence whose tokens are not known.
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
