//! Tests of the sampler against its naive definition and against the distributions it must follow.

use super::*;
use crate::sample::gumbel::gumbel;
use crate::sample::philox::philox4x32_10;
use crate::sample::top_k_top_p::by_likelihood;
use crate::testing::{SEED, sample_row};
use std::collections::HashSet;
use std::time::Instant;

mod generations;
mod logit_processors;
mod reject;

/// Reproducible random numbers for tests: Philox under a key of its own.
struct Random(u32);

impl Random {
    fn word(&mut self) -> u32 {
        self.0 += 1;
        philox4x32_10([self.0, 0, 0, 0], [1, 2])[0]
    }

    fn uniform(&mut self) -> f32 {
        (self.word() as f32 + 0.5) / 4_294_967_296.0
    }

    fn logits(&mut self, n: usize, spread: f32) -> Vec<f32> {
        (0..n)
            .map(|_| {
                let (a, b) = (self.uniform(), self.uniform());
                (-2.0 * a.ln()).sqrt() * (std::f32::consts::TAU * b).cos() * spread
            })
            .collect()
    }
}

fn sampling(temperature: f32) -> SamplingParams {
    SamplingParams { temperature, ..SamplingParams::greedy() }
}

/// The kept tokens by definition: sorts the whole row.
fn naive_kept(logits: &[f32], sampling: &SamplingParams) -> Vec<(f32, u32)> {
    let inv = 1.0 / sampling.temperature;
    let mut tokens: Vec<(f32, u32)> = logits.iter().zip(0..).map(|(&l, t)| (l * inv, t)).collect();
    tokens.sort_by(by_likelihood);
    let top = tokens[0].0;
    if sampling.top_k > 0 {
        tokens.truncate(sampling.top_k as usize);
    }
    if sampling.top_p < 1.0 {
        let weights: Vec<u64> =
            tokens.iter().map(|&(value, _)| vector_ops::weight(value - top)).collect();
        let total: u64 = weights.iter().sum();
        let mut running = 0u64;
        let n = weights.iter().take_while(|&&weight| {
            let before = running;
            running += weight;
            (before as f64) < (f64::from(sampling.top_p) * total as f64).ceil().max(1.0)
        });
        let n = n.count();
        tokens.truncate(n);
    }
    if sampling.min_p > 0.0 {
        let least = top + sampling.min_p.ln();
        tokens.retain(|&(value, _)| value >= least);
    }
    tokens
}

/// The sampled token by definition: computes every score. `noise` is the random word of a token.
fn naive_sample(logits: &[f32], sampling: &SamplingParams, noise: impl Fn(u32) -> u32) -> u32 {
    let mut best = (f64::NEG_INFINITY, u32::MAX);
    for (value, token) in naive_kept(logits, sampling) {
        let score = f64::from(value) + gumbel(noise(token));
        if score > best.0 || (score == best.0 && token < best.1) {
            best = (score, token);
        }
    }
    best.1
}

fn random_sampling(random: &mut Random) -> SamplingParams {
    let mut sampling = sampling([0.3, 0.7, 1.0, 1.3, 4.0][random.word() as usize % 5]);
    if random.word().is_multiple_of(2) {
        sampling.top_k = [1, 3, 20, 70, 900, 5000][random.word() as usize % 6];
    }
    if random.word().is_multiple_of(2) {
        sampling.top_p = [0.01, 0.5, 0.9, 0.95, 0.999, 0.999_999][random.word() as usize % 6];
    }
    if random.word().is_multiple_of(2) {
        sampling.min_p = [0.01, 0.1, 0.5, 1.0][random.word() as usize % 4];
    }
    sampling
}

#[test]
fn picks_are_those_of_the_definition() {
    let mut random = Random(0);
    let mut scratch = Scratch::default();
    for case in 0..600 {
        let n = [1, 2, 63, 64, 65, 1000, 4097][case % 7];
        let spread = [0.0, 0.1, 1.0, 3.0, 12.0][random.word() as usize % 5];
        let mut logits = random.logits(n, spread);
        if random.word().is_multiple_of(3) {
            // Rounding makes many ties.
            logits.iter_mut().for_each(|logit| *logit = logit.round());
        }
        let sampling = random_sampling(&mut random);
        for position in 0..4 {
            let expected = naive_sample(&logits, &sampling, |t| philox::word(SEED, position, t));
            let got = sample_token(&logits, &sample_row(&sampling, position), &mut scratch).token;
            assert_eq!(got, expected, "case {case}, {n} values, {sampling:?}");
        }
    }
}

