//! Write a drafter for Galley in safe Rust: implement [`Drafter`], and export it with
//! [`export_drafter!`].
//!
//! A drafter describes and enqueues; it does not compute. It describes views, masks and models
//! through [`Control`], and enqueues work through [`Step`]. Neither value can be kept beyond the
//! call it was given for. A drafter can therefore call no function in a phase that
//! `galley_drafter.h` does not allow for it.
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
mod feedback;
mod handles;
mod host;
mod options;
mod step;

pub use control::{Control, Granularity, Matching, Observation, Observer, Pool};
pub use error::{Error, Result};
pub use feedback::{Feedback, Verified};
pub use handles::{Chain, LayerMask, Layers, Matcher, Model, ModelInfo, View};
pub use host::Level;
pub use options::Options;
pub use step::{Match, ReplayScore, Row, Step};

/// A drafting strategy. A value lives from `activate` to `deactivate`, which drops it.
pub trait Drafter: Sized + 'static {
    /// Makes views and masks, loads models and reserves memory: a drafter can do none of this
    /// later. The host may call this again, with the same options, after it has dropped a value;
    /// the handles of that value are void.
    ///
    /// # Errors
    ///
    /// A bad option, or the error of a call that the host refused. The drafter is then not used.
    fn activate(host: &Control<'_>, options: &Options, limits: &Limits) -> Result<Self>;

    /// Enqueues a guess for the rows of this step. The work must depend on `n_rows` and
    /// `draft_length` alone: the host may keep it and not ask again for that shape, until
    /// [`Step::rerecord`]. A drafter that uses [`Step::row`] or [`Step::push`] is asked every round.
    ///
    /// # Errors
    ///
    /// An error means no guess this round. An error never fails a request.
    fn guess(&mut self, step: &Step<'_>) -> Result<Guess>;

    /// The prompts of these rows have just been read.
    ///
    /// # Errors
    ///
    /// The host logs the error. An error never fails a request.
    fn after_prefill(&mut self, step: &Step<'_>) -> Result<()> {
        let _ = step;
        Ok(())
    }

    /// A sequence is over, or has left this drafter.
    fn end(&mut self, sequence: u64) {
        let _ = sequence;
    }

    /// The cost of one guessed token, for a planner's first estimate. By default, the cost of a
    /// token of the target.
    fn cost(&self, at: &CostAt) -> Cost {
        Cost { weights_read: 1.0, kv_tokens_read: at.attended(0) }
    }
}

/// The outcome of [`Drafter::guess`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guess {
    /// A guess is on the queue.
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

/// The conditions that a cost is asked for.
#[derive(Clone, Copy, Debug)]
pub struct CostAt {
    /// Tokens of the sequence.
    pub context_tokens: u64,
    /// The KV budget that a request asked for; 0: the drafter's own.
    pub budget_tokens: u32,
}

impl CostAt {
    /// Cached tokens that a view with a budget of `budget_tokens` attends to. 0 is the whole cache,
    /// which no request can narrow.
    pub fn attended(&self, budget_tokens: u32) -> f64 {
        let budget = match (budget_tokens, self.budget_tokens) {
            (0, _) => u64::MAX,
            (own, 0) => u64::from(own),
            (_, asked) => u64::from(asked),
        };
        self.context_tokens.min(budget) as f64
    }
}

/// The reads of one guessed token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Share of the target's weights; 0.25 is a quarter.
    pub weights_read: f64,
    /// Cached tokens of the target, per row. Tokens of a draft model count as tokens of the target
    /// by their bytes.
    pub kv_tokens_read: f64,
}

#[cfg(test)]
mod tests;
