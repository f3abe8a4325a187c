//! Verification by rejection: sequences drafted and verified by a real engine, under a chaotic
//! schedule, follow the target's own distribution, computed from plain logits. Sequences of wrong
//! verifiers do not.

use galley_backend::sample::philox::{decision, draft_seed, word};
use galley_backend::sample::{Proposal, Rejection, SampleRow, SampledToken, SampledTokens};
use galley_backend::{Batch, Formats, LayerMask, Observation};
use galley_engine::{
    DraftConfig, DraftRequest, DraftStats, EngineConfig, Prompt, Request, SchedulePolicy, Verify,
};
use galley_model::{LanguageModel, ModelIndex, Result};
use galley_tests::plugins::setup;
use galley_tests::run_rows;
use galley_tests::runs::{Setup, alone, open, requests, run, run_drafting};
use galley_tests::{left_to_the_inner_model, on_cpu};

const MODEL: &str = "llama3";
const PROMPT: [u32; 7] = [40, 99, 13, 200, 77, 31, 8];
/// Sequences in a sample; each request has [`N_STREAMS`].
const N_SEQUENCES: usize = 16_000;
const N_STREAMS: usize = 20;

/// The sampling settings of a sample's requests, and the statistics to compare.
#[derive(Clone, Copy)]
struct Setting {
    drafter: (&'static str, &'static str),
    temperature: f32,
    top_k: u32,
    top_p: f32,
    frequency_penalty: f32,
    /// Number of first tokens that enter the joint distribution.
    n_tokens: usize,
    /// Tokens that are equal modulo this number are counted together.
    n_buckets: usize,
}

const EXIT: (&str, &str) = ("layer-skip", "mode=exit,exit=1");
const WINDOW: (&str, &str) = ("streaming-llm", "sinks=0,budget=5");

const TOP_5: Setting = Setting {
    drafter: EXIT,
    temperature: 1.5,
    top_k: 5,
    top_p: 1.0,
    frequency_penalty: 0.0,
    n_tokens: 3,
    n_buckets: 288,
};

impl Setting {
    fn requests(&self, verify: Verify) -> Vec<Request> {
        let request = |seed| {
            Request::new(Prompt::Tokens(PROMPT.to_vec()))
                .temperature(self.temperature)
                .top_k(self.top_k)
                .top_p(self.top_p)
                .frequency_penalty(self.frequency_penalty)
                .seed(seed)
                .n(N_STREAMS as u32)
                .max_tokens(self.n_tokens as u32 + 1)
                .ignore_eos(true)
                .drafting(DraftRequest::default().verify(verify))
        };
        (0..(N_SEQUENCES / N_STREAMS) as u64).map(request).collect()
    }

    /// The tokens that may follow `output` and their probabilities, computed by definition in f64.
    fn exact(&self, logits: &[f32], output: &[u32], eos: &[u32]) -> Vec<(u32, f64)> {
        let mut kept: Vec<(u32, f64)> = (0..).zip(logits.iter().copied().map(f64::from)).collect();
        kept.retain(|(token, _)| !eos.contains(token));
        for (token, logit) in &mut kept {
            let n = output.iter().filter(|&other| other == token).count() as f64;
            *logit = (*logit - f64::from(self.frequency_penalty) * n) / f64::from(self.temperature);
        }
        kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if self.top_k > 0 {
            kept.truncate(self.top_k as usize);
        }
        let top = kept[0].1;
        kept.iter_mut().for_each(|(_, value)| *value = (*value - top).exp());
        let total: f64 = kept.iter().map(|&(_, weight)| weight).sum();
        let mut before = 0.0;
        kept.retain(|&(_, weight)| {
            before += weight;
            before - weight < f64::from(self.top_p) * total
        });
        let total: f64 = kept.iter().map(|&(_, weight)| weight).sum();
        kept.into_iter().map(|(token, weight)| (token, weight / total)).collect()
    }

