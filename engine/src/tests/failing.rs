//! Failing steps: a model that fails at one call, for every call of a run.

mod model;

use super::drafter::{Kind, Known, drafting};
use super::oracle::{expected, streams};
use super::schedules::{Bench, Random, is_prefix, plain, random_request, simple};
use super::toy::Toy;
use crate::config::{EngineConfig, SchedulePolicy};
use crate::draft_settings::DraftRequest;
use crate::drafting::Drafting;
use crate::error::RequestError;
use crate::event::Event;
use crate::request::Request;
use model::{Failing, How};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Wrong reactions of an engine to a failed step: the negative controls.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// It commits the failed step.
    Commits,
    /// It forgets a block table.
    Leaks,
}

/// A random workload.
struct Workload {
    toy: (usize, usize, usize),
    is_asynchronous: bool,
    kind: Option<Kind>,
    config: EngineConfig,
    /// Requests, each with the number of the step before which it is submitted.
    requests: Vec<(usize, Request)>,
}

impl Workload {
    fn new(seed: u32) -> Self {
        let mut random = Random::new(seed);
        let block_size = random.of(&[2, 4]);
        let n_blocks = random.of(&[40, 80, 200]) / block_size;
        let most = (n_blocks * block_size + 1).min(40);
        let is_asynchronous = random.one_in(2);
        let kind = random.of(&[None, Some(Kind::Right), Some(Kind::Wrong), Some(Kind::Mixed)]);
        let all_plain = is_asynchronous && random.one_in(2);
        let prefixes: Vec<_> = (0..2).map(|_| random.tokens(20)).collect();
        let n_requests = 4 + random.below(4);
        let requests = (0..n_requests).map(|_| {
            let request = random_request(&mut random, most, &prefixes);
            let mut request = if all_plain { plain(request) } else { request };
            request.max_tokens = request.max_tokens.map(|n| n.min(8));
            request.min_tokens = request.min_tokens.min(4).min(request.max_tokens.unwrap());
            request.drafting = DraftRequest {
                draft_length: Some(1 + random.below(5) as u32),
                ..DraftRequest::default()
            };
            (random.below(12), request)
        });
        let requests = requests.collect();
        Workload {
            toy: (n_blocks, block_size, 24),
            is_asynchronous,
            kind,
            config: EngineConfig {
                max_num_seqs: 3 + random.below(5),
                max_num_batched_tokens: 6 + random.below(18),
                prefix_caching: !random.one_in(4),
                policy: match random.below(2) {
                    0 => SchedulePolicy::Fixed,
                    _ => SchedulePolicy::Random { seed: seed.into() },
                },
                ..EngineConfig::default()
            },
            requests,
        }
    }

    /// Runs the workload on a device that fails at some calls, then runs all failed requests once
    /// more. Returns the number of calls, of requests that failed and of requests that did not.
    fn run(&self, at: Range<usize>, how: How, fault: Fault) -> Result<[usize; 3], String> {
        let (n_blocks, block_size, max_rows) = self.toy;
        let toy = Toy::new(n_blocks, block_size, max_rows).asynchronous(self.is_asynchronous);
        let model = Failing::new(toy, at, how);
        let n_calls = Arc::clone(&model.n_calls);
        let known = Known::default();
        let mut bench = Bench::drafting(Box::new(model), &self.config, |sizes| match self.kind {
            None => Drafting::default(),
            Some(kind) => drafting(kind, &known, sizes),
        });
        let mut open = self.requests.clone();
        for n_steps in 0.. {
            for (_, request) in open.extract_if(.., |(step, _)| *step <= n_steps) {
                bench.submit(request);
            }
            if bench.core.is_idle() && open.is_empty() {
                break;
            }
            if n_steps > 5000 {
                return Err("no end".into());
            }
            step(&mut bench, fault)?;
        }
        if !known.lock().unwrap().sequences.is_empty() {
            return Err(format!("the drafter was not told of the end of {known:?}"));
        }
        let n_calls = n_calls.load(Ordering::Relaxed);
        let failed = check(&bench)?;
        let n_well = bench.requests.len() - failed.len();
        // The failed requests run again, on the state that the engine has kept.
        bench.requests.clear();
        for request in &failed {
            bench.submit(request.clone());
        }
        while !bench.core.is_idle() {
            step(&mut bench, Fault::None)?;
        }
        bench.verdict()?;
        Ok([n_calls, failed.len(), n_well])
    }
}

/// One step, and the engine's reaction to a failure, with `fault` in it.
fn step(bench: &mut Bench, fault: Fault) -> Result<(), String> {
    if bench.core.is_idle() {
        return Ok(());
    }
    if let Err(error) = bench.core.try_step() {
        match fault {
            Fault::None => {}
            Fault::Commits => bench.core.commit_step(),
            Fault::Leaks => bench.core.leak(),
        }
        bench.core.end_failed_step(error).map_err(|error| error.to_string())?;
    }
    bench.core.check()
}

