//! Draft models share their KV by prefix. The toy's draft models have the target's logits, so every
//! draft token is right, unless a draft model reads KV that is not its own.

use super::drafter::{Kind, Known, drafting_of};
use super::schedules::{Bench, Random, plain, random_request, simple};
use super::toy::{BLOCK_SIZE, Toy};
use crate::config::{EngineConfig, SchedulePolicy};
use crate::draft_settings::{DraftRequest, DrafterChoice};
use crate::request::Request;
use crate::stats::Stats;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Two draft models. One has two of its blocks in each block of the pool.
const KINDS: [Kind; 2] = [Kind::Second(1), Kind::Second(2)];

fn drafted_by(request: Request, kind: Kind, draft_length: u32) -> Request {
    let drafter = DrafterChoice::Named(format!("{kind:?}"));
    let draft_length = Some(draft_length);
    request.drafting(DraftRequest { drafter, draft_length, ..DraftRequest::default() })
}

/// Random requests that end by their length alone.
fn run(seed: u32, is_asynchronous: bool) -> Stats {
    let mut random = Random::new(seed);
    let config = EngineConfig {
        max_num_batched_tokens: 8 + random.below(56),
        policy: match random.below(2) {
            0 => SchedulePolicy::Fixed,
            _ => SchedulePolicy::Random { seed: seed.into() },
        },
        ..EngineConfig::default()
    };
    let toy = Toy::new(random.of(&[30, 60, 200]), BLOCK_SIZE, 64).asynchronous(is_asynchronous);
    let mut bench = Bench::drafting(Box::new(toy), &config, |sizes| {
        drafting_of(&KINDS, &Known::default(), sizes)
    });
    let prefixes = [random.tokens(60), random.tokens(60)];
    for _ in 0..12 {
        let request = random_request(&mut random, 90, &prefixes);
        let request = if is_asynchronous { plain(request) } else { request };
        let request = request.ignore_eos(true).stop(Vec::<String>::new()).stop_tokens([]);
        bench.submit(drafted_by(request, random.of(&KINDS), 1 + random.below(8) as u32));
        if random.one_in(2) {
            (0..random.below(30)).for_each(|_| bench.step());
        }
    }
    bench.run_to_the_end();
    bench.verdict().unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"))
}

/// Whatever the schedule, a draft model that takes KV from the cache drafts as if it had read the
/// tokens itself.
#[test]
fn shared_kv_is_the_draft_models_own() {
    for is_asynchronous in [false, true] {
        let (mut hits, mut drafted) = (0, 0);
        for seed in 0..150 {
            let stats = run(seed, is_asynchronous);
            assert_eq!(stats.drafts.accepted, stats.drafts.drafted, "seed {seed}");
            hits += stats.draft_prefix_hit_tokens;
            drafted += stats.drafts.drafted;
        }
        println!("{drafted} draft tokens, {hits} tokens from the cache");
        assert!(hits > 10_000 && drafted > 10_000, "{hits} {drafted}");
    }
}

/// The control: a draft model becomes another one under the same number, so that the cache mixes the
/// two up.
#[test]
fn a_cache_that_mixes_up_two_draft_models_is_noticed() {
    let second = |cache_salt: u64, mixes: bool| {
        let toy = Toy::new(200, BLOCK_SIZE, 64);
        let key = Arc::clone(&toy.key);
        let mut bench = Bench::drafting(Box::new(toy), &EngineConfig::default(), |sizes| {
            drafting_of(&[Kind::Second(1)], &Known::default(), sizes)
        });
        bench.submit(simple(22, 20, 4));
        bench.run_to_the_end();
        let before = bench.core.stats().drafts;
        assert_eq!(before.accepted, before.drafted);
        key.fetch_add(u64::from(mixes), Relaxed);
        bench.submit(simple(22, 20, 4).cache_salt(cache_salt));
        bench.run_to_the_end();
        let stats = bench.verdict().unwrap();
        let n_wrong = stats.drafts.drafted - stats.drafts.accepted;
        (n_wrong > 0, stats.draft_prefix_hit_tokens)
    };
    assert_eq!(second(0, false), (false, 20));
    assert_eq!(second(1, false), (false, 0));
    assert_eq!(second(1, true), (false, 0));
    assert_eq!(second(0, true), (true, 20));
}

/// Rows of the draft model, and the statistics, for requests of one prompt of 41 tokens.
fn rows(requests: &[Request], prefix_caching: bool) -> (u64, Stats) {
    let config = EngineConfig { prefix_caching, ..EngineConfig::default() };
    let toy = Toy::new(200, BLOCK_SIZE, 400);
    let n_rows = Arc::clone(&toy.n_draft_rows);
    let mut bench = Bench::drafting(Box::new(toy), &config, |sizes| {
        drafting_of(&[Kind::Second(1)], &Known::default(), sizes)
    });
    requests.iter().for_each(|request| bench.submit(request.clone()));
    bench.run_to_the_end();
    (n_rows.load(Relaxed), bench.verdict().unwrap())
}

/// Of sequences with one prompt, the first reads it with the draft model. The others find it in the
/// cache, forks as well as requests that begin in the same step.
#[test]
fn one_sequence_reads_the_prompt_for_all() {
    let request = simple(41, 20, 4);
    let forks = vec![request.clone().n(8)];
    let requests: Vec<Request> =
        (0..8).map(|seed| Request { seed: Some(seed), ..request.clone() }).collect();
    for requests in [forks, requests] {
        let (before, _) = rows(&requests, false);
        let (after, stats) = rows(&requests, true);
        println!("{before} rows of the draft model, {after} with shared KV");
        assert_eq!(stats.draft_prefix_hit_tokens, 7 * 40);
        assert_eq!(stats.drafts.accepted, stats.drafts.drafted);
        assert!(after + 6 * 40 < before, "{after} of {before}");
    }
}
