//! Weights on disk: Hugging Face directories of safetensors, and GGUF files.
//!
//! A [`Checkpoint`] hides the difference. Files are mapped, never read whole. Every size in a file
//! is checked against the size of the file before it is used.

mod checkpoint;
mod codec;
mod directory;
mod foreign;
pub mod gguf;
mod mapped;
mod matrix_rows;
mod needed;
mod quant;
mod safetensors;
mod tensor;

pub use checkpoint::{Checkpoint, StoredType, WeightKind};
pub use codec::Codec;
pub(crate) use matrix_rows::MatrixRows;
pub use tensor::TensorRef;
