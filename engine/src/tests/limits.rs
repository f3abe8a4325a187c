//! Odd sizes: no step exceeds a limit of the device. The toy model panics at a step that does.

use super::drafter::{Kind, drafting};
use super::schedules::{Bench, Random, random_request, simple};
use super::toy::Toy;
use crate::config::{EngineConfig, SchedulePolicy};
use crate::draft_settings::DraftRequest;
use crate::request::Request;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn drafts(request: Request, draft_length: u32) -> Request {
    request.drafting(DraftRequest { draft_length: Some(draft_length), ..DraftRequest::default() })
}

/// Eight rows of logits, 256 rows and the default configuration.
#[test]
fn case_20_nine_requests_on_eight_rows_of_logits_all_finish() {
    let toy = Toy::new(256, 16, 256).with_logit_rows(8);
    assert_eq!(EngineConfig::default().fit(&toy).unwrap().config.max_num_seqs, 8);
    let mut bench = Bench::new(toy, &EngineConfig::default());
    for seed in 0..9 {
        bench.submit(simple(if seed == 8 { 150 } else { 10 }, 100, seed));
    }
    bench.run_to_the_end();
    assert_eq!(bench.verdict().unwrap().finished, 9);
}

/// A prompt that ends in a step in which other sequences draft needs a logit row of its own.
#[test]
fn case_20_a_prompt_ends_in_a_step_of_drafts_that_need_all_rows_of_logits() {
    for kind in [Kind::Right, Kind::Wrong, Kind::Mixed] {
        let toy = Toy::new(256, 16, 256).with_logit_rows(12);
        let config =
            EngineConfig { max_num_seqs: 4, max_num_batched_tokens: 64, ..EngineConfig::default() };
        let mut bench = Bench::drafting(Box::new(toy), &config, |sizes| {
            drafting(kind, &Default::default(), sizes)
        });
        for (n_prompt, seed) in [10, 10, 10, 150].into_iter().zip(0..) {
            bench.submit(drafts(simple(n_prompt, 100, seed), 3));
        }
        bench.run_to_the_end();
        let stats = bench.verdict().unwrap();
        assert_eq!((stats.finished, stats.failed_steps), (4, 0));
        assert!(stats.drafts.drafted > 100, "{:?}", stats.drafts);
    }
}

/// One workload on random sizes, from 1 on. Returns the numbers of generated and of draft tokens.
fn run(seed: u32, is_asynchronous: bool) -> [u64; 2] {
    let mut random = Random::new(seed);
    let block_size = random.of(&[1, 3, 16]);
    let n_blocks = 1 + random.below(40);
    let max_rows = 1 + random.below(random_of(seed, &[2, 8, 40]));
    let toy = Toy::new(n_blocks, block_size, max_rows)
        .with_logit_rows(1 + random.below(random_of(seed / 3, &[2, 8, 40])))
        .asynchronous(is_asynchronous);
    let config = EngineConfig {
        max_num_seqs: random.of(&[0, 1, 2, 5, usize::MAX]),
        max_num_batched_tokens: random.of(&[0, 1, 2, 7, 20, usize::MAX]),
        prefix_caching: random.one_in(2),
        policy: match random.below(2) {
            0 => SchedulePolicy::Fixed,
            _ => SchedulePolicy::Random { seed: seed.into() },
        },
        ..EngineConfig::default()
    };
    let max_num_seqs = config.fit(&toy).unwrap().config.max_num_seqs;
    let kind = random.of(&[Kind::Right, Kind::Wrong, Kind::Mixed]);
    let mut bench =
        Bench::drafting(Box::new(toy), &config, |sizes| drafting(kind, &Default::default(), sizes));
    let most = (n_blocks * block_size + 1).min(60);
    let prefixes: Vec<_> = (0..2).map(|_| random.tokens(40)).collect();
    for _ in 0..if most < 4 { 0 } else { 8 } {
        let mut request = random_request(&mut random, most, &prefixes);
        request.n = (1 + random.below(6) as u32).min(max_num_seqs as u32);
        bench.submit(drafts(request, random.of(&[1, 3, 17, 64])));
        if random.one_in(2) {
            bench.step();
        }
    }
    bench.run_to_the_end();
    let stats = bench.verdict().unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    assert_eq!(stats.failed_steps, 0);
    [stats.generated_tokens, stats.drafts.drafted]
}

