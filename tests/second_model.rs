//! Drafting with a draft model: it changes no byte, shares the target's pool, and never delays a
//! sequence.

#[path = "../engine/model/tests/common/edit.rs"]
mod edit;

use edit::GgufCopy;
use galley_backend::{Formats, OperandFormat, WeightFormat};
use galley_engine::{DraftRequest, Engine, Prompt, Request};
use galley_model::weights::Checkpoint;
use galley_tests::plugins::{drafting, second_model as options};
use galley_tests::runs::{Setup, alone, open, run_drafting};
use galley_tests::same_bytes::{Extent, assert_same_bytes};
use galley_tests::{QUANTISED, cpu, data, instruction_sets, on_cpu, weights_in};
use std::fs;
use std::path::Path;

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
/// waits.
#[test]
fn draft_kv_gives_way() {
    // Three sequences of 9 blocks each: the pool holds their KV and part of the draft models' KV.
    let requests: Vec<Request> = (0..3).map(|i| request(i, 100)).collect();
    let run = |n_blocks: usize, drafting_on: bool| {
        let setup = Setup { n_blocks, ..alone() };
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
    for n_blocks in [30, 31, 33, 40] {
        let (tight, plain) = (run(n_blocks, true), run(n_blocks, false));
        assert_eq!(plain.preemptions, 0);
        assert_eq!(tight.preemptions, 0, "{n_blocks} blocks: a sequence gave way to a draft");
        assert!(tight.drafts.drafted < roomy.drafts.drafted, "{n_blocks} blocks are too many");
        // The sequences need 27 blocks at the end, and the draft model's KV of one sequence needs 7
        // to 9.
        assert_eq!(tight.drafts.drafted > 0, n_blocks > 30, "{n_blocks} blocks");
    }
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
