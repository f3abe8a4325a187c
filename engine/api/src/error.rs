//! The error of every function of this crate, and the errors of the engine in its form.

use galley_engine::hub::HubError;
use galley_engine::{GenerateError, OpenError, RequestError, SubmitError};
use serde_json::json;
use std::fmt;

/// An error: its kind, the field that caused it, and a sentence that names the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The kind, by the caller's way out.
    pub code: ErrorCode,
    /// The place in the JSON, such as `messages[2].content`; None if no single field is wrong.
    pub field: Option<String>,
    /// The error and the values that are allowed, without the field.
    pub message: String,
}

/// The kind of an error, by the caller's way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The request must be changed.
    InvalidRequest,
    /// The settings of the engine must be changed.
    InvalidSetting,
    /// The model is not on this machine, or could not be fetched: choose or fetch another one.
    ModelNotFound,
    /// The model cannot be loaded here: its files or the memory of the machine do not allow it.
    LoadFailed,
    /// The engine has as many waiting requests as it takes: submit the same request later.
    Busy,
    /// The engine has stopped: open another one.
    Stopped,
    /// A step of the request failed: the same request may succeed again.
    Failed,
}

impl ErrorCode {
    /// The code as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidSetting => "invalid_setting",
            Self::ModelNotFound => "model_not_found",
            Self::LoadFailed => "load_failed",
            Self::Busy => "busy",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

impl ApiError {
    /// An error of this kind. `message` does not repeat the field.
    pub fn new(code: ErrorCode, field: Option<&str>, message: impl Into<String>) -> Self {
        let field = field.filter(|field| !field.is_empty()).map(str::to_owned);
        Self { code, field, message: message.into() }
    }

    /// The request has a wrong value in `field`; the empty name is the whole request.
    pub(crate) fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, Some(field), message)
    }

    /// The same error as one of engine settings.
    pub(crate) fn of_settings(mut self) -> Self {
        if self.code == ErrorCode::InvalidRequest {
            self.code = ErrorCode::InvalidSetting;
        }
        self
    }

    /// The same error in an item of a list of requests: its field begins with the index.
    pub(crate) fn of_item(mut self, index: usize) -> Self {
        let field = self.field.map_or(format!("[{index}]"), |field| format!("[{index}].{field}"));
        self.field = Some(field);
        self
    }

    /// The error as a JSON object: `{"error": {"code", "field", "message"}}`. The message begins with the field.
    pub fn to_json(&self) -> String {
        let mut error = json!({"code": self.code.as_str(), "message": self.to_string()});
        if let Some(field) = &self.field {
            error["field"] = field.as_str().into();
        }
        json!({ "error": error }).to_string()
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{field}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ApiError {}

/// Keys of the JSON that have another name than their field of [`galley_engine::Request`].
const KEYS: [(&str, &str); 4] = [
    ("stop_tokens", "stop_token_ids"),
    ("include_stop", "include_stop_str_in_output"),
    ("generated", "resume.generated"),
    ("fingerprint", "resume.fingerprint"),
];

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Invalid { field, reason } => {
                let other = KEYS.iter().find(|(of, _)| *of == field);
                Self::invalid(other.map_or(field, |(_, key)| key), reason)
            }
            SubmitError::Busy { .. } => Self::new(ErrorCode::Busy, None, error.to_string()),
            SubmitError::Stopped(_) => Self::new(ErrorCode::Stopped, None, error.to_string()),
            error => Self::new(ErrorCode::Failed, None, error.to_string()),
        }
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        let code = match error {
            RequestError::Stopped { .. } => ErrorCode::Stopped,
            _ => ErrorCode::Failed,
        };
        Self::new(code, None, error.to_string())
    }
}

impl From<GenerateError> for ApiError {
    fn from(error: GenerateError) -> Self {
        match error {
            GenerateError::Submit(error) => error.into(),
            GenerateError::Request(error) => error.into(),
            error => Self::new(ErrorCode::Failed, None, error.to_string()),
        }
    }
}

impl From<OpenError> for ApiError {
    fn from(error: OpenError) -> Self {
        let setting = |field, message| Self::new(ErrorCode::InvalidSetting, Some(field), message);
        match error {
            OpenError::Hub(error) => {
                let code = match error {
                    HubError::Name(_)
                    | HubError::Missing(_)
                    | HubError::Choice(_)
                    | HubError::Refused(_)
                    | HubError::Network(_) => ErrorCode::ModelNotFound,
                    _ => ErrorCode::LoadFailed,
                };
                Self::new(code, Some("model"), format!("{error:#}"))
            }
            OpenError::Threads { reason, .. } => setting("threads", reason.to_string()),
            OpenError::Setting { name, value, reason } => {
                setting(name, format!("{value}: {reason}"))
            }
            OpenError::MaxModelLen(reason) => setting("max_model_len", reason.to_string()),
            OpenError::TooFewTokens { max_num_batched_tokens, max_num_seqs } => setting(
                "max_num_batched_tokens",
                format!(
                    "{max_num_batched_tokens} is below max_num_seqs, {max_num_seqs}: every sequence needs a token a step"
                ),
            ),
            OpenError::DeviceFormats { setting: name, .. } => setting(name, error.to_string()),
            OpenError::DeviceNotBuilt { .. } => setting("device", error.to_string()),
            OpenError::Drafter { wanted, reason } => {
                setting("drafters", format!("{wanted:?}: {reason}"))
            }
            OpenError::Files(_) | OpenError::Load { .. } => {
                Self::new(ErrorCode::LoadFailed, Some("model"), error.to_string())
            }
            error => Self::new(ErrorCode::LoadFailed, None, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use galley_engine::Request;
    use serde_json::Value;

    #[test]
    fn an_error_of_the_engine_names_the_key_of_the_json() {
        let of = |request: Request| ApiError::from(request.check().expect_err("it is wrong"));
        let wrong = Request::new(vec![1]);
        let error = of(wrong.clone().temperature(-1.0));
        assert_eq!(error.to_string(), "temperature: -1 is not between 0 and 100");
        let json: Value = serde_json::from_str(&error.to_json()).expect("JSON");
        assert_eq!(
            json,
            json!({"error": {"code": "invalid_request", "field": "temperature", "message": error.to_string()}})
        );
        let error = of(wrong.stop_tokens(vec![0; 5000]));
        assert_eq!(error.field.as_deref(), Some("stop_token_ids"));
        let refused = SubmitError::Invalid { field: "generated", reason: "no".into() };
        assert_eq!(ApiError::from(refused).field.as_deref(), Some("resume.generated"));
    }

    #[test]
    fn codes_say_the_way_out() {
        let stopped = ApiError::from(SubmitError::Stopped("it was shut down".into()));
        let failed = ApiError::from(RequestError::Failed { reason: "a step failed".into() });
        assert_eq!((stopped.code.as_str(), failed.code.as_str()), ("stopped", "failed"));
        let json: Value = serde_json::from_str(&failed.to_json()).expect("JSON");
        assert_eq!(json, json!({"error": {"code": "failed", "message": "a step failed"}}));
        let (name, value) = ("block_size", "12".to_owned());
        let setting = OpenError::Setting { name, value, reason: "a multiple of 16".into() };
        let setting = ApiError::from(setting);
        assert_eq!(setting.code, ErrorCode::InvalidSetting);
        assert_eq!(setting.to_string(), "block_size: 12: a multiple of 16");
    }
}
