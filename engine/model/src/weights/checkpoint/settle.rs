//! Corrects the configuration of a checkpoint by its tensors.

use super::{EMBEDDING, HEAD};
use crate::weights::{
    directory::Files,
    gguf,
    tensor::{Storage, TensorEntry},
};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// Corrects the vocabulary and the output head in the configuration of a Hugging Face checkpoint.
pub(super) fn by_tensors(path: &Path, config: &mut Value, opened: &mut Files) {
    if !config.is_object() {
        return;
    }
    head(path, config, opened);
    if let Some(rows) = rows(&opened.tensors, EMBEDDING) {
        if config["vocab_size"].as_u64().is_some_and(|size| size != rows) {
            tell_vocabulary(path, &config["vocab_size"], rows);
        }
        config["vocab_size"] = rows.into();
    }
}

/// Corrects the vocabulary in the metadata of a GGUF file.
pub(super) fn vocabulary(
    path: &Path,
    metadata: &mut gguf::Metadata,
    tensors: &BTreeMap<String, TensorEntry>,
) {
    let Some(rows) = rows(tensors, "token_embd.weight") else { return };
    let key = format!("{}.vocab_size", metadata.str("general.architecture").unwrap_or_default());
    if let Some(size) = metadata.u64(&key).filter(|&size| size != rows) {
        tell_vocabulary(path, &size.into(), rows);
    }
    metadata.correct(key, rows);
}

/// Decides whether the output head is tied. As in transformers, embedding and head that differ are
/// not tied, even if the configuration says so, and of a tied pair either tensor suffices. As in
/// llama.cpp, an embedding without a head tensor is also the head.
fn head(path: &Path, config: &mut Value, opened: &mut Files) {
    let is_tied = config["tie_word_embeddings"] == true;
    let has = |name: &str| opened.tensors.contains_key(name);
    match (is_tied, has(EMBEDDING), has(HEAD)) {
        (true, false, true) => {
            let head = opened.tensors.remove(HEAD);
            opened.tensors.extend(head.map(|entry| (EMBEDDING.to_owned(), entry)));
        }
        (true, true, true) if differ(opened) => {
            tracing::warn!(
                "{}: tie_word_embeddings is true, and {HEAD} is another matrix than {EMBEDDING}: both are used, as by \
                 transformers",
                path.display()
            );
            config["tie_word_embeddings"] = false.into();
        }
        (false, true, false) if opened.absent.is_empty() => {
            tracing::warn!(
                "{}: there is no {HEAD}: {EMBEDDING} is used for it, as if tie_word_embeddings were true",
                path.display()
            );
            config["tie_word_embeddings"] = true.into();
        }
        _ => {}
    }
}

/// Whether embedding and head are both readable and differ.
fn differ(opened: &Files) -> bool {
    let [embedding, head] = [EMBEDDING, HEAD].map(|name| &opened.tensors[name]);
    let bytes =
        |entry: &TensorEntry| &opened.files[entry.file].bytes()[entry.offset..][..entry.len];
    match (&embedding.storage, &head.storage) {
        (Storage::Codec(first), Storage::Codec(second)) => {
            first != second || embedding.shape != head.shape || bytes(embedding) != bytes(head)
        }
        _ => false,
    }
}

/// Number of rows of a matrix.
fn rows(tensors: &BTreeMap<String, TensorEntry>, name: &str) -> Option<u64> {
    match tensors.get(name)?.shape[..] {
        [rows, _] => Some(rows as u64),
        _ => None,
    }
}

fn tell_vocabulary(path: &Path, said: &Value, rows: u64) {
    tracing::warn!(
        "{}: the vocabulary is said to have {said} tokens, and the embedding has {rows} rows: {rows} it is",
        path.display()
    );
}
