//! Queues of events: tags, bounds, readers that stop to read, and the limit on waiting requests.

use super::api::{engine, engine_with};
use super::drafter::{Kind, Known, drafting};
use super::oracle::{Stream, expected, streams};
use super::schedules::{Bench, Random, random_request, simple};
use super::toy::Toy;
use crate::config::{EngineConfig, SchedulePolicy};
use crate::drafting::Drafting;
use crate::error::SubmitError;
use crate::event::{Event, QueuedEvent};
use crate::event_sink::{EventSink, QueueInbox, QueueSink};
use crate::handle::{Engine, EventQueue};
use crate::stop::FinishReason;
use crossbeam_channel::unbounded;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(20);

/// Reads a queue until its requests have ended. Returns the events of each tag.
fn read_all(queue: &EventQueue) -> BTreeMap<u64, Vec<Event>> {
    let mut events: BTreeMap<u64, Vec<Event>> = BTreeMap::new();
    let mut ended = Vec::new();
    while queue.n_open() > 0 {
        let Some(QueuedEvent { tag, id, event, is_last }) = queue.recv_timeout(LONG) else {
            panic!("no event: {:?}", queue.engine().stats())
        };
        assert!(!ended.contains(&id), "an event after the last one of request {id}");
        ended.extend(is_last.then_some(id));
        events.entry(tag).or_default().push(event);
    }
    events
}

