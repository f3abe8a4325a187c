//! The files of a model: configuration, weights, tokenizer and chat template, without an engine.

use super::error::OpenError;
use crate::fingerprint::fingerprint;
use galley_backend::Formats;
use galley_backend::cpu::{InstructionSet, arithmetic};
use galley_model::ModelError;
use galley_model::chat::ChatTemplate;
use galley_model::config::ModelConfig;
use galley_model::end_tokens::EndTokens;
use galley_model::tokenizer::Tokenizer;
use galley_model::weights::Checkpoint;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An event of opening a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenProgress<'a> {
    /// A file of the model is on its way.
    Download {
        /// The file, or the package that has it.
        file: &'a str,
        /// Bytes that are here.
        done: u64,
        /// Bytes of the whole file, if they are known.
        total: Option<u64>,
    },
    /// Layers of the model are packed for the device. The embeddings count as one.
    Layers {
        /// Packed layers.
        done: usize,
        /// All layers.
        total: usize,
    },
}

/// The path of a model: `name` itself if it is a path, or the model's place in the cache. A model
/// that is not there is fetched if `downloads` is set, and `on_progress` hears of the download.
///
/// # Errors
///
/// A name that is not that of a model, a model that is not here, or the error of fetching it.
pub fn find_model(
    name: &str,
    downloads: bool,
    on_progress: &dyn Fn(OpenProgress<'_>),
) -> Result<PathBuf, OpenError> {
    #[cfg(feature = "hub")]
    {
        use galley_hub::Progress;
        if !downloads {
            return Ok(galley_hub::find(name)?);
        }
        let on_event = |event: Progress<'_>| match event {
            Progress::Package { requirement: file } => {
                on_progress(OpenProgress::Download { file, done: 0, total: None });
            }
            Progress::Bytes { file, done, total } => {
                on_progress(OpenProgress::Download { file, done, total });
            }
            _ => {}
        };
        Ok(galley_hub::find_or_pull(name, &on_event)?)
    }
    #[cfg(not(feature = "hub"))]
    {
        let _ = (downloads, on_progress); // there is nothing to fetch with
        check_model(name).map(|()| PathBuf::from(name))
    }
}

/// Checks that a name may be that of a model, without a look into the cache.
///
/// # Errors
///
/// A name that is neither a path nor the name of a model.
pub fn check_model(name: &str) -> Result<(), OpenError> {
    #[cfg(feature = "hub")]
    return Ok(galley_hub::check_name(name)?);
    #[cfg(not(feature = "hub"))]
    return match Path::new(name).exists() {
        true => Ok(()),
        false => Err(OpenError::NoSuchPath(name.to_owned())),
    };
}

/// The opened files of a model.
#[derive(Debug)]
#[non_exhaustive]
pub struct ModelFiles {
    /// The directory, or the GGUF file.
    pub path: PathBuf,
    /// Configuration and weights.
    pub checkpoint: Checkpoint,
    /// The tokenizer.
    pub tokenizer: Arc<Tokenizer>,
}

impl ModelFiles {
    /// Opens a directory in Hugging Face's layout, or a GGUF file. The weights are mapped, not read.
    ///
    /// # Errors
    ///
    /// [`OpenError::Files`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let checkpoint = Checkpoint::open(path).map_err(OpenError::Files)?;
        let tokenizer = Tokenizer::open(path, checkpoint.gguf()).map_err(OpenError::Files)?;
        Ok(Self { path: path.to_owned(), checkpoint, tokenizer: Arc::new(tokenizer) })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        self.checkpoint.config()
    }

    /// The tokens that end a generation, each with the file or field that names it.
    pub fn end_tokens(&self) -> EndTokens {
        let config = self.config();
        config.end_tokens.with_tokenizer(Some(&self.tokenizer), config.vocab_size)
    }

    /// The fingerprint of an engine over these files on a CPU with this instruction set
    /// ([`Engine::fingerprint`](crate::Engine::fingerprint)).
    pub fn cpu_fingerprint(&self, instruction_set: InstructionSet, formats: Formats) -> Arc<str> {
        let arithmetic = arithmetic(instruction_set, formats, self.checkpoint.has_blocks());
        fingerprint(
            self.checkpoint.content_hash(),
            Some(self.tokenizer.content_hash(&self.end_tokens().of_chats())),
            &arithmetic,
        )
    }

    /// The model's chat template.
    ///
    /// # Errors
    ///
    /// A model without a template, or with one that cannot be read.
    pub fn chat_template(&self) -> Result<ChatTemplate, ModelError> {
        ChatTemplate::open(&self.path, self.checkpoint.gguf(), &self.tokenizer)
    }
}
