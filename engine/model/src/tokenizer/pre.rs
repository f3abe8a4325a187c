//! Rules by which byte-level BPE vocabularies split text into words, by their GGUF names.

use crate::Result;
use tokenizers::SplitDelimiterBehavior::Isolated;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{Error, PreTokenizerWrapper};

/// A rule that `tokenizer.ggml.pre` names.
#[derive(Debug)]
pub(super) struct PreTokenizerRule {
    names: &'static [&'static str],
    words: WordPattern,
    /// Whether a word that is a token becomes that token without merges.
    pub(super) ignore_merges: bool,
    /// Whether texts get a begin token, unless the file overrides it.
    pub(super) add_bos: bool,
    /// Whether the text is first normalised to NFC.
    pub(super) nfc: bool,
}

#[derive(Debug)]
enum WordPattern {
    /// GPT-2's expression, which is built into the `tokenizers` crate.
    Gpt2,
    /// Every digit alone, then GPT-2's expression.
    DigitsGpt2,
    /// Regular expressions, applied in order.
    Patterns(&'static [&'static str]),
}

const PLAIN: PreTokenizerRule = PreTokenizerRule {
    names: &[],
    words: WordPattern::Gpt2,
    ignore_merges: false,
    add_bos: false,
    nfc: false,
};

/// All rules; the first is the default.
static RULES: &[PreTokenizerRule] = &[
    PreTokenizerRule {
        names: &["default", "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion"],
        ..PLAIN
    },
    PreTokenizerRule {
        names: &["smollm", "starcoder", "refact", "codeshell", "minerva-7b"],
        words: WordPattern::DigitsGpt2,
        ..PLAIN
    },
    PreTokenizerRule {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"],
        words: WordPattern::Patterns(&[LLAMA3]),
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    PreTokenizerRule {
        names: &["dbrx", "smaug-bpe"],
        words: WordPattern::Patterns(&[LLAMA3]),
        ..PLAIN
    },
    PreTokenizerRule {
        names: &["qwen2", "deepseek-r1-qwen", "megrez", "kormo"],
        words: WordPattern::Patterns(&[QWEN2]),
        nfc: true,
        ..PLAIN
    },
    PreTokenizerRule {
        names: &["qwen35"],
        words: WordPattern::Patterns(&[QWEN35]),
        nfc: true,
        ..PLAIN
    },
    PreTokenizerRule { names: &["stablelm2"], words: WordPattern::Patterns(&[QWEN2]), ..PLAIN },
    PreTokenizerRule {
        names: &["tekken"],
        words: WordPattern::Patterns(&[TEKKEN]),
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    PreTokenizerRule {
        names: &["gpt-4o", "llama4"],
        words: WordPattern::Patterns(&[GPT4O]),
        ..PLAIN
    },
    PreTokenizerRule {
        names: &["seed-coder"],
        words: WordPattern::Patterns(&[SEED_CODER]),
        ..PLAIN
    },
    PreTokenizerRule {
        names: &["deepseek-coder"],
        words: WordPattern::Patterns(&[
            r"[\r\n]",
            r"\s?\p{L}+",
            r"\s?\p{P}+",
            "[一-龥ࠀ-一가-\u{d7ff}]+",
            r"\p{N}",
        ]),
        ..PLAIN
    },
];

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const SEED_CODER: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
);

impl PreTokenizerRule {
    /// The rule with this name.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        RULES.iter().find(|rule| rule.names.contains(&name))
    }

    /// GPT-2's rule.
    pub(super) fn default() -> &'static Self {
        &RULES[0]
    }

    pub(super) fn pre_tokenizer(&self) -> Result<PreTokenizerWrapper, Error> {
        let bytes = |words| ByteLevel::new(false, true, words).into();
        let steps = match self.words {
            WordPattern::Gpt2 => vec![bytes(true)],
            WordPattern::DigitsGpt2 => vec![Digits::new(true).into(), bytes(true)],
            WordPattern::Patterns(patterns) => {
                let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
                for &pattern in patterns {
                    let pattern = SplitPattern::Regex(pattern.into());
                    steps.push(Split::new(pattern, Isolated, false)?.into());
                }
                steps.push(bytes(false));
                steps
            }
        };
        Ok(Sequence::new(steps).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_can_be_built_and_found() {
        for rule in RULES {
            rule.pre_tokenizer().unwrap();
            for name in rule.names {
                assert!(
                    std::ptr::eq(PreTokenizerRule::find(name).unwrap(), rule),
                    "{name} is there twice"
                );
            }
        }
        assert!(PreTokenizerRule::find("no such rule").is_none());
    }
}
