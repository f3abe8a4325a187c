//! Errors of opening a model, by the way out that a caller has.

use super::device_choice::{DeviceChoice, FORMATS_OF_GPUS};
use super::drafter::DrafterError;
use crate::error::StartError;
use galley_model::ModelError;
use std::path::PathBuf;

/// Why an engine could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The model was not found or not fetched. [`galley_hub::HubError::Missing`] is a model that can
    /// be fetched: `galley pull` and [`crate::EngineBuilder::download`] do.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] galley_hub::HubError),
    /// No such file or directory, and this build has no feature `hub` to find models by name.
    #[cfg(not(feature = "hub"))]
    #[error("{0} is no file or directory here; models by name need the feature `hub`")]
    NoSuchPath(String),
    /// The files of the model cannot be read, or have a defect.
    #[error(transparent)]
    Files(ModelError),
    /// The model does not fit the device, or its files contradict each other.
    #[error("cannot load {}: {reason}", path.display())]
    Load {
        /// The model.
        path: PathBuf,
        /// The error of loading it.
        reason: ModelError,
    },
    /// The system starts fewer threads than the setting asks for.
    #[error("threads: {reason}")]
    Threads {
        /// The setting; None is one thread per usable core.
        asked: Option<usize>,
        /// The error of starting them.
        reason: ModelError,
    },
    /// A setting has a value that is not possible here.
    #[error("{name} {value}: {reason}")]
    Setting {
        /// The field of [`crate::Settings`].
        name: &'static str,
        /// Its value.
        value: String,
        /// The limit of the value.
        reason: String,
    },
    /// A longest sequence that the model cannot have.
    #[error("max_model_len: {0}")]
    MaxModelLen(ModelError),
    /// Fewer tokens in a step than sequences.
    #[error(
        "max_num_batched_tokens {max_num_batched_tokens} is below max_num_seqs {max_num_seqs}: every sequence needs a token a step"
    )]
    TooFewTokens {
        /// The most tokens of one step.
        max_num_batched_tokens: usize,
        /// The most sequences that run together.
        max_num_seqs: usize,
    },
    /// No memory is left for a KV cache beside the model.
    #[error("the model leaves no memory for a KV cache: {account}")]
    Memory {
        /// The memory of the process, its limit, and the needs of the model.
        account: String,
    },
    /// The device has no arithmetic under a setting of the formats.
    #[error("device {device} has no {setting} {value}: {FORMATS_OF_GPUS}")]
    DeviceFormats {
        /// The device.
        device: DeviceChoice,
        /// The setting: `dtype` or `weights`.
        setting: &'static str,
        /// Its value.
        value: String,
    },
    /// This build cannot use the device: it lacks the feature `cuda` or `emulate`.
    #[error("device {device}: this build does not have it (features `cuda` and `emulate`)")]
    DeviceNotBuilt {
        /// The device.
        device: DeviceChoice,
    },
    /// A drafter was not found or not loaded.
    #[error("drafter {wanted:?}: {reason}")]
    Drafter {
        /// The drafter and its options, as they were given.
        wanted: String,
        /// The error of finding or loading it.
        reason: DrafterError,
    },
    /// The engine did not start.
    #[error(transparent)]
    Start(#[from] StartError),
}
