//! The same bytes with every drafter: tokens, text and log-probabilities equal plain decoding, bit
//! for bit, under every schedule.

use galley_backend::cpu::InstructionSet;
use galley_backend::sample::{SampleRow, SampledToken, SampledTokens};
use galley_backend::{Batch, Formats, LayerMask, Observation, OperandFormat, WeightFormat};
use galley_engine::{DraftConfig, DraftRequest, DrafterChoice, Prompt, Request};
use galley_model::{LanguageModel, ModelIndex, Result};
use galley_tests::plugins::{TARGET_DRAFTERS, drafting, setup};
use galley_tests::runs::{Alteration, Altered, Setup, alone, open, requests, run, run_drafting};
use galley_tests::same_bytes::{Extent, assert_same_bytes, with_drafts};
use galley_tests::{QUANTISED, cpu, instruction_sets, left_to_the_inner_model, on_cpu, weights_in};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[test]
fn output_does_not_depend_on_the_drafter() {
    assert_same_bytes("llama3", Extent::Full, |n| on_cpu(Formats::BF16, n), TARGET_DRAFTERS);
    assert_same_bytes("mistral", Extent::Full, |n| on_cpu(Formats::BF16, n), TARGET_DRAFTERS);
    assert_same_bytes("qwen3", Extent::Full, |n| on_cpu(Formats::F32, n), TARGET_DRAFTERS);
    assert_same_bytes("smollm2", Extent::Full, |n| on_cpu(Formats::BF16, n), TARGET_DRAFTERS);
}

#[test]
fn output_of_quantised_weights_does_not_depend_on_the_drafter() {
    let (model, _) = QUANTISED;
    for isa in instruction_sets() {
        // The portable kernels are slow, so each drafter has one choice of options there.
        let mut drafters = TARGET_DRAFTERS.to_vec();
        if isa == InstructionSet::Portable {
            drafters.dedup_by_key(|(name, _)| *name);
        }
        let device = |n| cpu(Some(isa), Formats::NATIVE, n).into();
        assert_same_bytes(model, Extent::Small, device, drafters);
    }
    // Weights that are quantised while loading, some of them in rows that are no whole blocks.
    for (model, weights) in [("odd", WeightFormat::Q8), ("llama3", WeightFormat::Q4)] {
        let device = |n| on_cpu(weights_in(weights, OperandFormat::Bf16), n);
        assert_same_bytes(model, Extent::Full, device, TARGET_DRAFTERS);
    }
}

/// The negative control: a target that sums in another order when it verifies several rows. Its
/// plain decodes are unchanged, so only drafting shows the fault; the comparison must notice it.
#[test]
fn a_verification_that_is_not_row_invariant_is_noticed() {
    for (name, formats) in [("llama3", Formats::BF16), (QUANTISED.0, Formats::NATIVE)] {
        let base = Setup { device: on_cpu(formats, 1), ..alone() };
        let (model, tokenizer) = open(name, &base);
        let config = &model.target().config;
        let requests = requests(config.vocab_size as u32, config.max_context.min(400));
        let config = base.config.clone().max_num_batched_tokens(512);
        let (expected, _) = run((model, tokenizer), &config, &requests, false);
        let requests = with_drafts(&requests);
        let drafted = |alteration: Option<Alteration>| {
            let (model, tokenizer) = open(name, &base);
            let model = match alteration {
                Some(alteration) => Box::new(Altered(model, alteration)),
                None => model,
            };
            let drafting = drafting("streaming-llm", "budget=64");
            run_drafting((model, tokenizer), &config, &drafting, &requests, false).0
        };
        assert_eq!(expected, drafted(None));
        assert_ne!(expected, drafted(Some(Alteration::OtherOrder)));
    }
}

/// With a budget that covers the context, the draft pass is the target itself, so every draft token
/// is accepted.
#[test]
fn a_draft_that_sees_all_is_accepted_whole() {
    let base = alone();
    let greedy = |request: Request| request.temperature(0.0).stop(Vec::<String>::new()).n(1);
    for (drafter, options) in [
        ("streaming-llm", "budget=4096"),
        ("snap-kv", "budget=4096,queries=8"),
        ("self-spec", "budget=4096,recent=16"),
    ] {
        let (model, tokenizer) = open("llama3", &base);
        let config = &model.target().config;
        let requests = requests(config.vocab_size as u32, config.max_context.min(400));
        let sampled = requests.iter().filter(|request| request.stop_tokens.is_empty()).cloned();
        let both: Vec<Request> = sampled.clone().chain(sampled.map(greedy)).collect();
        let (_, stats) = run_drafting(
            (model, tokenizer),
            &base.config,
            &drafting(drafter, options),
            &both,
            true,
        );
        assert!(stats.drafts.drafted > 100, "{drafter}: {:?}", stats.drafts);
        assert_eq!(stats.drafts.accepted, stats.drafts.drafted, "{drafter}");
    }
}

