//! Drafting with a draft model: it changes no byte, shares the target's pool, and never delays a
//! sequence.

#[path = "../engine/model/tests/common/edit.rs"]
mod edit;

use edit::GgufCopy;
use galley_backend::sample::{SampleRow, SampledToken, SampledTokens};
use galley_backend::{Batch, Formats, LayerMask, Observation, OperandFormat, WeightFormat};
use galley_engine::{DraftRequest, Engine, Prompt, Request, Stats};
use galley_model::weights::Checkpoint;
use galley_model::{LanguageModel, ModelIndex, Result};
use galley_tests::plugins::{drafting, second_model as options};
use galley_tests::runs::{Seen, Setup, alone, open, run_drafting};
use galley_tests::same_bytes::{Extent, assert_same_bytes};
use galley_tests::{
    QUANTISED, cpu, data, instruction_sets, left_to_the_inner_model, on_cpu, weights_in,
};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[test]
fn output_does_not_depend_on_a_second_model() {
    for (target, draft, formats, more) in [
        // Two of its blocks fit into one block of the target.
        ("llama3", "mistral", Formats::BF16, ""),
        ("llama3", "llama3", Formats::BF16, ",sinks=16,budget=64"),
        // Heads half as wide, and a vocabulary padded to more tokens than the target's.
        ("qwen3", "mistral", Formats::F32, ",sinks=0,budget=40"),
        ("qwen3", "odd", Formats::F32, ""),
        // The target has a larger vocabulary than the draft model.
        ("odd", "mistral", Formats::BF16, ""),
        // Weights as in the file: both models quantised, and a draft model of floats.
        (QUANTISED.0, QUANTISED.0, Formats::NATIVE, ",sinks=16,budget=64"),
        (QUANTISED.0, "qwen3", Formats::NATIVE, ""),
        // Both models are quantised while loading.
        ("qwen3", "odd", weights_in(WeightFormat::Q4, OperandFormat::Bf16), ""),
    ] {
        assert_same_bytes(
            target,
            Extent::Full,
            |n| on_cpu(formats, n),
            [("small-model", options(draft, more).as_str())],
        );
    }
}

/// The models of one device differ in the format of their operands: a quantised model has them in f32.
#[test]
fn output_of_float_weights_does_not_depend_on_a_quantised_second_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let draft = folder.path().join("draft.gguf");
    GgufCopy::of(&data("models/smollm2.gguf")).with_q8_0("blk.1.attn_q.weight").write(&draft);
    let has_blocks = |path: &Path| Checkpoint::open(path).expect("a model").has_blocks();
    assert_eq!([has_blocks(&draft), has_blocks(&data("models/smollm2"))], [true, false]);
    let draft = draft.to_str().expect("UTF-8");
    for more in ["", ",sinks=16,budget=64"] {
        assert_same_bytes(
            "smollm2",
            Extent::Full,
            |n| on_cpu(Formats::NATIVE, n),
            [("small-model", options(draft, more).as_str())],
        );
    }
}

#[test]
fn output_of_quantised_weights_does_not_depend_on_a_quantised_second_model() {
    let (model, _) = QUANTISED;
    for isa in instruction_sets() {
        assert_same_bytes(
            model,
            Extent::Small,
            |n| cpu(Some(isa), Formats::NATIVE, n).into(),
            [("small-model", options(model, ",sinks=16,budget=64").as_str())],
        );
    }
}

fn request(first: u32, n: u32) -> Request {
    let tokens = (0..n).map(|i| (i * i * 7 + i * 13 + first * 31) % 250 + 10).collect();
    Request::new(Prompt::Tokens(tokens)).max_tokens(40).ignore_eos(true).seed(u64::from(first))
}

/// With the target as its own draft model, every draft token equals the target's sampled token.
/// This fails if the draft model's KV is not kept up after rejected draft tokens, in chunks, or in
/// unshared blocks.
#[test]
fn a_draft_model_equal_to_its_target_is_always_right() {
    let requests: Vec<Request> = (0..6).map(|i| request(i, 20 + 31 * i)).collect();
    for (name, formats) in [("llama3", Formats::BF16), (QUANTISED.0, Formats::NATIVE)] {
        let config = alone().config.max_num_batched_tokens(64);
        let setup = Setup { device: on_cpu(formats, 1), config, ..alone() };
        for more in ["", ",sinks=16,budget=4096"] {
            let drafting = drafting("small-model", &options(name, more));
            let model = open(name, &setup);
            let (_, stats) = run_drafting(model, &setup.config, &drafting, &requests, true);
            assert!(stats.drafts.drafted > 100, "{:?}", stats.drafts);
            assert_eq!(stats.drafts.accepted, stats.drafts.drafted);
        }
    }
}