    /// The probability of every cell. A cell is the tuple of a sequence's first tokens, in buckets.
    fn cells(&self, model: &mut dyn LanguageModel) -> Vec<f64> {
        let mut cells = vec![0.0; self.n_buckets.pow(self.n_tokens as u32)];
        let prompt = run_rows(model, &PROMPT, 0, PROMPT.len(), &[PROMPT.len() as u32 - 1]);
        let eos = model.target().config.end_tokens.of_texts();
        let mut open = vec![(Vec::new(), 1.0)];
        while let Some((output, probability)) = open.pop() {
            if output.len() == self.n_tokens {
                cells[self.cell(&output)] += probability;
                continue;
            }
            let after = match output.len() {
                0 => prompt[0].clone(),
                n => run_rows(model, &output, PROMPT.len(), n, &[n as u32 - 1]).remove(0),
            };
            for (token, of_token) in self.exact(&after, &output, &eos) {
                open.push(([&output[..], &[token]].concat(), probability * of_token));
            }
        }
        cells
    }

    fn cell(&self, tokens: &[u32]) -> usize {
        let tokens = tokens[..self.n_tokens].iter().map(|&token| token as usize);
        tokens.fold(0, |cell, token| cell * self.n_buckets + token % self.n_buckets)
    }

    /// Generates the sample with a model that verifies as `verifier` does, and compares it with
    /// `cells`: Pearson's statistic and its degrees of freedom. The statistic is infinite if the
    /// sample has an outcome of probability zero.
    fn sample(&self, cells: &[f64], verify: Verify, verifier: Verifier) -> Sample {
        let setup = chaotic();
        let (model, tokenizer) = open(MODEL, &setup);
        let model = Box::new(Verifying { model, verifier });
        let (name, options) = self.drafter;
        let drafting = DraftConfig::default().drafters(vec![self::setup(name, options)]);
        let requests = self.requests(verify);
        let (seen, stats) =
            run_drafting((model, tokenizer), &setup.config, &drafting, &requests, true);
        assert!(stats.preemptions > 50, "{} preemptions", stats.preemptions);
        let mut counts = vec![0u32; cells.len()];
        seen.iter().flatten().for_each(|seen| counts[self.cell(&seen.tokens)] += 1);
        let (mut statistic, mut n_cells, mut rest) = (0.0, 0.0, (0.0, 0.0));
        let mut add = |expected: f64, got: f64| {
            statistic += (got - expected) * (got - expected) / expected;
            n_cells += 1.0;
        };
        for (&probability, &got) in cells.iter().zip(&counts) {
            let (expected, got) = (probability * N_SEQUENCES as f64, f64::from(got));
            if expected >= 10.0 {
                add(expected, got);
            } else {
                rest = (rest.0 + expected, rest.1 + got);
                if probability == 0.0 && got > 0.0 {
                    rest.1 = f64::INFINITY;
                }
            }
        }
        if rest.0 + rest.1 > 0.0 {
            add(rest.0.max(f64::MIN_POSITIVE), rest.1);
        }
        let df = n_cells - 1.0;
        Sample { statistic, df, threshold: df + 10.0 * (2.0 * df).sqrt(), drafts: stats.drafts }
    }
}

struct Sample {
    statistic: f64,
    df: f64,
    threshold: f64,
    drafts: DraftStats,
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Sample { statistic, df, threshold, drafts } = self;
        let (drafted, rate) = (drafts.drafted, drafts.accept_rate() * 100.0);
        write!(
            f,
            "{statistic:.0} with {df} degrees of freedom, at most {threshold:.0}; {rate:.1} % of {drafted} accepted"
        )
    }
}

/// A pool that is too small for the requests, and a random schedule that skips turns.
fn chaotic() -> Setup {
    let config = EngineConfig::default()
        .max_num_seqs(40)
        .max_num_batched_tokens(300)
        .prefix_caching(true)
        .policy(SchedulePolicy::Random { seed: 5 });
    Setup { device: on_cpu(Formats::F32, 1), n_blocks: 72, config, max_logit_rows: 160 }
}

