//! Prompts and decodes come before drafts: the steps of first tokens, with drafters and without.

use super::drafter::{Kind, Known, drafting};
use super::schedules::{Bench, Random, simple};
use super::toy::Toy;
use crate::config::EngineConfig;
use crate::draft_settings::{DraftRequest, DrafterChoice};
use crate::event::Event;
use crate::request::Request;
use crate::stats::Stats;
use std::cmp::Ordering;

/// A pool, a configuration, and requests. A number before each request says before which step it is
/// submitted.
struct Workload {
    n_blocks: usize,
    config: EngineConfig,
    requests: Vec<(usize, Request)>,
}

/// The steps in which each request got its first and its last token.
struct Times {
    first: Vec<usize>,
    last: Vec<usize>,
    stats: Stats,
}

impl Workload {
    /// A random workload. The pool holds `kv_tokens`; with `together`, all requests come at once.
    fn new(seed: u32, kv_tokens: usize, together: bool) -> Self {
        let mut random = Random::new(seed);
        let n_requests = 3 + random.below(12);
        let requests = (0..n_requests).map(|_| {
            let longest = random.of(&[4, 40, 150]);
            let n_prompt = 1 + random.below(longest);
            let request = simple(n_prompt, 1 + random.below(30) as u32, random.below(1000) as u64);
            let step = if together { 0 } else { random.below(60) };
            let priority = random.of(&[0, 0, -1, 5]);
            let draft_length = Some(1 + random.below(15) as u32);
            let drafting = DraftRequest { draft_length, ..DraftRequest::default() };
            let n = random.of(&[1, 1, 1, 2]);
            (step, request.priority(priority).drafting(drafting).n(n))
        });
        Workload {
            requests: requests.collect(),
            n_blocks: kv_tokens / 4,
            config: EngineConfig {
                max_num_seqs: 2 + random.below(12),
                max_num_batched_tokens: 4 + random.below(40),
                // In a small pool, a draft may take a block with an old prefix a few steps before
                // its sequence would.
                prefix_caching: kv_tokens > 1000 && random.one_in(2),
                ..EngineConfig::default()
            },
        }
    }

    /// Runs the workload with a drafter of this kind, or without a drafter.
    fn run(&self, kind: Option<Kind>, drafts_first: bool) -> Times {
        let toy = Toy::new(self.n_blocks, 4, 64);
        let mut bench = Bench::drafting(Box::new(toy), &self.config, |sizes| {
            drafting(kind.unwrap_or(Kind::Never), &Known::default(), sizes)
        });
        if drafts_first {
            bench.core.draft_first();
        }
        let (mut open, mut events) = (self.requests.clone(), Vec::new());
        let mut times = Times { first: Vec::new(), last: Vec::new(), stats: Stats::default() };
        for n_steps in 0.. {
            for (_, mut request) in open.extract_if(.., |(step, _)| *step <= n_steps) {
                if kind.is_none() {
                    request.drafting.drafter = DrafterChoice::Off;
                }
                bench.submit(request);
                times.first.push(usize::MAX);
                times.last.push(usize::MAX);
                events.push(Vec::new());
            }
            if !bench.core.is_idle() {
                bench.step();
            } else if open.is_empty() {
                break;
            }
            for (at, (_, receiver, _)) in bench.requests.iter().enumerate() {
                for event in receiver.try_iter() {
                    if matches!(event, Event::Token(_)) {
                        times.first[at] = times.first[at].min(n_steps);
                        times.last[at] = n_steps;
                    }
                    events[at].push(event);
                }
            }
        }
        times.stats = bench.core.stats();
        times
    }
}

/// Drafts that are never accepted do not change the step of any token, whatever the sizes and
/// however tight the pool.
#[test]
fn drafts_take_nothing_that_a_request_could_use() {
    let (mut drafted, mut preemptions) = (0, 0);
    for seed in 0..400 {
        let kv_tokens = [10_000, 240, 400][seed as usize % 3];
        let workload = Workload::new(seed, kv_tokens, false);
        let (plain, with) = (workload.run(None, false), workload.run(Some(Kind::Never), false));
        assert_eq!((plain.first, plain.last), (with.first, with.last), "seed {seed}");
        assert_eq!(plain.stats.preemptions, with.stats.preemptions, "seed {seed}");
        assert_eq!(with.stats.drafts.accepted, 0, "seed {seed}");
        drafted += with.stats.drafts.drafted;
        preemptions += with.stats.preemptions;
    }
    println!("seeds 0..400: {drafted} drafted, {preemptions} preemptions");
    assert!(drafted > 20_000 && preemptions > 50, "{drafted} {preemptions}");
}

/// With plenty of blocks, drafts delay no first token by more than one step, however many are
/// accepted. Requests come all at once, or over time to an engine with places for all. Where a
/// request comes while other requests wait for places, drafts change which requests run at that
/// moment.
#[test]
fn no_first_token_comes_later_by_more_than_a_step() {
    let (mut n_earlier, mut n_later, mut n_same) = (0, 0, 0);
    for seed in 0..400 {
        let together = seed % 2 == 0;
        let mut workload = Workload::new(seed, 10_000, together);
        if !together {
            workload.config.max_num_seqs = 64;
            workload.config.max_num_batched_tokens += 20;
        }
        let plain = workload.run(None, false).first;
        for kind in [Kind::Right, Kind::Mixed, Kind::Wrong] {
            let with = workload.run(Some(kind), false).first;
            for (at, (plain, with)) in plain.iter().zip(&with).enumerate() {
                let is_well = *with <= plain + 1;
                assert!(is_well, "seed {seed}, {kind:?}, request {at}: step {with}, not {plain}");
                match with.cmp(plain) {
                    Ordering::Less => n_earlier += 1,
                    Ordering::Equal => n_same += 1,
                    Ordering::Greater => n_later += 1,
                }
            }
        }
    }
    println!("seeds 0..400: {n_earlier} first tokens earlier, {n_same} as early, {n_later} later");
    assert!(n_earlier > n_later);
}

