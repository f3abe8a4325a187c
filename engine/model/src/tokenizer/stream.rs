//! Decoding one token at a time.

use super::vocabulary::Vocabulary;
use std::sync::Arc;

/// Turns tokens into text as they arrive.
///
/// The text that [`TextStream::push`] returns is final. A character split over tokens is held back
/// until its last byte arrives, and broken UTF-8 becomes U+FFFD once no further byte can complete
/// it. The texts of all pushes and of [`TextStream::finish`], joined, equal the text of
/// [`Tokenizer::decode`](super::Tokenizer::decode). The time of a push depends only on the length
/// of its token.
#[derive(Clone, Debug)]
pub struct TextStream {
    vocabulary: Arc<Vocabulary>,
    skip_special: bool,
    /// The bytes of an incomplete character: at most three between pushes.
    pending: Vec<u8>,
    /// Number of spaces that are still to be dropped at the start of the text.
    leading_spaces: usize,
}

impl TextStream {
    pub(super) fn new(vocabulary: Arc<Vocabulary>, skip_special: bool) -> Self {
        let leading_spaces = vocabulary.leading_spaces;
        Self { vocabulary, skip_special, pending: Vec::new(), leading_spaces }
    }

    /// Adds a token and returns the text that is now final: often a word, sometimes empty.
    pub fn push(&mut self, id: u32) -> String {
        let mut text = String::new();
        self.push_to(id, &mut text);
        text
    }

    /// As [`TextStream::push`], but appends to `text`.
    pub fn push_to(&mut self, id: u32, text: &mut String) {
        if self.skip_special && self.vocabulary.is_special(id) {
            return;
        }
        let Some(bytes) = self.vocabulary.bytes(id) else { return };
        self.pending.extend_from_slice(bytes);
        let mut done = 0;
        for chunk in self.pending.utf8_chunks() {
            let certain = done + chunk.valid().len() + chunk.invalid().len();
            write(&mut self.leading_spaces, chunk.valid(), text);
            // The last bytes may be the beginning of a character: wait for the rest.
            if certain == self.pending.len() && is_prefix(chunk.invalid()) {
                done += chunk.valid().len();
                break;
            }
            if !chunk.invalid().is_empty() {
                write(&mut self.leading_spaces, "\u{fffd}", text);
            }
            done = certain;
        }
        self.pending.drain(..done);
    }

    /// The end of the text: U+FFFD for an incomplete character, usually empty.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

/// Whether `bytes` are an incomplete but valid beginning of a character.
fn is_prefix(bytes: &[u8]) -> bool {
    !bytes.is_empty() && std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

fn write(leading_spaces: &mut usize, mut piece: &str, text: &mut String) {
    while *leading_spaces > 0 && !piece.is_empty() {
        match piece.strip_prefix(' ') {
            Some(rest) => {
                piece = rest;
                *leading_spaces -= 1;
            }
            None => *leading_spaces = 0,
        }
    }
    text.push_str(piece);
}
