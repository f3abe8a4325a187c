//! The planner: a model of the time that a round of speculative decoding takes and of the tokens that it yields
//! (MagicDec, arXiv 2408.11049). Pure functions: no device, no clock, no files.

pub mod acceptance_estimate;
pub mod choice;
pub mod cost_table;
pub mod drift;
pub mod theory;
mod yields;

pub use theory::ModelShape;
pub use yields::expected_tokens;
