//! Loads drafters and speaks the C ABI with them. This crate holds all `unsafe` for shared
//! libraries and C tables, and does not depend on the engine.
//!
//! The engine calls [`Drafter::guess`] with the rows of a round and gets a [`Program`]: the work
//! that the drafter enqueued, as plain data, for the engine to run. Between engine and drafter,
//! this crate checks handles and phases and measures callbacks. A drafter that fails is set aside;
//! no request fails with it.

mod create;
mod describe;
mod drafter;
mod error;
mod ffi;
mod handles;
mod host;
mod library;
mod manifest;
mod round;
mod search;
mod status;
mod tables;
mod work;

pub use drafter::Drafter;
pub use error::LoadError;
pub use library::{CreateFn, Library};
pub use manifest::{Manifest, OptionSpec};
pub use round::{
    Cost, DrafterLimits, ModelFacts, ModelLoader, ModelRefused, NoSuffixes, Outcome, SuffixSource,
    Timings, Verified,
};
pub use search::{Found, Search};
pub use work::{
    DraftRow, Granularity, Mask, MaskId, Matcher, MatcherId, ModelId, Observe, Pool, Program,
    RefreshPolicy, SelectionPolicy, SuffixMatch, View, ViewId, Work,
};
