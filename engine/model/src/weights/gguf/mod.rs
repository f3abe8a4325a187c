//! GGUF files: metadata, tensor directory, tensor names.

mod names;
mod reader;
mod split;
mod types;

pub(super) use names::gguf_name;
pub(super) use reader::{MAGIC, read};
pub(super) use split::{Parts, first_of_split, open};

pub use crate::metadata::Metadata;

use crate::{Result, weights::mapped::Mapped};
use std::path::Path;

impl Metadata {
    /// Reads the metadata of the GGUF file at `path`. Unsupported tensors are no error.
    pub fn read(path: &Path) -> Result<Self> {
        Ok(read(&Mapped::open(path)?)?.0)
    }
}
