//! Holds a drafter to the contract of `galley_drafter.h`, rule by rule.
//!
//! The drafter is loaded as the host loads it, and lives a life with `galley-drafter-host`. Between the two stands
//! [`Lending`]: it sees every call, and lends less, more, or functions that fail where a rule is about that.
//! A drafter can crash, so the program runs each rule in a process of its own; [`RULES`] are what it runs.

mod between;
mod checks;
mod life;
mod observed;
mod rules;

pub use between::Lending;
pub use life::{Asked, Lived, Subject};
pub use observed::{Breach, Callback, Function, Observed, Returned};
pub use rules::{ABOUT, RULES, Rule, Verdict};
