//! `config.json` and `generation_config.json` of Hugging Face checkpoints.

use super::{Field, MAX_CONTEXT, MAX_LAYERS, MAX_VOCAB, MAX_WIDTH, ModelConfig, RopeScaling, size};
use crate::{ModelError, Result, config::Family};
use serde_json::{Map, Value};
use std::path::Path;

impl ModelConfig {
    /// Reads the contents of a `config.json`; `path` is for errors. Fields left out have the values
    /// that transformers gives them.
    pub fn from_hf_json(path: &Path, json: &Value) -> Result<Self> {
        let Some(object) = json.as_object() else {
            return Err(ModelError::invalid(path, "config", "is no JSON object"));
        };
        let fields = Fields { path, prefix: "", object };
        let family = family(&fields)?;
        refuse_unsupported(&fields)?;

        let n_layers = fields.required_size("num_hidden_layers", MAX_LAYERS)?;
        let hidden_size = fields.required_size("hidden_size", MAX_WIDTH)?;
        let n_heads = fields.required_size("num_attention_heads", MAX_WIDTH)?;
        let n_kv_heads = match fields.size("num_key_value_heads", MAX_WIDTH)? {
            Some(n) => n,
            // null, or a model of before grouped heads.
            None if family == Family::Llama || object.contains_key("num_key_value_heads") => {
                n_heads
            }
            None => return Err(fields.missing("num_key_value_heads")),
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
        let (rope_theta, rope_scaling) = rope(&fields)?;
        let mut config = Self {
            family,
            n_layers,
            hidden_size,
            n_heads,
            n_kv_heads,
            head_dim,
            intermediate_size: fields.required_size("intermediate_size", MAX_WIDTH)?,
            vocab_size: fields.required_size("vocab_size", MAX_VOCAB)?,
            max_context: fields.required_size("max_position_embeddings", MAX_CONTEXT)?,
            rms_norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope_theta,
            rope_scaling,
            rope_freq_factors: None,
            sliding_window: sliding_window(&fields, family, n_layers)?,
            qkv_bias: match family {
                Family::Qwen2 => true,
                Family::Mistral => false,
                Family::Llama | Family::Qwen3 => fields.flag("attention_bias")?.unwrap_or(false),
            },
            qk_norm: family == Family::Qwen3,
            tie_embeddings: fields.flag("tie_word_embeddings")?.unwrap_or(false),
            eos_tokens: Vec::new(),
        };
        config.check(path, |field| {
            match field {
                Field::KvHeads => "num_key_value_heads",
                Field::HeadDim => "head_dim",
                Field::Eps => "rms_norm_eps",
                Field::Theta => "rope_theta",
                Field::Scaling => "rope_scaling",
                Field::Eos => "eos_token_id",
            }
            .into()
        })?;
        config.add_eos_tokens(path, json)?;
        Ok(config)
    }

    /// Adds the `eos_token_id` of a `config.json` or `generation_config.json`: a number, or a list.
    pub fn add_eos_tokens(&mut self, path: &Path, json: &Value) -> Result<()> {
        let ids = match json.get("eos_token_id") {
            None | Some(Value::Null) => &[][..],
            Some(Value::Array(ids)) => ids,
            Some(id) => std::slice::from_ref(id),
        };
        for id in ids {
            let token = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
                ModelError::invalid(path, "eos_token_id", format!("{id} is no token id"))
            })?;
            self.check_token(path, "eos_token_id", token)?;
            if !self.eos_tokens.contains(&token) {
                self.eos_tokens.push(token);
            }
        }
        Ok(())
    }
}

