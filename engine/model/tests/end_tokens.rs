//! Tokens that end a generation: the union over all sources, without tokens that end nothing.

mod common;
#[path = "common/edit.rs"]
mod edit;

use common::models;
use edit::{GgufCopy, copy_model, edit_json};
use galley_model::end_tokens::EndSource::{
    Config, Default, GenerationConfig, Gguf, Spelling, Tokenizer as Tok,
};
use galley_model::end_tokens::{EndSource, EndTokens};
use galley_model::tokenizer::Tokenizer;
use galley_model::weights::Checkpoint;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const EOS: EndSource = Gguf("tokenizer.ggml.eos_token_id");
const EOT: EndSource = Gguf("tokenizer.ggml.eot_token_id");
const EOM: EndSource = Gguf("tokenizer.ggml.eom_token_id");

/// The end tokens of the model at `path`.
fn ends(path: &Path) -> EndTokens {
    let checkpoint = Checkpoint::open(path).unwrap_or_else(|error| panic!("{error}"));
    let tokenizer =
        Tokenizer::open(path, checkpoint.gguf()).unwrap_or_else(|error| panic!("{error}"));
    let config = checkpoint.config();
    config.end_tokens.with_tokenizer(Some(&tokenizer), config.vocab_size)
}

fn listed(path: &Path) -> Vec<(u32, EndSource)> {
    ends(path).iter().map(|end| (end.id, end.source)).collect()
}

/// The smollm2 model with these fields in `config.json`, `generation_config.json` and
/// `tokenizer_config.json`; `Null` removes a field. Its tokens 0 to 2 are `<|endoftext|>`,
/// `<|im_start|>` and `<|im_end|>`.
fn model(config: Value, generation: Option<Value>, tokenizer: Value) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    copy_model(&models().join("smollm2"), directory.path());
    let change = |name: &str, fields: Value| {
        edit_json(&directory.path().join(name), |object| {
            for (field, value) in fields.as_object().unwrap() {
                match value {
                    Value::Null => drop(object.remove(field)),
                    value => drop(object.insert(field.clone(), value.clone())),
                }
            }
        });
    };
    change("config.json", config);
    change("tokenizer_config.json", tokenizer);
    if let Some(generation) = generation {
        change("generation_config.json", generation);
    }
    directory
}

/// A model that names token 1 as its only end token, and has the spelling `to` in place of `from`.
fn respelt(from: &str, to: &str) -> TempDir {
    let directory = model(json!({"eos_token_id": 1}), None, json!({"eos_token": null}));
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let path = directory.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(from, to)).unwrap();
    }
    directory
}

fn gguf(change: impl FnOnce(GgufCopy) -> GgufCopy) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let copy = GgufCopy::of(&models().join("smollm2.gguf"));
    change(copy).write(&directory.path().join("tiny.gguf"));
    directory
}

#[test]
fn case_01_control_tokens_end_a_chat_by_their_spelling() {
    let ends_of = |change: fn(GgufCopy) -> GgufCopy| {
        let directory = gguf(change);
        listed(&directory.path().join("tiny.gguf"))
    };
    let eos = "tokenizer.ggml.eos_token_id";
    assert_eq!(ends_of(|file| file), [(2, EOS), (0, Spelling)]);
    assert_eq!(
        ends_of(|file| file.set_u32("tokenizer.ggml.eos_token_id", 0)),
        [(0, EOS), (2, Spelling)]
    );
    // The file names no token.
    assert_eq!(
        ends_of(|file| file.without("tokenizer.ggml.eos_token_id")),
        [(2, Spelling), (0, Spelling)]
    );
    // The file marks the token as text, but the spelling is unmistakable.
    let text = ends_of(|file| file.set_u32("tokenizer.ggml.eos_token_id", 0).set_token_type(2, 1));
    assert_eq!(text, [(0, EOS), (2, Spelling)]);
    let user_defined =
        ends_of(|file| file.set_u32("tokenizer.ggml.eos_token_id", 0).set_token_type(2, 4));
    assert_eq!(user_defined, [(0, EOS), (2, Spelling)]);
    // Control: the same token with another spelling ends nothing.
    let other = ends_of(|file| {
        file.set_u32("tokenizer.ggml.eos_token_id", 0).respell("<|im_end|>", "<|im_and|>")
    });
    assert_eq!(other, [(0, Gguf(eos))]);
}