/// Draft KV is allocated from the visible pool, and released before any sequence is preempted or
/// waits. KV of draft models in the prefix cache gives way, too.
#[test]
fn draft_kv_gives_way() {
    // Three sequences of 9 blocks each: the pool holds their KV and part of the draft models' KV.
    let once: Vec<Request> = (0..3).map(|i| request(i, 100)).collect();
    let twice = [once.clone(), once.clone()].concat();
    for (requests, prefix_caching) in [(once, false), (twice, true)] {
        let run = |n_blocks: usize, drafting_on: bool| {
            let config = alone().config.prefix_caching(prefix_caching).max_num_seqs(3);
            let setup = Setup { n_blocks, config, ..alone() };
            let mut config = drafting("small-model", &options("llama3", ""));
            if !drafting_on {
                config.drafters.clear();
            }
            let (_, stats) =
                run_drafting(open("llama3", &setup), &setup.config, &config, &requests, true);
            stats
        };
        let (roomy, plain) = (run(256, true), run(256, false));
        assert_eq!((roomy.kv_blocks_used, roomy.kv_blocks_drafting), (0, 0), "all was given back");
        assert!(roomy.kv_blocks_peak > plain.kv_blocks_peak + 9, "draft KV is in the pool");
        assert_eq!(roomy.draft_prefix_hit_tokens > 0, prefix_caching);
        for n_blocks in [30, 31, 33, 40] {
            let (tight, plain) = (run(n_blocks, true), run(n_blocks, false));
            assert_eq!(plain.preemptions, 0);
            assert_eq!(tight.preemptions, 0, "{n_blocks} blocks: a sequence gave way to a draft");
            assert!(tight.drafts.drafted < roomy.drafts.drafted, "{n_blocks} blocks are too many");
            // The sequences need 27 blocks at the end, and the draft model's KV of one sequence needs
            // 7 to 9.
            assert_eq!(tight.drafts.drafted > 0, n_blocks > 30, "{n_blocks} blocks");
        }
    }
}

/// A model that counts the rows of its draft model.
struct Counted(Box<dyn LanguageModel>, Arc<AtomicU64>);

impl LanguageModel for Counted {
    left_to_the_inner_model!(0);

