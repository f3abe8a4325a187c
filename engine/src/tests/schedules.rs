//! Random workloads under random schedules, compared with the definition of their output.

use super::letters::{Letters, letters};
use super::oracle::{Stream, expected, streams_after};
use super::toy::{Toy, VOCAB};
use crate::config::{EngineConfig, Fitted, SchedulePolicy};
use crate::drafting::Drafting;
use crate::event::Event;
use crate::event_sink::EventSink;
use crate::request::{Prompt, Request, ValidRequest};
use crate::stats::Stats;
use crate::step::EngineCore;
use crate::stop::FinishReason;
use crossbeam_channel::{Receiver, unbounded};
use galley_backend::sample::philox::philox4x32_10;
use galley_model::LanguageModel;
use std::panic::{RefUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Reproducible random numbers.
pub(super) struct Random {
    seed: u32,
    n: u32,
}

impl Random {
    pub(super) fn new(seed: u32) -> Self {
        Random { seed, n: 0 }
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        self.n += 1;
        philox4x32_10([self.n, 0, 3, 0], [self.seed, 0])[0] as usize % n
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(super) fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    pub(super) fn tokens(&mut self, n: usize) -> Vec<u32> {
        (0..n).map(|_| self.below(VOCAB) as u32).collect()
    }
}

/// An engine and its requests, each with its events and whether it was cancelled.
pub(super) struct Bench {
    pub(super) core: EngineCore,
    pub(super) requests: Vec<(Request, Receiver<Event>, bool)>,
    limits: crate::request::RequestLimits,
}

impl Bench {
    pub(super) fn new(toy: Toy, config: &EngineConfig) -> Self {
        Bench::drafting(Box::new(toy), config, |_| Drafting::default())
    }

    /// A bench with any model, and with drafters.
    pub(super) fn drafting(
        model: Box<dyn LanguageModel>,
        config: &EngineConfig,
        drafting: impl FnOnce(&Fitted) -> Drafting,
    ) -> Self {
        let sizes = config.fit(&*model).unwrap();
        let drafting = drafting(&sizes);
        let limits = EngineCore::limits(&*model, &sizes, &drafting);
        let core = EngineCore::new(model, Some(Arc::new(Letters)), &sizes, drafting);
        Bench { core, requests: Vec::new(), limits }
    }

    fn valid(&self, request: &Request) -> ValidRequest {
        ValidRequest::new(request.clone(), &self.limits, Some(&Letters)).unwrap()
    }

    /// Why a request is refused.
    pub(super) fn refusal(&self, request: Request) -> String {
        match ValidRequest::new(request, &self.limits, Some(&Letters)) {
            Ok(_) => panic!("the request is accepted"),
            Err(refusal) => refusal.to_string(),
        }
    }

    /// Submits a request with its events to `sink`. It takes no part in the verdict.
    pub(super) fn submit_to(&mut self, request: &Request, number: u64, sink: EventSink) {
        let valid = self.valid(request);
        self.core.add(valid, number, sink, None);
    }

    pub(super) fn submit(&mut self, request: Request) {
        let valid = self.valid(&request);
        let (sender, receiver) = unbounded();
        self.core.add(valid, self.requests.len() as u64, EventSink::Handle(sender), None);
        self.requests.push((request, receiver, false));
    }

    pub(super) fn cancel(&mut self, at: usize) {
        self.requests[at].2 = true;
        self.core.cancel(self.requests[at].0.priority, at as u64);
    }

    pub(super) fn step(&mut self) {
        self.core.step().unwrap();
        self.core.check().unwrap();
    }

    pub(super) fn run_to_the_end(&mut self) {
        while !self.core.is_idle() {
            self.step();
        }
    }

    /// Checks that every request yielded its expected output. The error describes the first that
    /// did not.
    pub(super) fn verdict(mut self) -> Result<Stats, String> {
        assert!(self.core.is_idle());
        let stats = self.core.stats();
        assert_eq!(stats.kv_blocks_used, 0, "blocks of sequences that have ended");
        for (at, (request, events, cancelled)) in self.requests.iter().enumerate() {
            let n_generated = request.generated.len();
            let resumed_text = self.valid(request).output.final_text;
            for (mut got, index) in
                streams_after(n_generated, request.n, events.try_iter()).into_iter().zip(0..)
            {
                let mut expected = expected(request, index);
                expected.sampled.drain(..n_generated);
                got.text.insert_str(0, &resumed_text);
                let same = match &got.finish {
                    Some(FinishReason::Cancelled) if *cancelled => is_prefix(&got, &expected),
                    _ => got == expected,
                };
                if !same {
                    return Err(format!("request {at}.{index}: {got:?} is not {expected:?}"));
                }
            }
        }
        Ok(stats)
    }
}

pub(super) fn is_prefix(got: &Stream, expected: &Stream) -> bool {
    expected.sampled.starts_with(&got.sampled) && expected.text.starts_with(&got.text)
}

/// A random request of at most `most` tokens, prompt and output together.
pub(super) fn random_request(random: &mut Random, most: usize, prefixes: &[Vec<u32>]) -> Request {
    let mut prompt = prefixes[random.below(prefixes.len())].clone();
    prompt.truncate(random.below(most / 2));
    let n_more = 1 + random.below(most / 3);
    prompt.extend(random.tokens(n_more));
    prompt.truncate(most - 1);
    let room = most - prompt.len();
    let max_tokens = 1 + random.below(room.min(40));
    let mut request = Request::new(Prompt::Tokens(prompt));
    request.max_tokens = Some(max_tokens as u32);
    request.sampling.temperature = random.of(&[0.0, 0.7, 1.0, 1.5]);
    request.seed = Some(random.below(1000) as u64);
    request.n = random.of(&[1, 1, 1, 2, 3]);
    request.priority = random.of(&[0, 0, 0, -1, 1]);
    request.ignore_eos = random.one_in(2);
    request.include_stop = random.one_in(2);
    request.cache_salt = random.of(&[0, 0, 0, 5]);
    if random.one_in(3) {
        request.sampling.top_k = random.of(&[1, 3, 10]);
        request.sampling.top_p = random.of(&[0.5, 0.9, 1.0]);
        request.sampling.min_p = random.of(&[0.0, 0.05]);
    }
    if random.one_in(3) {
        request.sampling.repetition_penalty = random.of(&[1.0, 1.3, 0.8]);
        request.sampling.presence_penalty = random.of(&[0.0, 0.5]);
        request.sampling.frequency_penalty = random.of(&[0.0, 0.2]);
    }
    if random.one_in(3) {
        request.sampling.logit_bias = vec![(random.below(VOCAB) as u32, random.of(&[-5.0, 2.0]))];
    }
    if random.one_in(3) {
        request.sampling.logprobs = Some(random.below(4) as u32);
    }
    if random.one_in(3) {
        request.min_tokens = random.below(max_tokens) as u32;
    }
    if random.one_in(4) {
        request.stop_tokens = random.tokens(2);
    }
    if random.one_in(3) {
        let pairs = random.tokens(4);
        request.stop =
            pairs.chunks(2).map(|p| letters(p[0]) + &letters(p[1])).chain(["ab".into()]).collect();
    }
    request
}

/// The request without settings that need more of a sample than its token.
pub(super) fn plain(mut request: Request) -> Request {
    request.sampling.logprobs = None;
    request.n(1).repetition_penalty(1.0).presence_penalty(0.0).frequency_penalty(0.0)
}

/// The request after a random part of its output, for one sequence.
fn cut(request: Request, random: &mut Random) -> Request {
    let request = request.n(1);
    let generated = expected(&request, 0).sampled;
    let n = random.below(generated.len() + 1);
    request.resume(generated[..n].iter().map(|sampled| sampled.token))
}

/// One random workload under one random schedule, on a device that `alter` has changed.
fn run(seed: u32, alter: impl FnOnce(&mut Toy)) -> Result<Stats, String> {
    let mut random = Random::new(seed);
    let block_size = random.of(&[1, 2, 4, 7]);
    let kv_tokens = random.of(&[48, 96, 400]);
    let n_blocks = kv_tokens / block_size;
    let max_rows = 1 + random.below(64);
    let config = EngineConfig {
        max_num_seqs: 3 + random.below(10),
        max_num_batched_tokens: 3 + random.below(max_rows),
        prefix_caching: random.one_in(2),
        policy: match random.below(2) {
            0 => SchedulePolicy::Fixed,
            _ => SchedulePolicy::Random { seed: seed.into() },
        },
        ..EngineConfig::default()
    };
    let mut toy = Toy::new(n_blocks, block_size, max_rows.max(3));
    alter(&mut toy);
    // One request that needs more than tokens keeps the engine from running ahead.
    let all_plain = toy.is_asynchronous && !random.one_in(4);
    let mut bench = Bench::new(toy, &config);
    let prefixes: Vec<_> = (0..3).map(|_| random.tokens(80)).collect();
    let n_requests = 4 + random.below(12);
    let most = (n_blocks * block_size + 1).min(100);
    let cancels = random.one_in(3);
    for n_steps in 0.. {
        assert!(n_steps < 100_000, "no end: {:?}", bench.core.stats());
        let open = bench.requests.len() < n_requests;
        if open && random.one_in(3) {
            let request = random_request(&mut random, most, &prefixes);
            let request = if all_plain { plain(request) } else { request };
            bench.submit(if random.one_in(4) { cut(request, &mut random) } else { request });
        }
        if cancels && !bench.requests.is_empty() && random.one_in(20) {
            let at = random.below(bench.requests.len());
            bench.cancel(at);
            bench.core.check().unwrap();
        }
        if !bench.core.is_idle() {
            bench.step();
        } else if !open {
            break;
        }
    }
    bench.verdict()
}

pub(super) fn every_schedule(alter: impl Fn(&mut Toy)) {
    let (mut preemptions, mut hits, mut generated) = (0, 0, 0);
    for seed in 0..400 {
        let stats = run(seed, &alter).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        preemptions += stats.preemptions;
        hits += stats.prefix_hit_tokens;
        generated += stats.generated_tokens;
    }
    println!("{generated} tokens, {preemptions} preemptions, {hits} prompt tokens from the cache");
    assert!(preemptions > 1000 && hits > 1000 && generated > 10_000);
}

#[test]
fn every_schedule_yields_the_same() {
    every_schedule(|_| {});
}

/// The comparison must be able to fail: without copy-on-write, forks write into each other's blocks.
#[test]
fn forgotten_copies_are_noticed() {
    assert!(n_wrong(|toy| toy.ignores_copies = true) > 20);
}

/// Number of workloads that go wrong, of 60.
pub(super) fn n_wrong(alter: impl Fn(&mut Toy) + RefUnwindSafe) -> usize {
    let is_wrong =
        |&seed: &u32| catch_unwind(|| run(seed, &alter)).map_or(true, |run| run.is_err());
    let n_wrong = (0..60).filter(is_wrong).count();
    println!("{n_wrong} of 60 workloads went wrong");
    n_wrong
}

pub(super) fn simple(n_prompt: usize, max_tokens: u32, seed: u64) -> Request {
    let prompt = Random::new(seed as u32).tokens(n_prompt);
    Request::new(Prompt::Tokens(prompt)).max_tokens(max_tokens).seed(seed).ignore_eos(true)
}

/// Three sequences that each need the whole cache: some wait or are preempted, and all end.
#[test]
fn a_full_cache_preempts_and_loses_nothing() {
    let mut bench = Bench::new(Toy::new(8, 4, 64), &EngineConfig::default());
    for seed in 0..3 {
        bench.submit(simple(4, 29, seed));
    }
    bench.run_to_the_end();
    let stats = bench.verdict().unwrap();
    assert!(stats.preemptions > 0);
    assert_eq!((stats.finished, stats.generated_tokens), (3, 3 * 29));
    assert_eq!(stats.kv_blocks_peak, 8);
}

/// Decodes never wait for a prompt, however long.
#[test]
fn a_long_prompt_comes_in_chunks_beside_decodes() {
    let config = EngineConfig { max_num_batched_tokens: 8, ..EngineConfig::default() };
    let mut bench = Bench::new(Toy::new(200, 4, 64), &config);
    bench.submit(simple(3, 30, 1));
    bench.step();
    bench.submit(simple(70, 2, 2));
    for _ in 0..9 {
        bench.step();
        let step = bench.core.stats().last_step;
        assert_eq!((step.n_seqs, step.n_rows, step.n_generated), (2, 8, 1), "7 of the prompt");
    }
    bench.run_to_the_end();
    bench.verdict().unwrap();
}

/// The prompt of n sequences is computed once.
#[test]
fn forks_share_their_prompt() {
    let mut bench = Bench::new(Toy::new(64, 4, 64), &EngineConfig::default());
    bench.submit(simple(21, 10, 3).n(5));
    bench.step();
    let stats = bench.core.stats();
    assert_eq!((stats.last_step.n_rows, stats.last_step.n_generated), (21, 5));
    assert_eq!((stats.running, stats.kv_blocks_used), (5, 6));
    bench.step();
    assert_eq!(bench.core.stats().kv_blocks_used, 5 + 5, "each has its own last block");
    bench.run_to_the_end();
    bench.verdict().unwrap();
}

/// Lower priority numbers run first, whenever they come; equal numbers run in order of arrival.
#[test]
fn priority_comes_before_arrival() {
    let config = EngineConfig { max_num_seqs: 1, ..EngineConfig::default() };
    let mut bench = Bench::new(Toy::new(64, 4, 64), &config);
    for (at, priority) in [0, 0, 7, -2].into_iter().enumerate() {
        bench.submit(simple(5, 6, at as u64).priority(priority));
        bench.step();
    }
    let mut ends = Vec::new();
    while !bench.core.is_idle() {
        bench.step();
        for at in 0..4 {
            let ended = bench.core.stats().finished as usize > ends.len();
            let queue: Vec<usize> = bench.core.open_requests();
            if ended && !queue.contains(&at) && !ends.contains(&at) {
                ends.push(at);
            }
        }
    }
    assert_eq!(ends, [3, 0, 1, 2]);
    assert_eq!(bench.verdict().unwrap().preemptions, 1);
}

#[test]
fn the_prefix_cache_is_used_and_changes_nothing() {
    for prefix_caching in [false, true] {
        let config = EngineConfig { prefix_caching, ..EngineConfig::default() };
        let mut bench = Bench::new(Toy::new(64, 4, 64), &config);
        for _ in 0..3 {
            bench.submit(simple(22, 9, 4).logprobs(2));
            bench.run_to_the_end();
        }
        let stats = bench.verdict().unwrap();
        let hit = if prefix_caching { 2 * 20 } else { 0 };
        assert_eq!(stats.prefix_hit_tokens, hit);
        assert_eq!(stats.prompt_tokens, 3 * 22 - hit);
        assert_eq!(stats.prefix_query_tokens, 3 * 22);
    }
}

/// A prompt with another salt finds nothing in the cache. Every sequence reports the number of its
/// prompt tokens that came from the cache.
#[test]
fn a_salt_keeps_prompts_apart() {
    let mut bench = Bench::new(Toy::new(64, 4, 64), &EngineConfig::default());
    let mut cached_tokens = Vec::new();
    for cache_salt in [1, 1, 2, 1] {
        bench.submit(simple(22, 9, 4).cache_salt(cache_salt).n(2));
        bench.run_to_the_end();
        let (_, events, _) = bench.requests.pop().unwrap();
        cached_tokens.extend(events.try_iter().filter_map(|event| match event {
            Event::Finished { usage, .. } => Some(usage.cached_tokens),
            _ => None,
        }));
    }
    assert_eq!(cached_tokens, [0, 0, 20, 20, 0, 0, 20, 20]);
}
