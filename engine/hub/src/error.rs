//! Errors, by the way out that a caller has.

use crate::refusal::Refusal;
use std::error::Error;
use std::fmt;

/// Why a model was not found or not fetched.
///
/// `{}` prints one sentence, `{:#}` the sentence and its causes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The name is neither a path, nor a model id, nor a known name: another name is needed.
    #[error(transparent)]
    Name(Reason),
    /// The name is that of a model that is not in the cache: fetch it with [`crate::pull`].
    #[error(transparent)]
    Missing(Reason),
    /// The repository has several models, or not the chosen file: one of its files must be chosen.
    #[error(transparent)]
    Choice(Reason),
    /// A variable of the environment, or a file that it names, cannot be used.
    #[error(transparent)]
    Environment(Reason),
    /// The hub or a proxy refuses this user: it needs an access token, an agreement or a password.
    #[error(transparent)]
    Refused(Reason),
    /// There is no connection, or it broke off repeatedly: a later attempt may succeed.
    #[error(transparent)]
    Network(Reason),
    /// The repository, an answer of the server or a fetched file is not as it should be.
    #[error(transparent)]
    Content(Reason),
    /// The cache cannot be read or written.
    #[error(transparent)]
    Cache(Reason),
    /// Python or pip, which fetch the models in Python packages, are missing or failed.
    #[error(transparent)]
    Python(Reason),
}

/// A sentence for people, and its cause.
#[derive(Debug)]
pub struct Reason {
    sentence: String,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Reason {
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), cause: None }
    }

    pub(crate) fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)?;
        let mut cause = self.source().filter(|_| f.alternate());
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl Error for Reason {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

impl HubError {
    /// The same kind of error under another sentence, with this error as the cause.
    fn within(self, sentence: String) -> Self {
        let kind = match &self {
            Self::Name(_) => Self::Name,
            Self::Missing(_) => Self::Missing,
            Self::Choice(_) => Self::Choice,
            Self::Environment(_) => Self::Environment,
            Self::Refused(_) => Self::Refused,
            Self::Network(_) => Self::Network,
            Self::Content(_) => Self::Content,
            Self::Cache(_) => Self::Cache,
            Self::Python(_) => Self::Python,
        };
        kind(Reason::new(sentence).because(self))
    }

    /// The refusal by a server that is the cause, if one is.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        let mut cause = self.source();
        while let Some(error) = cause {
            if let Some(refusal) = error.downcast_ref() {
                return Some(refusal);
            }
            cause = error.source();
        }
        None
    }
}

pub(crate) type Result<T, E = HubError> = std::result::Result<T, E>;

/// An error of a kind, with a sentence as for `format!`.
macro_rules! fail {
    ($kind:ident, $($sentence:tt)*) => {
        $crate::error::HubError::$kind($crate::error::Reason::new(format!($($sentence)*)))
    };
}
pub(crate) use fail;

/// Turns errors of other crates, and missing values, into errors of a kind.
pub(crate) trait Or<T> {
    /// The value, or an error of this kind with a sentence and the cause, if there is one.
    fn or_fail(self, kind: fn(Reason) -> HubError, sentence: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Error + Send + Sync + 'static> Or<T> for Result<T, E> {
    fn or_fail(self, kind: fn(Reason) -> HubError, sentence: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| kind(Reason::new(sentence()).because(error)))
    }
}

impl<T> Or<T> for Option<T> {
    fn or_fail(self, kind: fn(Reason) -> HubError, sentence: impl FnOnce() -> String) -> Result<T> {
        self.ok_or_else(|| kind(Reason::new(sentence())))
    }
}

/// A sentence above an error, which keeps its kind.
pub(crate) trait Within {
    fn within(self, sentence: impl FnOnce() -> String) -> Self;
}

impl<T> Within for Result<T> {
    fn within(self, sentence: impl FnOnce() -> String) -> Self {
        self.map_err(|error| error.within(sentence()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_above_an_error_keeps_its_kind_and_its_cause() {
        let broken: Result<(), _> = Err(std::io::Error::other("broken"));
        let error = broken.or_fail(HubError::Cache, || "a file".into());
        let error = error.within(|| "a model".into()).expect_err("an error");
        assert!(matches!(error, HubError::Cache(_)));
        assert_eq!(
            (error.to_string(), format!("{error:#}")),
            ("a model".into(), "a model: a file: broken".into())
        );
        assert_eq!(format!("{:#}", fail!(Name, "{} is no name", 3)), "3 is no name");
    }
}
