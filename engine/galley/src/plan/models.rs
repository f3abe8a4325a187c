//! Models of a plan: their shapes and formats, without loading weights.

use crate::args::PlanArgs;
use anyhow::Result;
use galley_backend::{Formats as EngineFormats, WeightFormat};
use galley_engine::hub;
use galley_model::config::ModelConfig;
use galley_model::weights::Checkpoint;
use galley_planner::ModelShape;
use galley_planner::theory::Formats;
use std::path::{Path, PathBuf};

/// A model as far as a plan needs it.
pub(super) struct PlannedModel {
    /// The file or folder.
    pub(super) path: PathBuf,
    /// The family's name.
    pub(super) family: String,
    pub(super) shape: ModelShape,
    pub(super) formats: Formats,
    /// The format of weights, by the name that `--weights` has for it.
    pub(super) weight_format: WeightFormat,
    /// Longest context of the configuration, tokens.
    pub(super) max_context: usize,
}

impl PlannedModel {
    /// Opens a model of this machine: a `config.json`, a folder, a GGUF file or a name.
    pub(super) fn open(model: &str, args: &PlanArgs) -> Result<Self> {
        let path = hub::find(model)?;
        let format = args.weights.unwrap_or(match args.gpu {
            Some(_) => WeightFormat::Bf16,
            None => WeightFormat::Native,
        });
        let (config, native_bytes) = match config_file(&path) {
            Some(file) => (ModelConfig::from_hf_file(&file)?, None),
            None => {
                let checkpoint = Checkpoint::open(&path)?;
                let native_bytes = native_bytes(&checkpoint);
                (checkpoint.config().clone(), native_bytes)
            }
        };
        let bytes_per_weight = match format {
            WeightFormat::Native => native_bytes.unwrap_or(Formats::BF16.bytes_per_weight),
            WeightFormat::Bf16 => Formats::BF16.bytes_per_weight,
            WeightFormat::F32 => 4.0,
            WeightFormat::Q8 => Formats::Q8.bytes_per_weight,
            WeightFormat::Q4 => Formats::Q4.bytes_per_weight,
        };
        let bytes_per_kv_value = f64::from(args.kv_bits) / 8.0;
        Ok(Self {
            family: format!("{:?}", config.family),
            shape: shape(&config),
            formats: Formats { bytes_per_weight, bytes_per_kv_value },
            weight_format: format,
            max_context: config.max_context,
            path,
        })
    }
}

/// The configuration file of a path, if it is one, or a folder with one.
fn config_file(path: &Path) -> Option<PathBuf> {
    if path.extension().is_some_and(|extension| extension == "json") {
        return Some(path.to_owned());
    }
    let inside = path.join("config.json");
    inside.is_file().then_some(inside)
}

/// Bytes of a weight of a file with quantised weights, packed as it is.
fn native_bytes(checkpoint: &Checkpoint) -> Option<f64> {
    let packed_bytes = checkpoint.packed_bytes(EngineFormats::NATIVE) as f64;
    checkpoint.has_blocks().then(|| packed_bytes / shape(checkpoint.config()).weights())
}

fn shape(config: &ModelConfig) -> ModelShape {
    ModelShape {
        n_layers: config.n_layers,
        hidden_size: config.hidden_size,
        n_heads: config.n_heads,
        n_kv_heads: config.n_kv_heads,
        head_dim: config.head_dim,
        intermediate_size: config.intermediate_size,
        vocab_size: config.vocab_size,
        tie_embeddings: config.tie_embeddings,
        sliding_window: config.sliding_window.map(|tokens| tokens as usize),
    }
}
