//! The smallest drafter in Rust that computes its guess: the last token, a few times over.

use galley_drafter::{
    Control, Cost, CostAt, Drafter, Guess, Limits, Options, Result, Step, export_drafter,
};

struct Echo {
    times: usize,
    guess: Vec<u32>, // allocated when activated: a step must not allocate
}

impl Drafter for Echo {
    fn activate(_: &Control<'_>, options: &Options, limits: &Limits) -> Result<Self> {
        let times = options.parse("times")?;
        if times == 0 {
            return Err(options.refuse("times", "at least 1 is expected"));
        }
        Ok(Self { times, guess: Vec::with_capacity(limits.max_draft_length as usize) })
    }

    fn guess(&mut self, step: &Step<'_>) -> Result<Guess> {
        let mut outcome = Guess::Nothing;
        for i in 0..step.n_rows() {
            let row = step.row(i)?;
            let n_tokens = self.times.min(row.draft_length as usize);
            let Some(&last) = row.tokens.last().filter(|_| n_tokens > 0) else { continue };
            self.guess.clear();
            self.guess.resize(n_tokens, last);
            outcome = step.push(i, &self.guess)?;
        }
        Ok(outcome)
    }

    /// A guess reads no weight and no cached key.
    fn cost(&self, _: &CostAt) -> Cost {
        Cost { weights_read: 0.0, kv_tokens_read: 0.0 }
    }
}

export_drafter!(
    Echo,
    r#"{
  "id": "org.example.echo",
  "name": "echo",
  "version": "0.1.0",
  "description": "Guesses the last token again",
  "needs": ["galley.tokens/1"],
  "options": [{"name": "times", "default": "2", "help": "how often"}]
}"#
);
