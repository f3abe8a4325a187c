//! Raw bindings of `galley_drafter.h`, the contract between Galley and drafters.
//!
//! The header is the source of truth, and its comments are the documentation.
//! `cargo xtask bindings` generates `bindings.rs` from the header. The generated file is committed,
//! so that building needs no libclang. Its layout assertions hold the Rust side to the sizes and
//! offsets that a C compiler gave.

#![no_std]

#[expect(
    missing_docs,
    non_camel_case_types,
    clippy::allow_attributes_without_reason,
    reason = "generated: names and documentation come from the header"
)]
mod bindings;

pub use bindings::*;
