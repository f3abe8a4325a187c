//! The operations that a device offers to a model, over a paged KV pool.
//!
//! A backend is not a tensor framework. It allocates packed weights, activation tensors and the KV
//! pool, and offers exactly the operations of a decoder layer, of the output head and of sampling
//! ([`Backend`]). Code that knows requests lies above the backend; code that knows instructions
//! lies inside it.
//!
//! **Row invariance.** The result of an operation for one token does not depend, bit for bit, on
//! the other rows of the batch, on how a prompt was chunked or on the number of threads. Every
//! output element of a matrix product accumulates over k in one order. Attention works on KV tiles
//! at fixed absolute positions and merges them in position order.

mod batch;
mod blocks;
mod checks;
pub mod cpu;
#[cfg(any(feature = "cuda", feature = "emulate"))]
pub mod cuda;
mod error;
mod formats;
mod input_token;
mod ops;
pub mod sample;
mod setters;
mod shapes;
#[cfg(test)]
mod testing;

pub use batch::{
    Batch, KvView, LayerMask, Observation, PoolScores, Selected, SelectedIds, SeqSpan,
};
pub use blocks::{BLOCK_LEN, BlockFormat, IQ4_NL_VALUES, RowCodes, SUPERBLOCK_LEN, WeightRows};
pub use error::{BackendError, Result};
pub use formats::{Formats, KvFormat, OperandFormat, WeightFormat};
pub use input_token::{InputToken, Placeholder, Placeholders};
pub use ops::{
    AsyncSampling, AttentionParams, Backend, DecoderOps, DeviceMemory, GraphKey, KvShape, QkNorm,
    Rope, RopeParams, Sampling, WeightsId,
};