/// By `architectures`, which says what the weights are, or else by `model_type`.
fn family(fields: &Fields<'_>) -> Result<Family> {
    let by_class = |class: &str| {
        FAMILIES
            .iter()
            .find(|(name, ..)| name.eq_ignore_ascii_case(class))
            .map(|(.., family)| *family)
    };
    let unsupported = |field: &str, what: &str| {
        let known: Vec<_> = FAMILIES.iter().map(|(name, ..)| *name).collect();
        let what = format!("{field} {what}; supported are {}", known.join(", "));
        ModelError::unsupported(fields.path, what)
    };
    match fields.get("architectures") {
        Some(Value::Array(classes)) if !classes.is_empty() => classes
            .iter()
            .find_map(|class| by_class(class.as_str()?))
            .ok_or_else(|| unsupported("architectures", &Value::from(classes.clone()).to_string())),
        None | Some(Value::Array(_)) => {
            let model_type =
                fields.text("model_type")?.ok_or_else(|| fields.missing("model_type"))?;
            FAMILIES
                .iter()
                .find(|(_, name, _)| *name == model_type)
                .map(|(.., family)| *family)
                .ok_or_else(|| unsupported("model_type", model_type))
        }
        Some(other) => Err(fields.invalid("architectures", format!("{other} is no list"))),
    }
}

/// Settings that the forward pass would otherwise leave out without a word.
fn refuse_unsupported(fields: &Fields<'_>) -> Result<()> {
    let refuse = |what: String| Err(ModelError::unsupported(fields.path, what));
    if let Some(activation) = fields.text("hidden_act")?
        && activation != "silu"
    {
        return refuse(format!("hidden_act {activation}; only silu is supported"));
    }
    if fields.flag("mlp_bias")? == Some(true) {
        return refuse("mlp_bias: only queries, keys and values may have a bias".into());
    }
    if fields.get("quantization_config").is_some() {
        let what =
            "quantization_config: weights must be BF16, F16 or F32; GGUF files may be quantised";
        return refuse(what.into());
    }
    Ok(())
}

/// Base and scaling, from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling`.
fn rope(fields: &Fields<'_>) -> Result<(f64, RopeScaling)> {
    let parameters = match fields.object("rope_parameters")? {
        Some(parameters) => Some(parameters),
        None => fields.object("rope_scaling")?,
    };
    let top_level_theta = fields.number("rope_theta")?;
    let Some(parameters) = parameters else {
        refuse_partial(fields)?;
        return Ok((top_level_theta.unwrap_or(DEFAULT_THETA), RopeScaling::None));
    };
    refuse_partial(fields)?;
    refuse_partial(&parameters)?;
    let theta = parameters.number("rope_theta")?.or(top_level_theta).unwrap_or(DEFAULT_THETA);
    let kind = match parameters.text("rope_type")? {
        Some(kind) => Some(kind),
        None => parameters.text("type")?,
    };
    let scaling = match kind {
        None | Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: parameters.required_number("factor")? },
        Some("llama3") => RopeScaling::Llama3 {
            factor: parameters.required_number("factor")?,
            low_freq_factor: parameters.required_number("low_freq_factor")?,
            high_freq_factor: parameters.required_number("high_freq_factor")?,
            original_context: match parameters.number(ORIGINAL_CONTEXT)? {
                Some(context) => context,
                None => fields.required_number(ORIGINAL_CONTEXT)?,
            },
        },
        Some(other) => {
            let what = format!("rope scaling {other}; supported are default, linear and llama3");
            return Err(ModelError::unsupported(fields.path, what));
        }
    };
    if kind.is_none() && !parameters.object.values().all(|value| !value.is_object()) {
        let what = "rope parameters that differ between layers";
        return Err(ModelError::unsupported(fields.path, what));
    }
    Ok((theta, scaling))
}

fn refuse_partial(fields: &Fields<'_>) -> Result<()> {
    match fields.number("partial_rotary_factor")? {
        None => Ok(()),
        Some(1.0) => Ok(()),
        Some(factor) => Err(ModelError::unsupported(
            fields.path,
            format!("partial_rotary_factor {factor}; only 1 is supported"),
        )),
    }
}

