//! Requests, answers, errors and engine settings as JSON, the same for the command line and for bindings to other
//! languages. `docs/requests.md` describes every key.
//!
//! [`parse_request`] reads a request and makes the checks that need no model. [`RequestBody::into_request`] renders the
//! messages of a chat and returns the engine's [`Request`](galley_engine::Request). [`AnswerBody`] is an answer as JSON,
//! [`started_json`] and [`finished_json`] are its beginning and an end for a caller that streams. [`open_engine`] reads
//! the settings of an engine and starts it. [`ApiError`] is every error: a code for programs, the field, and a sentence
//! for people.
//!
//! No function keeps a state, starts a thread that outlives it, or panics on any input. All functions may be called from
//! any thread.

#![forbid(unsafe_code)]

mod answer;
mod chat;
mod error;
mod json;
pub mod limits;
mod request;
mod request_json;
mod settings;

pub use answer::{
    AnswerBody, DraftBody, LogprobBody, OutputBody, StartedBody, StopReason, UsageBody,
    finished_json, started_json,
};
pub use chat::ModelTexts;
pub use error::{ApiError, ErrorCode};
pub use request::{RequestBody, parse_request, parse_request_of_tokens, parse_requests};
pub use request_json::request_json;
pub use settings::{EngineBody, open_engine, parse_settings};
