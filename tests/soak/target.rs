//! The models that a soak runs.

use crate::{QUANTISED, TINY_MODELS, data};
use galley_backend::Formats;
use galley_backend::cpu::InstructionSet;
use galley_model::tokenizer::Tokenizer;
use galley_model::weights::Checkpoint;
use galley_model::{LanguageModel, LoadOptions, load};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A model that is opened once and loaded for every workload.
pub struct Target {
    /// The name in messages.
    pub name: String,
    /// Its files.
    pub path: PathBuf,
    /// Its configuration and weights.
    pub checkpoint: Checkpoint,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Whether it is one of the tiny models of `tests/data`, which take almost no time a token.
    pub is_tiny: bool,
}

/// The settings that the bits of a model's output may depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arithmetic {
    /// Instruction set of the kernels.
    pub isa: InstructionSet,
    /// Formats of weights, operands and KV cache.
    pub formats: Formats,
}

impl Target {
    /// The models of `tests/data`.
    pub fn tiny() -> Vec<Target> {
        let open = |(name, _): (&str, &str)| Target::open(name, &data("models").join(name), true);
        TINY_MODELS.into_iter().chain([QUANTISED]).map(open).collect()
    }

    /// A real model.
    pub fn real(path: &Path) -> Target {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Target::open(&name, path, false)
    }

    fn open(name: &str, path: &Path, is_tiny: bool) -> Target {
        let checkpoint = Checkpoint::open(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let tokenizer = Tokenizer::open(path, checkpoint.gguf())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let (tokenizer, path) = (Arc::new(tokenizer), path.to_owned());
        Target { name: name.to_owned(), path, checkpoint, tokenizer, is_tiny }
    }

    /// Loads the model.
    pub fn load(
        &self,
        arithmetic: Arithmetic,
        n_threads: usize,
        options: LoadOptions,
    ) -> Box<dyn LanguageModel> {
        let device = crate::cpu(Some(arithmetic.isa), arithmetic.formats, n_threads);
        load(&self.checkpoint, device, options, &mut |_, _| {})
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Whether `draft` can be a draft model: the tokenizers are the same, and a block of this
    /// model's KV holds at least one block of the draft model's.
    pub fn can_be_drafted_by(&self, draft: &Target) -> bool {
        let (own, other) = (self.checkpoint.config(), draft.checkpoint.config());
        self.tokenizer.fingerprint() == draft.tokenizer.fingerprint()
            && other.n_layers * other.n_kv_heads <= own.n_layers * own.n_kv_heads
            && other.head_dim <= own.head_dim
    }
}