/// An urgent prompt runs before a less urgent prompt that is being read, with or without drafter.
#[test]
fn an_urgent_prompt_comes_before_one_that_is_being_read() {
    for kind in [None, Some(Kind::Right), Some(Kind::Never)] {
        let config = EngineConfig { max_num_batched_tokens: 10, ..EngineConfig::default() };
        let requests = vec![
            (0, simple(5, 50, 1).priority(1)),
            (2, simple(200, 2, 2).priority(5)),
            (6, simple(18, 2, 3).priority(-5)),
            (6, simple(4, 2, 4).priority(5)),
        ];
        let times = Workload { n_blocks: 1000, config, requests }.run(kind, false);
        assert_eq!(times.first[2], 7, "two chunks of nine");
        assert!(times.first[1] <= times.first[3], "equals in the order they came");
    }
}

/// The negative control: drafts that get their rows before prompts are noticed.
#[test]
fn drafts_that_come_before_prompts_are_noticed() {
    let n_noticed = |drafts_first: bool| {
        let is_later = |seed: &u32| {
            let workload = Workload::new(*seed, 10_000, false);
            let plain = workload.run(None, false);
            let with = workload.run(Some(Kind::Never), drafts_first);
            plain.first.iter().zip(&with.first).any(|(plain, with)| *with > plain + 1)
        };
        (0..40).filter(is_later).count()
    };
    assert_eq!(n_noticed(false), 0);
    let n_noticed = n_noticed(true);
    println!("{n_noticed} of 40 noticed");
    assert!(n_noticed > 5, "{n_noticed}");
}

fn drafts(request: Request, draft_length: u32) -> Request {
    let draft_length = Some(draft_length);
    request.drafting(DraftRequest { draft_length, ..DraftRequest::default() })
}

/// Bulk requests of priority 5 draft up to 15 tokens; one request of priority -5 is urgent. A step
/// has 32 rows.
#[test]
fn case_21_an_urgent_prompt_comes_before_the_drafts_of_bulk_requests() {
    for (n_bulk, draft_length) in [(2, 0), (2, 15), (4, 7), (8, 15)] {
        let config =
            EngineConfig { max_num_seqs: 9, max_num_batched_tokens: 32, ..EngineConfig::default() };
        let bulk = |seed| drafts(simple(16, 200, seed).priority(5), draft_length);
        let urgent = simple(40, 1, 99).priority(-5);
        let mut requests: Vec<_> = (0..n_bulk).map(|seed| (0, bulk(seed))).collect();
        requests.push((12, urgent));
        let workload = Workload { n_blocks: 1000, config, requests };
        let times = workload.run(Some(Kind::Never), false);
        let n_steps = 40_usize.div_ceil(32 - n_bulk as usize);
        assert_eq!(times.first[n_bulk as usize], 12 + n_steps - 1, "{n_bulk} {draft_length}");
        assert!((times.stats.drafts.drafted > 0) == (draft_length > 0));
    }
}

/// Drafts share the rows that are left: each draft gets a part.
#[test]
fn drafts_shrink_together() {
    let config = EngineConfig { max_num_batched_tokens: 10, ..EngineConfig::default() };
    let drafting = |sizes: &_| drafting(Kind::Never, &Known::default(), sizes);
    let mut bench = Bench::drafting(Box::new(Toy::new(100, 4, 64)), &config, drafting);
    (0..4).for_each(|seed| bench.submit(drafts(simple(2, 40, seed), 8)));
    (0..20).for_each(|_| bench.step());
    let step = bench.core.stats().last_step;
    assert_eq!((step.n_seqs, step.n_rows, step.n_drafted), (4, 10, 6));
    bench.run_to_the_end();
    let lengths: Vec<u64> = bench
        .requests
        .iter()
        .map(|(_, events, _)| {
            let Some(Event::Finished { usage, .. }) = events.try_iter().last() else {
                panic!("no end")
            };
            usage.drafts.drafted
        })
        .collect();
    assert!(lengths.iter().all(|&n| n >= 30), "{lengths:?}");
}

/// There are no drafts while prompts fill every step. A decoding sequence still gets one token a
/// step, and drafts come back with the first spare row.
#[test]
fn under_a_stream_of_prompts_decoding_is_plain_and_no_slower() {
    let config = EngineConfig {
        max_num_seqs: 4,
        max_num_batched_tokens: 16,
        prefix_caching: false,
        ..EngineConfig::default()
    };
    let drafting = |sizes: &_| drafting(Kind::Right, &Known::default(), sizes);
    let mut bench = Bench::drafting(Box::new(Toy::new(400, 4, 64)), &config, drafting);
    bench.submit(drafts(simple(3, 300, 0).priority(-1), 4));
    for seed in 1..60 {
        bench.submit(
            simple(40, 1, seed)
                .drafting(DraftRequest { drafter: DrafterChoice::Off, ..DraftRequest::default() }),
        );
    }
    bench.step();
    while bench.core.open_requests().len() > 3 {
        bench.step();
        let step = bench.core.stats().last_step;
        assert_eq!((step.n_rows, step.n_drafted), (16, 0));
        assert!(step.n_generated >= 1, "a token a step");
    }
    let n_before = bench.core.stats().drafts.drafted;
    bench.run_to_the_end();
    assert!(bench.core.stats().drafts.drafted > n_before + 50);
    bench.verdict().unwrap();
}
