//! Turns tokens into text that is final.

use crate::stop::{StopMatcher, StopRules, Stopped};
use galley_model::Result;
use galley_model::config::ModelConfig;
use galley_model::end_tokens::EndTokens;
use galley_model::tokenizer::{TextStream, Tokenizer};

/// Text to tokens and back: the part of the tokenizer that the engine needs.
pub(crate) trait TextCodec: Send + Sync {
    /// Tokens of a text, with the special tokens around it if `add_special`.
    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>>;
    /// A decoder for the tokens after `context`.
    fn stream_after(&self, context: &[u32]) -> Box<dyn TextDecoder>;
    /// A hash of the vocabulary, of the tokenizer's rules, and of the tokens that end a generation.
    fn content_hash(&self, ends: &[u32]) -> u64;
    /// Tokens that end a generation of this model, from its configuration and its tokenizer.
    fn end_tokens(&self, model: &ModelConfig) -> EndTokens {
        model.end_tokens.with_tokenizer(None, model.vocab_size)
    }
}

/// Decodes one sequence, token by token.
pub(crate) trait TextDecoder: Send {
    /// Takes a token and returns text that is final.
    fn push(&mut self, token: u32) -> String;
    /// The remaining text, when no token follows.
    fn finish(&mut self) -> String;
}

impl TextCodec for Tokenizer {
    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        Tokenizer::encode(self, text, add_special)
    }

    fn stream_after(&self, context: &[u32]) -> Box<dyn TextDecoder> {
        Box::new(Tokenizer::stream_after(self, context, true))
    }

    fn content_hash(&self, ends: &[u32]) -> u64 {
        Tokenizer::content_hash(self, ends)
    }

    fn end_tokens(&self, model: &ModelConfig) -> EndTokens {
        model.end_tokens.with_tokenizer(Some(self), model.vocab_size)
    }
}

impl TextDecoder for TextStream {
    fn push(&mut self, token: u32) -> String {
        TextStream::push(self, token)
    }

    fn finish(&mut self) -> String {
        TextStream::finish(self)
    }
}

/// The text of one sequence as it grows.
#[derive(Default)]
pub(crate) struct TextOutput {
    /// None without a tokenizer: all text is then empty.
    decoder: Option<Box<dyn TextDecoder>>,
    matcher: StopMatcher,
}

impl TextOutput {
    /// The text that continues `prompt`.
    pub(crate) fn new(codec: Option<&dyn TextCodec>, prompt: &[u32]) -> Self {
        /// Enough tokens to know whether the text starts here, or inside a character.
        const CONTEXT: usize = 16;
        let context = &prompt[prompt.len().saturating_sub(CONTEXT)..];
        let decoder = codec.map(|codec| codec.stream_after(context));
        TextOutput { decoder, matcher: StopMatcher::default() }
    }

    /// Takes the token after `n_generated` earlier tokens. Returns the text that is final, and the
    /// stop string if the text reaches one.
    pub(crate) fn push(
        &mut self,
        token: u32,
        n_generated: usize,
        rules: &StopRules,
    ) -> (String, Option<Stopped>) {
        let Some(decoder) = &mut self.decoder else { return (String::new(), None) };
        let piece = decoder.push(token);
        if !rules.watches_text(n_generated) {
            return (self.matcher.pass(&piece), None);
        }
        let released = self.matcher.push(&piece, &rules.strings, rules.include_stop);
        let stopped = released.matched.map(|i| Stopped::Text(rules.strings[i].clone()));
        (released.text, stopped)
    }

    /// The remaining text, when no token follows.
    pub(crate) fn finish(&mut self) -> String {
        let rest = self.decoder.as_mut().map(|decoder| decoder.finish()).unwrap_or_default();
        self.matcher.pass(&rest)
    }
}