fn wait_until(engine: &Engine, is_reached: impl Fn(&Engine) -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_reached(engine) {
        assert!(Instant::now() < deadline, "{:?}", engine.stats());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_request_has_its_tag_and_begins_and_ends_once() {
    let engine = engine(Toy::new(80, 4, 64));
    let queue = engine.event_queue(10_000, || {});
    let request = |tag: u64| simple(3 + tag as usize, 20, tag).n(1 + tag as u32 % 3);
    let mut submitted = queue.submit_all((0..8).map(|tag| (tag, request(tag)))).unwrap();
    submitted.push(queue.submit(8, request(8)).unwrap());
    for (tag, events) in read_all(&queue) {
        let Event::Started(started) = &events[0] else { panic!("{:?}", events[0]) };
        assert_eq!(*started, submitted[tag as usize]);
        assert_eq!((started.seed, started.prompt_tokens.len()), (tag, 3 + tag as usize));
        let n_started = events.iter().filter(|event| matches!(event, Event::Started(_))).count();
        assert_eq!(n_started, 1);
        let request = request(tag);
        let expected: Vec<Stream> = (0..request.n).map(|index| expected(&request, index)).collect();
        assert_eq!(streams(request.n, events), expected);
    }
    assert!(queue.recv().is_none() && queue.try_recv().is_none());
}

/// One reader does not read. Its sequences give up their blocks, the other queue gets all of its
/// tokens meanwhile, and nothing is lost when the reader reads again.
#[test]
fn a_reader_that_does_not_read_stalls_no_other_and_loses_nothing() {
    const CAPACITY: usize = 16;
    let engine = engine(Toy::new(40, 4, 64));
    let (slow, fast) = (engine.event_queue(CAPACITY, || {}), engine.event_queue(10_000, || {}));
    let long = |tag: u64| simple(10, 100, tag);
    slow.submit_all((0..3).map(|tag| (tag, long(tag)))).unwrap();
    wait_until(&engine, |engine| engine.stats().paused == 3);
    let stats = engine.stats();
    assert_eq!((stats.running, stats.kv_blocks_used), (0, 0));
    assert!(stats.generated_tokens < CAPACITY as u64 + 6, "{stats:?}");
    for tag in 0..4 {
        fast.submit(tag, long(9)).unwrap();
    }
    for (_, events) in read_all(&fast) {
        assert_eq!(streams(1, events), [expected(&long(9), 0)]);
    }
    assert_eq!(engine.stats().paused, 3, "nothing was read from the first queue");
    for (tag, events) in read_all(&slow) {
        assert_eq!(streams(1, events), [expected(&long(tag), 0)]);
    }
    wait_until(&engine, |engine| engine.stats().finished == 7);
    assert_eq!((engine.stats().paused, engine.stats().kv_blocks_used), (0, 0));
}

/// A queue with waiting, running and paused sequences is dropped.
#[test]
fn a_dropped_queue_frees_its_blocks_within_two_steps() {
    for capacity in [6, 100_000] {
        let engine = engine_with(EngineConfig::default().max_num_seqs(2), Toy::new(3000, 4, 64));
        let queue = engine.event_queue(capacity, || {});
        queue.submit_all((0..5).map(|tag| (tag, simple(10, 2000, tag)))).unwrap();
        wait_until(&engine, |engine| engine.stats().steps > 1);
        let other = engine.submit(simple(10, 500, 9)).unwrap();
        drop(queue);
        // The first step may have begun before.
        let ends: Vec<_> =
            engine.watch().take(2).map(|stats| (stats.finished, stats.paused)).collect();
        assert_eq!(ends[1], (5, 0), "{ends:?}");
        let rest = streams(1, other.events());
        assert_eq!(rest, [expected(&simple(10, 500, 9), 0)], "the other request goes on");
        wait_until(&engine, |engine| engine.stats().kv_blocks_used == 0);
    }
}

#[test]
fn a_cancelled_request_of_a_queue_ends_and_its_number_is_known_until_its_end_is_read() {
    let engine = engine(Toy::new(1000, 4, 64));
    let queue = engine.event_queue(8, || {});
    let other = engine.event_queue(8, || {});
    let id = queue.submit(7, simple(10, 2000, 1)).unwrap().id;
    wait_until(&engine, |engine| engine.stats().paused == 1);
    assert!(!other.cancel(id) && !queue.cancel(id + 1));
    assert!(queue.cancel(id));
    let events = read_all(&queue).remove(&7).unwrap();
    let Some(Event::Finished { reason, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(*reason, FinishReason::Cancelled);
    assert!(!queue.cancel(id));
}

#[test]
fn a_reader_is_woken_once_each_time_it_asks() {
    let engine = engine(Toy::new(100, 4, 64));
    let n_woken = Arc::new(AtomicUsize::new(0));
    let wake = Arc::clone(&n_woken);
    let queue = engine.event_queue(10_000, move || {
        wake.fetch_add(1, Ordering::SeqCst);
    });
    queue.submit(0, simple(5, 50, 1)).unwrap();
    wait_until(&engine, |engine| engine.stats().finished == 1);
    assert_eq!(n_woken.load(Ordering::SeqCst), 1, "for the first of 52 events");
    assert!(queue.rearm(), "there are events");
    assert_eq!(read_all(&queue)[&0].len(), 52);
    assert!(!queue.rearm());
    assert_eq!(n_woken.load(Ordering::SeqCst), 1);
    queue.submit(0, simple(5, 1, 1)).unwrap();
    wait_until(&engine, |_| n_woken.load(Ordering::SeqCst) == 2);
    read_all(&queue);
}

#[test]
fn requests_beyond_the_limit_are_refused_and_accepted_later() {
    let config = EngineConfig::default().max_num_seqs(1).max_waiting(2);
    let engine = engine_with(config, Toy::new(1000, 4, 64));
    let running = engine.submit(simple(10, 2000, 1)).unwrap();
    wait_until(&engine, |engine| engine.stats().running == 1);
    let waiting = engine.submit_all([simple(5, 5, 2), simple(5, 5, 3)]).unwrap();
    let refused = engine.submit(simple(5, 5, 4)).unwrap_err();
    assert_eq!(refused, SubmitError::Busy { n_waiting: 2, max_waiting: 2 });
    let queue = engine.event_queue(8, || {});
    assert_eq!(queue.submit(0, simple(5, 5, 4)).unwrap_err(), refused);
    assert_eq!(queue.n_open(), 0);
    drop(waiting);
    wait_until(&engine, |engine| engine.stats().finished == 2);
    queue.submit(0, simple(5, 5, 4)).unwrap();
    drop(running);
    assert_eq!(streams(1, read_all(&queue).remove(&0).unwrap()), [expected(&simple(5, 5, 4), 0)]);
}

#[test]
fn a_drained_engine_finishes_its_requests_and_refuses_others() {
    let engine = engine(Toy::new(1000, 4, 64));
    let queue = engine.event_queue(8, || {});
    queue.submit(0, simple(10, 300, 1)).unwrap();
    let handle = engine.submit(simple(10, 300, 2)).unwrap();
    assert!(!engine.drain(Duration::from_millis(50)), "the queue is not read");
    let refused = engine.submit(simple(10, 3, 1)).unwrap_err();
    assert!(matches!(refused, SubmitError::Stopped(_)), "{refused}");
    let drained = std::thread::scope(|scope| {
        let drained = scope.spawn(|| engine.drain(LONG));
        assert_eq!(read_all(&queue)[&0].len(), 302);
        drained.join().unwrap()
    });
    assert!(drained && engine.stats().finished == 2);
    assert_eq!(streams(1, handle.events()), [expected(&simple(10, 300, 2), 0)]);
}

/// The queue outlives the handles of its engine.
#[test]
fn a_queue_keeps_its_engine() {
    let engine = engine(Toy::new(100, 4, 64));
    let queue = engine.event_queue(100, || {});
    drop(engine);
    queue.submit(0, simple(5, 50, 1)).unwrap();
    assert_eq!(streams(1, read_all(&queue).remove(&0).unwrap()), [expected(&simple(5, 50, 1), 0)]);
    queue.submit(1, simple(5, 80, 1)).unwrap();
    queue.engine().shutdown();
    let events = read_all(&queue).remove(&1).unwrap();
    assert!(matches!(events.last(), Some(Event::Finished { .. })), "{events:?}");
    assert!(matches!(queue.submit(2, simple(5, 5, 1)), Err(SubmitError::Stopped(_))));
    assert_eq!(queue.n_open(), 0);
}

/// One random workload with two queues, and readers that read when they like. Returns the number of
/// preemptions.
fn random_readers(seed: u32) -> u64 {
    let mut random = Random::new(seed);
    let policy = match random.below(2) {
        0 => SchedulePolicy::Fixed,
        _ => SchedulePolicy::Random { seed: seed.into() },
    };
    let config = EngineConfig::default().max_num_seqs(1 + random.below(8)).policy(policy);
    let toy = Toy::new(24, 4, 16).asynchronous(random.one_in(2));
    let mut bench = Bench::drafting(Box::new(toy), &config, |sizes| match seed % 3 {
        0 => drafting(Kind::Mixed, &Known::default(), sizes),
        _ => Drafting::default(),
    });
    let readers = [1, 12].map(|capacity| {
        let (sender, receiver) = unbounded();
        (Arc::new(QueueInbox::new(sender, capacity, Box::new(|| {}))), receiver)
    });
    let prefix = random.tokens(30);
    let requests: Vec<_> = (0..8)
        .map(|_| random_request(&mut random, 60, std::slice::from_ref(&prefix)).n(1))
        .collect();
    for (request, tag) in requests.iter().zip(0..) {
        let inbox = Arc::clone(&readers[tag as usize % 2].0);
        bench.submit_to(request, tag, EventSink::Queue(QueueSink::new(inbox, tag, tag)));
    }
    let mut events: BTreeMap<u64, Vec<Event>> = BTreeMap::new();
    let mut n_ended = 0;
    for n_steps in 0.. {
        assert!(n_steps < 100_000, "no end: {:?}", bench.core.stats());
        let is_idle = bench.core.is_idle();
        if !is_idle {
            bench.step();
        }
        for (inbox, receiver) in &readers {
            let n_events = if is_idle { usize::MAX } else { random.below(9).saturating_sub(6) };
            for queued in receiver.try_iter().take(n_events) {
                n_ended += usize::from(queued.is_last);
                events.entry(queued.tag).or_default().push(queued.event);
            }
            inbox.take_paused();
        }
        if n_ended == requests.len() {
            break;
        }
    }
    assert!(bench.core.is_empty());
    for (request, tag) in requests.iter().zip(0..) {
        let got = streams(1, events.remove(&tag).expect("events"));
        assert_eq!(got, [expected(request, 0)], "seed {seed}, request {tag}");
    }
    bench.core.stats().preemptions
}

#[test]
fn readers_that_read_when_they_like_change_no_token() {
    let n_preemptions: u64 = (0..200).map(random_readers).sum();
    println!("{n_preemptions} preemptions");
    assert!(n_preemptions > 1000, "sequences were paused");
}
