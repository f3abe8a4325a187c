//! Prompt lookup over a suffix index: guesses the tokens that followed the latest tokens most often.
//!
//! A. Saxena, "Prompt Lookup Decoding", 2023 (github.com/apoorvumang/prompt-lookup-decoding), takes
//! the tokens behind an earlier occurrence of the latest few tokens. G. Oliaro et al.,
//! "SuffixDecoding", 2024 (arXiv 2411.04975), take the longest match in a suffix tree with counts,
//! over the prompt, the output and earlier outputs. A guess is as long as the match warrants: at most
//! `factor` tokens for each matched token, and it ends where its next token becomes unlikely. Without
//! a match there is no guess, and the round is one of plain decoding.
//!
//! It suits answers that quote their prompt, code that is edited, texts that repeat themselves and,
//! with `memory`, requests that repeat each other. A guess is free: it reads no weight and no cached
//! key.

use galley_drafter::{
    Control, Cost, CostAt, Drafter, Guess, Limits, Matcher, Matching, Options, Result, Step,
    export_drafter,
};

struct Ngram {
    matcher: Matcher,
}

impl Drafter for Ngram {
    fn activate(host: &Control<'_>, options: &Options, _: &Limits) -> Result<Self> {
        let matching = matching(options)?;
        Ok(Self { matcher: host.matcher(&matching)? })
    }

    fn guess(&mut self, step: &Step<'_>) -> Result<Guess> {
        step.propose(self.matcher)
    }

    fn cost(&self, _: &CostAt) -> Cost {
        Cost { weights_read: 0.0, kv_tokens_read: 0.0 }
    }
}

/// The options, checked.
fn matching(options: &Options) -> Result<Matching> {
    let matching = Matching {
        min_match: options.parse("min")?,
        max_match: options.parse("max")?,
        tokens_per_match: options.parse("factor")?,
        min_frequency: options.parse("min-probability")?,
        uses_memory: options.choose("memory", &[("off", false), ("on", true)])?,
    };
    if matching.min_match == 0 {
        return Err(options.refuse("min", "a match has at least one token"));
    }
    if matching.max_match < matching.min_match {
        return Err(options.refuse("max", "it is smaller than min"));
    }
    if !(matching.tokens_per_match > 0.0 && matching.tokens_per_match.is_finite()) {
        return Err(options.refuse("factor", "a number above 0 is expected"));
    }
    if !(0.0..=1.0).contains(&matching.min_frequency) {
        return Err(options.refuse("min-probability", "a number from 0 to 1 is expected"));
    }
    Ok(matching)
}

export_drafter!(
    Ngram,
    r#"{
  "id": "galley.ngram",
  "name": "ngram",
  "version": "0.1.0",
  "description": "Guesses the tokens that followed the latest tokens most often (prompt lookup, suffix decoding)",
  "needs": ["galley.suffix/1"],
  "options": [
    {"name": "min", "default": "2", "help": "tokens that must match at least"},
    {"name": "max", "default": "32", "help": "tokens that are matched at most, up to 64; the longest match counts"},
    {"name": "factor", "default": "1", "help": "most tokens of a guess for each token of the match"},
    {"name": "min-probability", "default": "0.3", "help": "a guess ends before a token with a lower share of the occurrences"},
    {"name": "memory", "default": "off", "help": "on also searches earlier outputs of requests with the same cache salt"}
  ]
}"#
);
