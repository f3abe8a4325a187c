//! The answer of a server that refuses a request.

use ureq::Body;
use ureq::http::{Response, StatusCode};

/// The answer of a server that refuses a request.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// The hub's code of the reason.
    pub(crate) code: String,
    /// The hub's sentence about the reason.
    message: String,
    /// The server, if it is not the hub.
    pub(crate) host: Option<String>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the server answers {}", self.status)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    pub(crate) fn of(response: &Response<Body>, host: Option<&str>) -> Self {
        let header = |name| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        Self {
            status: response.status(),
            code: header("x-error-code"),
            message: header("x-error-message"),
            host: host.map(str::to_owned),
        }
    }

    /// The hub's message, in a form that can follow a sentence.
    pub(crate) fn said(&self) -> String {
        match self.message.trim_end_matches('.') {
            "" => String::new(),
            message => format!(". The hub says: {message}"),
        }
    }
}