#[test]
fn case_01_all_three_ids_of_a_gguf_file_count() {
    let directory = gguf(|file| {
        file.set_u32("tokenizer.ggml.eos_token_id", 2)
            .add_u32("tokenizer.ggml.eot_token_id", 5)
            .add_u32("tokenizer.ggml.eom_token_id", 6)
    });
    let path = directory.path().join("tiny.gguf");
    assert_eq!(listed(&path), [(2, EOS), (5, EOT), (6, EOM), (0, Spelling)]);
    assert_eq!(ends(&path).of_texts(), [2, 5, 6]);
    assert_eq!(ends(&path).of_chats(), [2, 5, 6, 0]);
}

/// Ollama's converter writes such lists.
#[test]
fn case_01_a_list_of_ids_in_a_gguf_file_counts() {
    const KEY: &str = "tokenizer.ggml.eos_token_ids";
    let directory = gguf(|file| file.add_i32s(KEY, &[2, 7, -1, 300, 8]));
    let ends = listed(&directory.path().join("tiny.gguf"));
    assert_eq!(ends, [(2, EOS), (7, Gguf(KEY)), (8, Gguf(KEY)), (0, Spelling)]);
}

#[test]
fn case_02_the_end_tokens_of_all_files_are_united() {
    let of = |config, generation, tokenizer| listed(model(config, generation, tokenizer).path());
    let same = json!({});
    assert_eq!(of(same.clone(), None, same.clone()), [(2, Config), (0, Spelling)]);
    let zero = json!({"eos_token_id": 0});
    assert_eq!(of(zero.clone(), Some(zero.clone()), same.clone()), [(0, Config), (2, Tok)]);
    // A token as an object with flags.
    let added =
        json!({"eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "special": true}});
    assert_eq!(of(zero.clone(), None, added), [(0, Config), (2, Tok)]);
    let lists = json!({"eos_token_id": [7, 0]});
    assert_eq!(
        of(lists, Some(json!({"eos_token_id": [0, 9]})), same),
        [(7, Config), (0, Config), (9, GenerationConfig), (2, Tok)]
    );
    // The file of older tokenizers, `special_tokens_map.json`.
    let mapped = model(zero.clone(), None, json!({"eos_token": null}));
    for eos in [json!("<|im_end|>"), json!({"content": "<|im_end|>", "lstrip": false})] {
        let map = mapped.path().join("special_tokens_map.json");
        fs::write(map, json!({"eos_token": eos}).to_string()).unwrap();
        assert_eq!(listed(mapped.path()), [(0, Config), (2, Tok)]);
    }
    // A tokenizer that names a text token, or no token.
    let dot = json!({"eos_token": "."});
    let ends = of(json!({"eos_token_id": null}), Some(zero.clone()), dot);
    assert_eq!((ends[0], ends[1].1), ((0, GenerationConfig), Tok));
    assert_eq!(of(zero.clone(), None, json!({"eos_token": null})), [(0, Config), (2, Spelling)]);
    assert_eq!(of(zero, None, json!({"eos_token": "not there"})), [(0, Config), (2, Spelling)]);
}

/// transformers has a default for Llama's `eos_token_id` if it is missing, not if it is null.
#[test]
fn the_default_counts_where_nothing_names_a_token() {
    let none = json!({"eos_token": null});
    let missing = respelt("<|im_end|>", "<|im_and|>");
    edit_json(&missing.path().join("config.json"), |config| drop(config.remove("eos_token_id")));
    assert_eq!(listed(missing.path()), [(2, Default), (0, Spelling)]);
    edit_json(&missing.path().join("config.json"), |config| {
        config.insert("eos_token_id".into(), Value::Null);
    });
    assert_eq!(listed(missing.path()), [(0, Spelling)]);
    let named = model(json!({"eos_token_id": null}), Some(json!({"eos_token_id": 5})), none);
    assert_eq!(listed(named.path())[0], (5, GenerationConfig));
}

#[test]
fn odd_ids_are_ignored_and_never_refuse() {
    for odd in ["288", "-1", "\"2\"", "[[0]]", "4294967298", "2.5", "{}", "true", "1e300", "[]"] {
        let odd: Value = serde_json::from_str(odd).unwrap();
        let ends = listed(model(json!({"eos_token_id": odd}), None, json!({})).path());
        assert_eq!(ends, [(2, Tok), (0, Spelling)], "{odd}");
        let generation = json!({"eos_token_id": [odd, 9]});
        let ends = listed(model(json!({}), Some(generation), json!({})).path());
        assert_eq!(ends, [(2, Config), (9, GenerationConfig), (0, Spelling)], "{odd}");
    }
    // An integer in the form of a float, as Python may write it, is an id.
    assert_eq!(listed(model(json!({"eos_token_id": 9.0}), None, json!({})).path())[0], (9, Config));
}

/// As in transformers, only the remaining files count then.
#[test]
fn a_broken_generation_config_is_ignored() {
    for text in [
        "",
        "{",
        "[]",
        "null",
        "7",
        "\u{feff}{\"eos_token_id\": 300}",
        "{\"max_length\": Infinity}",
    ] {
        let directory = model(json!({}), None, json!({}));
        fs::write(directory.path().join("generation_config.json"), text).unwrap();
        assert_eq!(listed(directory.path()), [(2, Config), (0, Spelling)], "{text:?}");
    }
    let directory = model(json!({}), None, json!({}));
    fs::create_dir(directory.path().join("generation_config.json")).unwrap();
    assert_eq!(listed(directory.path()), [(2, Config), (0, Spelling)]);
}

/// Every spelling that llama.cpp knows, and further ones.
#[test]
fn known_spellings_end_a_chat_and_others_do_not() {
    for spelling in [
        "<|im_end|>",
        "<|eot_id|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "</s>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "▁<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<｜end▁of▁sentence｜>",
        "<|eot|>",
        "<|end_of_turn|>",
        "<|EOT|>",
        "[|endofturn|]",
        "<|endofturn|>",
        "<|END_OF_TURN_TOKEN|>",
    ] {
        let ends = ends(respelt("<|im_end|>", spelling).path());
        assert!(ends.of_chats().contains(&2), "{spelling}: {ends:?}");
        assert!(!ends.of_texts().contains(&2), "{spelling}: {ends:?}");
    }
    for spelling in
        ["<|im_sep|>", "<|start|>", "<|user|>", "<|fim_pad|>", "<pad>", "<|END|>", "im_end"]
    {
        let ends = ends(respelt("<|im_end|>", spelling).path());
        assert!(!ends.of_chats().contains(&2), "{spelling}: {ends:?}");
    }
}

/// Harmony ends a part of a message with `<|end|>`, and the message continues.
#[test]
fn the_end_of_a_part_is_none_where_messages_have_their_own() {
    let directory = respelt("<|im_end|>", "<|end|>");
    assert_eq!(ends(directory.path()).of_chats(), [1, 2, 0]);
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let path = directory.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("<|endoftext|>", "<|return|>")).unwrap();
    }
    assert_eq!(ends(directory.path()).of_chats(), [1, 0]);
}

/// A vocabulary of HTML may have `</s>` as a piece of text.
#[test]
fn a_token_of_text_ends_nothing() {
    let directory = respelt("<|im_end|>", "</s>");
    let path = directory.path().join("tokenizer.json");
    edit_json(&path, |json| {
        json["added_tokens"].as_array_mut().unwrap().retain(|token| token["content"] != "</s>");
    });
    assert_eq!(ends(directory.path()).of_chats(), [1, 0]);
}