#[test]
fn cutoffs_are_those_of_the_definition() {
    let mut random = Random(100_000);
    let mut scratch = Scratch::default();
    for case in 0..400 {
        let n = [3, 130, 1000, 9000][case % 4];
        let spread = [0.0, 0.05, 1.0, 4.0, 9.0][random.word() as usize % 5];
        let mut logits = random.logits(n, spread);
        if random.word().is_multiple_of(3) {
            logits.iter_mut().for_each(|logit| *logit = logit.round());
        }
        let sampling = random_sampling(&mut random);
        let top = scratch.load(&logits, 1.0 / sampling.temperature);
        let cutoff = Cutoff::of(&sampling, n, top, &mut scratch);
        let got: HashSet<u32> =
            (0..n as u32).filter(|&t| cutoff.keeps(scratch.work[t as usize], t)).collect();
        let expected: HashSet<u32> =
            naive_kept(&logits, &sampling).into_iter().map(|(_, t)| t).collect();
        assert_eq!(got, expected, "case {case}, {n} values, {sampling:?}");
    }
}

#[test]
fn greedy_takes_the_lowest_of_the_largest() {
    let mut scratch = Scratch::default();
    let greedy = SamplingParams::greedy();
    let almost = sampling(1e-5);
    let mut logits = vec![1.0; 300];
    logits[120] = 4.0;
    logits[250] = 4.0;
    for sampling in [&greedy, &almost] {
        assert_eq!(sample_token(&logits, &sample_row(sampling, 0), &mut scratch).token, 120);
        let banned = SampleRow { banned: &[120], ..sample_row(sampling, 0) };
        assert_eq!(sample_token(&logits, &banned, &mut scratch).token, 250);
    }
}

#[test]
fn odd_logits_are_sampled_without_a_panic() {
    let mut scratch = Scratch::default();
    let mut all = SamplingParams { logprobs: Some(3), ..sampling(0.8) };
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let rows: [(&[f32], u32); 7] = [
        (&[], 0),
        (&[nan, nan, nan], 0),
        (&[-inf, -inf], 0),
        (&[nan, -inf, -30.0], 2),
        (&[0.0, inf, 100.0, nan], 1),
        (&[inf, 1.0, inf], 0),
        (&[f32::MIN, f32::MAX, 0.0], 1),
    ];
    for (logits, expected) in rows {
        for (top_k, top_p, min_p) in
            [(0, 1.0, 0.0), (2, 1.0, 0.0), (0, 0.5, 0.0), (2, 0.9, 0.1), (0, 1.0, 1.0)]
        {
            (all.top_k, all.top_p, all.min_p) = (top_k, top_p, min_p);
            for temperature in [0.0, 0.5, 2.0] {
                all.temperature = temperature;
                let got = sample_token(logits, &sample_row(&all, 3), &mut scratch);
                assert_eq!(got.token, expected, "{logits:?} {all:?}");
                assert!(!got.logprob.unwrap().is_nan() && got.top.len() <= 3);
            }
        }
    }
}

#[test]
fn a_row_that_reports_nothing_has_no_logprobs() {
    let sampling = SamplingParams { logprobs: Some(2), ..SamplingParams::greedy() };
    let row = SampleRow { reports: false, ..sample_row(&sampling, 0) };
    let got = sample_token(&[0.0, 1.0], &row, &mut Scratch::default());
    assert_eq!(got, SampledToken { token: 1, logprob: None, top: Vec::new(), proposal: None });
}

#[test]
fn logprobs_are_of_the_raw_logits() {
    let mut random = Random(7);
    let mut scratch = Scratch::default();
    for n in [5, 64, 1000, 50_000] {
        let logits = random.logits(n, 3.0);
        let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        let exact = |t: u32| f64::from(logits[t as usize]) - total.ln();
        let mut sampling = SamplingParams { logprobs: Some(4), top_k: 2, ..sampling(2.0) };
        sampling.logit_bias = vec![(1, 50.0)];
        let got = sample_token(&logits, &sample_row(&sampling, 0), &mut scratch);
        assert_eq!(got.token, 1, "the bias decides");
        assert!((f64::from(got.logprob.unwrap()) - exact(1)).abs() < 3e-6);
        let mut order: Vec<(f32, u32)> = logits.iter().copied().zip(0..).collect();
        order.sort_by(by_likelihood);
        for (got, expected) in got.top.iter().zip(&order) {
            assert_eq!(got.0, expected.1);
            assert!((f64::from(got.1) - exact(got.0)).abs() < 3e-6);
        }
        assert_eq!(got.top.len(), 4);
        sampling.logprobs = Some(0);
        let got = sample_token(&logits, &sample_row(&sampling, 0), &mut scratch);
        assert!(got.logprob.is_some() && got.top.is_empty());
    }
}

