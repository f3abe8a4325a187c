//! The tokenizer in the metadata of a GGUF file.

use super::pre::PreTokenizerRule;
use super::sentencepiece;
use super::vocabulary::{Spelling, TokenDecoder, TokenKind, Vocabulary, check_size, fallback_byte};
use super::{SpecialTokens, Tokenizer};
use crate::metadata::Metadata;
use crate::{ModelError, Result};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::replace::Replace;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::normalizers::{Prepend, Sequence};
use tokenizers::{AddedToken, NormalizerWrapper};

/// Values of `tokenizer.ggml.token_type`. All other values mean text.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// The checked fields of a file.
struct VocabularyFields<'a> {
    path: &'a Path,
    metadata: &'a Metadata,
    tokens: &'a [String],
    /// Tokens that are not UTF-8. No text encodes to them.
    raw: &'a BTreeMap<usize, Vec<u8>>,
    types: &'a [i32],
}

pub(super) fn build(path: &Path, metadata: &Metadata) -> Result<Tokenizer> {
    let fields = VocabularyFields::new(path, metadata)?;
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

impl<'a> VocabularyFields<'a> {
    fn new(path: &'a Path, metadata: &'a Metadata) -> Result<Self> {
        let key = "tokenizer.ggml.tokens";
        let tokens = metadata
            .strings(key)
            .ok_or_else(|| ModelError::invalid(path, key, "is missing, or no list of strings"))?;
        check_size(path, key, tokens.len())?;
        let raw = metadata.raw_strings(key).expect("strings have raw strings");
        let types = metadata.i32s("tokenizer.ggml.token_type").unwrap_or_default();
        let fields = Self { path, metadata, tokens, raw, types };
        if !types.is_empty() && types.len() != tokens.len() {
            let warning = format!(
                "tokenizer.ggml.token_type has {} entries for {} tokens: a token without an entry is text",
                types.len(),
                tokens.len()
            );
            fields.tell(&warning);
        }
        if let Some((id, _)) = raw.first_key_value() {
            let warning = format!(
                "{} tokens are no UTF-8, {id} the first: they are decoded to their bytes, and no text becomes one",
                raw.len()
            );
            fields.tell(&warning);
        }
        Ok(fields)
    }

    /// Builds GPT-2's byte-level BPE, from merges.
    fn byte_level(&self) -> Result<Tokenizer> {
        let rule = self.rule();
        let mut vocab = Vocab::default();
        for (id, token) in self.texts() {
            // Some files repeat a token. Text encodes to the first id.
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
        // Unused entries pad the vocabulary to the rows of the embedding.
        let kind = |id| match self.kind(id) {
            UNUSED => TokenKind::Absent,
            UNKNOWN | CONTROL => TokenKind::Special,
            _ => TokenKind::Text,
        };
        let vocabulary = self.vocabulary(kind, &TokenDecoder::byte_level())?;
        self.finish(inner, vocabulary, self.affixes(rule.add_bos, [None; 2]))
    }

    /// Builds SentencePiece's BPE over characters, from scores, with a token for every byte.
    fn sentencepiece(&self) -> Result<Tokenizer> {
        let key = "tokenizer.ggml.scores";
        let mut scores = self
            .metadata
            .f32s(key)
            .ok_or_else(|| self.invalid(key, "is missing, or no list of numbers"))?;
        // A score of NaN gives no order, so its token comes last.
        scores
            .iter_mut()
            .filter(|score| score.is_nan())
            .for_each(|score| *score = f32::NEG_INFINITY);
        if scores.len() < self.tokens.len() {
            let reason = format!("{} entries for {} tokens", scores.len(), self.tokens.len());
            return Err(self.invalid(key, reason));
        }
        let unknown = self.id("unknown", None).unwrap_or(0);
        let mut vocab = Vocab::default();
        let mut texts = HashMap::new();
        for (id, token) in self.texts() {
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
        let mut bpe =
            BPE::builder().vocab_and_merges(vocab, sentencepiece::merges(&texts, &scores));
        if !self.raw.contains_key(&(unknown as usize)) {
            bpe = bpe.unk_token(self.tokens[unknown as usize].clone());
        }
        let bpe = bpe
            .fuse_unk(true)
            .byte_fallback(true)
            .build()
            .map_err(|error| self.invalid("tokenizer.ggml.tokens", error))?;
        let mut inner = tokenizers::Tokenizer::new(bpe);
        let prefix = self.metadata.bool("tokenizer.ggml.add_space_prefix").unwrap_or(true);
        let normalizer = spaces(prefix).map_err(|error| self.invalid(key, error))?;
        inner.with_normalizer(Some(normalizer)).map_err(|error| self.invalid(key, error))?;
        let kind = |id| match self.kind(id) {
            UNKNOWN | CONTROL => TokenKind::Special,
            _ => TokenKind::Text,
        };
        let vocabulary =
            self.vocabulary(kind, &TokenDecoder::sentencepiece(usize::from(prefix)))?;
        self.finish(inner, vocabulary, self.affixes(true, [Some(1), Some(2)]))
    }

    /// Adds the tokens that are matched in a text before it is split into words.
    fn finish(
        &self,
        mut inner: tokenizers::Tokenizer,
        vocabulary: Vocabulary,
        special: SpecialTokens,
    ) -> Result<Tokenizer> {
        let added = self.texts().filter_map(|(id, token)| {
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

    fn rule(&self) -> &'static PreTokenizerRule {
        let name = self.metadata.str("tokenizer.ggml.pre");
        match name.map(|name| (name, PreTokenizerRule::find(name))) {
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
        PreTokenizerRule::default()
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
        // As in llama.cpp, the left part of a merge may begin with a space.
        let split = |merge: &'a String| {
            let skipped = merge.chars().next()?.len_utf8();
            let at = skipped + merge.get(skipped..)?.find(' ')?;
            Some((&merge[..at], &merge[at + 1..]))
        };
        let mut useless = Vec::new();
        let mut pairs = Vec::with_capacity(merges.len());
        for merge in merges {
            match split(merge).filter(|(left, right)| known(left, right)) {
                Some((left, right)) => pairs.push((left.to_owned(), right.to_owned())),
                None => useless.push(merge),
            }
        }
        if let Some(first) = useless.first() {
            let warning = format!(
                "{key}: {} of {} join no two tokens to a third, {first:?} the first, and are left out",
                useless.len(),
                merges.len()
            );
            self.tell(&warning);
        }
        Ok(pairs)
    }

    fn vocabulary(
        &self,
        kind: impl Fn(usize) -> TokenKind,
        decoder: &TokenDecoder,
    ) -> Result<Vocabulary> {
        let spelling = |(id, token): (usize, &String)| match self.raw.get(&id) {
            Some(bytes) => (Spelling::Bytes(bytes.clone()), kind(id)),
            None => (Spelling::Text(token.clone()), kind(id)),
        };
        Vocabulary::new(self.path, self.tokens.iter().enumerate().map(spelling), decoder)
    }

    /// The begin and end tokens, and the ones that are put around a text.
    fn affixes(&self, add_bos: bool, [bos, eos]: [Option<u32>; 2]) -> SpecialTokens {
        let in_range = |id: &u32| (*id as usize) < self.tokens.len();
        let bos = self.id("bos", bos.filter(in_range));
        let eos = self.id("eos", eos.filter(in_range));
        let flag = |key, default| self.metadata.bool(key).unwrap_or(default);
        SpecialTokens {
            bos,
            eos,
            prefix: bos.filter(|_| flag("tokenizer.ggml.add_bos_token", add_bos)),
            suffix: eos.filter(|_| flag("tokenizer.ggml.add_eos_token", false)),
        }
    }

    /// `tokenizer.ggml.ROLE_token_id`, or `default` if the file does not have the key. An id out of
    /// range, such as -1, says that no token has this role.
    fn id(&self, role: &str, default: Option<u32>) -> Option<u32> {
        let key = format!("tokenizer.ggml.{role}_token_id");
        if !self.metadata.contains(&key) {
            return default;
        }
        let id = self.metadata.u64(&key).filter(|&id| id < self.tokens.len() as u64);
        // The configuration warns about the end token.
        if id.is_none() && role != "eos" {
            self.tell(&format!("{key} is no id of a token, and counts as absent"));
        }
        id.map(|id| id as u32)
    }

    /// Tokens that are UTF-8, with their ids.
    fn texts(&self) -> impl Iterator<Item = (usize, &'a String)> {
        self.tokens.iter().enumerate().filter(|(id, _)| !self.raw.contains_key(id))
    }

    fn kind(&self, id: usize) -> i32 {
        self.types.get(id).copied().unwrap_or(NORMAL)
    }

    fn tell(&self, warning: &str) {
        tracing::warn!("{}: {warning}", self.path.display());
    }

    fn invalid(&self, field: &str, reason: impl ToString) -> ModelError {
        ModelError::invalid(self.path, field, reason.to_string())
    }
}

/// SentencePiece's white space: `▁` for every space, and with `prefix` one `▁` before the text.
fn spaces(prefix: bool) -> Result<Sequence, tokenizers::Error> {
    let mut steps: Vec<NormalizerWrapper> = vec![Replace::new(" ", "▁")?.into()];
    if prefix {
        steps.insert(0, Prepend::new("▁".into()).into());
    }
    Ok(Sequence::new(steps))
}
