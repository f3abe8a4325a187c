//! Weights on disk: Hugging Face directories of safetensors, and GGUF files.
//!
//! A [`Checkpoint`] hides which of the two it is. Files are mapped, never read whole; everything they
//! say is checked against their size before it is believed.

mod checkpoint;
mod codec;
mod directory;
mod foreign;
pub mod gguf;
mod mapped;
mod needed;
mod quant;
mod safetensors;
mod tensor;

pub use checkpoint::Checkpoint;
pub use codec::Codec;
pub use tensor::TensorRef;
