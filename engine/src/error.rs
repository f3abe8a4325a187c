//! Errors of starting an engine and of submitting a request.

use galley_drafter_host::LoadError;

/// Why [`crate::Engine::start`] failed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A size with which the model was loaded allows no step. Load the model with another size.
    #[error("the model was loaded with {name} = {value}: {reason}")]
    Size {
        /// The size, as [`LanguageModel`](galley_model::LanguageModel) or its KV pool calls it.
        name: &'static str,
        /// Its value.
        value: usize,
        /// The requirement that the value does not meet.
        reason: &'static str,
    },
    /// A drafter cannot run over this model.
    #[error(transparent)]
    Drafter(#[from] LoadError),
    /// The system does not start another thread.
    #[error(
        "the engine's thread cannot be started: {0}; end other processes, or allow more threads and memory (ulimit -u, -v)"
    )]
    Thread(std::io::Error),
}

/// Why [`crate::Engine::submit`] refused a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The request asks for something impossible.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field of [`crate::Request`].
        field: &'static str,
        /// The error, and the values that are allowed.
        reason: String,
    },
    /// Too many requests wait for admission. The same request may be accepted later.
    #[error(
        "the engine is busy: {n_waiting} requests wait for admission, and max_waiting is {max_waiting}; try again \
         when some have ended"
    )]
    Busy {
        /// Requests that wait for admission.
        n_waiting: usize,
        /// Most requests that may wait ([`crate::EngineConfig::max_waiting`]).
        max_waiting: usize,
    },
    /// The engine accepts no more requests.
    #[error("the engine has stopped: {0}")]
    Stopped(String),
}

/// Why a submitted request ended without its whole output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// A step of the request failed. The engine goes on; the same request may succeed again.
    #[error("{reason}")]
    Failed {
        /// Description of the failure.
        reason: String,
    },
    /// The engine has stopped, and serves no other request either.
    #[error("{reason}")]
    Stopped {
        /// Why the engine stopped.
        reason: String,
    },
}

/// Why [`crate::Engine::generate`] returned no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// The request was refused.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The request was accepted, and the engine could not finish it.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl SubmitError {
    pub(crate) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        SubmitError::Invalid { field, reason: reason.into() }
    }
}
