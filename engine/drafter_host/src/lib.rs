//! Loads drafters and speaks the C ABI with them: all the `unsafe` of shared libraries and C tables is here,
//! and nothing of the engine is.
//!
//! The engine calls [`Drafter::guess`] with the rows of a round and gets a [`Program`]: what the drafter
//! enqueued, as plain data, for the engine to do. Between the two lie checked handles, phases, timings and
//! the rule that a drafter that fails is set aside and never takes a request with it.

mod border;
mod create;
mod describe;
mod drafter;
mod error;
mod handles;
mod host;
mod library;
mod manifest;
mod round;
mod search;
mod tables;
mod work;

pub use drafter::Drafter;
pub use error::LoadError;
pub use library::{CreateFn, Library};
pub use manifest::{Manifest, OptionSpec};
pub use round::{Cost, Limits, ModelFacts, ModelLoader, ModelRefused, Outcome, Timings};
pub use search::{Found, Search};
pub use work::{
    Granularity, Mask, MaskId, Middle, ModelId, Observe, Pool, Program, Row, View, ViewId, When,
    Work,
};
