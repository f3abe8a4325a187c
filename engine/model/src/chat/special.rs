//! The special tokens that a template may name: transformers' tokenizer passes the same ones.

use crate::Result;
use crate::metadata::Metadata;
use crate::tokenizer::{Tokenizer, read_json};
use serde_json::{Map, Value};
use std::path::Path;

/// Names of tokens in templates, and the GGUF keys of their ids.
const GGUF_KEYS: [(&str, &str); 6] = [
    ("unk_token", "unknown_token_id"),
    ("pad_token", "padding_token_id"),
    ("sep_token", "seperator_token_id"),
    ("sep_token", "separator_token_id"),
    ("cls_token", "cls_token_id"),
    ("mask_token", "mask_token_id"),
];

/// The begin and end tokens, and all tokens that the files beside the tokenizer, or the metadata of
/// its GGUF file, name.
pub(super) fn tokens(tokenizer: &Tokenizer) -> Result<Map<String, Value>> {
    let mut tokens = Map::new();
    for (name, id) in [("bos_token", tokenizer.bos()), ("eos_token", tokenizer.eos())] {
        if let Some(text) = id.and_then(|id| tokenizer.id_to_token(id)) {
            tokens.insert(name.into(), text.into());
        }
    }
    let path = tokenizer.path();
    if path.extension().is_some_and(|extension| extension == "gguf") {
        add_gguf(&mut tokens, &Metadata::read(path)?, tokenizer);
        return Ok(tokens);
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    for file in ["special_tokens_map.json", "tokenizer_config.json"] {
        let path = directory.join(file);
        if path.exists() {
            add_fields(&mut tokens, &read_json(&path)?);
        }
    }
    Ok(tokens)
}

fn add_gguf(tokens: &mut Map<String, Value>, metadata: &Metadata, tokenizer: &Tokenizer) {
    for (name, key) in GGUF_KEYS {
        let id = metadata.u64(&format!("tokenizer.ggml.{key}"));
        let text = id.and_then(|id| tokenizer.id_to_token(u32::try_from(id).ok()?));
        if let Some(text) = text {
            tokens.insert(name.into(), text.into());
        }
    }
}

/// Adds the tokens of a tokenizer's configuration: the fields named `…_token`,
/// `additional_special_tokens`, and the fields of `extra_special_tokens`.
fn add_fields(tokens: &mut Map<String, Value>, config: &Value) {
    for (name, value) in config.as_object().into_iter().flatten() {
        if name.ends_with("_token") {
            match text_of(value) {
                Some(text) => drop(tokens.insert(name.clone(), text.into())),
                // `"bos_token": null` says that the model has no such token.
                None if value.is_null() => drop(tokens.remove(name)),
                None => {}
            }
        }
        match (name.as_str(), value) {
            ("additional_special_tokens", Value::Array(items)) => {
                let texts = items.iter().filter_map(text_of).map(Value::from);
                tokens.insert(name.clone(), texts.collect());
            }
            ("extra_special_tokens", Value::Object(fields)) => {
                for (name, value) in fields {
                    if let Some(text) = text_of(value) {
                        tokens.insert(name.clone(), text.into());
                    }
                }
            }
            _ => {}
        }
    }
}

/// The text of a token, which is a string or the `content` of an object.
fn text_of(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_are_those_of_the_configuration() {
        let mut tokens = Map::from_iter([("bos_token".to_owned(), json!("<s>"))]);
        add_fields(
            &mut tokens,
            &json!({
                "bos_token": null,
                "eos_token": {"content": "</s>", "special": true},
                "pad_token": "<pad>",
                "image_token": "<image>",
                "add_bos_token": true,
                "additional_special_tokens": ["<a>", {"content": "<b>"}],
                "extra_special_tokens": {"audio_token": "<audio>"},
            }),
        );
        let expected = json!({
            "eos_token": "</s>",
            "pad_token": "<pad>",
            "image_token": "<image>",
            "additional_special_tokens": ["<a>", "<b>"],
            "audio_token": "<audio>",
        });
        assert_eq!(json!(tokens), expected);
    }
}