    fn forward(
        &mut self,
        model: ModelIndex,
        batch: &Batch<'_>,
        layers: &LayerMask<'_>,
        observations: &mut [Observation<'_>],
    ) -> Result<()> {
        if model != ModelIndex::TARGET {
            self.1.fetch_add(batch.tokens.len() as u64, Relaxed);
        }
        self.0.forward(model, batch, layers, observations)
    }
    fn sample(&mut self, model: ModelIndex, rows: &[SampleRow<'_>]) -> Result<Vec<SampledToken>> {
        self.0.sample(model, rows)
    }
    fn wait_tokens(&mut self) -> Result<SampledTokens> {
        self.0.wait_tokens()
    }
}

/// Output and statistics of requests on llama3, and the rows of its draft model.
fn run_counted(
    options: &str,
    (prefix_caching, n_rows, together): (bool, usize, bool),
    requests: &[Request],
) -> (Vec<Vec<Seen>>, Stats, u64) {
    let config = alone().config.max_num_seqs(8).max_num_batched_tokens(n_rows);
    let setup = Setup { config: config.prefix_caching(prefix_caching), ..alone() };
    let (model, tokenizer) = open("llama3", &setup);
    let count = Arc::new(AtomicU64::new(0));
    let model = Box::new(Counted(model, Arc::clone(&count)));
    let drafting = drafting("small-model", options);
    let (seen, stats) =
        run_drafting((model, tokenizer), &setup.config, &drafting, requests, together);
    (seen, stats, count.load(Relaxed))
}

/// Of two requests with one prompt and one salt, the second has the draft model read the rest of the
/// prompt alone.
#[test]
fn a_draft_model_finds_its_prompt_in_the_prefix_cache() {
    // The prompt has seven full blocks of the target. Those of the second draft model have 32 tokens.
    for (draft, hit) in [("llama3", 112), ("mistral", 96)] {
        let once = request(1, 120);
        let requests = [once.clone(), once.clone().seed(2), once.clone().seed(2).cache_salt(9)];
        let run = |caching| run_counted(&options(draft, ""), (caching, 512, false), &requests);
        let ((expected, without, before), (seen, with, after)) = (run(false), run(true));
        assert_eq!(seen, expected);
        assert_eq!((without.draft_prefix_hit_tokens, without.prefix_hit_tokens), (0, 0));
        assert_eq!((with.draft_prefix_hit_tokens, with.prefix_hit_tokens), (hit, 112), "{draft}");
        assert_eq!(with.drafts, without.drafts);
        assert_eq!(before - after, hit, "rows of {draft}: {before} without the cache");
    }
}

/// Forks, and requests that begin in the same step, have the draft model read their prompt once.
#[test]
fn sequences_that_run_together_share_the_kv_of_a_draft_model() {
    let forks = vec![request(1, 120).n(8)];
    let requests = (0..8).map(|seed| request(1, 120).seed(seed)).collect();
    for requests in [forks, requests] {
        let run = |caching| run_counted(&options("llama3", ""), (caching, 1024, true), &requests);
        let ((expected, _, before), (seen, stats, after)) = (run(false), run(true));
        println!("{before} rows of the draft model, {after} with shared KV");
        assert_eq!(seen, expected);
        assert_eq!(stats.draft_prefix_hit_tokens, 7 * 112);
        assert_eq!(stats.drafts.accepted, stats.drafts.drafted);
        assert!(after + 6 * 112 < before, "{after} of {before}");
    }
}

/// The draft tokens of a request are the same whether its draft model has read the prompt, in one
/// forward or in several, or has taken the KV of earlier requests: no KV is shared that was computed
/// through a view, or of draft tokens that were wrong.
#[test]
fn acceptance_does_not_depend_on_the_reader_of_the_prompt() {
    for (draft, more) in
        [("mistral", ""), ("qwen2", ",sinks=16,budget=64"), ("llama3", ",sinks=0,budget=48")]
    {
        let options = options(draft, more);
        let fresh = |request: &Request| {
            let (mut seen, stats, _) =
                run_counted(&options, (false, 512, false), std::slice::from_ref(request));
            (seen.remove(0), counts(&stats))
        };
        let first = request(3, 120);
        let (seen, (_, drafted, accepted)) = fresh(&first);
        assert!(accepted < drafted, "some draft tokens are wrong");
        let Prompt::Tokens(mut tokens) = first.prompt.clone() else { panic!("tokens") };
        tokens.extend(&seen[0].tokens);
        tokens.extend(11..31);
        // The first request again, and the first with its answer and a little more. Through a view, only
        // the first prompt was read whole.
        let longer = first.clone().prompt(Prompt::Tokens(tokens));
        let hits_of_longer = if more.is_empty() { 128..=160 } else { 96..=112 };
        for (second, hits) in [(first.clone(), 96..=112), (longer, hits_of_longer)] {
            let (expected, alone) = fresh(&second);
            for n_rows in [512, 100] {
                let run =
                    |requests: &[Request]| run_counted(&options, (true, n_rows, false), requests);
                let (_, before, _) = run(std::slice::from_ref(&first));
                let (seen, after, _) = run(&[first.clone(), second.clone()]);
                assert!(hits.contains(&after.draft_prefix_hit_tokens), "{hits:?}: {after:?}");
                assert_eq!(seen[1], expected);
                let (before, after) = (counts(&before), counts(&after));
                let got = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
                assert_eq!(got, alone, "{options}, {n_rows} rows");
            }
        }
    }
}

/// Rounds, draft tokens, and accepted ones.
fn counts(stats: &Stats) -> (u64, u64, u64) {
    (stats.drafts.rounds, stats.drafts.drafted, stats.drafts.accepted)
}

fn refusal(target: &str, model: &str) -> String {
    let setup = alone();
    let (model, options) = (open(target, &setup), format!("model={model}"));
    let drafting = drafting("small-model", &options);
    let engine = Engine::start_with_drafters(model.0, Some(model.1), setup.config, &drafting);
    engine.err().expect("it cannot draft").to_string()
}

#[test]
fn a_model_that_cannot_draft_is_refused_with_the_reason() {
    let models = data("models");
    let path = |name: &str| models.join(name).display().to_string();
    let large = refusal("mistral", &path("llama2"));
    assert!(large.contains("does not fit into the target's blocks"), "{large}");
    let missing = refusal("llama3", "nowhere/at-all");
    assert!(missing.contains("nowhere/at-all"), "{missing}");
    let none = refusal("llama3", "");
    assert!(none.contains("the path or name of a model is needed"), "{none}");

    // The same model, except that two tokens of its vocabulary are swapped.
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        let from = models.join("mistral").join(name);
        if from.exists() {
            fs::copy(&from, folder.path().join(name)).expect("a copy");
        }
    }
    swap_tokens(&folder.path().join("tokenizer.json"));
    let other = refusal("llama3", &folder.path().display().to_string());
    assert!(other.contains("another tokenizer") && other.contains("token 70 is"), "{other}");
}

/// Swaps the tokens 70 and 71.
fn swap_tokens(path: &Path) {
    let text = fs::read_to_string(path).expect("a tokenizer");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let vocab = json["model"]["vocab"].as_object_mut().expect("a vocabulary");
    for id in vocab.values_mut() {
        *id = match id.as_u64() {
            Some(70) => 71.into(),
            Some(71) => 70.into(),
            _ => continue,
        };
    }
    fs::write(path, json.to_string()).expect("written");
}

#[test]
fn a_request_without_drafts_takes_no_draft_kv() {
    let setup = alone();
    let drafting = drafting("small-model", &options("llama3", ""));
    let off = DraftRequest::default().draft_length(0);
    let run = |drafts: &DraftRequest| {
        let request = request(1, 100).drafting(drafts.clone());
        run_drafting(open("llama3", &setup), &setup.config, &drafting, &[request], true).1
    };
    let (without, with) = (run(&off), run(&DraftRequest::default()));
    assert_eq!(without.drafts.drafted, 0);
    assert!(with.kv_blocks_peak > without.kv_blocks_peak);
}
