//! The engine one step ahead of an asynchronous device.

use super::schedules::{Bench, every_schedule, n_wrong, simple};
use super::toy::Toy;
use crate::config::EngineConfig;
use crate::error::RequestError;
use crate::event::Event;
use crate::request::Request;
use std::sync::{Arc, Mutex};

/// Every schedule yields the same tokens with the engine a step ahead wherever it may be.
#[test]
fn every_schedule_yields_the_same_a_step_late() {
    let calls = Arc::new(Mutex::new(String::new()));
    every_schedule(|toy| {
        toy.is_asynchronous = true;
        toy.calls = Arc::clone(&calls);
    });
    let calls = calls.lock().unwrap();
    let n_async = calls.matches("fat").count();
    println!(
        "{n_async} of {} forwards were enqueued before the host had the tokens that they read",
        calls.matches('f').count()
    );
    assert!(n_async > 3000);
}

/// The comparison must be able to fail: placeholders that stand for the wrong token are noticed.
#[test]
fn mixed_names_are_noticed() {
    let alter = |toy: &mut Toy| (toy.is_asynchronous, toy.mixes_placeholders) = (true, true);
    assert!(n_wrong(alter) > 20);
}

/// The engine enqueues the next forward before it reads the tokens that this forward sampled. It
/// knows without reading them that a sequence has reached its last token, and computes nothing
/// after that token.
#[test]
fn an_asynchronous_device_is_asked_for_a_step_before_the_last_one_is_looked_at() {
    let calls_of = |is_asynchronous: bool, alter: fn(Request) -> Request| {
        let toy = Toy::new(64, 4, 64).asynchronous(is_asynchronous);
        let calls = Arc::clone(&toy.calls);
        let mut bench = Bench::new(toy, &EngineConfig::default());
        bench.submit(simple(5, 4, 1));
        bench.submit(alter(simple(9, 4, 2)));
        bench.run_to_the_end();
        bench.verdict().unwrap();
        calls.lock().unwrap().clone()
    };
    assert_eq!(calls_of(true, |request| request), "fafatfatfatt");
    assert_eq!(calls_of(false, |request| request), "fsfsfsfs");
    // Log-probabilities come with their token, so the engine cannot run ahead.
    assert_eq!(calls_of(true, |r| r.logprobs(1)), "fsfsfsfs");
    // The request with two sequences ends after one step: then the engine runs ahead for the rest.
    assert_eq!(calls_of(true, |r| r.n(2).max_tokens(1)), "fsfafatfatt");
}

/// A sequence that waits only for its last token keeps no other sequence from running.
#[test]
fn a_sequence_that_has_its_last_token_gives_its_place_and_its_blocks_to_others() {
    let toy = Toy::new(2, 4, 64).asynchronous(true);
    let calls = Arc::clone(&toy.calls);
    let config = EngineConfig { max_num_seqs: 1, ..EngineConfig::default() };
    let mut bench = Bench::new(toy, &config);
    (0..3).for_each(|seed| bench.submit(simple(7, 1, seed)));
    bench.step();
    assert_eq!((bench.core.stats().running, bench.core.stats().kv_blocks_used), (1, 0));
    bench.run_to_the_end();
    assert_eq!(bench.verdict().unwrap().preemptions, 0);
    assert_eq!(*calls.lock().unwrap(), "fafatfatt");
}

/// A request that has got its last token before the device failed has ended well.
#[test]
fn a_device_that_fails_takes_nothing_back() {
    let toy = Toy::new(64, 4, 64).asynchronous(true);
    let mut bench = Bench::new(toy, &EngineConfig::default());
    bench.submit(simple(5, 1, 1));
    bench.submit(simple(9, 8, 2));
    bench.step();
    bench.step();
    let reason = "the device is gone".to_owned();
    bench.core.fail_all(&RequestError::Stopped { reason });
    let last = |at: usize| bench.requests[at].1.try_iter().last();
    assert!(matches!(last(0), Some(Event::Finished { .. })));
    assert!(matches!(last(1), Some(Event::Error(_))));
}

/// A request is cancelled while a token is pending: the token is neither sent nor counted.
#[test]
fn what_nobody_has_looked_at_was_not_generated() {
    let toy = Toy::new(64, 4, 64).asynchronous(true);
    let mut bench = Bench::new(toy, &EngineConfig::default());
    bench.submit(simple(5, 30, 1));
    (0..4).for_each(|_| bench.step());
    bench.cancel(0);
    let events: Vec<Event> = bench.requests[0].1.try_iter().collect();
    let Some(Event::Finished { usage, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!((events.len(), usage.generated_tokens), (4, 3));
    // The next request finds no trace of the pending token.
    bench.submit(simple(6, 9, 2));
    bench.requests.remove(0);
    bench.run_to_the_end();
    bench.verdict().unwrap();
}