fn random_of(seed: u32, values: &[usize; 3]) -> usize {
    values[seed as usize % 3]
}

#[test]
fn no_sizes_make_a_step_exceed_the_device() {
    let mut sums = [0, 0];
    for seed in 0..600 {
        let run = catch_unwind(AssertUnwindSafe(|| run(seed, seed % 2 == 1)));
        let [tokens, drafted] = run.unwrap_or_else(|_| panic!("seed {seed} went wrong"));
        sums = [sums[0] + tokens, sums[1] + drafted];
    }
    println!("seeds 0..600: {} tokens, {} drafted", sums[0], sums[1]);
    assert!(sums[0] > 20_000 && sums[1] > 10_000, "{sums:?}");
}

/// The negative control: a device that takes one row less than it says is noticed.
#[test]
fn a_step_that_exceeds_the_device_is_noticed() {
    let is_noticed = |n_rows: usize, n_logit_rows: usize| {
        let mut toy = Toy::new(64, 4, 16).with_logit_rows(6);
        toy.takes_less = (n_rows, n_logit_rows);
        let mut bench = Bench::new(toy, &EngineConfig::default());
        (0..6).for_each(|seed| bench.submit(simple(20, 10, seed)));
        catch_unwind(AssertUnwindSafe(|| bench.run_to_the_end())).is_err()
    };
    assert!(!is_noticed(0, 0));
    assert!(is_noticed(1, 0));
    assert!(is_noticed(0, 1));
}

/// The limits of a model bound the sizes of an engine, from either side.
#[test]
fn sizes_are_fitted_together() {
    let fit = |max_num_seqs, max_num_batched_tokens, max_rows, max_logit_rows| {
        let toy = Toy::new(8, 4, max_rows).with_logit_rows(max_logit_rows);
        let config =
            EngineConfig { max_num_seqs, max_num_batched_tokens, ..EngineConfig::default() };
        let sizes = config.fit(&toy).unwrap();
        let EngineConfig { max_num_seqs, max_num_batched_tokens, .. } = sizes.config;
        (max_num_seqs, max_num_batched_tokens, sizes.max_draft_length)
    };
    assert_eq!(fit(256, 2048, 256, 8), (8, 256, 7));
    assert_eq!(fit(256, 64, 256, 100), (64, 64, 63));
    assert_eq!(fit(0, 0, 5, 5), (1, 1, 0));
    assert_eq!(fit(usize::MAX, usize::MAX, 1, 1), (1, 1, 0));
    assert_eq!(fit(4, 64, 256, 12), (4, 64, 11));
    let toy = Toy::new(1, 1, 1).with_shape(1 << 31, 1 << 32);
    let error = EngineConfig::default().fit(&toy).unwrap_err().to_string();
    assert!(error.contains("block_size = 4294967296"), "{error}");
}

/// Where a step can verify no draft, requests that ask for drafts are decoded plainly.
#[test]
fn a_device_with_one_row_of_logits_drafts_nothing() {
    let toy = Toy::new(64, 4, 16).with_logit_rows(1);
    let config = EngineConfig::default();
    let mut bench = Bench::drafting(Box::new(toy), &config, |sizes| {
        drafting(Kind::Right, &Default::default(), sizes)
    });
    (0..3).for_each(|seed| bench.submit(drafts(simple(5, 10, seed), 64)));
    bench.run_to_the_end();
    let stats = bench.verdict().unwrap();
    assert_eq!((stats.finished, stats.drafts.drafted), (3, 0));
}
