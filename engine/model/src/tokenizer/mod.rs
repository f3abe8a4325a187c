//! Converts text to tokens and back.
//!
//! A [`Tokenizer`] is read from a `tokenizer.json` or from the metadata of a GGUF file. The
//! `tokenizers` crate encodes. This module decodes: every token is a fixed run of bytes, so text
//! can be streamed token by token ([`TextStream`]) without decoding any token twice.
//!
//! # Text from users
//!
//! [`Tokenizer::encode`] turns `<|im_end|>` in a text into the special token of that name. A
//! rendered chat template needs this. Untrusted text must not be encoded this way: its author could
//! end the turn and speak as the system. [`Tokenizer::encode_plain`] never makes a special token. A
//! rendered chat template is one string, which does not show the parts that came from messages. A
//! server that renders untrusted messages should refuse a message if
//! [`Tokenizer::contains_special`] is true for it.
//!
//! # Ids without a token
//!
//! A model may have more rows in its embedding than its tokenizer has tokens, for padding. As in
//! transformers, such an id may be sampled. It decodes to no text.

mod facts;
mod gguf;
mod hf;
mod pre;
mod sentencepiece;
mod stream;
#[cfg(test)]
mod tests;
mod vocabulary;

/// Reads a JSON file; `null` if it does not exist.
pub(crate) use crate::files::read_json_if_there as read_json;
pub use stream::TextStream;

use crate::metadata::Metadata;
use crate::{ModelError, Result, files};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokenizers::{
    AddedVocabulary, Model, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};
use vocabulary::Vocabulary;

/// Most ids of a vocabulary, checked before memory is allocated. Real vocabularies are far smaller.
const MAX_VOCABULARY: usize = 1 << 24;

/// A model's tokenizer. `Send` and `Sync`; put it in an `Arc` to share it.
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    /// The added tokens with special tokens disabled, for [`Tokenizer::encode_plain`].
    plain: AddedVocabulary,
    vocabulary: Arc<Vocabulary>,
    special: SpecialTokens,
    /// Whether the warning about a text with two begin tokens has been given.
    warned_of_two_bos: AtomicBool,
}

/// The ids of tokens with a role.
#[derive(Debug, Default)]
struct SpecialTokens {
    bos: Option<u32>,
    eos: Option<u32>,
    /// Token before a text that is encoded with special tokens. `None` if the post-processor of the
    /// `tokenizers` crate adds it; the same holds for `suffix`, after the text.
    prefix: Option<u32>,
    suffix: Option<u32>,
}

impl Tokenizer {
    /// The tokenizer of the model at `model_path`. With `gguf`, the metadata of a GGUF model, it
    /// comes from there, otherwise from the `tokenizer.json` in the directory `model_path` or next
    /// to the file `model_path`.
    pub fn open(model_path: &Path, gguf: Option<&Metadata>) -> Result<Self> {
        if let Some(metadata) = gguf {
            return Self::from_gguf(model_path, metadata);
        }
        let directory = if model_path.is_dir() {
            model_path
        } else {
            model_path.parent().unwrap_or(Path::new("."))
        };
        let path = directory.join("tokenizer.json");
        if !files::exists(&path)? {
            return Err(missing(directory, &path));
        }
        Self::from_file(&path)
    }

    /// Reads a `tokenizer.json` and the files next to it that describe its tokens:
    /// `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and `config.json`.
    pub fn from_file(path: &Path) -> Result<Self> {
        hf::read(path)
    }

    /// Builds the tokenizer that the metadata of the GGUF file at `path` describes.
    pub fn from_gguf(path: &Path, metadata: &Metadata) -> Result<Self> {
        gguf::build(path, metadata)
    }

