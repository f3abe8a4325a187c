//! The bytes that each token adds to the text, and the decoders that compute them.

use super::MAX_VOCABULARY;
use crate::{ModelError, Result};
use serde_json::Value;
use std::path::Path;

/// The bytes and the kind of every token.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    bytes: Vec<u8>,
    /// End of each id's bytes in `bytes`.
    ends: Vec<u32>,
    kinds: Vec<TokenKind>,
    /// Number of spaces dropped at the start of a text.
    pub(super) leading_spaces: usize,
}

/// The kind of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// No token: a gap in the ids, or padding of the embedding.
    Absent,
    /// Text.
    Text,
    /// A control token.
    Special,
}

/// The form of a token in a file.
#[derive(Clone, Debug)]
pub(super) enum Spelling {
    /// Text in the vocabulary's alphabet.
    Text(String),
    /// The bytes of the token's text.
    Bytes(Vec<u8>),
}

impl Vocabulary {
    /// Decodes `tokens`, one for each id in order.
    pub(super) fn new(
        path: &Path,
        tokens: impl IntoIterator<Item = (Spelling, TokenKind)>,
        decoder: &TokenDecoder,
    ) -> Result<Self> {
        let mut vocabulary = Self { leading_spaces: decoder.leading_spaces, ..Self::default() };
        for (token, kind) in tokens {
            match token {
                _ if kind == TokenKind::Absent => {}
                Spelling::Text(token) => decoder.decode(&token, &mut vocabulary.bytes),
                Spelling::Bytes(bytes) => vocabulary.bytes.extend(bytes),
            }
            let end = u32::try_from(vocabulary.bytes.len())
                .map_err(|_| ModelError::invalid(path, "vocabulary", "more than 4 GiB of text"))?;
            vocabulary.ends.push(end);
            vocabulary.kinds.push(kind);
        }
        Ok(vocabulary)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn bytes(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        if *self.kinds.get(id)? == TokenKind::Absent {
            return None;
        }
        let start = if id == 0 { 0 } else { self.ends[id - 1] as usize };
        Some(&self.bytes[start..self.ends[id] as usize])
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.kinds.get(id as usize) == Some(&TokenKind::Special)
    }

    /// FNV-1a over ids and bytes.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |bytes: &[u8]| {
            for &byte in bytes {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        for id in 0..self.len() as u32 {
            if let Some(bytes) = self.bytes(id) {
                add(&id.to_le_bytes());
                add(&(bytes.len() as u32).to_le_bytes());
                add(bytes);
            }
        }
        hash
    }
}

/// Refuses an empty vocabulary, and one with more than [`MAX_VOCABULARY`] tokens.
pub(super) fn check_size(path: &Path, field: &str, len: usize) -> Result<()> {
    if len == 0 || len > MAX_VOCABULARY {
        let reason = format!("{len} tokens, and a vocabulary has 1 to {MAX_VOCABULARY}");
        return Err(ModelError::invalid(path, field, reason));
    }
    Ok(())
}

/// The steps from a token's spelling in the vocabulary to its bytes.
#[derive(Debug, Default)]
pub(super) struct TokenDecoder {
    steps: Vec<DecodingStep>,
    leading_spaces: usize,
}

#[derive(Debug)]
enum DecodingStep {
    /// GPT-2's alphabet: a character for each byte.
    ByteLevel,
    /// `<0x0A>` is the byte 10.
    ByteFallback,
    Replace {
        from: String,
        to: String,
    },
}

impl TokenDecoder {
    pub(super) fn byte_level() -> Self {
        Self { steps: vec![DecodingStep::ByteLevel], leading_spaces: 0 }
    }

    /// SentencePiece: `▁` is a space, and `leading_spaces` are dropped at the start of a text.
    pub(super) fn sentencepiece(leading_spaces: usize) -> Self {
        let space = DecodingStep::Replace { from: "▁".into(), to: " ".into() };
        Self { steps: vec![space, DecodingStep::ByteFallback], leading_spaces }
    }

    /// Parses the `decoder` of a `tokenizer.json`. Only decoders of single tokens are supported.
    pub(super) fn parse(path: &Path, json: &Value) -> Result<Self> {
        let mut decoder = Self::default();
        match json["decoders"].as_array() {
            Some(list) if json["type"] == "Sequence" => {
                for step in list {
                    decoder.add(path, step)?;
                }
            }
            _ => decoder.add(path, json)?,
        }
        Ok(decoder)
    }

    fn add(&mut self, path: &Path, json: &Value) -> Result<()> {
        match json["type"].as_str() {
            Some("ByteLevel") => self.steps.push(DecodingStep::ByteLevel),
            Some("ByteFallback") => self.steps.push(DecodingStep::ByteFallback),
            Some("Fuse") => {}
            Some("Metaspace") => {
                let from = json["replacement"].as_str().unwrap_or("▁").into();
                self.steps.push(DecodingStep::Replace { from, to: " ".into() });
                if json["prepend_scheme"] != "never" {
                    self.leading_spaces = 1;
                }
            }
            Some("Replace") if json["pattern"]["String"].is_string() => {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let (from, to) = (text(&json["pattern"]["String"]), text(&json["content"]));
                self.steps.push(DecodingStep::Replace { from, to });
            }
            Some("Strip") if json["content"] == " " && json["stop"] == 0 => {
                self.leading_spaces = json["start"].as_u64().unwrap_or(0).min(64) as usize;
            }
            _ => {
                let reason = format!(
                    "decoder {json}: Galley knows ByteLevel, Metaspace, Replace of a string, \
                     ByteFallback, Fuse and Strip of leading spaces"
                );
                return Err(ModelError::unsupported(path, reason));
            }
        }
        Ok(())
    }

    fn decode(&self, token: &str, out: &mut Vec<u8>) {
        let mut text = std::borrow::Cow::Borrowed(token);
        for step in &self.steps {
            match step {
                DecodingStep::Replace { from, to } if text.contains(from.as_str()) => {
                    text = text.replace(from.as_str(), to).into();
                }
                DecodingStep::Replace { .. } => {}
                DecodingStep::ByteFallback => {
                    if let Some(byte) = fallback_byte(&text) {
                        return out.push(byte);
                    }
                }
                DecodingStep::ByteLevel => {
                    let start = out.len();
                    for c in text.chars() {
                        match byte_of(c) {
                            Some(byte) => out.push(byte),
                            None => {
                                out.truncate(start);
                                return out.extend_from_slice(text.as_bytes());
                            }
                        }
                    }
                    return;
                }
            }
        }
        out.extend_from_slice(text.as_bytes());
    }
}

/// The byte of a token `<0xNN>`.
pub(super) fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// The byte of a character of GPT-2's alphabet. Printable Latin-1 characters are their own bytes;
/// the other 68 bytes are the characters from U+0100, in order.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}
