//! Checks a drafter against the contract of `galley_drafter.h`, rule by rule.
//!
//! The drafter is loaded as the host loads it, and runs a whole life with `galley-drafter-host`.
//! Between the two, an interposer sees every call. A [`Lending`] tells it to withhold extensions,
//! change table sizes or make functions fail, where a rule needs that. A drafter can crash, so the
//! program runs each rule of [`RULES`] in a process of its own.

mod checks;
mod interposer;
mod life;
mod observed;
mod rules;
mod suffixes;
mod target;
mod verdict;

pub use interposer::Lending;
pub use life::{GuessCall, Lived, Subject};
pub use observed::{Breach, Callback, Function, Observed, Returned};
pub use rules::{RULES, Rule};
pub use verdict::{ABOUT, Verdict};
