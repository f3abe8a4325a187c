//! End tokens, odd values in model files, and the length of the context, tested through the binary.

#[path = "../../model/tests/common/edit.rs"]
mod edit;

use edit::{GgufCopy, copy_model, edit_json};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn tiny(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/models").join(name)
}

/// Runs the binary on `model`, without the settings of the machine that runs the tests.
fn galley(command: &str, model: &Path, args: &[&str]) -> Output {
    let mut galley = Command::new(env!("CARGO_BIN_EXE_galley"));
    for (name, _) in std::env::vars() {
        if name.starts_with("GALLEY_") {
            galley.env_remove(name);
        }
    }
    galley.env("GALLEY_DRAFTER", "none");
    galley.arg(command).arg("-m").arg(model).args(args).output().expect("the binary starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn printed(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// The token ids and the finish reason of a run with `--json`.
#[track_caller]
fn run(model: &Path, args: &[&str]) -> (Vec<u64>, String) {
    let printed = printed(&galley("run", model, &[args, &["--json"]].concat()));
    let output = &printed["outputs"][0];
    let ids = output["token_ids"].as_array().expect("ids").iter();
    let ids = ids.map(|id| id.as_u64().expect("an id")).collect();
    (ids, output["finish_reason"].as_str().expect("a reason").to_owned())
}

fn gguf(change: impl FnOnce(GgufCopy) -> GgufCopy) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tiny.gguf");
    change(GgufCopy::of(&tiny("smollm2.gguf"))).write(&path);
    (directory, path)
}

fn hf(change: impl FnOnce(&Path)) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    copy_model(&tiny("smollm2"), directory.path());
    change(directory.path());
    directory
}

const EOS: &str = "tokenizer.ggml.eos_token_id";
/// With these flags, every sampled token is token 2, `<|im_end|>`.
const ALWAYS_2: [&str; 4] = ["--logit-bias", "2:100", "--max-tokens", "4"];

#[test]
fn case_01_a_chat_with_a_gguf_model_ends_where_the_turn_ends() {
    let (_scratch, path) = gguf(|file| file.set_u32(EOS, 0));
    let chat = [&["--chat", "-p", "hi"], &ALWAYS_2[..]].concat();
    assert_eq!(run(&path, &chat), (vec![2], "stop".into()));
    // Plain text has no turns, so only the end tokens that the files name end it.
    let text = [&["-p", "hi"], &ALWAYS_2[..]].concat();
    assert_eq!(run(&path, &text), (vec![2; 4], "length".into()));
    let ends = ["-p", "hi", "--logit-bias", "0:100", "--max-tokens", "4"];
    assert_eq!(run(&path, &ends), (vec![0], "stop".into()));
    // `--ignore-eos` ignores all end tokens.
    let ignoring = [&chat[..], &["--ignore-eos"]].concat();
    let (ids, reason) = run(&path, &ignoring);
    assert!(ids.len() == 4 && !ids.contains(&2) && reason == "length", "{ids:?} {reason}");
    let patient = [&chat[..], &["--min-tokens", "3"]].concat();
    let (ids, reason) = run(&path, &patient);
    assert!(ids.len() == 4 && ids[3] == 2 && !ids[..3].contains(&2) && reason == "stop", "{ids:?}");
}

#[test]
fn case_02_the_end_token_of_the_tokenizer_counts() {
    let model = hf(|directory| {
        for name in ["config.json", "generation_config.json"] {
            edit_json(&directory.join(name), |json| {
                drop(json.insert("eos_token_id".into(), 0.into()))
            });
        }
    });
    let chat = [&["--chat", "-p", "hi"], &ALWAYS_2[..]].concat();
    assert_eq!(run(model.path(), &chat), (vec![2], "stop".into()));
    let text = [&["-p", "hi"], &ALWAYS_2[..]].concat();
    assert_eq!(run(model.path(), &text), (vec![2], "stop".into()));
}

#[test]
fn a_chat_on_the_terminal_ends_where_the_turn_ends() {
    use std::io::Write;
    use std::process::Stdio;
    let (_scratch, path) = gguf(|file| file.set_u32(EOS, 0));
    let mut galley = Command::new(env!("CARGO_BIN_EXE_galley"));
    galley.args(["chat", "-m"]).arg(&path).args(ALWAYS_2).stdin(Stdio::piped());
    let mut child = galley.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a chat");
    child.stdin.take().expect("a pipe").write_all(b"hi\n").expect("written");
    let output = child.wait_with_output().expect("an end");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !text.contains("[length]"), "{text}");
}

#[test]
fn info_lists_end_tokens_with_their_sources() {
    let listed = |model: &Path| printed(&galley("info", model, &["--json"]))["end_tokens"].clone();
    let (_scratch, path) = gguf(|file| file.set_u32(EOS, 0));
    let of_gguf = json!([
        {"id": 0, "token": "<|endoftext|>", "source": EOS},
        {"id": 2, "token": "<|im_end|>", "source": "its spelling, in chats"},
    ]);
    assert_eq!(listed(&path), of_gguf);
    let text = String::from_utf8(galley("info", &path, &[]).stdout).expect("UTF-8");
    assert!(text.contains("\"<|im_end|>\" (2): its spelling, in chats"), "{text}");

    let model = hf(|directory| {
        edit_json(&directory.join("config.json"), |json| {
            drop(json.insert("eos_token_id".into(), json!([7, 0])));
        });
        edit_json(&directory.join("generation_config.json"), |json| {
            drop(json.insert("eos_token_id".into(), 5.into()));
        });
    });
    let sources: Vec<Value> = listed(model.path())
        .as_array()
        .expect("a list")
        .iter()
        .map(|end| end["source"].clone())
        .collect();
    let config = "config.json: eos_token_id";
    let expected =
        [config, config, "generation_config.json: eos_token_id", "the tokenizer's eos_token"];
    assert_eq!(sources, expected);
}

