//! The engine through its public API: threads, channels and errors.

use super::letters::Letters;
use super::oracle::{expected, streams};
use super::schedules::Random;
use super::toy::{Break, Toy, VOCAB};
use crate::config::EngineConfig;
use crate::drafting::Drafting;
use crate::error::{StartError, SubmitError};
use crate::event::Event;
use crate::handle::Engine;
use crate::output::TextCodec;
use crate::request::{Prompt, Request};
use crate::stop::FinishReason;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) fn engine(toy: Toy) -> Engine {
    engine_with(EngineConfig::default(), toy)
}

pub(super) fn engine_with(config: EngineConfig, toy: Toy) -> Engine {
    start(config, toy, Some(Arc::new(Letters)), std::thread::Builder::new()).unwrap()
}

fn start(
    config: EngineConfig,
    toy: Toy,
    codec: Option<Arc<dyn TextCodec>>,
    thread: std::thread::Builder,
) -> Result<Engine, StartError> {
    let sizes = config.fit(&toy)?;
    Engine::start_with(Box::new(toy), codec, sizes, Drafting::default(), thread)
}

fn request(n_prompt: usize, max_tokens: u32) -> Request {
    Request::new(Prompt::Tokens(Random::new(9).tokens(n_prompt)))
        .max_tokens(max_tokens)
        .seed(n_prompt as u64)
        .ignore_eos(true)
}

#[test]
fn many_threads_submit_and_all_get_theirs() {
    let engine = engine(Toy::new(40, 4, 64));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let engine = engine.clone();
            scope.spawn(move || {
                for i in 0..5 {
                    let request = request(10 + 7 * thread, 20 + i).n(1 + i % 3);
                    let events = engine.submit(request.clone()).unwrap();
                    for (got, index) in streams(request.n, events.events()).iter().zip(0..) {
                        assert_eq!(*got, expected(&request, index));
                    }
                }
            });
        }
    });
    engine.shutdown(); // statistics are published after the last token is sent
    let stats = engine.stats();
    assert_eq!((stats.requests, stats.running, stats.waiting), (20, 0, 0));
}

#[test]
fn requests_that_come_together_run_together() {
    let engine = engine(Toy::new(40, 4, 64));
    let handles = engine.submit_all((1..=8).map(|n| request(n, 1))).unwrap();
    for (handle, n) in handles.into_iter().zip(1..) {
        assert_eq!(streams(1, handle.events()), [expected(&request(n, 1), 0)]);
    }
    // A group of requests is all or nothing: one invalid request refuses the group.
    let bad = request(2, 1).temperature(-1.0);
    assert!(engine.submit_all([request(1, 1), bad]).is_err());
    engine.shutdown();
    let stats = engine.stats();
    assert_eq!((stats.requests, stats.steps, stats.generated_tokens), (8, 1, 8));
}

#[test]
fn a_watch_hears_of_every_turn() {
    let engine = engine(Toy::new(40, 4, 64));
    let watch = engine.watch();
    for (n, n_tokens) in [(1, 7), (2, 9)] {
        let mut handles = engine.submit_all((0..n).map(|_| request(5, n_tokens))).unwrap();
        for handle in &mut handles {
            while handle.recv().is_some() {}
        }
    }
    let last = engine.clone();
    drop(engine);
    last.shutdown();
    let turns: Vec<_> = watch.collect();
    let steps: Vec<u64> = turns.iter().map(|stats| stats.steps).filter(|&n| n > 0).collect();
    let n_steps = last.stats().steps;
    let missing = (1..=n_steps).find(|n| !steps.contains(n));
    assert_eq!(missing, None, "of {n_steps} steps: {steps:?}");
    let kept = |n: usize| turns.iter().filter(|stats| stats.last_step.n_seqs == n).count();
    assert!(kept(1) >= 7 && kept(2) >= 9, "{steps:?}");
    assert_eq!(turns.last().map(|stats| stats.finished), Some(3), "the last turn is heard of");
}

#[test]
fn texts_are_tokenised_and_seeds_drawn() {
    let engine = engine(Toy::new(40, 4, 64));
    let ask = |seed| Request { seed, ..Request::new("hello").max_tokens(12) };
    let first = engine.submit(ask(None)).unwrap();
    let draft_model = engine.submit(ask(None)).unwrap();
    assert_ne!(first.seed(), draft_model.seed());
    assert_eq!(first.n_prompt_tokens(), 5);
    let again = engine.submit(ask(Some(first.seed()))).unwrap();
    assert_eq!(streams(1, first.events()), streams(1, again.events()));
    assert!(matches!(
        engine.submit(Request::new(Prompt::Text("HELLO".into()))),
        Err(SubmitError::Invalid { field: "prompt", .. })
    ));
}

