//! A model on disk, whatever the format of its files.

use super::{
    directory::{Weights, find_weights, open_files, read_json},
    gguf,
    mapped::Mapped,
    tensor::{Entry, RowOrder, Storage, TensorRef},
};
use crate::end_tokens::EndSource;
use crate::{ModelError, Result, config::ModelConfig};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// An opened checkpoint: its configuration, and its tensors in mapped files.
///
/// Tensors go by the names of Hugging Face checkpoints, also those of GGUF files.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: ModelConfig,
    files: Vec<Mapped>,
    tensors: BTreeMap<String, Entry>,
    gguf: Option<gguf::Metadata>,
    /// Longest context that the model may be opened with, tokens.
    longest_context: usize,
}

impl Checkpoint {
    /// Opens a Hugging Face directory, one safetensors file next to its `config.json`, or a GGUF
    /// file, by itself or alone in a directory.
    pub fn open(path: &Path) -> Result<Self> {
        let facts = std::fs::metadata(path).map_err(|error| ModelError::io(path, error))?;
        if !facts.is_dir() {
            if path.extension().is_some_and(|extension| extension == "safetensors") {
                let directory = path.parent().unwrap_or(Path::new(""));
                return Self::open_safetensors(path, directory, &[path.into()], None);
            }
            return Self::open_gguf(path, path);
        }
        match find_weights(path)? {
            Weights::Safetensors { paths, index } => {
                Self::open_safetensors(path, path, &paths, index.as_ref())
            }
            Weights::Gguf(file) => Self::open_gguf(path, &file),
        }
    }

    /// What the model is.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Opens the model for sequences of up to `tokens`, before it is loaded. Rotary frequencies that depend on a length
    /// ([`RopeScaling::Dynamic`]) follow from it, once and for all.
    ///
    /// # Errors
    ///
    /// No tokens, or more than the model was made for.
    ///
    /// [`RopeScaling::Dynamic`]: crate::config::RopeScaling::Dynamic
    pub fn set_max_context(&mut self, tokens: usize) -> Result<()> {
        if !(1..=self.longest_context).contains(&tokens) {
            let what = format!(
                "a context of {tokens} tokens: the model takes 1 to {}",
                self.longest_context
            );
            return Err(ModelError::unsupported(&self.path, what));
        }
        self.config.max_context = tokens;
        Ok(())
    }

    /// What was opened: a directory or a file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata of a GGUF file; `None` for other formats.
    pub fn gguf(&self) -> Option<&gguf::Metadata> {
        self.gguf.as_ref()
    }

    /// Bytes of all tensors, as stored.
    pub fn weight_bytes(&self) -> usize {
        self.tensors.values().map(|entry| entry.len).sum()
    }

    /// Whether there is such a tensor, by its Hugging Face name.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// The tensor with this Hugging Face name, which must have this shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorRef<'_>> {
        let Some((stored_name, entry)) = self.entry(name) else {
            return Err(ModelError::invalid(&self.path, name, "there is no such tensor"));
        };
        let file = &self.files[entry.file];
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

