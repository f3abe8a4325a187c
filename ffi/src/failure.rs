//! Why a call fails, before it becomes an error of C.

use crate::codes;
use crate::handles::Stale;
use galley_api::{ApiError, ErrorCode};
use std::any::Any;

/// A code of the header, the key of the JSON that is wrong, and a sentence with the way out, which begins with the key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: i32,
    pub(crate) field: Option<String>,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: i32, message: impl Into<String>) -> Self {
        Failure { code, field: None, message: message.into() }
    }

    /// A wrong argument of a function: its name, and the rule that it breaks.
    pub(crate) fn argument(name: &str, rule: &str) -> Self {
        Failure::new(codes::GALLEY_INVALID_ARGUMENT, format!("{name} must be {rule}"))
    }

    /// A handle has no object. `kind` is the name of its type.
    pub(crate) fn handle(kind: &str, stale: Stale) -> Self {
        match stale {
            Stale::Closed => Failure::new(codes::GALLEY_CLOSED, format!("the {kind} is closed")),
            Stale::Unknown => {
                let message = format!("the handle is not that of a {kind}: open one first");
                Failure::new(codes::GALLEY_INVALID_HANDLE, message)
            }
        }
    }

    /// The library has too many objects of a kind.
    pub(crate) fn full(things: &str) -> Self {
        Failure::new(codes::GALLEY_FAILED, format!("too many {things} at a time: free some"))
    }

    /// A panic was caught.
    pub(crate) fn bug(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("a panic without a text");
        Failure::new(codes::GALLEY_BUG, format!("a fault of Galley, please report it: {text}"))
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let code = match error.code {
            ErrorCode::InvalidRequest => codes::GALLEY_INVALID_REQUEST,
            ErrorCode::InvalidSetting => codes::GALLEY_INVALID_SETTING,
            ErrorCode::ModelNotFound => codes::GALLEY_MODEL_NOT_FOUND,
            ErrorCode::LoadFailed => codes::GALLEY_LOAD_FAILED,
            ErrorCode::Busy => codes::GALLEY_BUSY,
            ErrorCode::Stopped => codes::GALLEY_STOPPED,
            _ => codes::GALLEY_FAILED,
        };
        Failure { code, message: error.to_string(), field: error.field }
    }
}