/// Checks that every request yields its expected output or fails with a reason. Returns the failed
/// requests.
fn check(bench: &Bench) -> Result<Vec<Request>, String> {
    let mut failed = Vec::new();
    for (at, (request, events, _)) in bench.requests.iter().enumerate() {
        let mut events: Vec<Event> = events.try_iter().collect();
        if let Some(Event::Error(error)) = events.last() {
            let says_why = ["it was told to", "other tokens came"];
            let message = error.to_string();
            if !says_why.iter().any(|why| message.contains(why)) {
                return Err(format!("request {at} does not say why: {message}"));
            }
            events.pop();
            failed.push(request.clone());
        }
        let has_failed = failed.last() == Some(request);
        for (got, index) in streams(request.n, events).iter().zip(0..) {
            let expected = expected(request, index);
            let may_be_part = has_failed && got.finish.is_none();
            let same = *got == expected || may_be_part && is_prefix(got, &expected);
            if !same {
                return Err(format!("request {at}.{index}: {got:?} is not {expected:?}"));
            }
        }
    }
    Ok(failed)
}

const SEEDS: Range<u32> = 0..16;

/// Whichever call fails, and however: the requests in the step end with an error that gives the
/// reason. All other requests yield their expected output. Every block is accounted for, drafters
/// are told of every end, and the failed requests run well afterwards.
#[test]
fn case_20_a_step_that_fails_ends_its_requests_and_no_other() {
    let (mut n_runs, mut n_failed, mut n_well) = (0, 0, 0);
    for seed in SEEDS {
        let workload = Workload::new(seed);
        let undisturbed = workload.run(0..0, How::Refuses, Fault::None);
        let [n_calls, none, _] = undisturbed.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        assert_eq!(none, 0, "seed {seed}: nothing failed");
        let hows = [How::Refuses, How::DoesWrong, How::SaysSoLater];
        for how in hows.into_iter().take(2 + usize::from(workload.is_asynchronous)) {
            for k in 0..n_calls {
                let run = workload.run(k..k + 1, how, Fault::None);
                let [_, failed, well] =
                    run.unwrap_or_else(|wrong| panic!("seed {seed}, call {k} {how:?}: {wrong}"));
                n_runs += 1;
                n_failed += failed;
                n_well += well;
            }
        }
    }
    println!("{n_runs} runs: {n_failed} requests failed, {n_well} did not");
    assert!(n_runs > 2000 && n_failed > n_runs && n_well > n_runs);
}

/// Several steps in a row fail; the engine goes on as before.
#[test]
fn steps_that_fail_one_after_the_other_end_their_requests() {
    for seed in SEEDS {
        let workload = Workload::new(seed);
        for k in 0..30 {
            for n in [2, 3, 5] {
                let run = workload.run(k..k + n, How::Refuses, Fault::None);
                run.unwrap_or_else(|wrong| panic!("seed {seed}, calls {k} and {n}: {wrong}"));
            }
        }
    }
}

/// The negative controls: an engine that commits a failed step, or forgets its blocks, is noticed.
#[test]
fn a_failed_step_that_is_not_cleared_away_is_noticed() {
    for (fault, least) in [(Fault::Commits, 20), (Fault::Leaks, 100)] {
        let mut n_noticed = 0;
        for seed in SEEDS {
            let workload = Workload::new(seed);
            for k in 0..40 {
                let run = || workload.run(k..k + 1, How::Refuses, fault);
                let run = catch_unwind(AssertUnwindSafe(run));
                n_noticed += usize::from(run.map_or(true, |run| run.is_err()));
            }
        }
        println!("{fault:?}: noticed in {n_noticed} runs");
        assert!(n_noticed >= least, "{fault:?}: noticed in {n_noticed} runs");
    }
}

/// A device fails at every call from some call on: every request ends with the error, and after
/// eight failed steps the engine says that the device is gone.
#[test]
fn a_device_that_is_gone_ends_the_engine() {
    for is_asynchronous in [false, true] {
        for how in [How::Refuses, How::DoesWrong, How::SaysSoLater] {
            let toy = Toy::new(64, 4, 64).asynchronous(is_asynchronous);
            let model = Failing::new(toy, 9..usize::MAX, how);
            let config = EngineConfig { max_num_seqs: 2, ..EngineConfig::default() };
            let mut bench = Bench::drafting(Box::new(model), &config, |_| Drafting::default());
            (0..100).for_each(|seed| bench.submit(simple(5, 20, seed)));
            let mut n_steps = 0;
            let error = loop {
                n_steps += 1;
                assert!(n_steps < 100, "{how:?}");
                if let Err(error) = bench.core.step() {
                    break error;
                }
                bench.core.check().unwrap();
            };
            bench.core.fail_all(&RequestError::Stopped { reason: error.to_string() });
            bench.core.check().unwrap();
            assert!(bench.core.is_idle());
            assert_eq!(bench.core.stats().failed_steps, 8, "{how:?}");
            for (_, events, _) in &bench.requests {
                let last = events.try_iter().last();
                let Some(Event::Error(error)) = last else { panic!("{how:?}: {last:?}") };
                assert!(error.to_string().contains("it was told to"), "{error}");
            }
        }
    }
}

/// A request that fails its own step again and again does not end the engine while other requests
/// are served.
#[test]
fn failures_between_which_tokens_are_sampled_are_not_counted_together() {
    let toy = Toy::new(64, 4, 64);
    let model = Failing::new(toy, 0..1, How::Refuses);
    let n_calls = Arc::clone(&model.n_calls);
    let mut bench =
        Bench::drafting(Box::new(model), &EngineConfig::default(), |_| Drafting::default());
    for seed in 0..30 {
        n_calls.store(0, Ordering::Relaxed);
        bench.submit(simple(5, 4, seed));
        bench.core.step().expect("one step failed since a token was sampled");
        bench.submit(simple(6, 4, seed));
        bench.run_to_the_end();
    }
    assert_eq!(bench.core.stats().failed_steps, 30);
}
