//! Steps at the limits of a device, and failing steps, on real models with Galley's own drafters.

use galley_backend::Formats;
use galley_engine::{DraftConfig, EngineConfig, Prompt, Request};
use galley_tests::failing::assert_the_others_go_on;
use galley_tests::on_cpu;
use galley_tests::plugins::{TARGET_DRAFTERS, drafting, second_model};
use galley_tests::runs::{Setup, alone, open, requests, run, run_drafting};
use galley_tests::same_bytes::{chaotic, with_drafts};

fn greedy(n_prompt: u32) -> Request {
    Request::new(Prompt::Tokens((0..n_prompt).map(|k| 10 + k % 7).collect()))
        .temperature(0.0)
        .max_tokens(100)
        .ignore_eos(true)
}

/// Eight rows of logits, the default configuration, and nine requests: a step has at
/// most 8 rows of logits.
#[test]
fn case_20_the_sizes_of_the_example_and_the_default_configuration() {
    let config = EngineConfig::default().max_num_batched_tokens(256);
    let setup = Setup { max_logit_rows: 8, config, ..alone() };
    let requests: Vec<_> = [10; 8].into_iter().chain([150]).map(greedy).collect();
    let (expected, _) = run(open("llama3", &alone()), &alone().config, &requests, false);
    let (got, stats) = run(open("llama3", &setup), &setup.config, &requests, true);
    assert_eq!(expected, got);
    assert_eq!((stats.finished, stats.failed_steps), (9, 0));
}

/// Four sequences that draft three tokens each, and 12 rows of logits: three for each sequence. The
/// last prompt takes several chunks and ends in a step in which the other sequences draft.
#[test]
fn case_20_a_prompt_that_ends_beside_drafts() {
    let config = EngineConfig::default().max_num_seqs(4).max_num_batched_tokens(64);
    let setup = Setup { max_logit_rows: 12, config, ..alone() };
    let requests: Vec<_> = [10, 10, 10, 150].into_iter().map(greedy).collect();
    let (expected, _) = run(open("llama3", &alone()), &alone().config, &requests, false);
    let second = second_model("llama3", "");
    for (name, options) in TARGET_DRAFTERS.into_iter().chain([("small-model", second.as_str())]) {
        let drafting = drafting(name, options);
        let (got, stats) =
            run_drafting(open("llama3", &setup), &setup.config, &drafting, &requests, true);
        assert_eq!(expected, got, "{name} {options}");
        assert_eq!((stats.finished, stats.failed_steps), (4, 0), "{name} {options}");
        assert!(stats.drafts.drafted > 0, "{name} {options}");
    }
}

/// Any call of the model or of its draft model may fail: the other requests must give their
/// expected output.
#[test]
fn case_20_a_step_that_fails_on_a_real_model() {
    let base = alone();
    let plain = open("llama3", &base);
    let config = &plain.0.target().config;
    let short = |request: Request| request.max_tokens(10);
    let requests = requests(config.vocab_size as u32, config.max_context.min(400));
    let requests: Vec<_> = requests.into_iter().map(short).collect();
    let (expected, _) = run(plain, &base.config, &requests, false);
    let requests = with_drafts(&requests);
    let second = second_model("llama3", "");
    let drafters = [
        None,
        Some(("snap-kv", "budget=96,queries=8,refresh=16")),
        Some(("self-spec", "budget=96,recent=16,refresh=2")),
        Some(("layer-skip", "mode=search,sinks=16,budget=64")),
        Some(("small-model", second.as_str())),
    ];
    for (drafter, seed) in drafters.into_iter().zip([0, 1, 0, 1, 0]) {
        let drafting =
            drafter.map_or_else(DraftConfig::default, |(name, options)| drafting(name, options));
        let setup = chaotic(seed, on_cpu(Formats::BF16, 1));
        let counts = assert_the_others_go_on("llama3", &setup, &drafting, &requests, &expected, 60);
        println!("{drafter:?}: {counts:?} requests yielded their tokens and then failed");
        assert!(counts.0 > 20 && counts.1 > 20, "{counts:?}");
    }
}