/// Pearson's statistic of `n_draws` samples at as many positions, and its degrees of freedom.
/// Tokens with fewer than 10 expected draws are counted together.
fn chi_square(
    logits: &[f32],
    sampling: &SamplingParams,
    n_draws: u32,
    mut draw: impl FnMut(u32) -> u32,
) -> (f64, f64) {
    let kept = naive_kept(logits, sampling);
    let top = f64::from(kept[0].0);
    let total: f64 = kept.iter().map(|&(value, _)| (f64::from(value) - top).exp()).sum();
    let mut counts = vec![0u32; logits.len()];
    for position in 0..n_draws {
        counts[draw(position) as usize] += 1;
    }
    let (mut statistic, mut n_cells, mut rest) = (0.0, 0.0, (0.0, 0.0));
    let mut add = |expected: f64, got: f64| {
        statistic += (got - expected) * (got - expected) / expected;
        n_cells += 1.0;
    };
    for &(value, token) in &kept {
        let expected = (f64::from(value) - top).exp() / total * f64::from(n_draws);
        let got = f64::from(std::mem::take(&mut counts[token as usize]));
        if expected >= 10.0 {
            add(expected, got);
        } else {
            rest = (rest.0 + expected, rest.1 + got);
        }
    }
    if rest.0 > 0.0 {
        add(rest.0, rest.1);
    }
    assert_eq!(counts.iter().sum::<u32>(), 0, "a sampled token is not among the kept ones");
    (statistic, f64::max(n_cells - 1.0, 1.0))
}

fn threshold(df: f64) -> f64 {
    df + 10.0 * (2.0 * df).sqrt()
}

#[test]
fn picks_follow_the_distribution() {
    let mut random = Random(42);
    let mut scratch = Scratch::default();
    let logits = random.logits(300, 1.5);
    for temperature in [0.7, 1.0, 1.3] {
        for (top_k, top_p, min_p) in [
            (0, 1.0, 0.0),
            (40, 1.0, 0.0),
            (0, 0.9, 0.0),
            (0, 1.0, 0.05),
            (60, 0.8, 0.0),
            (100, 0.95, 0.1),
        ] {
            let sampling = SamplingParams { top_k, top_p, min_p, ..sampling(temperature) };
            let (statistic, df) = chi_square(&logits, &sampling, 60_000, |position| {
                sample_token(&logits, &sample_row(&sampling, position), &mut scratch).token
            });
            println!("T {temperature} k {top_k} p {top_p} min-p {min_p}: {statistic:.0} df {df}");
            assert!(statistic < threshold(df), "{statistic} with {df}: {sampling:?}");
        }
    }
}

/// Negative control: with noise that tokens share, the test above fails.
#[test]
fn shared_noise_does_not_follow_the_distribution() {
    let logits = Random(42).logits(300, 1.5);
    let sampling = sampling(1.0);
    type Noise = fn(u32, u32) -> u32;
    let noises: [(Noise, bool); 3] = [
        (|position, token| philox::word(SEED, position, token), true),
        (|position, _| philox::word(SEED, position, 0), false),
        (|position, token| philox::word(SEED, position, token / 4), false),
    ];
    for (noise, passes) in noises {
        let (statistic, df) = chi_square(&logits, &sampling, 60_000, |position| {
            naive_sample(&logits, &sampling, |token| noise(position, token))
        });
        println!("{statistic:.0} df {df}");
        assert_eq!(statistic < threshold(df), passes, "{statistic} with {df}");
    }
}

