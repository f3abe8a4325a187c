//! The loop: who runs, one forward, what was picked, who hears of it.
//!
//! [`Engine::start`] takes a model and starts the one thread that owns all state: sequences, blocks
//! and the model itself. Everything outside talks to it through channels: [`Engine::submit`] checks a
//! [`Request`] and returns a [`RequestHandle`] that yields [`Event`]s.
//!
//! # Reading order
//!
//! `step.rs` (one turn, in pipeline order), `scheduler.rs` (who runs, how many tokens),
//! `executor.rs` (block tables to a batch), `verify.rs` (picks to a run of tokens that may be
//! kept), `output.rs` and `stop.rs` (tokens to text), `handle.rs` (the outside).
//!
//! # What holds
//!
//! - Nothing about a request's tokens depends on the others, on the schedule or on the cache: the
//!   model is row invariant, and the sampler's noise is keyed by seed, position and token.
//! - No step exceeds a limit of the device, whatever the sizes and the requests: `config.rs` fits them together once, and
//!   `scheduler/budget.rs` promises rows before they are spent.
//! - A step that fails ends the requests in it with an error, and the engine goes on with the others
//!   (`step/failed.rs`).
//! - A sequence that was accepted ends exactly once. One that no longer fits is preempted and
//!   recomputed, never dropped; one that would not fit alone is refused by [`Engine::submit`].
//! - A step costs the engine time in proportion to the rows it runs, not to their context.

#![forbid(unsafe_code)]

mod config;
mod drafting;
mod error;
mod event;
mod executor;
mod handle;
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

pub use config::{EngineConfig, SchedulePolicy};
pub use drafting::{
    DraftConfig, DraftRequest, DraftStats, DraftTimes, DrafterChoice, DrafterSetup, FindModel,
    Verify,
};
pub use error::{StartError, SubmitError};
pub use event::{Event, FinishReason, Stopped, Usage};
pub use galley_drafter_host as drafters;
pub use handle::{Engine, ModelInfo, RequestHandle};
pub use request::{Prompt, Request};
pub use stats::{Stats, StepStats};
