//! Files to one `forward(batch, view, layers)`.
//!
//! [`weights`] reads safetensors and GGUF files, [`config`] what they describe, [`decoder`] is the one
//! definition of the Llama family, [`tokenizer`] and [`chat`] turn text into tokens and
//! back. Models know mathematics, not requests.

pub mod chat;
pub mod config;
mod decoder;
mod device;
pub mod end_tokens;
mod error;
mod files;
mod language_model;
mod llama;
pub mod tokenizer;
pub mod weights;

pub use device::{Device, load};
pub use error::{ModelError, Result};
pub use language_model::{DraftModelId, DraftModels, LanguageModel, LoadOptions};