/// The window, if every layer has it.
fn sliding_window(fields: &Fields<'_>, family: Family, n_layers: usize) -> Result<Option<u32>> {
    let window = fields.size("sliding_window", MAX_CONTEXT)?.map(|window| window as u32);
    // A Mistral configuration that does not mention the window is of the first Mistral.
    let default = (!fields.object.contains_key("sliding_window")).then_some(DEFAULT_WINDOW);
    let (window, sliding_layers) = match family {
        Family::Llama => return Ok(None),
        Family::Mistral => (window.or(default), n_layers),
        Family::Qwen2 | Family::Qwen3 => {
            if !fields.flag("use_sliding_window")?.unwrap_or(false) {
                return Ok(None);
            }
            let sliding = match fields.get("layer_types") {
                Some(types) => sliding_layer_types(fields, types, n_layers)?,
                // The first `max_window_layers` layers attend to everything.
                None => match fields.integer("max_window_layers")? {
                    Some(full) => {
                        n_layers - usize::try_from(full).unwrap_or(n_layers).min(n_layers)
                    }
                    None => n_layers.saturating_sub(DEFAULT_MAX_WINDOW_LAYERS),
                },
            };
            (window.or(default), sliding)
        }
    };
    match sliding_layers {
        0 => Ok(None),
        all if all == n_layers => Ok(window),
        _ if window.is_none() => Ok(None),
        some => {
            let what =
                format!("a sliding window in {some} of {n_layers} layers; all or none may have it");
            Err(ModelError::unsupported(fields.path, what))
        }
    }
}

/// How many of the `layer_types` slide.
fn sliding_layer_types(fields: &Fields<'_>, types: &Value, n_layers: usize) -> Result<usize> {
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

/// A JSON object whose fields are checked as they are read. `null` counts as absent.
struct Fields<'a> {
    path: &'a Path,
    prefix: &'static str,
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn object(&self, name: &'static str) -> Result<Option<Self>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Self { path: self.path, prefix: name, object })),
            Some(other) => Err(self.invalid(name, format!("{other} is no object"))),
        }
    }

    fn integer(&self, name: &str) -> Result<Option<u64>> {
        self.get(name)
            .map(|value| {
                value
                    .as_u64()
                    .ok_or_else(|| self.invalid(name, format!("{value} is no unsigned integer")))
            })
            .transpose()
    }

    fn size(&self, name: &str, max: usize) -> Result<Option<usize>> {
        let value = self.integer(name)?;
        value.map(|value| size(self.path, &self.full_name(name), value, max)).transpose()
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        self.get(name)
            .map(|value| {
                value.as_f64().ok_or_else(|| self.invalid(name, format!("{value} is no number")))
            })
            .transpose()
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.get(name)
            .map(|value| {
                value.as_bool().ok_or_else(|| self.invalid(name, format!("{value} is no boolean")))
            })
            .transpose()
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.get(name)
            .map(|value| {
                value.as_str().ok_or_else(|| self.invalid(name, format!("{value} is no string")))
            })
            .transpose()
    }

    fn required_size(&self, name: &str, max: usize) -> Result<usize> {
        self.size(name, max)?.ok_or_else(|| self.missing(name))
    }

    fn required_number(&self, name: &str) -> Result<f64> {
        self.number(name)?.ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> ModelError {
        self.invalid(name, "is missing")
    }

    fn invalid(&self, name: &str, reason: impl Into<String>) -> ModelError {
        ModelError::invalid(self.path, self.full_name(name), reason)
    }

    fn full_name(&self, name: &str) -> String {
        match self.prefix {
            "" => name.into(),
            prefix => format!("{prefix}.{name}"),
        }
    }
}

/// Class in `architectures`, `model_type`, family.
const FAMILIES: [(&str, &str, Family); 4] = [
    ("LlamaForCausalLM", "llama", Family::Llama),
    ("MistralForCausalLM", "mistral", Family::Mistral),
    ("Qwen2ForCausalLM", "qwen2", Family::Qwen2),
    ("Qwen3ForCausalLM", "qwen3", Family::Qwen3),
];
const ORIGINAL_CONTEXT: &str = "original_max_position_embeddings";
// What transformers takes for fields that are absent.
const DEFAULT_THETA: f64 = 10_000.0;
const DEFAULT_WINDOW: u32 = 4096;
const DEFAULT_MAX_WINDOW_LAYERS: usize = 28;
const QWEN3_HEAD_DIM: usize = 128;
