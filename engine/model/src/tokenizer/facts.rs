//! Facts about tokens in the files beside a `tokenizer.json`, applied as in transformers 5.
//!
//! `added_tokens_decoder` of `tokenizer_config.json` comes first. Without it,
//! `special_tokens_map.json` and `added_tokens.json` count. Then every token with a role
//! (`eos_token`, `image_token`, `extra_special_tokens`) becomes a special token. The order in which
//! tokens are added decides their ids; an id in a file that differs only causes a warning.
//!
//! As in transformers, two settings have no effect. The post-processor of a `tokenizer.json`
//! overrides `add_bos_token` and `add_eos_token`. `clean_up_tokenization_spaces` is for WordPiece:
//! it would remove spaces from the text of a BPE.

use crate::files::read_json_if_there;
use crate::{ModelError, Result};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use tokenizers::AddedToken;

/// The facts beside one `tokenizer.json`.
pub(super) struct Facts {
    /// `tokenizer_config.json`.
    path: PathBuf,
    /// Its fields, with the fields of `special_tokens_map.json` if that file counts.
    fields: Map<String, Value>,
    /// Added tokens with their ids, sorted by id.
    added: Vec<(u32, AddedToken)>,
    /// `config.json`.
    model_config: Value,
}

impl Facts {
    /// Reads the files beside the `tokenizer.json` at `path`.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let config_path = path.with_file_name("tokenizer_config.json");
        let mut fields = match read_json_if_there(&config_path)? {
            Value::Object(fields) => fields,
            Value::Null => Map::new(),
            _ => return Err(ModelError::invalid(&config_path, "JSON", "is no object")),
        };
        let mut added = Vec::new();
        if let Some(Value::Object(tokens)) = fields.get("added_tokens_decoder") {
            for (id, token) in tokens {
                match (id.parse(), added_token(token, false)) {
                    (Ok(id), Some(token)) => added.push((id, token)),
                    _ => tracing::warn!(
                        "{}: added_tokens_decoder: {id}: {token} describes no token, and is left out",
                        config_path.display()
                    ),
                }
            }
        } else {
            let map = read_json_if_there(&path.with_file_name("special_tokens_map.json"))?;
            fields.extend(map.as_object().cloned().unwrap_or_default());
            let special: HashSet<String> =
                roles(&fields).into_iter().map(|token| token.content).collect();
            let ids = read_json_if_there(&path.with_file_name("added_tokens.json"))?;
            for (content, id) in ids.as_object().into_iter().flatten() {
                let token = AddedToken::from(content.clone(), special.contains(content));
                added.extend(id.as_u64().and_then(|id| Some((u32::try_from(id).ok()?, token))));
            }
        }
        added.sort_by_key(|(id, _)| *id);
        let model_config = read_json_if_there(&path.with_file_name("config.json"))?;
        Ok(Self { path: config_path, fields, added, model_config })
    }

    /// Adds the tokens to `inner`.
    pub(super) fn apply(&self, inner: &mut tokenizers::Tokenizer) -> Result<()> {
        let present = inner.get_added_tokens_decoder();
        let roles = roles(&self.fields);
        let named: HashSet<&str> = roles.iter().map(|token| token.content.as_str()).collect();
        let mut tokens: Vec<AddedToken> = Vec::new();
        for (_, token) in &self.added {
            if !present.values().any(|other| is_same(other, token)) {
                let special = token.special || named.contains(token.content.as_str());
                tokens.push(AddedToken { special, ..token.clone() });
            }
        }
        let mut known: HashSet<String> = present.into_values().map(|token| token.content).collect();
        known.extend(tokens.iter().map(|token| token.content.clone()));
        for token in &roles {
            if known.insert(token.content.clone()) {
                tokens.push(token.clone());
            }
        }
        inner
            .add_tokens(tokens)
            .map_err(|error| self.invalid("added_tokens_decoder", error.to_string()))?;
        self.tell_other_ids(inner);
        if self.fields.get("split_special_tokens") == Some(&Value::Bool(true)) {
            self.tell("split_special_tokens is ignored: special tokens in a text are recognised");
        }
        Ok(())
    }

    /// The id of `bos` or `eos`: by the token in the tokenizer's files, or else by `config.json`.
    pub(super) fn role(&self, role: &str, inner: &tokenizers::Tokenizer) -> Option<u32> {
        match self.fields.get(&format!("{role}_token")) {
            Some(name) => {
                added_token(name, true).and_then(|token| inner.token_to_id(&token.content))
            }
            None => {
                let id = &self.model_config[format!("{role}_token_id")];
                let id = id.as_u64().or_else(|| id[0].as_u64());
                id.and_then(|id| u32::try_from(id).ok())
            }
        }
    }

    /// Warns if `add_bos_token` or `add_eos_token` contradicts the post-processor.
    pub(super) fn tell_affixes(&self, inner: &tokenizers::Tokenizer, roles: [Option<u32>; 2]) {
        let Ok(affixes) = inner.encode_fast("", true) else { return };
        for (role, id) in ["bos", "eos"].into_iter().zip(roles) {
            let field = format!("add_{role}_token");
            let (Some(id), Some(wanted)) = (id, self.fields.get(&field).and_then(Value::as_bool))
            else {
                continue;
            };
            let is_added = affixes.get_ids().contains(&id);
            if is_added != wanted {
                let does = if is_added { "adds the token" } else { "adds none" };
                self.tell(&format!(
                    "{field} is {wanted}, and the post-processor of tokenizer.json {does}: that counts, as for \
                     transformers 5"
                ));
            }
        }
    }

    /// Warns if tokens have other ids than in the file, as the model may be trained with either.
    fn tell_other_ids(&self, inner: &tokenizers::Tokenizer) {
        let other =
            |(id, token): &&(u32, AddedToken)| inner.token_to_id(&token.content) != Some(*id);
        let mut others = self.added.iter().filter(other);
        if let Some((id, token)) = others.next() {
            let now = inner.token_to_id(&token.content);
            self.tell(&format!(
                "added_tokens_decoder gives {:?} the id {id}, and tokenizer.json {}; {} more tokens differ: \
                 tokenizer.json counts",
                token.content,
                now.map_or("none".into(), |id| id.to_string()),
                others.count()
            ));
        }
    }

    fn tell(&self, warning: &str) {
        tracing::warn!("{}: {warning}", self.path.display());
    }

    fn invalid(&self, field: &str, reason: String) -> ModelError {
        ModelError::invalid(&self.path, field, reason)
    }
}

