//! Prompt lookup: guesses the tokens that followed the latest few tokens when they last occurred.
//!
//! A. Saxena, "Prompt Lookup Decoding", 2023 (github.com/apoorvumang/prompt-lookup-decoding). Prompt
//! lookup suits answers that quote their prompt, code that is edited and texts that repeat
//! themselves. A guess is free: it reads no weight and no cached key.

use galley_drafter::{
    Control, Cost, CostAt, Drafter, Guess, Limits, Options, Result, Step, export_drafter,
};

struct Ngram {
    min_n: u32,
    max_n: u32,
}

impl Drafter for Ngram {
    fn activate(_: &Control<'_>, options: &Options, _: &Limits) -> Result<Self> {
        let (min_n, max_n) = (options.parse("min")?, options.parse("max")?);
        if min_n == 0 {
            return Err(options.refuse("min", "a suffix has at least one token"));
        }
        if max_n < min_n {
            return Err(options.refuse("max", "it is smaller than min"));
        }
        Ok(Self { min_n, max_n })
    }

    fn guess(&mut self, step: &Step<'_>) -> Result<Guess> {
        step.lookup(self.min_n, self.max_n)
    }

    fn cost(&self, _: &CostAt) -> Cost {
        Cost { weights_read: 0.0, kv_tokens_read: 0.0 }
    }
}

export_drafter!(
    Ngram,
    r#"{
  "id": "galley.ngram",
  "name": "ngram",
  "version": "0.1.0",
  "description": "Guesses the tokens that followed the latest few tokens when they last occurred (prompt lookup)",
  "needs": ["galley.tokens/1"],
  "options": [
    {"name": "min", "default": "2", "help": "tokens that must match at least"},
    {"name": "max", "default": "4", "help": "tokens that are matched at most; longer matches go first"}
  ]
}"#
);
