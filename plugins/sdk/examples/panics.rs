//! A drafter that panics in every callback now and then. No panic may leave the library.

use galley_drafter::{
    Control, Cost, CostAt, Drafter, Feedback, Guess, Limits, Options, Result, Step, Verified,
    export_drafter,
};

struct Panics {
    n_calls: u64,
    every: u64,
}

impl Panics {
    fn count(&mut self) {
        self.n_calls += 1;
        assert!(!self.n_calls.is_multiple_of(self.every), "call {} is too much", self.n_calls);
    }
}

impl Drafter for Panics {
    fn activate(_: &Control<'_>, options: &Options, _: &Limits) -> Result<Self> {
        let every = options.parse("every")?;
        assert_ne!(every, 0, "never is not a number");
        Ok(Self { n_calls: 0, every })
    }

    fn guess(&mut self, step: &Step<'_>) -> Result<Guess> {
        let mut guess = Guess::Nothing;
        for i in 0..step.n_rows() {
            let row = step.row(i)?;
            let tokens = &row.tokens[..row.tokens.len().min(row.draft_length as usize)];
            guess = step.push(i, tokens)?;
        }
        self.count();
        Ok(guess)
    }

    fn after_prefill(&mut self, _: &Step<'_>) -> Result<()> {
        self.count();
        Ok(())
    }

    fn end(&mut self, _: u64) {
        self.count();
    }

    fn cost(&self, _: &CostAt) -> Cost {
        panic!("a cost is never asked twice")
    }
}

impl Feedback for Panics {
    fn feedback(&mut self, verified: impl Iterator<Item = Verified>) {
        for row in verified {
            assert!(row.n_accepted <= row.n_proposed, "{row:?}");
        }
        self.count();
    }
}

export_drafter!(
    Panics,
    r#"{
  "id": "org.example.panics",
  "name": "panics",
  "version": "0.1.0",
  "description": "Panics every so many calls",
  "needs": ["galley.tokens/1"],
  "options": [{"name": "every", "default": "1", "help": "calls between panics, at least 1"}]
}"#
);
