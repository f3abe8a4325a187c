//! The tokenizer in the metadata of a GGUF file.

use super::pre::Rule;
use super::sentencepiece;
use super::vocabulary::{Decoder, Kind, Vocabulary, check_size, fallback_byte};
use super::{SpecialTokens, Tokenizer};
use crate::weights::gguf::Metadata;
use crate::{ModelError, Result};
use std::collections::HashMap;
use std::path::Path;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::replace::Replace;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::normalizers::{Prepend, Sequence};
use tokenizers::{AddedToken, NormalizerWrapper};

/// Values of `tokenizer.ggml.token_type`. Everything else is text.
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// The checked fields of a file.
struct Fields<'a> {
    path: &'a Path,
    metadata: &'a Metadata,
    tokens: &'a [String],
    types: Option<&'a [i32]>,
}

pub(super) fn build(path: &Path, metadata: &Metadata) -> Result<Tokenizer> {
    let fields = Fields::new(path, metadata)?;
    match metadata.str("tokenizer.ggml.model") {
        Some("gpt2") => fields.byte_level(),
        Some("llama") => fields.sentencepiece(),
        Some(other) => Err(ModelError::unsupported(
            path,
            format!("tokenizer.ggml.model {other:?}: Galley has \"gpt2\" and \"llama\""),
        )),
        None => {
            Err(fields.invalid("tokenizer.ggml.model", "is missing: the file has no tokenizer"))
        }
    }
}

impl<'a> Fields<'a> {
    fn new(path: &'a Path, metadata: &'a Metadata) -> Result<Self> {
        let key = "tokenizer.ggml.tokens";
        let tokens = metadata
            .strings(key)
            .ok_or_else(|| ModelError::invalid(path, key, "is missing, or no list of strings"))?;
        check_size(path, key, tokens.len())?;
        let types = metadata.i32s("tokenizer.ggml.token_type");
        let fields = Self { path, metadata, tokens, types };
        if let Some(types) = types {
            fields.check_len("tokenizer.ggml.token_type", types.len())?;
        }
        Ok(fields)
    }

    /// GPT-2's BPE over bytes, with merges.
    fn byte_level(&self) -> Result<Tokenizer> {
        let rule = self.rule();
        let mut vocab = Vocab::default();
        for (id, token) in self.tokens.iter().enumerate() {
            // Some files repeat a token; the first id is the one that text becomes.
            vocab.entry(token.clone()).or_insert(id as u32);
        }
        let merges = self.merges(&vocab)?;
        let bpe = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .ignore_merges(rule.ignore_merges)
            .build()
            .map_err(|error| self.invalid("tokenizer.ggml.merges", error))?;
        let mut inner = tokenizers::Tokenizer::new(bpe);
        let pre = rule.pre_tokenizer().map_err(|e| self.invalid("tokenizer.ggml.pre", e))?;
        inner.with_pre_tokenizer(Some(pre));
        if rule.nfc {
            inner.with_normalizer(Some(NFC)).map_err(|e| self.invalid("tokenizer.ggml.pre", e))?;
        }
        // Unused entries fill the vocabulary up to the rows of the embedding.
        let kind = |id| match self.kind(id) {
            UNUSED => Kind::Absent,
            UNKNOWN | CONTROL => Kind::Special,
            _ => Kind::Text,
        };
        let vocabulary = self.vocabulary(kind, &Decoder::byte_level())?;
        self.finish(inner, vocabulary, self.affixes(rule.add_bos, [None; 2])?)
    }

    /// SentencePiece's BPE over characters, with scores and a token for every byte.
    fn sentencepiece(&self) -> Result<Tokenizer> {
        let key = "tokenizer.ggml.scores";
        let scores = self
            .metadata
            .f32s(key)
            .ok_or_else(|| self.invalid(key, "is missing, or no list of numbers"))?;
        self.check_len(key, scores.len())?;
        if let Some(id) = scores.iter().position(|score| !score.is_finite()) {
            return Err(self.invalid(&format!("{key}[{id}]"), "is no finite number"));
        }
        let unknown = self.id("unknown").unwrap_or(0);
        let mut vocab = Vocab::default();
        let mut texts = HashMap::new();
        for (id, token) in self.tokens.iter().enumerate() {
            let special = matches!(self.kind(id), UNKNOWN | CONTROL) || id as u32 == unknown;
            if !special && fallback_byte(token).is_none() {
                if token.len() > sentencepiece::MAX_TOKEN_BYTES {
                    let reason = format!("{} bytes are too long for a token", token.len());
                    return Err(self.invalid(&format!("tokenizer.ggml.tokens[{id}]"), reason));
                }
                texts.entry(token.as_str()).or_insert(id as u32);
            }
            vocab.entry(token.clone()).or_insert(id as u32);
        }
        let unknown_token = self.tokens[unknown as usize].clone();
        let bpe = BPE::builder()
            .vocab_and_merges(vocab, sentencepiece::merges(&texts, scores))
            .unk_token(unknown_token)
            .fuse_unk(true)
            .byte_fallback(true)
            .build()
            .map_err(|error| self.invalid("tokenizer.ggml.tokens", error))?;
        let mut inner = tokenizers::Tokenizer::new(bpe);
        let prefix = self.metadata.bool("tokenizer.ggml.add_space_prefix").unwrap_or(true);
        let normalizer = spaces(prefix).map_err(|error| self.invalid(key, error))?;
        inner.with_normalizer(Some(normalizer)).map_err(|error| self.invalid(key, error))?;
        let kind = |id| match self.kind(id) {
            UNKNOWN | CONTROL => Kind::Special,
            _ => Kind::Text,
        };
        let vocabulary = self.vocabulary(kind, &Decoder::sentencepiece(usize::from(prefix)))?;
        self.finish(inner, vocabulary, self.affixes(true, [Some(1), Some(2)])?)
    }