#[test]
fn a_cancelled_request_ends_and_frees_its_blocks() {
    let engine = engine(Toy::new(5000, 4, 64));
    let mut cancelled = engine.submit(request(10, 5000).n(2)).unwrap();
    let dropped = engine.submit(request(10, 5000)).unwrap();
    let first = cancelled.recv();
    assert!(matches!(first, Some(Event::Token(_))));
    cancelled.cancel();
    for stream in streams(2, first.into_iter().chain(std::iter::from_fn(|| cancelled.recv()))) {
        assert_eq!(stream.finish, Some(FinishReason::Cancelled));
    }
    assert_eq!((cancelled.recv(), cancelled.try_recv()), (None, None));
    drop(dropped);
    let deadline = Instant::now() + Duration::from_secs(20);
    while engine.stats().kv_blocks_used > 0 || engine.stats().finished < 3 {
        assert!(Instant::now() < deadline, "{:?}", engine.stats());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(engine.stats().generated_tokens < 5000, "the dropped one ran to its end");
}

#[test]
fn a_broken_device_ends_every_request_with_an_error() {
    for breaks in [Break::Error, Break::Panic] {
        let mut toy = Toy::new(12, 4, 64);
        toy.breaks = Some((5, breaks));
        let engine = engine(toy);
        let handles: Vec<_> =
            (0..6).filter_map(|i| engine.submit(request(8 + i, 30).n(2)).ok()).collect();
        for handle in handles {
            let events: Vec<Event> = handle.events().collect();
            let Some(Event::Error(error)) = events.last() else { panic!("{events:?}") };
            assert!(error.to_string().contains("the toy device is broken"), "{error}");
            assert_eq!(events.iter().filter(|e| matches!(e, Event::Error(_))).count(), 1);
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match engine.submit(request(3, 3)) {
                Err(SubmitError::Stopped(why)) => {
                    break assert!(why.contains("toy device"), "{why}");
                }
                Err(other) => panic!("{other}"),
                // The engine thread is about to end: it sends this request an error.
                Ok(handle) => assert!(matches!(handle.events().last(), Some(Event::Error(_)))),
            }
            assert!(Instant::now() < deadline);
        }
        engine.shutdown();
    }
}

#[test]
fn shutdown_ends_what_runs_and_refuses_what_comes() {
    let engine = engine(Toy::new(5000, 4, 64));
    let mut running = engine.submit(request(10, 5000)).unwrap();
    let first = running.recv_timeout(Duration::from_secs(20));
    assert!(first.is_some());
    engine.shutdown();
    engine.shutdown();
    let all = streams(1, first.into_iter().chain(std::iter::from_fn(|| running.recv())));
    assert_eq!(all[0].finish, Some(FinishReason::Cancelled));
    assert!(matches!(engine.submit(request(3, 3)), Err(SubmitError::Stopped(_))));

    // A request's handle does not keep an engine alive, and outlives it.
    let engine = self::engine(Toy::new(5000, 4, 64));
    let running = engine.submit(request(10, 5000)).unwrap();
    drop(engine);
    assert!(matches!(running.events().last(), Some(Event::Finished { .. } | Event::Error(_))));
}

#[test]
fn bad_requests_name_the_field() {
    // 10 blocks of 4 tokens: 40 slots, so a sequence has at most 41 tokens.
    let engine = engine(Toy::new(10, 4, 64));
    let ok = || Request::new(Prompt::Tokens(vec![1, 2, 3])).max_tokens(4);
    let cases: Vec<(&str, &str, Request)> = vec![
        ("prompt", "no tokens", ok().prompt(Prompt::Tokens(vec![]))),
        ("prompt", "token 40 is not", ok().prompt(Prompt::Tokens(vec![VOCAB as u32]))),
        ("prompt", "at most 40 do", ok().prompt(Prompt::Tokens(vec![1; 41]))),
        ("max_tokens", "KV cache of 40 tokens: 38 do", ok().max_tokens(39)),
        ("max_tokens", "at least 1", ok().max_tokens(0)),
        ("min_tokens", "5 is more", ok().min_tokens(5)),
        ("temperature", "-1 is not", ok().temperature(-1.0)),
        ("temperature", "NaN", ok().temperature(f32::NAN)),
        ("temperature", "inf", ok().temperature(f32::INFINITY)),
        ("top_p", "0 is not", ok().top_p(0.0)),
        ("top_p", "1.5", ok().top_p(1.5)),
        ("min_p", "NaN", ok().min_p(f32::NAN)),
        ("repetition_penalty", "0 is not", ok().repetition_penalty(0.0)),
        ("presence_penalty", "NaN", ok().presence_penalty(f32::NAN)),
        ("frequency_penalty", "1000", ok().frequency_penalty(1000.0)),
        ("logit_bias", "NaN", ok().logit_bias(vec![(1, f32::NAN)])),
        ("logit_bias", "token 99", ok().logit_bias(vec![(99, 1.0)])),
        ("logit_bias", "5000 entries", ok().logit_bias(vec![(1, 1.0); 5000])),
        ("n", "0 is not", ok().n(0)),
        ("n", "65 is not between 1 and 64", ok().n(65)),
        ("logprobs", "1000", ok().logprobs(1000)),
        ("stop", "empty", ok().stop(vec![String::new()])),
        ("stop", "65 entries", ok().stop(vec!["x"; 65])),
        ("stop", "2000 bytes", ok().stop(vec!["x".repeat(2000)])),
        ("stop_tokens", "token 41", ok().stop_tokens(vec![41])),
        ("stop_tokens", "entries", ok().stop_tokens(vec![1; 2000])),
    ];
    for (field, what, request) in cases {
        let error = engine.submit(request).map(drop).unwrap_err();
        let SubmitError::Invalid { field: got, reason } = &error else { panic!("{error}") };
        assert_eq!(*got, field, "{error}");
        assert!(reason.contains(what), "{error} does not say {what:?}");
    }
    assert!(engine.submit(ok()).is_ok());
    let all = engine.submit(Request { max_tokens: None, ..ok().ignore_eos(true) }).unwrap();
    assert_eq!(streams(1, all.events())[0].sampled.len(), 38, "as many as fit");

    let short = self::engine(Toy::new(10, 4, 64).with_context(20));
    let error = short.submit(ok().max_tokens(18)).map(drop).unwrap_err();
    assert!(error.to_string().contains("context of 20 tokens: 17 do"), "{error}");

    let config = EngineConfig::default();
    let mute = start(config, Toy::new(10, 4, 64), None, std::thread::Builder::new()).unwrap();
    for request in [ok().prompt(Prompt::Text("a".into())), ok().stop(vec!["a"])] {
        let error = mute.submit(request).map(drop).unwrap_err();
        assert!(error.to_string().contains("no tokenizer"), "{error}");
    }
}

/// Sizes that allow no step, and a thread that cannot be started, give errors that name the cause.
#[test]
fn case_25_odd_sizes_and_a_thread_that_does_not_start_are_errors() {
    let codec = || Some(Arc::new(Letters) as Arc<dyn TextCodec>);
    for (toy, named) in [
        (Toy::new(10, 4, 64).with_shape(10, 0), "block_size = 0"),
        (Toy::new(10, 4, 64).with_shape(0, 4), "n_blocks = 0"),
        (Toy::new(10, 4, 0), "max_rows = 0"),
        (Toy::new(10, 4, 64).with_logit_rows(0), "max_logit_rows = 0"),
        (Toy::new(10, 4, 64).with_shape(usize::MAX, 4), "n_blocks = 18446744073709551615"),
        (Toy::new(10, 4, 64).with_shape(10, usize::MAX), "block_size = 18446744073709551615"),
    ] {
        let error = Engine::start(Box::new(toy), None, EngineConfig::default()).err();
        let error = error.expect(named).to_string();
        assert!(error.contains(named), "{error} does not say {named}");
    }
    // No machine has memory for a stack of this size.
    let thread = std::thread::Builder::new().stack_size(1 << 56);
    let error = start(EngineConfig::default(), Toy::new(10, 4, 64), codec(), thread).err();
    assert!(matches!(error, Some(StartError::Thread(_))), "{error:?}");
    assert!(error.is_some_and(|error| error.to_string().contains("thread cannot be started")));
    for (max_num_seqs, max_num_batched_tokens) in [(0, 0), (usize::MAX, usize::MAX), (1, 0)] {
        let config =
            EngineConfig { max_num_seqs, max_num_batched_tokens, ..EngineConfig::default() };
        let engine = Engine::start(Box::new(Toy::new(10, 4, 64)), None, config).unwrap();
        let handle = engine.submit(request(5, 5)).unwrap();
        assert_eq!(streams(1, handle.events())[0].sampled.len(), 5);
        let error = engine.submit(request(5, 5).n(u32::MAX)).map(drop).unwrap_err();
        assert!(error.to_string().contains("max_num_seqs"), "{error}");
    }
}

/// Through the public API: requests of a failed step get an error with the reason, and the engine
/// serves the next request.
#[test]
fn case_20_an_engine_outlives_a_step_that_fails() {
    let mut toy = Toy::new(40, 4, 64);
    toy.breaks = Some((5, Break::Once));
    let engine = engine(toy);
    let handles = engine.submit_all((0..3).map(|i| request(8 + i, 30))).unwrap();
    for handle in handles {
        let events: Vec<Event> = handle.events().collect();
        let Some(Event::Error(error)) = events.last() else { panic!("{events:?}") };
        assert!(error.to_string().contains("the toy device is broken"), "{error}");
        assert_eq!(events.len(), 6, "five tokens before");
    }
    let again = request(8, 30);
    assert_eq!(streams(1, engine.submit(again.clone()).unwrap().events()), [expected(&again, 0)]);
    engine.shutdown();
    let stats = engine.stats();
    assert_eq!((stats.failed_steps, stats.finished, stats.kv_blocks_used), (1, 4, 0));
}
