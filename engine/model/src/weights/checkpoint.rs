//! A model on disk, whatever the format of its files.

use super::{
    codec::Codec,
    directory::{Files, Shards, Weights, find_weights, open_files},
    foreign, gguf,
    mapped::Mapped,
    tensor::{RowOrder, Storage, TensorEntry, TensorRef},
};
use crate::end_tokens::EndSource;
use crate::{ModelError, Result, config::ModelConfig, files};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

mod check;
mod content_hash;
mod kinds;
mod settle;

pub use kinds::{StoredType, WeightKind};

/// An opened checkpoint: its configuration, and its tensors in mapped files.
///
/// Tensors have the names of Hugging Face checkpoints, for GGUF files too.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: ModelConfig,
    files: Vec<Mapped>,
    tensors: BTreeMap<String, TensorEntry>,
    /// Reasons why tensors may be absent: missing or unreadable files.
    absent: Vec<String>,
    gguf: Option<gguf::Metadata>,
    /// Longest context that the model may be opened with, tokens.
    longest_context: usize,
}

impl Checkpoint {
    /// Opens a Hugging Face directory, a safetensors file next to its `config.json`, a GGUF file,
    /// or a directory with one GGUF model. Any file of a split model opens the whole model.
    ///
    /// A defect in a file is an error only if the model needs the defective part.
    pub fn open(path: &Path) -> Result<Self> {
        let facts = std::fs::metadata(path).map_err(|error| ModelError::io(path, error))?;
        if facts.is_dir() {
            return match find_weights(path)? {
                Weights::Safetensors(shards) => Self::open_safetensors(path, path, &shards),
                Weights::Gguf(file) => Self::open_gguf(path, &file),
            };
        }
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(".safetensors") {
            if name.contains("-of-")
                && let Weights::Safetensors(shards) = find_weights(directory)?
            {
                return Self::open_safetensors(path, directory, &shards);
            }
            return Self::open_safetensors(path, directory, &Shards::single(path.into()));
        }
        if name.ends_with(".json") {
            let reason = format!("one file of a model: name its folder, {}", directory.display());
            return Err(ModelError::unsupported(path, reason));
        }
        Self::open_gguf(path, path)
    }

    /// Configuration of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Sets the longest sequence, in tokens, before the model is loaded. With
    /// [`RopeScaling::Dynamic`], it fixes the rotary frequencies.
    ///
    /// # Errors
    ///
    /// If `tokens` is 0, or exceeds the longest context of the model.
    ///
    /// [`RopeScaling::Dynamic`]: crate::config::RopeScaling::Dynamic
    pub fn set_max_context(&mut self, tokens: usize) -> Result<()> {
        if !(1..=self.longest_context).contains(&tokens) {
            let reason = format!(
                "a context of {tokens} tokens: the model takes 1 to {}",
                self.longest_context
            );
            return Err(ModelError::unsupported(&self.path, reason));
        }
        self.config.max_context = tokens;
        Ok(())
    }

    /// The opened directory or file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata of a GGUF file; `None` for other formats.
    pub fn gguf(&self) -> Option<&gguf::Metadata> {
        self.gguf.as_ref()
    }

    /// Bytes of all tensors, as stored in the files.
    pub fn weight_bytes(&self) -> usize {
        self.tensors.values().map(|entry| entry.len).sum()
    }