    /// Adds the tokens that are found in a text before it is cut into words.
    fn finish(
        &self,
        mut inner: tokenizers::Tokenizer,
        vocabulary: Vocabulary,
        special: SpecialTokens,
    ) -> Result<Tokenizer> {
        let added = self.tokens.iter().enumerate().filter_map(|(id, token)| {
            let special = match self.kind(id) {
                UNKNOWN | CONTROL => true,
                USER_DEFINED => false,
                _ => return None,
            };
            Some(AddedToken::from(token.clone(), special).normalized(false))
        });
        inner.add_tokens(added).map_err(|e| self.invalid("tokenizer.ggml.token_type", e))?;
        Ok(Tokenizer::new(self.path, inner, vocabulary, special))
    }

    fn rule(&self) -> &'static Rule {
        let name = self.metadata.str("tokenizer.ggml.pre");
        match name.map(|name| (name, Rule::find(name))) {
            Some((_, Some(rule))) => return rule,
            Some((name, None)) => tracing::warn!(
                "{}: tokenizer.ggml.pre {name:?} is not known here: text is cut into words as for \
                 GPT-2, and the model may see other tokens than it was trained on",
                self.path.display()
            ),
            None => tracing::warn!(
                "{}: tokenizer.ggml.pre is missing (an old file): text is cut into words as for \
                 GPT-2",
                self.path.display()
            ),
        }
        Rule::default()
    }

    fn merges(&self, vocab: &Vocab) -> Result<Vec<(String, String)>> {
        let key = "tokenizer.ggml.merges";
        let merges = self
            .metadata
            .strings(key)
            .ok_or_else(|| self.invalid(key, "is missing, or no list of strings"))?;
        let mut joined = String::new();
        let mut known = |left: &str, right: &str| {
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            vocab.contains_key(left) && vocab.contains_key(right) && vocab.contains_key(&joined)
        };
        let pairs = merges.iter().enumerate().map(|(index, merge)| match merge.split_once(' ') {
            Some((left, right)) if known(left, right) => Ok((left.to_owned(), right.to_owned())),
            _ => {
                let reason = format!("{merge:?} does not join two tokens to a third");
                Err(self.invalid(&format!("{key}[{index}]"), reason))
            }
        });
        pairs.collect()
    }

    fn vocabulary(&self, kind: impl Fn(usize) -> Kind, decoder: &Decoder) -> Result<Vocabulary> {
        let tokens = self.tokens.iter().enumerate().map(|(id, token)| (token.clone(), kind(id)));
        Vocabulary::new(self.path, tokens, decoder)
    }

    /// Begin and end of text, and which of them are put around a text.
    fn affixes(&self, add_bos: bool, [bos, eos]: [Option<u32>; 2]) -> Result<SpecialTokens> {
        let in_range = |id: &u32| (*id as usize) < self.tokens.len();
        let bos = self.id("bos").or(bos).filter(in_range);
        let eos = self.id("eos").or(eos).filter(in_range);
        let flag = |key, default| self.metadata.bool(key).unwrap_or(default);
        Ok(SpecialTokens {
            bos,
            eos,
            prefix: bos.filter(|_| flag("tokenizer.ggml.add_bos_token", add_bos)),
            suffix: eos.filter(|_| flag("tokenizer.ggml.add_eos_token", false)),
        })
    }

    /// `tokenizer.ggml.ROLE_token_id`. An id of no token, such as -1, counts as absent.
    fn id(&self, role: &str) -> Option<u32> {
        let key = format!("tokenizer.ggml.{role}_token_id");
        let id = self.metadata.integer(&key)?;
        let known = u32::try_from(id).ok().filter(|&id| (id as usize) < self.tokens.len());
        // Of an end token, the configuration says it.
        if known.is_none() && role != "eos" {
            let n_tokens = self.tokens.len();
            tracing::warn!(
                "{}: {key}: {id} is ignored: there are {n_tokens} tokens",
                self.path.display()
            );
        }
        known
    }

    fn kind(&self, id: usize) -> i32 {
        self.types.map_or(1, |types| types[id])
    }

    fn check_len(&self, key: &str, len: usize) -> Result<()> {
        if len == self.tokens.len() {
            return Ok(());
        }
        Err(self.invalid(key, format!("{len} entries for {} tokens", self.tokens.len())))
    }

    fn invalid(&self, field: &str, reason: impl ToString) -> ModelError {
        ModelError::invalid(self.path, field, reason.to_string())
    }
}

/// SentencePiece's white space: `▁` for every space, and one before the text.
fn spaces(prefix: bool) -> Result<Sequence, tokenizers::Error> {
    let mut steps: Vec<NormalizerWrapper> = vec![Replace::new(" ", "▁")?.into()];
    if prefix {
        steps.insert(0, Prepend::new("▁".into()).into());
    }
    Ok(Sequence::new(steps))
}
