//! `config.json` and `generation_config.json` of Hugging Face checkpoints.

use super::families::{FAMILIES, instead_of};
use super::fields::{JsonFields, unsigned};
use super::{Field, MAX_CONTEXT, MAX_LAYERS, MAX_VOCAB, MAX_WIDTH, ModelConfig, hf_rope};
use crate::end_tokens::{EndSource, EndTokens};
use crate::{ModelError, Result, config::Family, files};
use serde_json::Value;
use std::path::Path;

impl ModelConfig {
    /// Reads a `config.json` alone, without the weights that it belongs to: for their shapes. The vocabulary has the size
    /// that the file gives, no end tokens are read, and a method of quantisation does not count, as it changes no shape.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or that describes no model that Galley runs.
    pub fn from_hf_file(path: &Path) -> Result<Self> {
        let mut json = files::read_json(path)?;
        if let Some(fields) = json.as_object_mut() {
            fields.remove("quantization_config");
        }
        Self::from_hf_json(path, &json)
    }

    /// Reads the contents of a `config.json`; `path` is for errors. Absent fields get the defaults
    /// of transformers.
    ///
    /// [`Self::end_tokens`] gets no token here. [`Self::add_eos_tokens`] adds the tokens of a file.
    pub fn from_hf_json(path: &Path, json: &Value) -> Result<Self> {
        let Some(object) = json.as_object() else {
            return Err(ModelError::invalid(path, "config", "is no JSON object"));
        };
        let fields = JsonFields::of_file(path, object);
        let family = family(&fields)?;
        refuse_unsupported(&fields)?;

        let default = Defaults::of(family);
        let required = |name, max, default| -> Result<usize> {
            match fields.size(name, max)? {
                Some(n) => Ok(n),
                None => {
                    tracing::warn!(
                        "{}: {name} is missing: {default} is taken, as transformers does",
                        path.display()
                    );
                    Ok(default)
                }
            }
        };
        let n_layers = required("num_hidden_layers", MAX_LAYERS, DEFAULT_LAYERS)?;
        let hidden_size = required("hidden_size", MAX_WIDTH, DEFAULT_HIDDEN_SIZE)?;
        let n_heads = required("num_attention_heads", MAX_WIDTH, DEFAULT_HEADS)?;
        let intermediate_size =
            required("intermediate_size", MAX_WIDTH, default.intermediate_size)?;
        let n_kv_heads = match fields.size("num_key_value_heads", MAX_WIDTH)? {
            Some(n) => n,
            // The field is `null`, or the model is older than grouped heads.
            None if family == Family::Llama || object.contains_key("num_key_value_heads") => {
                n_heads
            }
            None => default.n_kv_heads,
        };
        let head_dim = match fields.size("head_dim", MAX_WIDTH)? {
            Some(n) => n,
            None if family == Family::Qwen3 => QWEN3_HEAD_DIM,
            None if hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
            None => {
                let reason = format!("{n_heads} does not divide hidden_size {hidden_size}");
                return Err(fields.invalid("num_attention_heads", reason));
            }
        };
        let max_positions = fields.size("max_position_embeddings", MAX_CONTEXT)?;
        let rope = hf_rope::read(&fields, max_positions.unwrap_or(default.max_positions))?;
        let has_default_eos = matches!(family, Family::Llama | Family::Mistral)
            && !object.contains_key("eos_token_id");
        let config = Self {
            family,
            n_layers,
            hidden_size,
            n_heads,
            n_kv_heads,
            head_dim,
            intermediate_size,
            // `Checkpoint::open` has set this field to the number of rows of the embedding.
            vocab_size: fields
                .size("vocab_size", MAX_VOCAB)
                .ok()
                .flatten()
                .unwrap_or(default.vocab_size),
            max_context: rope.max_context,
            rms_norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope_theta: rope.theta,
            rope_scaling: rope.scaling,
            rope_freq_factors: None,
            sliding_window: sliding_window(&fields, family, n_layers)?,
            qkv_bias: match family {
                Family::Qwen2 => true,
                Family::Mistral => false,
                Family::Llama | Family::Qwen3 => fields.flag("attention_bias")?.unwrap_or(false),
            },
            qk_norm: family == Family::Qwen3,
            tie_embeddings: fields.flag("tie_word_embeddings")?.unwrap_or(false),
            end_tokens: EndTokens::with_default(has_default_eos.then_some(DEFAULT_EOS)),
        };
        config.check(path, |field| {
            match field {
                Field::KvHeads => "num_key_value_heads",
                Field::HeadDim => "head_dim",
                Field::Eps => "rms_norm_eps",
                Field::Theta => "rope_theta",
                Field::Scaling => "rope_scaling",
            }
            .into()
        })?;
        Ok(config)
    }

    /// Adds the `eos_token_id` of a `config.json` or `generation_config.json`: a number or a list.
    /// Values that are no token of the model are ignored with a warning.
    pub fn add_eos_tokens(&mut self, path: &Path, json: &Value, source: EndSource) {
        const FIELD: &str = "eos_token_id";
        let ids = match json.get(FIELD) {
            None | Some(Value::Null) => &[][..],
            Some(Value::Array(ids)) => ids,
            Some(id) => std::slice::from_ref(id),
        };
        for id in ids {
            let number = id.as_i64().map(i128::from).or_else(|| unsigned(id).map(i128::from));
            match number {
                Some(number) => {
                    if let Some(token) = self.known_token(path, FIELD, number) {
                        self.end_tokens.add(token, source);
                    }
                }
                None => {
                    tracing::warn!(
                        "{}: {FIELD}: {id} is ignored: it is no token id",
                        path.display()
                    );
                }
            }
        }
    }
}