    /// Whether the checkpoint has the tensor with this Hugging Face name.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// The tensor with this Hugging Face name, which must have this shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorRef<'_>> {
        let Some((stored_name, entry)) = self.entry(name) else { return Err(self.absent(name)) };
        let file = &self.files[entry.file];
        if let Storage::Broken(reason) = &entry.storage {
            return Err(ModelError::invalid(file.path(), stored_name, reason.as_str()));
        }
        if entry.shape != shape {
            let reason = format!("has shape {:?}; the configuration says {shape:?}", entry.shape);
            return Err(ModelError::invalid(file.path(), stored_name, reason));
        }
        let order = self.row_order(name);
        if let RowOrder::Interleaved { head_dim } = order
            && !shape.first().is_some_and(|n| n.is_multiple_of(head_dim))
        {
            let reason =
                format!("has shape {shape:?}, which is no multiple of {head_dim}-row heads");
            return Err(ModelError::invalid(file.path(), stored_name, reason));
        }
        self.tensor_ref(stored_name, entry, order)
    }

    /// Every readable tensor, with its name in the file and with its rows in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, TensorRef<'_>)> {
        self.tensors.iter().filter_map(|(name, entry)| {
            Some((name.as_str(), self.tensor_ref(name, entry, RowOrder::Plain).ok()?))
        })
    }

    fn open_safetensors(path: &Path, directory: &Path, shards: &Shards) -> Result<Self> {
        let config_path = directory.join("config.json");
        let mut json = match files::read_json(&config_path) {
            Err(error @ ModelError::Io { .. }) if !files::exists(&config_path)? => {
                return Err(foreign::no_config(directory, error));
            }
            result => result?,
        };
        let mut opened = open_files(shards)?;
        settle::by_tensors(&config_path, &mut json, &mut opened);
        // Only the tensors show whether they are quantised: a configuration may keep the method of
        // another copy of the model.
        let quantisation = foreign::quantisation(&json, &opened.tensors);
        if let Some(fields) = json.as_object_mut() {
            fields.remove("quantization_config");
        }
        let config = ModelConfig::from_hf_json(&config_path, &json);
        if let Some(reason) = quantisation
            && config
                .as_ref()
                .is_ok_and(|config| !check::has_plain_matrices(config, &opened.tensors))
        {
            return Err(ModelError::unsupported(&config_path, reason));
        }
        let mut config = config?;
        config.add_eos_tokens(&config_path, &json, EndSource::Config);
        add_generation_config(&mut config, &directory.join("generation_config.json"));
        let longest_context = config.longest_context();
        let Files { files, tensors, doubles, absent } = opened;
        let (path, gguf) = (path.into(), None);
        let checkpoint = Self { path, config, files, tensors, absent, gguf, longest_context };
        checkpoint.check(&config_path, &doubles)?;
        Ok(checkpoint)
    }

    fn open_gguf(path: &Path, file: &Path) -> Result<Self> {
        let gguf::Parts { files, mut metadata, tensors } = gguf::open(file)?;
        settle::vocabulary(file, &mut metadata, &tensors);
        let config = ModelConfig::from_gguf(file, &metadata, |name| tensors.contains_key(name))?;
        let (path, absent, gguf) = (path.into(), Vec::new(), Some(metadata));
        let longest_context = config.longest_context();
        let mut checkpoint = Self { path, config, files, tensors, absent, gguf, longest_context };
        checkpoint.read_rope_factors(file)?;
        checkpoint.check(file, &[])?;
        Ok(checkpoint)
    }

    /// Reads Llama 3's scaling of rotary frequencies, which is a tensor in GGUF files.
    fn read_rope_factors(&mut self, file: &Path) -> Result<()> {
        let Some((name, entry)) = self.tensors.get_key_value(ROPE_FACTORS) else { return Ok(()) };
        let half = self.config.head_dim / 2;
        if entry.shape != [half] {
            let reason = format!("has shape {:?}, not [{half}]", entry.shape);
            return Err(ModelError::invalid(file, name.as_str(), reason));
        }
        let mut factors = vec![0.0; half];
        self.tensor_ref(name, entry, RowOrder::Plain)?.read_row(0, &mut factors);
        if let Some(bad) = factors.iter().find(|factor| !factor.is_normal() || **factor < 0.0) {
            return Err(ModelError::invalid(file, name.as_str(), format!("{bad} divides nothing")));
        }
        self.config.rope_freq_factors = Some(factors);
        Ok(())
    }

    /// The error about an absent tensor.
    fn absent(&self, name: &str) -> ModelError {
        let reason = match &self.absent[..] {
            [] => "there is no such tensor".to_owned(),
            reasons => format!("there is no such tensor, but {}", reasons.join("; ")),
        };
        ModelError::invalid(&self.path, name, reason)
    }

    fn entry(&self, name: &str) -> Option<(&str, &TensorEntry)> {
        let (name, entry) = match self.gguf {
            None => self.tensors.get_key_value(name)?,
            Some(_) => self.tensors.get_key_value(&gguf::gguf_name(name)?)?,
        };
        Some((name, entry))
    }

    /// llama.cpp reorders rows only for queries and keys of the architecture `llama`.
    fn row_order(&self, name: &str) -> RowOrder {
        let permuted = self.gguf.as_ref().is_some_and(|metadata| {
            metadata.str("general.architecture") == Some("llama")
                && [".q_proj.weight", ".k_proj.weight", ".q_proj.bias", ".k_proj.bias"]
                    .iter()
                    .any(|suffix| name.ends_with(suffix))
        });
        match permuted {
            true => RowOrder::Interleaved { head_dim: self.config.head_dim },
            false => RowOrder::Plain,
        }
    }

    fn tensor_ref<'a>(
        &'a self,
        name: &'a str,
        entry: &TensorEntry,
        order: RowOrder,
    ) -> Result<TensorRef<'a>> {
        let file = &self.files[entry.file];
        match &entry.storage {
            Storage::Codec(codec) => Ok(TensorRef::new(file, name, entry, *codec, order)),
            Storage::Other(dtype) => {
                let way_out = match self.gguf {
                    Some(_) => {
                        let all: Vec<_> = Codec::all().map(|codec| codec.to_string()).collect();
                        let (last, rest) = all.split_last().expect("there are formats");
                        format!(
                            "Galley reads {} and {last}: take another file of the model, such as Q4_K_M or Q8_0",
                            rest.join(", ")
                        )
                    }
                    None => {
                        "supported are BF16, F16 and F32: take a copy of the model in one of them, or a GGUF file".into()
                    }
                };
                let reason = format!("tensor {name} is stored as {dtype}; {way_out}");
                Err(ModelError::unsupported(file.path(), reason))
            }
            Storage::Broken(reason) => Err(ModelError::invalid(file.path(), name, reason.as_str())),
        }
    }
}

/// Adds the end tokens of a `generation_config.json`. As in transformers, the file is optional: an
/// unreadable file is ignored with a warning.
fn add_generation_config(config: &mut ModelConfig, path: &Path) {
    if !path.exists() {
        return;
    }
    match files::read_json(path) {
        Ok(json) => config.add_eos_tokens(path, &json, EndSource::GenerationConfig),
        Err(error) => tracing::warn!("{error}: the file is ignored"),
    }
}

const ROPE_FACTORS: &str = "rope_freqs.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
