//! Errors of parsing and rendering a template.

pub(super) type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason, and the line of the template.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    pub(super) kind: ErrorKind,
    pub(super) message: Box<str>,
    pub(super) line: Option<u32>,
}

/// Kinds of errors, as far as the interpreter tells them apart. Python has many more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorKind {
    /// The template itself refuses, with `raise_exception`.
    Raised,
    /// A bound was reached.
    Stopped,
    /// The operation is not defined for values of these types.
    Type,
    /// The operation is not defined for this value.
    Value,
    /// Any other error.
    Other,
}

impl Error {
    pub(super) fn new(kind: ErrorKind, message: impl Into<Box<str>>) -> Self {
        Self { kind, message: message.into(), line: None }
    }

    pub(super) fn at(mut self, line: u32) -> Self {
        self.line.get_or_insert(line);
        self
    }

    /// One sentence for the user.
    pub(crate) fn explain(&self) -> String {
        match (self.kind, self.line) {
            (ErrorKind::Raised, _) => {
                format!("the chat template refuses this conversation: {}", self.message)
            }
            (ErrorKind::Stopped, _) => self.message.to_string(),
            (_, Some(line)) => format!("the chat template fails in line {line}: {}", self.message),
            (_, None) => format!("the chat template fails: {}", self.message),
        }
    }
}

pub(super) fn type_error<T>(message: impl Into<Box<str>>) -> Result<T> {
    Err(Error::new(ErrorKind::Type, message))
}

pub(super) fn value_error<T>(message: impl Into<Box<str>>) -> Result<T> {
    Err(Error::new(ErrorKind::Value, message))
}

pub(super) fn other_error<T>(message: impl Into<Box<str>>) -> Result<T> {
    Err(Error::new(ErrorKind::Other, message))
}