/// The family by `architectures`, which describes the weights, or else by `model_type`.
fn family(fields: &JsonFields<'_>) -> Result<Family> {
    let by_class = |class: &str| {
        FAMILIES
            .iter()
            .find(|known| known.class.eq_ignore_ascii_case(class))
            .map(|known| known.family)
    };
    let unsupported = |field: &str, value: &str, name: &str| {
        let instead = instead_of(name, |known| known.class);
        ModelError::unsupported(fields.path, format!("{field} {value} is not supported; {instead}"))
    };
    match fields.get("architectures") {
        Some(Value::Array(classes)) if !classes.is_empty() => {
            let mut names = classes.iter().filter_map(Value::as_str);
            let first = names.clone().next().unwrap_or_default();
            names.find_map(by_class).ok_or_else(|| {
                unsupported("architectures", &Value::from(classes.clone()).to_string(), first)
            })
        }
        None | Some(Value::Array(_)) => {
            let model_type =
                fields.text("model_type")?.ok_or_else(|| fields.missing("model_type"))?;
            FAMILIES
                .iter()
                .find(|known| known.model_type == model_type)
                .map(|known| known.family)
                .ok_or_else(|| unsupported("model_type", model_type, model_type))
        }
        Some(other) => Err(fields.invalid("architectures", format!("{other} is no list"))),
    }
}

/// Refuses settings that the forward pass does not compute.
fn refuse_unsupported(fields: &JsonFields<'_>) -> Result<()> {
    let refuse = |reason: String| Err(ModelError::unsupported(fields.path, reason));
    if let Some(activation) = fields.text("hidden_act")?
        && !SILU.contains(&activation)
    {
        return refuse(format!("hidden_act {activation}; only silu is supported"));
    }
    if fields.flag("mlp_bias")? == Some(true) {
        return refuse("mlp_bias: only queries, keys and values may have a bias".into());
    }
    if fields.get("quantization_config").is_some() {
        let reason =
            "quantization_config: weights must be BF16, F16 or F32; GGUF files may be quantised";
        return refuse(reason.into());
    }
    Ok(())
}

/// The sliding window, if every layer has one. Windows in some layers only are unsupported.
fn sliding_window(fields: &JsonFields<'_>, family: Family, n_layers: usize) -> Result<Option<u32>> {
    let sliding_layers = match family {
        Family::Llama => return Ok(None),
        Family::Mistral => n_layers,
        Family::Qwen2 | Family::Qwen3 => {
            if !fields.flag("use_sliding_window")?.unwrap_or(false) {
                return Ok(None);
            }
            match fields.get("layer_types") {
                Some(types) => sliding_layer_types(fields, types, n_layers)?,
                // The first `max_window_layers` layers attend to all tokens.
                None => match fields.integer("max_window_layers")? {
                    Some(full) => {
                        n_layers - usize::try_from(full).unwrap_or(n_layers).min(n_layers)
                    }
                    None => n_layers.saturating_sub(DEFAULT_MAX_WINDOW_LAYERS),
                },
            }
        }
    };
    // A configuration without the field, such as the first Mistral's, has the default window.
    let default = (!fields.object.contains_key("sliding_window")).then_some(DEFAULT_WINDOW);
    let window =
        fields.size("sliding_window", MAX_CONTEXT)?.map(|window| window as u32).or(default);
    match sliding_layers {
        0 => Ok(None),
        all if all == n_layers => Ok(window),
        _ if window.is_none() => Ok(None),
        some => {
            let reason =
                format!("a sliding window in {some} of {n_layers} layers; all or none may have it");
            Err(ModelError::unsupported(fields.path, reason))
        }
    }
}

/// Number of layers with a sliding window in `layer_types`.
fn sliding_layer_types(fields: &JsonFields<'_>, types: &Value, n_layers: usize) -> Result<usize> {
    let types = types
        .as_array()
        .filter(|types| types.len() == n_layers)
        .ok_or_else(|| fields.invalid("layer_types", format!("is no list of {n_layers} layers")))?;
    let mut sliding = 0;
    for kind in types {
        match kind.as_str() {
            Some("sliding_attention") => sliding += 1,
            Some("full_attention") => {}
            _ => return Err(ModelError::unsupported(fields.path, format!("layer type {kind}"))),
        }
    }
    Ok(sliding)
}

/// Names of SiLU, x · sigmoid(x).
const SILU: [&str; 2] = ["silu", "swish"];

/// Defaults of transformers that differ between families.
struct Defaults {
    vocab_size: usize,
    intermediate_size: usize,
    n_kv_heads: usize,
    max_positions: usize,
}

impl Defaults {
    fn of(family: Family) -> Self {
        let (vocab_size, intermediate_size, n_kv_heads, max_positions) = match family {
            Family::Llama => (32_000, 11_008, DEFAULT_HEADS, 2048),
            Family::Mistral => (32_000, 14_336, 8, 131_072),
            Family::Qwen2 | Family::Qwen3 => (151_936, 22_016, 32, 32_768),
        };
        Self { vocab_size, intermediate_size, n_kv_heads, max_positions }
    }
}

// Defaults that all families share.
const DEFAULT_LAYERS: usize = 32;
const DEFAULT_HEADS: usize = 32;
const DEFAULT_HIDDEN_SIZE: usize = 4096;
/// The default of Llama and Mistral. Qwen has no default.
const DEFAULT_EOS: u32 = 2;
const DEFAULT_WINDOW: u32 = 4096;
const DEFAULT_MAX_WINDOW_LAYERS: usize = 28;
const QWEN3_HEAD_DIM: usize = 128;