/// Pairs of samples at neighbouring positions or with neighbouring seeds are independent.
#[test]
fn neighbours_are_independent() {
    let logits = vec![0.0; 8];
    let mut scratch = Scratch::default();
    type Pair = fn(u32) -> [(u64, u32); 2];
    let pairs: [Pair; 3] = [
        |i| [(3, 2 * i), (3, 2 * i + 1)],
        |i| [(2 * u64::from(i), 7), (2 * u64::from(i) + 1, 7)],
        |i| [(u64::from(i), 7), (philox::sequence_seed(i.into(), 1), 7)],
    ];
    for pair in pairs {
        let one = sampling(1.0);
        let (statistic, df) = chi_square(&vec![0.0; 64], &one, 30_000, |i| {
            let [a, b] = pair(i).map(|(seed, position)| {
                sample_token(
                    &logits,
                    &SampleRow { seed, ..sample_row(&one, position) },
                    &mut scratch,
                )
                .token
            });
            a * 8 + b
        });
        assert!(statistic < threshold(df), "{statistic} with {df}");
    }
}

/// Not a test: prints the time of sampling one token.
#[test]
fn time_of_a_pick() {
    let mut random = Random(3);
    for n in [49_152, 151_936] {
        let flat = random.logits(n, 1.0);
        let real = {
            // Logits like a language model's: a wide body and a few tokens far above it.
            let mut logits = random.logits(n, 2.5);
            (0..40).for_each(|i| logits[i * 997] += 12.0 - i as f32 * 0.2);
            logits
        };
        let mut seen = TokenCounts::of_prompt(&(0..4000).map(|i| i * 3).collect::<Vec<_>>());
        seen.push_output(5);
        let base = sampling(0.8);
        let cases = [
            ("greedy", SamplingParams::greedy()),
            ("temperature", base.clone()),
            ("top-k 50", SamplingParams { top_k: 50, ..base.clone() }),
            ("top-p 0.95", SamplingParams { top_p: 0.95, ..base.clone() }),
            ("top-k 50 top-p 0.95", SamplingParams { top_k: 50, top_p: 0.95, ..base.clone() }),
            ("min-p 0.05", SamplingParams { min_p: 0.05, ..base.clone() }),
            (
                "greedy, penalty",
                SamplingParams { repetition_penalty: 1.1, ..SamplingParams::greedy() },
            ),
            (
                "greedy, 5 logprobs",
                SamplingParams { logprobs: Some(5), ..SamplingParams::greedy() },
            ),
        ];
        for (name, sampling) in &cases {
            let mut micros = [0.0; 2];
            for (micros, logits) in micros.iter_mut().zip([&real, &flat]) {
                let mut scratch = Scratch::default();
                let mut run = || {
                    let start = Instant::now();
                    for position in 0..20 {
                        let row = SampleRow { seen: Some(&seen), ..sample_row(sampling, position) };
                        std::hint::black_box(sample_token(logits, &row, &mut scratch));
                    }
                    start.elapsed().as_secs_f64() * 1e6 / 20.0
                };
                // Other programs disturb the measurement: the fastest of many runs counts.
                *micros = (0..15).map(|_| run()).fold(f64::INFINITY, f64::min);
            }
            let [peaked, flat] = micros;
            println!("{n:7} {name:20} {peaked:7.1} us peaked {flat:7.1} us flat");
        }
    }
}

/// Not a test: prints the time of verification by rejection beside normal sampling.
#[test]
fn time_of_a_rejection() {
    let mut random = Random(3);
    for n in [49_152, 151_936] {
        let logits = random.logits(n, 2.5);
        for (name, sampling) in [
            ("temperature", sampling(1.0)),
            ("top-p 0.95", SamplingParams { top_p: 0.95, ..sampling(1.0) }),
        ] {
            let mut scratch = Scratch::default();
            let mut proposal =
                reject::proposal_of(&logits, &sampling, &mut scratch).expect("not greedy");
            // The draft is certain of a token that the target hardly ever samples.
            proposal.from.probabilities.fill(0.0);
            let token = proposal.from.tokens.first().copied().unwrap_or(0);
            proposal = Proposal { token, ..proposal };
            proposal.from.probabilities[0] = 1.0;
            let kinds = [None, Some(Rejection::Draft), Some(Rejection::Verify(&proposal))];
            let micros = kinds.map(|rejection| {
                let mut run = || {
                    let start = Instant::now();
                    for position in 0..20 {
                        let row = SampleRow { rejection, ..sample_row(&sampling, position) };
                        std::hint::black_box(sample_token(&logits, &row, &mut scratch));
                    }
                    start.elapsed().as_secs_f64() * 1e6 / 20.0
                };
                (0..15).map(|_| run()).fold(f64::INFINITY, f64::min)
            });
            println!(
                "{n} {name}: sample {:.0}, draft {:.0}, reject {:.0} us",
                micros[0], micros[1], micros[2]
            );
        }
    }
}