#[test]
fn case_10_a_factor_without_a_type_is_linear() {
    let factor = |file: GgufCopy| file.add_f32("llama.rope.scaling.factor", 4.0);
    let prompt = ["-p", "hello world hello", "--max-tokens", "6"];
    let expected = (vec![207, 97, 97, 97, 97, 214], "length".to_owned());
    for change in [
        &(|file| factor(file)) as &dyn Fn(GgufCopy) -> GgufCopy,
        &|file| factor(file).add_text("llama.rope.scaling.type", "linear"),
        &|file| file.add_f32("llama.rope.scale_linear", 4.0),
        // The key `scaling.factor` has priority over the older `scale_linear`.
        &|file| factor(file).add_f32("llama.rope.scale_linear", 2.0),
    ] {
        let (_scratch, path) = gguf(change);
        assert_eq!(run(&path, &prompt), expected);
    }
    // Control: other scalings give another text.
    for change in [
        &(|file| file) as &dyn Fn(GgufCopy) -> GgufCopy,
        &|file| factor(file).add_text("llama.rope.scaling.type", "none"),
        &|file| file.add_f32("llama.rope.scaling.factor", 0.0),
        &|file| factor(file).add_text("llama.rope.scaling.type", "yarn"),
    ] {
        let (_scratch, path) = gguf(change);
        assert_ne!(run(&path, &prompt).0, expected.0);
    }
}

/// As llama.cpp does, Galley reads an invalid token id as a missing one, and takes the vocabulary's size from the
/// embedding's rows.
#[test]
fn case_11_ids_of_no_token_and_another_count_load_with_a_warning() {
    let plain = run(&tiny("smollm2.gguf"), &["-p", "hi", "--max-tokens", "4", "--ignore-eos"]);
    for (key, value) in [
        ("tokenizer.ggml.bos_token_id", u32::MAX),
        ("tokenizer.ggml.bos_token_id", 288),
        (EOS, u32::MAX),
        (EOS, 100_000),
        ("llama.vocab_size", 256),
        ("llama.vocab_size", 300),
        ("llama.vocab_size", 0),
    ] {
        let (_scratch, path) = gguf(|file| file.set_u32(key, value));
        let args = ["-p", "hi", "--max-tokens", "4", "--ignore-eos", "--json"];
        let output = galley("run", &path, &args);
        let ids = printed(&output)["outputs"][0]["token_ids"].clone();
        assert_eq!(ids, json!(plain.0), "{key} {value}");
        let error = stderr(&output);
        let field = if key == "llama.vocab_size" { "288 rows" } else { key };
        let said = error.lines().filter(|line| line.contains(field)).count();
        assert_eq!((said, error.lines().count()), (1, 1), "{key} {value}: {error}");
    }
    let silent = galley("run", &tiny("smollm2.gguf"), &["-p", "hi", "--max-tokens", "4"]);
    assert_eq!(stderr(&silent), "");
    // The same holds for the files of a hub model.
    let model = hf(|directory| {
        edit_json(&directory.join("config.json"), |json| {
            json.insert("vocab_size".into(), 32_000.into());
            json.insert("eos_token_id".into(), (-1).into());
        });
    });
    let output = galley("run", model.path(), &["-p", "hi", "--max-tokens", "1"]);
    let error = stderr(&output);
    assert!(output.status.success(), "{error}");
    assert!(error.contains("32000 tokens") && error.contains("eos_token_id: -1"), "{error}");
}

#[test]
fn two_begin_tokens_are_said_once() {
    let (_scratch, path) = gguf(|file| file.set_bool("tokenizer.ggml.add_bos_token", true));
    let warnings = |args: &[&str]| {
        let output = galley("run", &path, &[args, &["--max-tokens", "1", "-n", "2"]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output).matches("twice").count()
    };
    assert_eq!(warnings(&["-p", "<|im_start|>hi"]), 1);
    assert_eq!(warnings(&["-p", "hi"]), 0);
    // A text may hold begin tokens elsewhere, and a chat template writes its own.
    assert_eq!(warnings(&["-p", "hi<|im_start|><|im_start|>"]), 0);
    assert_eq!(warnings(&["--chat", "-p", "hi"]), 0);
    // If the model adds no begin token, the text's begin token is the only one.
    let output = galley("run", &tiny("smollm2"), &["-p", "<|im_start|>hi", "--max-tokens", "1"]);
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_context_is_opened_with_max_model_len() {
    let model = tiny("smollm2");
    let refused = |len: &str, parts: &[&str]| {
        let args = ["-p", "one two three", "--max-tokens", "30", "--max-model-len", len];
        let error = stderr(&galley("run", &model, &args));
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    refused("20", &["do not fit in the context of 20 tokens"]);
    refused("257", &["--max-model-len", "a context of 257 tokens", "1 to 256"]);
    refused("0", &["--max-model-len", "at least 1"]);
    // The rotary embedding of a dynamically scaled model depends on the length.
    let dynamic = hf(|directory| {
        edit_json(&directory.join("config.json"), |json| {
            json.insert("max_position_embeddings".into(), 32.into());
            json.insert("rope_scaling".into(), json!({"type": "dynamic", "factor": 2.0}));
        });
    });
    let ids = |args: &[&str]| {
        run(dynamic.path(), &[&["-p", "one two three", "--max-tokens", "12"], args].concat()).0
    };
    assert_eq!(ids(&[]), ids(&["--max-model-len", "64"]));
    assert_ne!(ids(&[]), ids(&["--max-model-len", "200"]));
}
