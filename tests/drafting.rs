//! The same bytes, whoever drafts: tokens, text and log-probabilities with every drafter are those of plain
//! decoding, bit for bit, whatever the schedule.

use galley_backend::Dtype;
use galley_engine::{
    DraftConfig, DraftRequest, DrafterChoice, EngineConfig, Prompt, Request, SchedulePolicy,
};
use galley_tests::plugins::{TARGET_DRAFTERS, setup};
use galley_tests::runs::{OtherOrder, Setup, alone, open, requests, run, run_drafting};

/// A pool and a schedule that leave nothing as it comes: chunks, missed turns, preemptions.
fn chaotic(seed: u64, dtype: Dtype) -> Setup {
    Setup {
        n_threads: 1 + seed as usize % 2,
        n_blocks: if seed.is_multiple_of(2) { 40 } else { 200 },
        config: EngineConfig {
            max_num_seqs: 4 + 4 * seed as usize,
            max_num_batched_tokens: 64 + 60 * seed as usize,
            prefix_caching: seed != 3,
            policy: SchedulePolicy::Random { seed },
        },
        dtype,
        max_logit_rows: 48,
    }
}

fn drafting(name: &str, options: &str) -> DraftConfig {
    DraftConfig { drafters: vec![setup(name, options)], ..DraftConfig::default() }
}

/// Draft lengths, and budgets for some.
fn with_drafts(requests: &[Request]) -> Vec<Request> {
    let drafts = [(None, None), (Some(1), Some(48)), (Some(7), None), (Some(4), Some(80))];
    let requests = requests.iter().zip(drafts.into_iter().cycle());
    let requests = requests.map(|(request, (draft_length, kv_budget))| {
        let drafting = DraftRequest { draft_length, kv_budget, ..DraftRequest::default() };
        Request { drafting, ..request.clone() }
    });
    requests.collect()
}

#[test]
fn output_does_not_depend_on_the_drafter() {
    for (model, dtype) in [
        ("llama3", Dtype::Bf16),
        ("mistral", Dtype::Bf16),
        ("qwen3", Dtype::F32),
        ("smollm2", Dtype::Bf16),
    ] {
        let base = Setup { dtype, ..alone() };
        let plain = open(model, &base);
        let config = plain.0.config();
        let once = requests(config.vocab_size as u32, config.max_context.min(400));
        // Twice, so that the second half finds the first in the prefix cache.
        let requests = [once.clone(), once].concat();
        let (expected, _) = run(plain, &base.config, &requests, false);
        let requests = with_drafts(&requests);
        for (drafter, options) in TARGET_DRAFTERS {
            let (mut drafted, mut accepted, mut preemptions) = (0, 0, 0);
            for seed in 0..3 {
                let setup = chaotic(seed, dtype);
                let (got, stats) = run_drafting(
                    open(model, &setup),
                    &setup.config,
                    &drafting(drafter, options),
                    &requests,
                    true,
                );
                assert_eq!(expected, got, "{drafter} ({options}) on {model}, schedule {seed}");
                drafted += stats.drafts.drafted;
                accepted += stats.drafts.accepted;
                preemptions += stats.preemptions;
            }
            // The test is about these; without them it would show nothing.
            assert!(drafted > 200, "{drafter} ({options}) on {model}: {drafted} drafted");
            assert!(accepted > 0, "{drafter} ({options}) on {model}: {drafted} drafted");
            assert!(preemptions > 5, "{drafter} on {model}: {preemptions} preemptions");
        }
    }
}

/// The negative control: a target that sums in another order when it verifies several rows. Plain decodes are
/// what they were, so it takes drafting to bring it out; the comparison must notice.
#[test]
fn a_verification_that_is_not_row_invariant_is_noticed() {
    let base = alone();
    let (model, tokenizer) = open("llama3", &base);
    let config = model.config();
    let requests = requests(config.vocab_size as u32, config.max_context.min(400));
    let config = EngineConfig { max_num_batched_tokens: 512, ..base.config.clone() };
    let (expected, _) = run((model, tokenizer), &config, &requests, false);
    let requests = with_drafts(&requests);
    let wrong = |is_wrong: bool| {
        let (model, tokenizer) = open("llama3", &base);
        let model = if is_wrong { Box::new(OtherOrder(model)) } else { model };
        let drafting = drafting("streaming-llm", "budget=64");
        run_drafting((model, tokenizer), &config, &drafting, &requests, false).0
    };
    assert_eq!(expected, wrong(false));
    assert_ne!(expected, wrong(true));
}

/// A budget that covers the context is the target itself: every guess is its own.
#[test]
fn a_draft_that_sees_all_is_accepted_whole() {
    let base = alone();
    let greedy = |request: Request| Request { temperature: 0.0, stop: vec![], n: 1, ..request };
    for (drafter, options) in [
        ("streaming-llm", "budget=4096"),
        ("snap-kv", "budget=4096,queries=8"),
        ("self-spec", "budget=4096,recent=16"),
    ] {
        let (model, tokenizer) = open("llama3", &base);
        let config = model.config();
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
    let config = DraftConfig {
        drafters: vec![setup("ngram", ""), setup("streaming-llm", "budget=32")],
        ..DraftConfig::default()
    };
    let request = |drafter| Request {
        max_tokens: Some(16),
        ignore_eos: true,
        temperature: 0.0,
        drafting: DraftRequest { drafter, ..DraftRequest::default() },
        ..Request::new(Prompt::Tokens((10..90).collect()))
    };
    let drafted = |drafter| {
        let model = open("llama3", &base);
        let (_, stats) = run_drafting(model, &base.config, &config, &[request(drafter)], true);
        stats.drafts.drafted
    };
    assert_eq!(drafted(DrafterChoice::Off), 0);
    assert!(drafted(DrafterChoice::Named("streaming-llm".into())) > 0);
}
