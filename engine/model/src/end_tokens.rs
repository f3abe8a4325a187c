//! Tokens that end a generation, and their sources.
//!
//! A model may have several end tokens, and each of its files may name another one. So the set is
//! the union over `config.json`, `generation_config.json` and the tokenizer's `eos_token`, or over
//! the ids in a GGUF file. Tokens that files name end every generation.
//!
//! A chat also ends at tokens that only their spelling marks as the end of a turn: a chat model
//! with files that omit `<|im_end|>` would continue and write the user's next message. Plain text
//! has no turns, and a base model may quote such a token, so there its spelling has no effect.

use crate::tokenizer::Tokenizer;
use std::fmt;

/// Tokens that end a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndTokens {
    tokens: Vec<EndToken>,
    /// The end token if no file names one.
    default: Option<u32>,
}

/// A token that ends a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndToken {
    /// The token.
    pub id: u32,
    /// The first source that names the token.
    pub source: EndSource,
}

/// The source that marks a token as an end token.
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
    /// The default of transformers, as no file names an end token.
    Default,
    /// The token's spelling, which counts in chats only.
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
    /// No tokens yet; `default` counts if no source names a token.
    pub(crate) fn with_default(default: Option<u32>) -> Self {
        Self { tokens: Vec::new(), default }
    }

    /// Adds a token. A token that is present keeps its source.
    pub fn add(&mut self, id: u32, source: EndSource) {
        if !self.contains(id) {
            self.tokens.push(EndToken { id, source });
        }
    }

    /// Whether `id` is an end token.
    pub fn contains(&self, id: u32) -> bool {
        self.tokens.iter().any(|token| token.id == id)
    }

    /// All end tokens, in the order of their sources.
    pub fn iter(&self) -> impl Iterator<Item = EndToken> {
        self.tokens.iter().copied()
    }

    /// Ids that end any generation, of plain text too.
    pub fn of_texts(&self) -> Vec<u32> {
        self.iter()
            .filter(|token| token.source != EndSource::Spelling)
            .map(|token| token.id)
            .collect()
    }

    /// Ids that end the answer in a chat.
    pub fn of_chats(&self) -> Vec<u32> {
        self.iter().map(|token| token.id).collect()
    }

    /// These end tokens and the tokenizer's, or the default if no source names a token. The added
    /// ids are below `vocab_size`, the size of the model's vocabulary.
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
        // A file that marks such a token as text is wrong; llama.cpp decides the same.
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

/// Spellings that mean the end of a turn, or of the text, in every vocabulary with such a control
/// token. A text token with the same spelling, such as the `</s>` of HTML, does not count.
///
/// The list is llama.cpp's, with the end tokens of other models of Galley's families. It omits
/// llama.cpp's tokens for infilling (`<|fim_pad|>`, `<|repo_name|>`, `<|file_sep|>`), which a chat
/// may contain, and `<|tool_response>`, which begins a turn.
const TURN_ENDS: [&str; 28] = [
    "<|im_end|>",            // ChatML: Qwen, SmolLM, Yi, Hermes
    "<|eot_id|>",            // Llama 3
    "<|eom_id|>",            // Llama 3.1, before the result of a tool
    "<|eot|>",               // Llama 4
    "<|eom|>",               // Llama 4
    "<|end|>",               // Phi-3
    "<|return|>",            // Harmony
    "<|call|>",              // Harmony, before the result of a tool
    "<|flush|>",             // Solar Open
    "<|calls|>",             // Solar Open
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
    "_<EOT>",                // CodeLlama's infilling, chats of Refact
    "▁<EOT>",                // CodeLlama's infilling, chats of Refact
    "<|EOT|>",               // DeepSeek Coder
    "[EOT]",                 // Kimi K2
    "[EOS]",                 // Kimi K2
    "<｜end▁of▁sentence｜>", // DeepSeek, and its distillations into Llama and Qwen
    "<eos>",                 // Gemma
    "</s>",                  // Llama 2, Mistral, Zephyr
];

/// Harmony ends a part of a message with [`HARMONY_PART`], and a turn with one of these tokens.
const HARMONY_ENDS: [&str; 2] = ["<|return|>", "<|call|>"];
const HARMONY_PART: &str = "<|end|>";
