//! Reads a `tokenizer.json`.

use super::facts::Facts;
use super::vocabulary::{Spelling, TokenDecoder, TokenKind, Vocabulary, check_size};
use super::{SpecialTokens, Tokenizer};
use crate::{ModelError, Result, files};
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::path::Path;

/// The parts of a `tokenizer.json` that the `tokenizers` crate does not check.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    decoder: Value,
    model: ModelOutline,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct ModelOutline {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    vocab: LongestToken,
    #[serde(default)]
    merges: LongestMerge,
}

pub(super) fn read(path: &Path) -> Result<Tokenizer> {
    let json = fs::read(path).map_err(|error| ModelError::io(path, error))?;
    let invalid = |field: &str, reason: String| ModelError::invalid(path, field, reason);
    let outline: Outline =
        serde_json::from_slice(&json).map_err(|error| files::failed(path, &json, &error))?;
    outline.check(path)?;

    let mut inner = tokenizers::Tokenizer::from_bytes(&json)
        .map_err(|error| invalid("tokenizer", error.to_string()))?;
    // The engine neither truncates nor pads its input.
    inner.with_padding(None);
    inner.with_truncation(None).map_err(|error| invalid("truncation", error.to_string()))?;
    tell_other_ids(path, &outline.added_tokens, &inner);
    let facts = Facts::read(path)?;
    facts.apply(&mut inner)?;

    let decoder = TokenDecoder::parse(path, &outline.decoder)?;
    let vocabulary = vocabulary(path, &inner, &decoder)?;
    let (bos, eos) = (facts.role("bos", &inner), facts.role("eos", &inner));
    facts.tell_affixes(&inner, [bos, eos]);
    let special = SpecialTokens { bos, eos, prefix: None, suffix: None };
    Ok(Tokenizer::new(path, inner, vocabulary, special))
}

/// Warns if added tokens have other ids than in the file: the vocabulary or the order of tokens
/// decides the ids.
fn tell_other_ids(path: &Path, added: &[Added], inner: &tokenizers::Tokenizer) {
    let id = |token: &Added| inner.token_to_id(&token.content);
    let differs = |token: &&Added| id(token) != Some(token.id) && !token.content.is_empty();
    let mut others = added.iter().filter(differs);
    if let Some(token) = others.next() {
        tracing::warn!(
            "{}: added_tokens: {:?} cannot have the id {}, and has {:?}, as for the tokenizers package; {} more tokens \
             differ",
            path.display(),
            token.content,
            token.id,
            id(token).unwrap_or_default(),
            others.count()
        );
    }
}

impl Outline {
    fn check(&self, path: &Path) -> Result<()> {
        let model = &self.model;
        if model.kind.as_deref().is_some_and(|kind| kind != "BPE") {
            let kind = model.kind.as_deref().unwrap_or_default();
            let reason = format!("model.type {kind:?}: the Llama family uses \"BPE\"");
            return Err(ModelError::unsupported(path, reason));
        }
        if model.continuing_subword_prefix.as_deref().is_some_and(|prefix| !prefix.is_empty()) {
            let reason = "model.continuing_subword_prefix is not for models of the Llama family";
            return Err(ModelError::unsupported(path, reason));
        }
        if model.merges.0 > model.vocab.0 {
            let reason = "a merge makes a token that the vocabulary does not have";
            return Err(ModelError::invalid(path, "model.merges", reason));
        }
        Ok(())
    }
}

/// All tokens, by id.
fn vocabulary(
    path: &Path,
    inner: &tokenizers::Tokenizer,
    decoder: &TokenDecoder,
) -> Result<Vocabulary> {
    let all = inner.get_vocab(true);
    let len = all.values().max().map_or(0, |&max| max as usize + 1);
    check_size(path, "model.vocab", len)?;
    let mut tokens = vec![(Spelling::Text(String::new()), TokenKind::Absent); len];
    let added = inner.get_added_vocabulary();
    for (token, id) in all {
        let kind =
            if added.is_special_token(&token) { TokenKind::Special } else { TokenKind::Text };
        // An added token decodes to its normalised text.
        let token = added.simple_id_to_token(id).unwrap_or(token);
        tokens[id as usize] = (Spelling::Text(token), kind);
    }
    Vocabulary::new(path, tokens, decoder)
}

/// The length in bytes of the longest token of a vocabulary.
#[derive(Default)]
struct LongestToken(usize);

impl<'de> Deserialize<'de> for LongestToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TokenKeys;
        impl<'de> Visitor<'de> for TokenKeys {
            type Value = LongestToken;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from tokens to ids")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut longest = 0;
                while let Some((token, _)) = map.next_entry::<Cow<'de, str>, IgnoredAny>()? {
                    longest = longest.max(token.len());
                }
                Ok(LongestToken(longest))
            }
        }
        deserializer.deserialize_map(TokenKeys)
    }
}

/// The length in bytes of the longest token that a merge makes.
#[derive(Default)]
struct LongestMerge(usize);

impl<'de> Deserialize<'de> for LongestMerge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Merges;
        impl<'de> Visitor<'de> for Merges {
            type Value = LongestMerge;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of merges")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut longest = 0;
                while let Some(MergeLen(len)) = list.next_element()? {
                    longest = longest.max(len);
                }
                Ok(LongestMerge(longest))
            }
        }
        deserializer.deserialize_seq(Merges)
    }
}

/// The length of `["a", "b"]` or `"a b"`, merged.
struct MergeLen(usize);

impl<'de> Deserialize<'de> for MergeLen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MergeVisitor;
        impl<'de> Visitor<'de> for MergeVisitor {
            type Value = MergeLen;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge: two tokens")
            }
            fn visit_str<E: de::Error>(self, merge: &str) -> Result<Self::Value, E> {
                Ok(MergeLen(merge.len().saturating_sub(1)))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Self::Value, A::Error> {
                let mut len = 0;
                while let Some(token) = pair.next_element::<Cow<'de, str>>()? {
                    len += token.len();
                }
                Ok(MergeLen(len))
            }
        }
        deserializer.deserialize_any(MergeVisitor)
    }
}
