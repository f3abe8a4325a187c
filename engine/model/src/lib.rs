//! Loads the files of a model into one `forward(batch, layers, observations)`.
//!
//! [`weights`] reads safetensors and GGUF files, and [`config`] reads the configuration.
//! [`decoder`] is the one definition of the Llama family. [`tokenizer`] converts between text and
//! tokens, and [`chat`] renders chats to text. Models know mathematics, not requests.

pub mod chat;
pub mod config;
mod decoder;
mod device;
pub mod end_tokens;
mod error;
mod files;
mod language_model;
mod metadata;
mod model_host;
pub mod tokenizer;
pub mod weights;

pub use device::{Device, load};
pub use error::{ModelError, Result};
pub use language_model::{LanguageModel, LoadOptions, LoadedModel, ModelIndex, RowLimits};