#[test]
fn a_request_chooses_its_drafter_or_none() {
    let base = alone();
    let config = DraftConfig::default()
        .drafters(vec![setup("ngram", ""), setup("streaming-llm", "budget=32")]);
    let request = |drafter| {
        Request::new(Prompt::Tokens((10..90).collect()))
            .max_tokens(16)
            .ignore_eos(true)
            .temperature(0.0)
            .drafting(DraftRequest::default().drafter(drafter))
    };
    let drafted = |drafter| {
        let model = open("llama3", &base);
        let (_, stats) = run_drafting(model, &base.config, &config, &[request(drafter)], true);
        stats.drafts.drafted
    };
    assert_eq!(drafted(DrafterChoice::Off), 0);
    // No token occurs twice in this prompt, so a lookup finds no draft.
    assert_eq!(drafted(DrafterChoice::Default), 0);
    assert!(drafted(DrafterChoice::Named("streaming-llm".into())) > 0);
}

/// The selection of a view depends on the tokens alone: drafts are the same after a prompt in
/// chunks, after a prefix hit, and after a prompt read in one step.
#[test]
fn a_selection_does_not_depend_on_how_the_prompt_was_read() {
    let request =
        Request::new(Prompt::Tokens((0..170).map(|i| (i * i * 7 + i * 13) % 250 + 10).collect()))
            .max_tokens(60)
            .ignore_eos(true)
            .seed(3);
    let counts = |options: &str, chunk: usize, times: usize| {
        let config = alone().config.max_num_batched_tokens(chunk).prefix_caching(times > 1);
        let (name, options) = options.split_once(' ').expect("a drafter and its options");
        let drafting = drafting(name, options);
        let setup = Setup { config, ..alone() };
        let requests = vec![request.clone(); times];
        let (_, stats) =
            run_drafting(open("llama3", &setup), &setup.config, &drafting, &requests, false);
        assert_eq!(stats.prefix_hit_tokens > 0, times > 1);
        let per_position = stats.drafts.accepted_per_position.iter();
        let per_request: Vec<u64> = per_position.map(|&n| n / times as u64).collect();
        (stats.drafts.rounds, stats.drafts.drafted, per_request, times as u64)
    };
    for options in ["snap-kv budget=96,queries=8,refresh=16", "self-spec budget=96,recent=16"] {
        let (rounds, drafted, accepted, _) = counts(options, 512, 1);
        assert!(drafted > accepted.iter().sum(), "{options}: every draft token was right");
        for (chunk, times) in [(16, 1), (37, 1), (512, 2)] {
            let n = times as u64;
            let expected = (rounds * n, drafted * n, accepted.clone(), n);
            assert_eq!(counts(options, chunk, times), expected, "{options}: chunks of {chunk}");
        }
    }
    // The control: another selection drafts other tokens.
    let other = counts("snap-kv budget=72,queries=8,refresh=16", 512, 1);
    assert_ne!(other, counts("snap-kv budget=96,queries=8,refresh=16", 512, 1));
}

/// Numbers of calls of a model.
#[derive(Default)]
struct Counts {
    forwards: AtomicU64,
    samples: AtomicU64,
    takes: AtomicU64,
}

/// A model that counts its calls.
struct Counted(Box<dyn LanguageModel>, Arc<Counts>);

impl LanguageModel for Counted {
    left_to_the_inner_model!(0);

    fn forward(
        &mut self,
        model: ModelIndex,
        batch: &Batch<'_>,
        layers: &LayerMask<'_>,
        observations: &mut [Observation<'_>],
    ) -> Result<()> {
        self.1.forwards.fetch_add(1, Relaxed);
        self.0.forward(model, batch, layers, observations)
    }
    fn sample(&mut self, model: ModelIndex, rows: &[SampleRow<'_>]) -> Result<Vec<SampledToken>> {
        self.1.samples.fetch_add(1, Relaxed);
        self.0.sample(model, rows)
    }
    fn wait_tokens(&mut self) -> Result<SampledTokens> {
        self.1.takes.fetch_add(1, Relaxed);
        self.0.wait_tokens()
    }
}

/// A draft of several tokens waits for the device once, at its end. Penalties depend on draft
/// tokens: with them, the engine waits for every draft token.
#[test]
fn a_chain_is_waited_for_at_its_end() {
    let base = alone();
    for frequency_penalty in [0.0, 0.5] {
        let counts = Arc::new(Counts::default());
        let (model, tokenizer) = open("llama3", &base);
        let model = Box::new(Counted(model, Arc::clone(&counts)));
        let request = Request::new(Prompt::Tokens((10..90).collect()))
            .max_tokens(40)
            .ignore_eos(true)
            .temperature(0.8)
            .frequency_penalty(frequency_penalty);
        let drafting = drafting("streaming-llm", "budget=64");
        let (_, stats) =
            run_drafting((model, tokenizer), &base.config, &drafting, &[request], true);
        let of = |count: &AtomicU64| count.load(Relaxed);
        let (forwards, samples, takes) =
            (of(&counts.forwards), of(&counts.samples), of(&counts.takes));
        assert!(stats.drafts.drafted > stats.drafts.rounds, "{:?}", stats.drafts);
        match frequency_penalty {
            0.0 => {
                assert_eq!((samples, takes), (forwards - stats.drafts.drafted, stats.drafts.rounds))
            }
            _ => assert_eq!((samples, takes), (forwards, 0)),
        }
    }
}
