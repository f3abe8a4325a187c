//! What a device offers to a model: some fifteen operations over a paged KV pool.
//!
//! A backend is no tensor framework. It owns packed weights, a few activation tensors and the KV
//! pool, and offers exactly the operations that one decoder layer needs ([`Backend`]). Everything
//! that knows about requests lives above it, everything that knows about instructions below.
//!
//! **Row invariance.** What an operation computes for one token does not depend, bit for bit, on
//! the other rows of the batch, on how a prompt was chunked or on the number of threads:
//! every output element of a matrix product accumulates over k in one order, and attention works
//! on KV tiles at fixed absolute positions, merged in position order.

mod batch;
mod checks;
pub mod cpu;
#[cfg(any(feature = "cuda", feature = "emulate"))]
pub mod cuda;
mod dtype;
mod error;
mod ops;
pub mod sample;
#[cfg(test)]
mod testing;

pub use batch::{
    Batch, KvView, LayerMask, Observation, PoolScores, Selected, Selection, SeqSpan, TOKEN_OF_PICK,
    pick_of,
};
pub use dtype::Dtype;
pub use error::{BackendError, Result};
pub use ops::{Backend, FillRow, Forward, KvShape, ModelId, QkNorm, Reach, Rope, Rotation};
