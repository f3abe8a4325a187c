//! Cancelling tens of thousands of requests costs linear work, counted in sequences that the queues
//! look at.

use super::schedules::{Bench, simple};
use super::toy::Toy;
use crate::config::EngineConfig;
use crate::drafting::Drafting;
use crate::event::Event;
use crate::handle::Engine;
use crate::stop::FinishReason;
use std::time::{Duration, Instant};

fn few_at_once() -> EngineConfig {
    EngineConfig { max_num_seqs: 4, ..EngineConfig::default() }
}

/// Sequences touched while `n` waiting requests are cancelled, from the last to the first.
fn n_touched(n: usize, cancel: impl Fn(&mut Bench, usize)) -> u64 {
    let mut bench = Bench::new(Toy::new(64, 4, 64), &few_at_once());
    (0..n).for_each(|seed| bench.submit(simple(3, 2, seed as u64 % 7)));
    let before = bench.core.n_touched();
    (0..n).rev().for_each(|at| cancel(&mut bench, at));
    assert!(bench.core.is_idle());
    bench.core.n_touched() - before
}

#[test]
fn case_29_sixty_four_thousand_cancellations_are_linear() {
    let n = 64_000;
    let touched = n_touched(n, Bench::cancel);
    println!("{touched} sequences touched for {n} cancellations");
    assert!(touched <= 4 * n as u64, "{touched}");
}

/// The negative control: cancellations that look at every request are noticed.
#[test]
fn cancellations_that_look_at_all_requests_are_noticed() {
    let n = 500;
    let touched = n_touched(n, |bench, at| {
        bench.core.touch_all();
        bench.cancel(at);
    });
    assert!(touched > 4 * n as u64, "{touched}");
}

/// A step looks at the head of the waiting queue alone, however long the queue is.
#[test]
fn a_step_costs_no_more_where_many_wait() {
    let touched_in_steps = |n_waiting: usize| {
        let mut bench = Bench::new(Toy::new(64, 4, 64), &few_at_once());
        (0..4).for_each(|seed| bench.submit(simple(3, 50, seed)));
        (0..n_waiting).for_each(|seed| bench.submit(simple(3, 50, seed as u64 % 7)));
        bench.step();
        let before = bench.core.n_touched();
        (0..40).for_each(|_| bench.step());
        bench.core.n_touched() - before
    };
    let (few, many) = (touched_in_steps(1), touched_in_steps(5000));
    assert_eq!(few, many);
    assert!(many <= 4 * 40, "{many}");
}

/// Requests of several sequences, of any priority, running, waiting or preempted, end just once.
#[test]
fn every_sequence_of_a_request_is_cancelled() {
    for n_steps in 0..12 {
        let mut bench = Bench::new(Toy::new(12, 4, 64), &few_at_once());
        for (seed, priority) in [0, -3, 7, 0, i32::MIN, i32::MAX].into_iter().enumerate() {
            bench.submit(simple(9, 12, seed as u64).n(1 + seed as u32 % 3).priority(priority));
        }
        (0..n_steps).for_each(|_| bench.step());
        for at in [3, 0, 5, 1, 2, 4, 4] {
            bench.cancel(at);
            bench.core.check().unwrap();
            assert!(!bench.core.open_requests().contains(&at));
        }
        bench.verdict().unwrap();
    }
}

/// Through the public API: a running sequence gets its tokens while tens of thousands of requests
/// are dropped.
#[test]
fn case_29_a_running_sequence_goes_on_beside_sixty_four_thousand_that_are_dropped() {
    let toy = Toy::new(62_500, 16, 64);
    let sizes = few_at_once().fit(&toy).unwrap();
    let thread = std::thread::Builder::new();
    let engine =
        Engine::start_with(Box::new(toy), None, sizes, Drafting::default(), thread).unwrap();
    let mut running = engine.submit(simple(3, 900_000, 1).priority(-1)).unwrap();
    let first = running.recv();
    assert!(matches!(first, Some(Event::Token(_))));
    let many = engine.submit_all((0..64_000).map(|i| simple(3, 20, i))).unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while engine.stats().requests < 64_001 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
    let steps_before = engine.stats().steps;
    drop(many);
    while engine.stats().finished < 64_000 {
        assert!(Instant::now() < deadline, "{:?}", engine.stats());
        std::thread::sleep(Duration::from_millis(1));
    }
    // At least one step runs between two groups of commands that are handled together.
    let n_steps = engine.stats().steps - steps_before;
    println!("{n_steps} steps while 64,000 requests were cancelled");
    assert!(n_steps >= 15, "{n_steps}");
    running.cancel();
    let last = running.events().last();
    assert!(
        matches!(last, Some(Event::Finished { reason: FinishReason::Cancelled, .. })),
        "{last:?}"
    );
}
