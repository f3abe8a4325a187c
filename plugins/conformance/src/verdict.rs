//! The answer of a check, and the line that announces its next action.

/// The result of checking a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The rule is kept.
    Pass,
    /// The rule is broken; the text says how.
    Fail(String),
    /// The rule could not be checked; the text says why.
    Skip(String),
}

/// Prefix of a line that announces the next action of a rule.
pub const ABOUT: &str = "drafter-check is about to: ";
