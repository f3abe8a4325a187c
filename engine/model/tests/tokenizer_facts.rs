//! Facts about tokens in the files beside a `tokenizer.json`, and wrong facts in GGUF files.

mod common;

use common::models;
use galley_model::tokenizer::Tokenizer;
use galley_model::weights::gguf::Metadata;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A directory with the tiny tokenizer, these added tokens, and these files beside it.
fn directory(added_tokens: &Value, files: &Value) -> TempDir {
    let tokenizer = fs::read(models().join("smollm2/tokenizer.json")).unwrap();
    let mut tokenizer: Value = serde_json::from_slice(&tokenizer).unwrap();
    tokenizer["added_tokens"] = added_tokens.clone();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    for (name, content) in files.as_object().unwrap() {
        fs::write(directory.path().join(name), content.to_string()).unwrap();
    }
    directory
}

fn open(added_tokens: &Value, files: &Value) -> Tokenizer {
    Tokenizer::open(directory(added_tokens, files).path(), None).unwrap()
}

fn ids(json: &Value) -> Vec<u32> {
    serde_json::from_value(json.clone()).unwrap()
}

/// The expected ids are transformers', from tests/oracle/make_tokenizer_facts.py.
#[test]
fn case_06_facts_beside_the_tokenizer_are_those_of_transformers() {
    let path = models().join("../tokenizers/facts.json");
    let oracle: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let (mut compared, mut controls) = (0, 0);
    for (name, case) in oracle["cases"].as_object().unwrap() {
        let tokenizer = open(&case["added_tokens"], &case["files"]);
        let bare = open(&case["added_tokens"], &json!({}));
        let eos = case["eos"].as_u64().map(|id| id as u32);
        assert_eq!(tokenizer.eos(), eos, "{name}");
        for expected in case["texts"].as_array().unwrap() {
            let text = expected["text"].as_str().unwrap();
            let found = tokenizer.encode(text, false).unwrap();
            assert_eq!(found, ids(&expected["ids"]), "{name}: {text:?}");
            assert_eq!(
                tokenizer.encode(text, true).unwrap(),
                ids(&expected["with_special"]),
                "{name}"
            );
            assert_eq!(tokenizer.decode(&found, true), expected["decoded"], "{name}: {text:?}");
            controls += usize::from(bare.encode(text, false).unwrap() != found);
            compared += 1;
        }
    }
    println!("{compared} texts, {controls} of them other without the files");
    assert!(compared >= 75 && controls >= 25, "{compared} texts, {controls} other");
}

#[test]
fn case_06_a_chat_has_nineteen_tokens() {
    let endoftext = json!([{
        "id": 0, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true
    }]);
    let token = |content: &str| json!({"content": content, "special": true, "normalized": false});
    let decoder = json!({"1": token("<|im_start|>"), "2": token("<|im_end|>")});
    let chat = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";

    let files = json!({"tokenizer_config.json": {"added_tokens_decoder": decoder}});
    let tokenizer = open(&endoftext, &files);
    assert_eq!(tokenizer.encode(chat, false).unwrap().len(), 19);
    assert!(tokenizer.is_special(1) && tokenizer.is_special(2));
    assert!(tokenizer.contains_special("a<|im_end|>"));
    assert_eq!(tokenizer.encode_plain("<|im_end|>").unwrap().len(), 9);

    let bare = open(&endoftext, &json!({}));
    assert_eq!(bare.encode(chat, false).unwrap().len(), 47);
}

#[test]
fn facts_of_no_sense_are_left_out() {
    let decoder =
        json!({"x": {"content": "<a>"}, "1": 7, "2": {"id": 3}, "288": {"content": "<tool>"}});
    let files = json!({
        "tokenizer_config.json": {"added_tokens_decoder": decoder, "bos_token": 7, "eos_token": {"content": "<tool>"}},
        // Not read if there is an added_tokens_decoder.
        "added_tokens.json": "no object",
    });
    let tokenizer = open(&json!([]), &files);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, Some(288)));
    assert_eq!(tokenizer.encode("<tool>", false).unwrap(), [288]);
    assert_eq!(tokenizer.encode("<a>", false).unwrap().len(), 3);
}

#[test]
fn an_added_token_has_the_id_that_the_tokenizers_package_gives_it() {
    let token = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        })
    };
    // The vocabulary has the first token. The second gets the id after its 288 tokens.
    let tokenizer = open(&json!([token(7, "<|im_start|>"), token(400, "<tool>")]), &json!({}));
    assert_eq!(tokenizer.encode("<|im_start|><tool>", false).unwrap(), [1, 288]);
}