/// Ways to verify a draft token.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verifier {
    Right,
    AcceptsAlways,
    /// Samples from p instead of the residual max(p - q, 0).
    ForgetsTheResidual,
    /// Verifies with the noise that sampled the draft token.
    ReusesNoise,
    /// Looks at a draft token to choose whether it is verified: a choice that reads drafts which may be discarded.
    Peeks,
}

/// A model with one of these verifiers.
struct Verifying {
    model: Box<dyn LanguageModel>,
    verifier: Verifier,
}

impl Verifying {
    fn token(&self, row: &SampleRow<'_>, right: u32, plain: u32, logits: &[f32]) -> u32 {
        let Some(Rejection::Verify(proposal)) = row.rejection else { return right };
        match self.verifier {
            Verifier::Right => right,
            Verifier::AcceptsAlways => proposal.token(),
            Verifier::ForgetsTheResidual if right == proposal.token() => right,
            Verifier::ForgetsTheResidual => plain,
            Verifier::Peeks if proposal.token() % 2 == 0 => right,
            Verifier::Peeks => plain,
            Verifier::ReusesNoise => {
                let n = self.model.target().config.vocab_size;
                let logits = &logits[row.logits_row * n..][..n];
                let target = TOP_5.exact(logits, &[], row.banned);
                decided_by_the_draft(&target, proposal, row)
            }
        }
    }
}

fn decided_by_the_draft(target: &[(u32, f64)], proposal: &Proposal, row: &SampleRow<'_>) -> u32 {
    let p = target.iter().find(|(token, _)| *token == proposal.token()).map_or(0.0, |(_, p)| *p);
    let q = |token| f64::from(proposal.probability(token));
    let noise = word(draft_seed(row.seed), row.position, proposal.token());
    if f64::from(noise) / 4_294_967_296.0 * q(proposal.token()) < p {
        return proposal.token();
    }
    let left = |(token, p): &(u32, f64)| (p - q(*token)).max(0.0);
    let mut rest = decision(row.seed, row.position)[1] * target.iter().map(left).sum::<f64>();
    let drawn = target.iter().find(|entry| {
        rest -= left(entry);
        rest < 0.0
    });
    drawn.unwrap_or(&target[0]).0
}

impl LanguageModel for Verifying {
    left_to_the_inner_model!(model);

