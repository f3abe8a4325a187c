//! SmolLM2 on ten real prompts of 50 to 4000 tokens, compared with transformers on the same
//! weights.
//!
//! The reference computes in float32 with weights rounded to bf16. Galley samples the same greedy
//! tokens except at near-ties, both in float32, with the file's unrounded weights, and in bf16,
//! with rounded operands, where near-ties may be wider. In builds with `cuda`, if `GALLEY_TEST_GPU`
//! has a GPU's number, the test runs on that GPU.

use galley_backend::Formats;
use galley_model::tokenizer::Tokenizer;
use galley_model::weights::Checkpoint;
use galley_model::{Device, LanguageModel, LoadOptions, load};
use galley_tests::{argmax, data, on_cpu, run_rows, texts};
use serde_json::Value;

/// Top-2 gap of the reference below which a token may differ. The logits' standard deviation is 6.
const NEAR_TIES: [(Formats, f64); 2] = [(Formats::F32, 0.05), (Formats::BF16, 0.1)];

/// Longest prompt for the float32 run, which is four times slower.
const MAX_F32_TOKENS: usize = 1500;

struct Prompt {
    source: String,
    tokens: Vec<u32>,
    continuation: Vec<u32>,
    gaps: Vec<f64>,
}

fn numbers<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    value.as_array().expect("an array").iter().map(|v| read(v).expect("a number")).collect()
}

/// The reference prompts that have their text on this machine, cut and tokenized like the
/// reference.
fn prompts(tokenizer: &Tokenizer) -> Vec<Prompt> {
    let json = std::fs::read_to_string(data("smollm2_reference.json")).expect("the reference");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let mut prompts = Vec::new();
    for entry in json["prompts"].as_array().expect("prompts") {
        let source = entry["source"].as_str().expect("a source").to_owned();
        let Some(text) = texts::read(&source) else {
            println!("skipped: {source} is not here");
            continue;
        };
        let range = numbers(&entry["bytes"], Value::as_u64);
        let text = &text[range[0] as usize..range[1] as usize];
        let text = std::str::from_utf8(text).expect("UTF-8");
        let n = entry["prompt_length"].as_u64().expect("a length") as usize;
        let mut tokens = tokenizer.encode(text, false).expect("tokens");
        tokens.truncate(n);
        let wanted = entry["prompt_tokens_sha256"].as_str().expect("a hash");
        if texts::hash_tokens(&tokens) != wanted {
            // Only the text of the Python library may differ from the version in the reference.
            assert!(source.starts_with("python-stdlib/"), "{source}: other tokens");
            println!("skipped: {source} is another version here");
            continue;
        }
        let continuation = numbers(&entry["continuation_tokens"], |v| Some(v.as_u64()? as u32));
        let gaps = numbers(&entry["top2_gaps"], Value::as_f64);
        prompts.push(Prompt { source, tokens, continuation, gaps });
    }
    prompts
}

#[test]
fn greedy_continuations_of_real_prompts_agree_with_transformers() {
    let Some(path) = texts::model() else {
        return;
    };
    let checkpoint = Checkpoint::open(&path).expect("SmolLM2");
    let tokenizer = Tokenizer::open(&path, checkpoint.gguf()).expect("its tokenizer");
    let options = LoadOptions::new(16, 260).max_rows(512).max_logit_rows(64);
    let prompts = prompts(&tokenizer);
    assert!(prompts.len() >= 7, "texts are missing: cargo xtask data");
    for (formats, near_tie, device) in devices() {
        let mut model = load(&checkpoint, device, options, &mut |_, _| {}).expect("SmolLM2 loads");
        for prompt in &prompts {
            if formats == Formats::F32 && prompt.tokens.len() > MAX_F32_TOKENS {
                continue;
            }
            println!("{formats}: {}", prompt.source);
            check(&mut *model, prompt, near_tie);
        }
    }
}

/// The number formats to run, the width of near-ties in each, and the device.
fn devices() -> Vec<(Formats, f64, Device)> {
    #[cfg(feature = "cuda")]
    if let Some(gpu) = galley_tests::gpu() {
        let (formats, near_tie) = NEAR_TIES[1];
        return vec![(formats, near_tie, gpu)];
    }
    NEAR_TIES.map(|(formats, near_tie)| (formats, near_tie, on_cpu(formats, 2))).into()
}

fn check(model: &mut dyn LanguageModel, prompt: &Prompt, near_tie: f64) {
    // Feeds the reference's own tokens back, so that every step is compared.
    let mut tokens = prompt.tokens.clone();
    tokens.extend(&prompt.continuation[..prompt.continuation.len() - 1]);
    let first = prompt.tokens.len() - 1;
    let (body, last) = tokens.split_at(first);
    run_rows(model, body, 0, 512, &[]);
    let rows: Vec<u32> = (0..last.len() as u32).collect();
    let logits = run_rows(model, last, first, 512, &rows);
    let mut agreed = 0;
    for (i, logits) in logits.iter().enumerate() {
        let (likeliest, expected) = (argmax(logits), prompt.continuation[i]);
        if likeliest == expected {
            agreed += 1;
            continue;
        }
        println!("token {i}: {likeliest} for {expected}, gap {}", prompt.gaps[i]);
        assert!(prompt.gaps[i] < near_tie, "{}: token {i} is no near-tie", prompt.source);
    }
    println!("{} tokens, then {agreed} of {}", first + 1, logits.len());
}
