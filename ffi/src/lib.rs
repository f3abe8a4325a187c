//! The C interface: `include/galley.h`, and the library behind it.
//!
//! The header is generated from this crate by `cargo xtask bindings`, and begins with the rules that hold for every
//! function. Its order is that of the modules of the second group below.
//!
//! # Reading order
//!
//! `border.rs` (the parts that all calls share: results, panics, a forked child), `handles.rs` (numbers in place of
//! addresses), then the modules of the header in their order. `queue.rs` has the only locks that matter.
//!
//! # Invariants
//!
//! - No panic leaves the library: every function that can fail runs inside [`border::give`] or [`border::call`], and the
//!   remaining functions read a table.
//! - Handles are never dereferenced: a handle is looked up in a [`handles::Table`].
//! - A forked child takes no lock: [`process::is_child`] is asked first.

#![expect(non_camel_case_types, reason = "types have the names of the header")]
#![expect(
    unreachable_pub,
    reason = "the header is made from public items; Rust programs use galley-engine"
)]

mod border;
mod facts;
mod failure;
mod handles;
mod process;
mod signal;

mod codes;

mod library;

mod log;

mod error;

mod strings;

mod engine;

mod text;

mod event;

mod queue;

mod requests;

#[cfg(test)]
mod layout;