/// The tokens with a role, in the order in which transformers adds them.
fn roles(fields: &Map<String, Value>) -> Vec<AddedToken> {
    let standard = ROLES.iter().filter_map(|role| fields.get(*role));
    let others = fields.iter().filter(|(key, value)| {
        key.ends_with("_token") && !ROLES.contains(&key.as_str()) && !value.is_boolean()
    });
    let list = |field: &str| fields.get(field).and_then(Value::as_array).into_iter().flatten();
    let (by_name, extra): (Vec<&Value>, Vec<&Value>) = match fields.get("extra_special_tokens") {
        Some(Value::Object(by_name)) => {
            (by_name.values().collect(), list("additional_special_tokens").collect())
        }
        Some(Value::Array(extra)) if !extra.is_empty() => (Vec::new(), extra.iter().collect()),
        _ => (Vec::new(), list("additional_special_tokens").collect()),
    };
    let all = standard.chain(others.map(|(_, value)| value)).chain(by_name).chain(extra);
    all.filter_map(|value| added_token(value, true))
        .filter(|token| !token.content.is_empty())
        .collect()
}

/// Parses a token: a string, or an object with the text and flags.
fn added_token(json: &Value, has_role: bool) -> Option<AddedToken> {
    if let Some(content) = json.as_str() {
        return Some(AddedToken::from(content, has_role));
    }
    let flag = |name: &str| json.get(name).and_then(Value::as_bool);
    let special = has_role || flag("special").unwrap_or(false);
    let mut token = AddedToken::from(json.get("content")?.as_str()?, special);
    token.normalized = flag("normalized").unwrap_or(token.normalized);
    token.lstrip = flag("lstrip").unwrap_or(false);
    token.rstrip = flag("rstrip").unwrap_or(false);
    token.single_word = flag("single_word").unwrap_or(false);
    Some(token)
}

/// Whether two tokens agree in text and in every flag.
fn is_same(a: &AddedToken, b: &AddedToken) -> bool {
    let flags = |token: &AddedToken| {
        (token.special, token.normalized, token.lstrip, token.rstrip, token.single_word)
    };
    a.content == b.content && flags(a) == flags(b)
}

const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
