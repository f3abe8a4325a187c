//! Galley in a Rust program: opens a model and generates text.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use galley_engine::{Engine, Request};
//!
//! // A directory, a GGUF file, a model id of the hub, or a known name such as smollm2-135m-instruct.
//! let model = "../tests/data/models/smollm2";
//! let engine = Engine::open(model)?.kv_cache_tokens(1024).build()?;
//!
//! let answer = engine.generate("Once upon a time")?;
//! println!("{} ({} tokens, {})", answer.text, answer.tokens.len(), answer.finish.as_str());
//!
//! for piece in engine.submit(Request::new("Once upon a time").temperature(0.8))? {
//!     print!("{}", piece?.text);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Engine::open`] finds the model, and [`EngineBuilder::build`] loads it and starts an engine. With
//! feature `hub`, which is on by default, models are found by name, and
//! [`EngineBuilder::download`] fetches them. A drafter makes generation faster and changes no token:
//! see the example of [`EngineBuilder`].
//!
//! Below the front door, [`Engine::start`] takes a model and starts one thread, which owns all state:
//! sequences, blocks and the model. Callers reach that thread through channels: [`Engine::submit`]
//! checks a [`Request`] and returns a [`RequestHandle`], which yields [`Piece`]s or raw [`Event`]s.
//!
//! # Reading order
//!
//! `step.rs` (one step, in pipeline order), `scheduler.rs` (the sequences and tokens of a step),
//! `executor.rs` (block tables to a batch), `verify.rs` (sampled tokens to the run of tokens that a
//! sequence keeps), `output.rs` and `stop.rs` (tokens to text), `handle.rs` (public handles and
//! their channels), `answer.rs` (events to answers), `open.rs` (from the name of a model to an
//! engine).
//!
//! # Invariants
//!
//! - A request's tokens depend neither on other requests nor on the schedule or the cache: the
//!   model is row invariant, and the sampler's noise is keyed by seed, position and token. The
//!   exception is a request that asks for [`Verify::Rejection`], which keeps the distribution
//!   alone.
//! - No step exceeds a limit of the device, with any sizes and any requests: `config.rs` fits the
//!   sizes to the device once, and `budget.rs` promises rows before they are spent.
//! - A step that fails ends the requests that depend on it with an error, and the engine goes on
//!   with the remaining requests (`step/failed.rs`).
//! - An accepted sequence ends exactly once. A sequence that runs out of blocks is preempted and
//!   recomputed, never dropped. [`Engine::submit`] refuses a request that would not fit alone.
//! - The engine's own time for a step is proportional to the step's rows, not to their context.
//!   Two places read whole token histories: admission, and lookups of drafters (`drafting/lookup.rs`).

#![forbid(unsafe_code)]

mod admission_limit;
mod answer;
mod batch;
mod budget;
mod calibrate;
mod chaos;
mod config;
mod draft_cache;
mod draft_settings;
mod drafting;
mod error;
mod event;
mod event_sink;
mod executor;
mod fingerprint;
mod handle;
mod open;
mod output;
mod request;
mod scheduler;
mod sequence;
mod stats;
mod step;
mod stop;
#[cfg(test)]
mod tests;
mod verify;

pub use answer::{Answer, Answers, Events, Finish, Logprob, Piece};
pub use calibrate::Calibration;
pub use config::{EngineConfig, SchedulePolicy};
pub use draft_settings::{
    AUTO, DraftConfig, DraftRequest, DrafterChoice, DrafterSetup, FindModel, SUFFIX_BYTES,
    SUFFIX_BYTES_A_TOKEN, SUFFIX_BYTES_OF_A_SEQUENCE, Verify, is_none,
};
pub use error::{GenerateError, RequestError, StartError, SubmitError};
pub use event::{Event, QueuedEvent, Submitted, Usage};
pub use galley_backend::sample::SamplingParams;
pub use galley_backend::{Formats, KvFormat, OperandFormat, WeightFormat};
pub use galley_drafter_host as drafters;
#[cfg(feature = "hub")]
pub use galley_hub as hub;
pub use galley_planner::cost_table::CostTable;
pub use handle::{Engine, EventQueue, ModelInfo, RequestHandle, Watch};
pub use open::{
    ChosenDevice, DeviceChoice, DeviceReason, DrafterError, EngineBuilder, ModelFiles, OpenError,
    OpenProgress, Settings, check_model, find_model,
};
pub use request::{Prompt, Request};
pub use stats::{DraftStats, DraftTimes, PlannedRound, PlannerStats, Stats, StepStats};
pub use stop::{FinishReason, Stopped};
pub use verify::{TokenEvent, TokenSource};