    /// The file that the tokenizer was read from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn new(
        path: &Path,
        inner: tokenizers::Tokenizer,
        vocabulary: Vocabulary,
        special: SpecialTokens,
    ) -> Self {
        let mut plain = inner.get_added_vocabulary().clone();
        plain.set_encode_special_tokens(true);
        Self {
            path: path.into(),
            inner,
            plain,
            vocabulary: Arc::new(vocabulary),
            special,
            warned_of_two_bos: AtomicBool::new(false),
        }
    }

    /// The tokens of `text`. A special token that is spelt out in `text` is recognised.
    /// `add_special` adds the begin and end tokens that the model expects; a rendered chat template
    /// has them already.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding =
            self.inner.encode_fast(text, add_special).map_err(|error| self.failed(&*error))?;
        let mut ids = Vec::with_capacity(encoding.len() + 2);
        if add_special {
            ids.extend(self.special.prefix);
        }
        ids.extend_from_slice(encoding.get_ids());
        if add_special {
            ids.extend(self.special.suffix);
        }
        self.warn_of_two_bos(&ids, add_special);
        Ok(ids)
    }

    /// Warns once if a text begins with two begin tokens.
    fn warn_of_two_bos(&self, ids: &[u32], add_special: bool) {
        let Some(bos) = self.special.bos else { return };
        if !ids.starts_with(&[bos, bos]) || self.warned_of_two_bos.swap(true, Ordering::Relaxed) {
            return;
        }
        let bos = self.id_to_token(bos).unwrap_or_default();
        let way_out = match add_special {
            true => "the model's own is added to every text: leave it out of the text",
            false => "the chat template writes one: leave it out of the messages",
        };
        tracing::warn!(
            "the prompt begins with {bos:?} twice, and the model was trained on one; {way_out}"
        );
    }

    /// The tokens of `text` as plain text, without special tokens. An error if `text` needs one.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        let failed = |error: tokenizers::Error| self.failed(&*error);
        let mut pieces: PreTokenizedString =
            self.plain.extract_and_normalize(self.inner.get_normalizer(), text);
        if let Some(splitter) = self.inner.get_pre_tokenizer() {
            splitter.pre_tokenize(&mut pieces).map_err(failed)?;
        }
        let model = self.inner.get_model();
        pieces.tokenize(|piece| model.tokenize(piece.get())).map_err(failed)?;
        let ids: Vec<u32> = pieces
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .filter_map(|(_, _, tokens)| tokens.as_ref())
            .flat_map(|tokens| tokens.iter().map(|token| token.id))
            .collect();
        match ids.iter().find(|&&id| self.is_special(id)) {
            Some(&id) => Err(ModelError::Text(format!(
                "{}: this text cannot be written without the special token {:?}",
                self.path.display(),
                self.id_to_token(id).unwrap_or_default()
            ))),
            None => Ok(ids),
        }
    }

    /// Whether [`Tokenizer::encode`] would recognise a special token in `text`.
    pub fn contains_special(&self, text: &str) -> bool {
        let added = self.inner.get_added_vocabulary();
        let pieces = added.extract_and_normalize(self.inner.get_normalizer(), text);
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits
            .into_iter()
            .filter_map(|(_, _, tokens)| tokens.as_ref())
            .any(|tokens| tokens.iter().any(|token| self.is_special(token.id)))
    }

    /// The text of `ids`. Bytes that are not UTF-8 become U+FFFD. Ids without a token add no text.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut stream = self.stream(skip_special);
        let mut text = String::new();
        for &id in ids {
            stream.push_to(id, &mut text);
        }
        text.push_str(&stream.finish());
        text
    }

    /// Decodes token by token, from the start of a text.
    pub fn stream(&self, skip_special: bool) -> TextStream {
        TextStream::new(self.vocabulary.clone(), skip_special)
    }

    /// Decodes the continuation of `context` token by token. The first word of a completion thus
    /// keeps the space that SentencePiece models drop at the start of a text.
    pub fn stream_after(&self, context: &[u32], skip_special: bool) -> TextStream {
        let mut stream = self.stream(skip_special);
        let mut text = String::new();
        for &id in context {
            text.clear();
            stream.push_to(id, &mut text);
        }
        stream
    }

    /// One more than the largest id. The model may have more rows, for padding.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The id of the token written `token` in the vocabulary (`Ġthe`, `▁the`, `<|im_end|>`).
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The id of the token written `token`, if it is a control token or an added token.
    pub fn control_token(&self, token: &str) -> Option<u32> {
        let added = self.inner.get_added_vocabulary().get_vocab();
        self.token_to_id(token).filter(|id| self.is_special(*id) || added.contains_key(token))
    }

    /// The spelling of `id` in the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The bytes that `id` adds to the text. They may be part of a UTF-8 character.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.vocabulary.bytes(id)
    }

    /// The begin-of-text token.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// The end-of-text token. A model's configuration may name more end tokens.
    pub fn eos(&self) -> Option<u32> {
        self.special.eos
    }

    /// Whether `id` is a control token. Control tokens are not part of displayed text.
    pub fn is_special(&self, id: u32) -> bool {
        self.vocabulary.is_special(id)
    }

    /// A hash of the vocabulary, of the token ids of a text that shows the tokenizer's rules, and of
    /// `ends`, the tokens that end a generation.
    pub fn content_hash(&self, ends: &[u32]) -> u64 {
        /// Words, numbers, spaces, code, other scripts and control tokens.
        const PROBE: &str = "Galley isn't naïve: 1234567 ways,\n\n\tfn f(x) { 10_000 }  東京 \u{1f600} <|endoftext|></s>";
        let mut hash = Sha256::new();
        hash.update(self.fingerprint().to_le_bytes());
        let probes = [true, false].map(|add_special| self.encode(PROBE, add_special));
        let ids = probes.into_iter().flatten().flatten().chain(ends.iter().copied());
        ids.for_each(|id| hash.update(id.to_le_bytes()));
        let digest = hash.finalize();
        u64::from_be_bytes(std::array::from_fn(|i| digest[i]))
    }

    /// A hash over every id and its bytes. Two models with the same fingerprint can exchange token
    /// ids, also if their file formats differ.
    pub fn fingerprint(&self) -> u64 {
        self.vocabulary.fingerprint()
    }

    fn failed(&self, error: &dyn std::error::Error) -> ModelError {
        ModelError::Text(format!("{}: {error}", self.path.display()))
    }
}

/// The error of a directory without `tokenizer.json`.
fn missing(directory: &Path, path: &Path) -> ModelError {
    let names = files::names(directory).unwrap_or_default();
    let is = |name: &String, ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    for (ends, format) in OTHER_TOKENIZERS {
        if let Some(name) = names.iter().find(|name| is(name, ends)) {
            return ModelError::unsupported(
                &directory.join(name),
                format!(
                    "Galley reads tokenizer.json, and this model has only {format}: save it once with transformers' \
                     `AutoTokenizer`, or use a GGUF file of the model"
                ),
            );
        }
    }
    let reason = "the model has no tokenizer.json: put the one of the model it was made from beside its weights";
    ModelError::unsupported(path, reason)
}

/// Suffixes of the files of other tokenizers, and the name of each format.
const OTHER_TOKENIZERS: [(&[&str], &str); 4] = [
    (&["tokenizer.model", ".spm", "tokenizer.model.v3"], "a SentencePiece file"),
    (&["tekken.json"], "Mistral's tekken file"),
    (&[".tiktoken", "tiktoken.model"], "a tiktoken file"),
    (&["vocab.json", "merges.txt"], "a vocabulary and its merges in files of their own"),
];

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("path", &self.path)
            .field("vocab_size", &self.vocab_size())
            .field("special", &self.special)
            .finish_non_exhaustive()
    }
}