/// The tokenizer has 288 tokens, the model rows for 400 ids: the rest decodes to no text.
#[test]
fn ids_of_a_padded_vocabulary_decode_to_nothing() {
    let tokenizer = Tokenizer::open(&models().join("smollm2"), None).unwrap();
    let ids = tokenizer.encode("the cat", false).unwrap();
    let padded: Vec<u32> = ids.iter().flat_map(|&id| [399, id, 288]).collect();
    assert_eq!(tokenizer.decode(&padded, false), "the cat");
    let mut stream = tokenizer.stream(true);
    let streamed: String = padded.iter().map(|&id| stream.push(id)).collect();
    assert_eq!(streamed + &stream.finish(), "the cat");
}

/// The tiny GGUF file with `bytes` written at the offset `skipped` after `key`.
fn gguf_with(key: &str, skipped: usize, bytes: &[u8]) -> Tokenizer {
    let mut file = fs::read(models().join("smollm2.gguf")).unwrap();
    let at = file.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
    let at = at + key.len() + skipped;
    file[at..at + bytes.len()].copy_from_slice(bytes);
    gguf(&file)
}

fn gguf(file: &[u8]) -> Tokenizer {
    let directory = common::directory(&[("model.gguf", file)]);
    let path = directory.path().join("model.gguf");
    Tokenizer::from_gguf(&path, &Metadata::read(&path).unwrap()).unwrap()
}

#[test]
fn case_11_a_special_id_of_no_token_counts_as_absent() {
    let sound = gguf(&fs::read(models().join("smollm2.gguf")).unwrap());
    assert_eq!((sound.bos(), sound.eos()), (Some(1), Some(2)));
    for id in [-1_i32, 288, i32::MAX] {
        let bos = gguf_with("tokenizer.ggml.bos_token_id", 4, &id.to_le_bytes());
        assert_eq!((bos.bos(), bos.eos()), (None, Some(2)), "{id}");
        let eos = gguf_with("tokenizer.ggml.eos_token_id", 4, &id.to_le_bytes());
        assert_eq!((eos.bos(), eos.eos()), (Some(1), None), "{id}");
        assert_eq!(eos.encode("the", true).unwrap(), sound.encode("the", true).unwrap());
    }
}

#[test]
fn a_token_that_is_no_utf8_is_decoded_to_its_bytes() {
    // After the key: type, type of the items, their number, the length (13) of the first token.
    let key = "tokenizer.ggml.tokens";
    let tokenizer = gguf_with(key, 4 + 4 + 8 + 8, &[0xff, b'x', 0xe2]);
    let bytes = [&[0xff, b'x', 0xe2][..], b"ndoftext|>"].concat();
    assert_eq!(tokenizer.token_bytes(0), Some(&bytes[..]));
    assert_eq!(tokenizer.encode("the", false).unwrap().len(), 1);
    assert!(!tokenizer.encode("\u{fffd}x\u{fffd}ndoftext|>", false).unwrap().contains(&0));
}

#[test]
fn merges_that_join_nothing_are_left_out() {
    let sound = gguf(&fs::read(models().join("smollm2.gguf")).unwrap());
    // After the key: type, type of the items, their number, length, and the first merge: "t h".
    let broken = gguf_with("tokenizer.ggml.merges", 4 + 4 + 8 + 8, b"t q");
    let (expected, found) =
        (sound.encode("the", false).unwrap(), broken.encode("the", false).unwrap());
    assert!(found.len() > expected.len(), "{found:?}");
    assert_eq!(broken.decode(&found, false), "the");
}

#[test]
fn tokenizers_in_other_files_are_named() {
    for (name, text) in [
        ("tokenizer.model", "only a SentencePiece file"),
        ("tekken.json", "Mistral's tekken file"),
        ("qwen.tiktoken", "a tiktoken file"),
        ("vocab.json", "AutoTokenizer"),
        ("readme.md", "has no tokenizer.json"),
    ] {
        let directory = common::directory(&[(name, b"x")]);
        let error = Tokenizer::open(directory.path(), None).unwrap_err().to_string();
        assert!(error.contains(text), "{name}: {error}");
    }
    let error = Tokenizer::open(Path::new("/nonexistent/model"), None).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
}
