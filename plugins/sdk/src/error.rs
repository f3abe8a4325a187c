//! Errors of a drafter: a status for the host and a sentence for the host's user.

use std::borrow::Cow;
use std::fmt;

use galley_drafter_abi::{
    GD_INTERNAL, GD_INVALID, GD_NO_MEMORY, GD_PANIC, GD_UNSUPPORTED, GD_WRONG_PHASE, gd_status,
};

/// A result of a drafter. The host logs its error.
pub type Result<T> = std::result::Result<T, Error>;

/// A status and a sentence. When a callback returns it, the sentence is logged and the host gets
/// the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    status: gd_status,
    sentence: Cow<'static, str>,
}

impl Error {
    /// A bad option or argument.
    pub fn invalid(sentence: impl Into<Cow<'static, str>>) -> Self {
        Self { status: GD_INVALID, sentence: sentence.into() }
    }

    /// This host, model or device cannot do it.
    pub fn unsupported(sentence: impl Into<Cow<'static, str>>) -> Self {
        Self { status: GD_UNSUPPORTED, sentence: sentence.into() }
    }

    /// Any other failure.
    pub fn internal(sentence: impl Into<Cow<'static, str>>) -> Self {
        Self { status: GD_INTERNAL, sentence: sentence.into() }
    }

    pub(crate) fn with_status(status: gd_status, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self { status, sentence: sentence.into() }
    }

    /// The error for a call that the host refused.
    pub(crate) fn refused(action: &str, status: gd_status) -> Self {
        let why = match status {
            GD_UNSUPPORTED => "it is not supported here",
            GD_INVALID => "an argument or handle is invalid",
            GD_WRONG_PHASE => "it is not allowed in this phase",
            GD_NO_MEMORY => "there is no memory for it",
            GD_PANIC => "the host panicked",
            _ => "it failed",
        };
        Self::with_status(status, format!("the host refused {action}: {why} (status {status})"))
    }

    /// The status, as in `galley_drafter.h`.
    pub fn status(&self) -> i32 {
        self.status
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Error {}
