//! Write a drafter for Galley in safe Rust: implement [`Drafter`], name it in [`export_drafter!`].
//!
//! A drafter describes and enqueues; it does not compute. [`Control`] is where it describes (views, masks,
//! models), [`Step`] is where it enqueues. Neither can be kept beyond the call it was given for, so no
//! function can be called in a phase that `galley_drafter.h` does not allow it in.
//!
//! ```
//! use galley_drafter::{Chain, Control, Drafter, Guess, Limits, Options, Result, Step, View, export_drafter};
//!
//! struct Window {
//!     view: View,
//! }
//!
//! impl Drafter for Window {
//!     fn activate(host: &Control<'_>, options: &Options, _: &Limits) -> Result<Self> {
//!         let budget = options.parse("budget")?;
//!         Ok(Self { view: host.window(Default::default(), 16, budget)? })
//!     }
//!
//!     fn guess(&mut self, step: &Step<'_>) -> Result<Guess> {
//!         step.chain(Chain { view: self.view, ..Chain::default() })
//!     }
//! }
//!
//! export_drafter!(Window, r#"{
//!     "id": "org.example.window", "name": "window", "version": "0.1.0",
//!     "description": "Attends to the first and the latest tokens",
//!     "needs": ["galley.views/1", "galley.chain/1"],
//!     "options": [{"name": "budget", "default": "512", "help": "tokens attended to"}]
//! }"#);
//! # fn main() {}
//! ```

mod control;
mod error;
#[doc(hidden)]
pub mod export;
mod handles;
mod host;
mod options;
mod step;

pub use control::{Control, Granularity, Observation, Observer, Pool};
pub use error::{Error, Result};
pub use handles::{Chain, LayerMask, Layers, Model, ModelInfo, View};
pub use host::Level;
pub use options::Options;
pub use step::{ReplayScore, Row, Step};

/// A drafting strategy. A value lives from `activate` to `deactivate`, which drops it.
pub trait Drafter: Sized + 'static {
    /// Makes views and masks, loads models and reserves memory: nothing of it may happen later. May be
    /// called again, with the same options, after a value was dropped; handles of that one are void.
    ///
    /// # Errors
    ///
    /// A bad option, or whatever the host refused. The drafter is then not used.
    fn activate(host: &Control<'_>, options: &Options, limits: &Limits) -> Result<Self>;

    /// Enqueues a guess for the rows of this step. What it enqueues must depend on `n_rows` and
    /// `draft_length` alone, because the host may keep it and not ask again for that shape, until
    /// [`Step::rerecord`]. A guess that uses [`Step::row`] or [`Step::push`] is asked for every round.
    ///
    /// # Errors
    ///
    /// An error means no guess this round. It never fails a request.
    fn guess(&mut self, step: &Step<'_>) -> Result<Guess>;

    /// The prompts of these rows have just been read.
    ///
    /// # Errors
    ///
    /// Is logged by the host. It never fails a request.
    fn after_prefill(&mut self, step: &Step<'_>) -> Result<()> {
        let _ = step;
        Ok(())
    }

    /// A sequence is over, or has left this drafter.
    fn end(&mut self, sequence: u64) {
        let _ = sequence;
    }

    /// What one guessed token costs, for the planner's first estimate. By default as much as a token of the
    /// target.
    fn cost(&self, at: &CostAt) -> Cost {
        Cost { weights_read: 1.0, kv_tokens_read: at.attended(0) }
    }
}

/// What came of being asked for a guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guess {
    /// It is on the queue.
    Enqueued,
    /// Nothing is worth verifying this round.
    Nothing,
}

/// The largest step that this drafter will see.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sequences in one round.
    pub max_rows: u32,
    /// Tokens guessed for one row.
    pub max_draft_length: u32,
    /// Tokens of one sequence.
    pub max_context_tokens: u64,
}

/// Where a cost is asked for.
#[derive(Clone, Copy, Debug)]
pub struct CostAt {
    /// Tokens of the sequence.
    pub context_tokens: u64,
    /// The KV budget that a request asked for; 0: the drafter's own.
    pub budget_tokens: u32,
}

impl CostAt {
    /// Cached tokens that a view attends to, if its own budget is `budget_tokens`; 0 is the whole cache, which
    /// no request can narrow.
    pub fn attended(&self, budget_tokens: u32) -> f64 {
        let budget = match (budget_tokens, self.budget_tokens) {
            (0, _) => u64::MAX,
            (own, 0) => u64::from(own),
            (_, asked) => u64::from(asked),
        };
        self.context_tokens.min(budget) as f64
    }
}

/// What one guessed token reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Share of the target's weights; 0.25 is a quarter.
    pub weights_read: f64,
    /// Cached tokens of the target, per row; of a second model, in the target's tokens by bytes.
    pub kv_tokens_read: f64,
}

#[cfg(test)]
mod tests;
