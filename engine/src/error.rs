//! Why a request was not accepted.

/// Why [`crate::Engine::submit`] refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The request asks for something impossible.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field of [`crate::Request`].
        field: &'static str,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// The engine takes no more requests.
    #[error("the engine has stopped: {0}")]
    Stopped(String),
}

impl SubmitError {
    pub(crate) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        SubmitError::Invalid { field, reason: reason.into() }
    }
}