    fn forward(
        &mut self,
        model: ModelIndex,
        batch: &Batch<'_>,
        layers: &LayerMask<'_>,
        observations: &mut [Observation<'_>],
    ) -> Result<()> {
        self.model.forward(model, batch, layers, observations)
    }
    fn sample(&mut self, model: ModelIndex, rows: &[SampleRow<'_>]) -> Result<Vec<SampledToken>> {
        let right = self.model.sample(model, rows)?;
        if self.verifier == Verifier::Right {
            return Ok(right);
        }
        let logits = self.model.read_logits(model)?;
        let plain: Vec<SampleRow<'_>> =
            rows.iter().map(|row| SampleRow { rejection: None, ..*row }).collect();
        let plain = self.model.sample(model, &plain)?;
        let sampled = rows.iter().zip(right).zip(plain);
        let sampled = sampled.map(|((row, right), plain)| SampledToken {
            token: self.token(row, right.token, plain.token, &logits),
            ..right
        });
        Ok(sampled.collect())
    }
    fn wait_tokens(&mut self) -> Result<SampledTokens> {
        self.model.wait_tokens()
    }
}

#[test]
fn sequences_follow_the_target() {
    let settings = [
        ("top 5", TOP_5),
        (
            "whole vocabulary",
            Setting { top_k: 0, temperature: 1.0, n_tokens: 2, n_buckets: 12, ..TOP_5 },
        ),
        ("top-p and a penalty", Setting { top_k: 7, top_p: 0.8, frequency_penalty: 0.6, ..TOP_5 }),
        ("a window", Setting { drafter: WINDOW, ..TOP_5 }),
    ];
    for (name, setting) in settings {
        let (mut model, _) = open(MODEL, &Setup { device: on_cpu(Formats::F32, 1), ..alone() });
        let cells = setting.cells(&mut *model);
        let sum: f64 = cells.iter().sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        let ours = setting.sample(&cells, Verify::Rejection, Verifier::Right);
        let equality = setting.sample(&cells, Verify::Equality, Verifier::Right);
        println!("{name}: {ours}\n    equality: {equality}");
        for sample in [&ours, &equality] {
            assert!(sample.statistic < sample.threshold, "{name}: {sample}");
            let DraftStats { drafted, accepted, .. } = sample.drafts;
            assert!(accepted > 500 && drafted > accepted + 500, "{name}: {sample}");
        }
    }
}

/// The negative control: the test above must be able to fail.
#[test]
fn wrong_verifiers_do_not_follow_the_target() {
    let (mut model, _) = open(MODEL, &Setup { device: on_cpu(Formats::F32, 1), ..alone() });
    let cells = TOP_5.cells(&mut *model);
    for verifier in [
        Verifier::AcceptsAlways,
        Verifier::ForgetsTheResidual,
        Verifier::ReusesNoise,
        Verifier::Peeks,
    ] {
        let sample = TOP_5.sample(&cells, Verify::Rejection, verifier);
        println!("{verifier:?}: {sample}");
        assert!(sample.statistic > sample.threshold, "{verifier:?}: {sample}");
    }
}

/// Greedy requests, drafts from lookups and requests without rejection are verified by equality:
/// they give the bytes of plain decoding, whatever runs beside them.
#[test]
fn what_is_compared_gives_the_bytes_of_plain_decoding() {
    let base = alone();
    let plain = open(MODEL, &base);
    let vocab_size = plain.0.target().config.vocab_size as u32;
    let sampled = requests(vocab_size, 200);
    let greedy = sampled.iter().map(|request| request.clone().temperature(0.0));
    let all: Vec<Request> = sampled.iter().cloned().chain(greedy).collect();
    let (expected, _) = run(plain, &base.config, &all, false);
    let schedule = Setup { device: base.device, n_blocks: 200, ..chaotic() };
    for (name, options) in [
        ("ngram", "min=1,factor=8,min-probability=0"),
        EXIT,
        ("snap-kv", "budget=48,queries=8,refresh=16"),
    ] {
        let verify = |request: &Request, verify| {
            let drafting = DraftRequest::default().verify(verify);
            request.clone().drafting(drafting)
        };
        let half = all
            .iter()
            .zip((0..).map(|at| if at % 2 == 0 { Verify::Equality } else { Verify::Rejection }));
        let half: Vec<Request> = half.map(|(request, how)| verify(request, how)).collect();
        let drafting = DraftConfig::default().drafters(vec![setup(name, options)]);
        let (got, stats) =
            run_drafting(open(MODEL, &schedule), &schedule.config, &drafting, &half, true);
        assert!(stats.drafts.accepted > 0 && stats.drafts.drafted > 50, "{:?}", stats.drafts);
        let mut n_other = 0;
        for (at, request) in half.iter().enumerate() {
            let is_compared = request.drafting.verify == Verify::Equality
                || request.sampling.temperature == 0.0
                || name == "ngram";
            let is_same = expected[at] == got[at];
            assert!(is_same || !is_compared, "{name}, request {at}");
            n_other += usize::from(!is_same);
            for (seen, plain) in got[at].iter().zip(&expected[at]) {
                let most = request.max_tokens.expect("they have a limit") as usize;
                assert!(seen.tokens.len() <= most && seen.finish != "never", "{name}, {at}");
                assert_eq!(
                    seen.logprobs.len() / seen.tokens.len(),
                    plain.logprobs.len() / plain.tokens.len()
                );
            }
        }
        // The negative control: other requests do not give the bytes of plain decoding.
        assert_eq!(n_other > 0, name != "ngram", "{name}: {n_other}");
    }
}