    /// Every tensor that can be read, under the name that the file gives it and with its rows in
    /// the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, TensorRef<'_>)> {
        self.tensors.iter().filter_map(|(name, entry)| {
            Some((name.as_str(), self.tensor_ref(name, entry, RowOrder::Plain).ok()?))
        })
    }

    fn open_safetensors(
        path: &Path,
        directory: &Path,
        paths: &[PathBuf],
        index: Option<&(PathBuf, BTreeMap<String, usize>)>,
    ) -> Result<Self> {
        let config_path = directory.join("config.json");
        let json = read_json(&config_path)?;
        let mut config = ModelConfig::from_hf_json(&config_path, &json)?;
        let (files, tensors) = open_files(paths, index)?;
        if let Some(&[rows, _]) = tensors.get(EMBEDDING).map(|entry| &*entry.shape) {
            const COUNT: &str = "vocab_size";
            let named = json.get(COUNT).is_some_and(|count| !count.is_null()).then_some(COUNT);
            config.set_vocab_size(&config_path, named, rows)?;
        }
        config.add_eos_tokens(&config_path, &json, EndSource::Config);
        add_generation_config(&mut config, &directory.join("generation_config.json"));
        let longest_context = config.longest_context();
        let checkpoint =
            Self { path: path.into(), config, files, tensors, gguf: None, longest_context };
        checkpoint.refuse_what_the_family_lacks(&config_path)?;
        Ok(checkpoint)
    }

    fn open_gguf(path: &Path, file: &Path) -> Result<Self> {
        let mapped = Mapped::open(file)?;
        if !mapped.bytes().starts_with(gguf::MAGIC) {
            let what = "neither a directory, nor a .safetensors file, nor a GGUF file";
            return Err(ModelError::unsupported(file, what));
        }
        let (metadata, tensors) = gguf::read(&mapped)?;
        let tensors: BTreeMap<String, Entry> = tensors.into_iter().collect();
        let rows_of = |name: &str| tensors.get(name).and_then(|entry| entry.shape.first().copied());
        let config = ModelConfig::from_gguf(file, &metadata, rows_of)?;
        let longest_context = config.longest_context();
        let mut checkpoint = Self {
            path: path.into(),
            config,
            files: vec![mapped],
            tensors,
            gguf: Some(metadata),
            longest_context,
        };
        checkpoint.read_rope_factors(file)?;
        checkpoint.refuse_what_the_family_lacks(file)?;
        Ok(checkpoint)
    }

    /// Llama 3's scaling of rotary frequencies, which GGUF files carry as a tensor.
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

    /// Refuses more layers than there are tensors before anyone allocates for them, and biases that
    /// the forward pass would leave out without a word.
    fn refuse_what_the_family_lacks(&self, file: &Path) -> Result<()> {
        if self.config.n_layers > self.tensors.len() {
            let (layers, tensors) = (self.config.n_layers, self.tensors.len());
            let reason = format!("{layers}, but there are only {tensors} tensors");
            return Err(ModelError::invalid(file, "number of layers", reason));
        }
        for module in ["self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"] {
            let name = format!("model.layers.0.{module}.bias");
            if self.has_tensor(&name) {
                let what = format!("{name}: only queries, keys and values may have a bias");
                return Err(ModelError::unsupported(file, what));
            }
        }
        Ok(())
    }

    fn entry(&self, name: &str) -> Option<(&str, &Entry)> {
        let (name, entry) = match self.gguf {
            None => self.tensors.get_key_value(name)?,
            Some(_) => self.tensors.get_key_value(&gguf::gguf_name(name)?)?,
        };
        Some((name, entry))
    }

    /// llama.cpp reorders queries and keys of the architecture "llama", and only of that.
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

    fn tensor_ref(&self, name: &str, entry: &Entry, order: RowOrder) -> Result<TensorRef<'_>> {
        let file = &self.files[entry.file];
        match &entry.storage {
            Storage::Codec(codec) => Ok(TensorRef::new(file, entry, *codec, order)),
            Storage::Other(dtype) => Err(ModelError::unsupported(
                file.path(),
                format!("tensor {name} is stored as {dtype}; supported are BF16, F16 and F32"),
            )),
        }
    }
}

/// The end tokens of a `generation_config.json`. Nothing depends on such a file: one that cannot be read is ignored, as
/// transformers does, with a warning.
fn add_generation_config(config: &mut ModelConfig, path: &Path) {
    if !path.exists() {
        return;
    }
    match read_json(path) {
        Ok(json) => config.add_eos_tokens(path, &json, EndSource::GenerationConfig),
        Err(error) => tracing::warn!("{error}: the file is ignored"),
    }
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const ROPE_FACTORS: &str = "rope_freqs.weight";
