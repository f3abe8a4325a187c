//! Tokens that end a generation, and what names each.
//!
//! A model has several ends of turn and its files name one here and one there, so the files are united: `config.json`,
//! `generation_config.json` and the tokenizer's `eos_token`, or the ids of a GGUF file. What files name ends every
//! generation. A chat also ends at tokens that nothing but their spelling marks as the end of a turn: a chat model
//! whose files forget `<|im_end|>` would go on and play the user. Plain text has no turns, and a base model whose
//! vocabulary happens to have such a token may quote it, so there it is a token like any other.

use crate::tokenizer::Tokenizer;
use std::fmt;

/// Tokens that end a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndTokens {
    tokens: Vec<EndToken>,
    /// Where nothing names a token.
    default: Option<u32>,
}

/// A token that ends a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndToken {
    /// The token.
    pub id: u32,
    /// What names it; the first of several.
    pub source: EndSource,
}

/// What says that a token ends a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndSource {
    /// `eos_token_id` of `config.json`.
    Config,
    /// `eos_token_id` of `generation_config.json`.
    GenerationConfig,
    /// A metadata key of a GGUF file: end of sequence, of turn, of message.
    Gguf(&'static str),
    /// The `eos_token` of the tokenizer's files.
    Tokenizer,
    /// Nothing in the files: the value that transformers gives to `eos_token_id` then.
    Default,
    /// Its spelling, and only in chats.
    Spelling,
}

impl fmt::Display for EndSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "config.json: eos_token_id",
            Self::GenerationConfig => "generation_config.json: eos_token_id",
            Self::Gguf(key) => key,
            Self::Tokenizer => "the tokenizer's eos_token",
            Self::Default => "the default of its family",
            Self::Spelling => "its spelling, in chats",
        })
    }
}

impl EndTokens {
    /// None, and `default` where nothing comes to name one.
    pub(crate) fn with_default(default: Option<u32>) -> Self {
        Self { tokens: Vec::new(), default }
    }

    /// Adds a token; what named it before stays its source.
    pub fn add(&mut self, id: u32, source: EndSource) {
        if !self.contains(id) {
            self.tokens.push(EndToken { id, source });
        }
    }

    /// Whether `id` is among them.
    pub fn contains(&self, id: u32) -> bool {
        self.tokens.iter().any(|token| token.id == id)
    }

    /// All of them, in the order of their sources.
    pub fn iter(&self) -> impl Iterator<Item = EndToken> {
        self.tokens.iter().copied()
    }

    /// Ids of those that end any text.
    pub fn of_texts(&self) -> Vec<u32> {
        self.iter()
            .filter(|token| token.source != EndSource::Spelling)
            .map(|token| token.id)
            .collect()
    }

    /// Ids of those that end the answer in a chat.
    pub fn of_chats(&self) -> Vec<u32> {
        self.iter().map(|token| token.id).collect()
    }

    /// Those of the configuration united with those that the tokenizer shows, of a model that has `vocab_size` tokens.
    pub fn with_tokenizer(&self, tokenizer: Option<&Tokenizer>, vocab_size: usize) -> Self {
        let mut all = self.clone();
        let exists = |id: &u32| (*id as usize) < vocab_size;
        if let Some(id) = tokenizer.and_then(Tokenizer::eos).filter(exists) {
            all.add(id, EndSource::Tokenizer);
        }
        if let (true, Some(id)) = (all.tokens.is_empty(), self.default.filter(exists)) {
            all.add(id, EndSource::Default);
        }
        let Some(tokenizer) = tokenizer else { return all };
        // No text has a token like this: a file that calls it text has forgotten its kind, and llama.cpp says so too.
        let is_unmistakable = |text: &str| text.starts_with("<|") || text.starts_with("<｜");
        let spelt = |spelling: &&str| {
            let plain = || tokenizer.token_to_id(spelling).filter(|_| is_unmistakable(spelling));
            tokenizer.control_token(spelling).or_else(plain).filter(exists)
        };
        let ends_message = HARMONY_ENDS.iter().any(|end| spelt(end).is_some());
        for spelling in TURN_ENDS.iter().filter(|end| !(ends_message && **end == HARMONY_PART)) {
            if let Some(id) = spelt(spelling) {
                all.add(id, EndSource::Spelling);
            }
        }
        all
    }
}

/// Spellings that mean the end of a turn, or of the text, in every vocabulary that has them as a control token. A
/// token of text that is spelt like one, such as the `</s>` of HTML, is none of them.
///
/// llama.cpp's list, and the ends of turn of other models of Galley's families. Left out are the tokens that llama.cpp
/// has for infilling (`<|fim_pad|>`, `<|repo_name|>`, `<|file_sep|>`), which a chat may hold, and `<|tool_response>`,
/// which begins a turn.
const TURN_ENDS: [&str; 28] = [
    "<|im_end|>",            // ChatML: Qwen, SmolLM, Yi, Hermes
    "<|eot_id|>",            // Llama 3
    "<|eom_id|>",            // Llama 3.1, before the result of a tool
    "<|eot|>",               // Llama 4
    "<|eom|>",               // the same
    "<|end|>",               // Phi-3
    "<|return|>",            // Harmony
    "<|call|>",              // the same, before the result of a tool
    "<|flush|>",             // Solar Open
    "<|calls|>",             // the same
    "<end_of_turn>",         // Gemma
    "<turn|>",               // Gemma 4
    "<|end_of_turn|>",       // OpenChat, Starling
    "<|endofturn|>",         // HyperCLOVA X
    "[|endofturn|]",         // EXAONE
    "<|END_OF_TURN_TOKEN|>", // Command R
    "<end_of_utterance>",    // SmolVLM, SmolDocling
    "<|endoftext|>",         // GPT-2, Qwen, SmolLM
    "<|end_of_text|>",       // Llama 3, Granite
    "<EOT>",                 // CodeLlama's infilling, chats of Refact
    "_<EOT>",                // the same
    "▁<EOT>",                // the same
    "<|EOT|>",               // DeepSeek Coder
    "[EOT]",                 // Kimi K2
    "[EOS]",                 // the same
    "<｜end▁of▁sentence｜>", // DeepSeek, and its distillations into Llama and Qwen
    "<eos>",                 // Gemma
    "</s>",                  // Llama 2, Mistral, Zephyr
];

/// Harmony ends a part of a message with [`HARMONY_PART`], and the turn with one of these.
const HARMONY_ENDS: [&str; 2] = ["<|return|>", "<|call|>"];
const HARMONY_PART: &str = "<|end|>";
