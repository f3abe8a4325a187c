//! The configuration in the metadata of a GGUF file.

use super::{Field, MAX_CONTEXT, MAX_LAYERS, MAX_VOCAB, MAX_WIDTH, ModelConfig, RopeScaling, size};
use crate::{ModelError, Result, config::Family, weights::gguf::Metadata};
use std::path::Path;

impl ModelConfig {
    /// Reads GGUF metadata; `path` is for errors. Some facts only show in which tensors there are,
    /// by their GGUF names: `has_tensor`.
    ///
    /// [`Self::rope_freq_factors`] is left empty: it is a tensor's contents.
    pub fn from_gguf(
        path: &Path,
        metadata: &Metadata,
        has_tensor: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let architecture = metadata
            .str("general.architecture")
            .ok_or_else(|| ModelError::invalid(path, "general.architecture", "is missing"))?;
        let family = match architecture {
            "llama" => Family::Llama,
            "qwen2" => Family::Qwen2,
            "qwen3" => Family::Qwen3,
            other => {
                let what = format!("architecture {other}; supported are llama, qwen2 and qwen3");
                return Err(ModelError::unsupported(path, what));
            }
        };
        let keys = Keys { path, metadata, architecture };
        refuse_unsupported(&keys)?;

        let hidden_size = keys.required_size("embedding_length", MAX_WIDTH)?;
        let n_heads = keys.required_size("attention.head_count", MAX_WIDTH)?;
        let n_kv_heads = keys.size("attention.head_count_kv", MAX_WIDTH)?.unwrap_or(n_heads);
        let head_dim = match keys.size("attention.key_length", MAX_WIDTH)? {
            Some(n) => n,
            None if hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
            None => {
                let reason = format!("{n_heads} does not divide embedding_length {hidden_size}");
                return Err(keys.invalid("attention.head_count", reason));
            }
        };
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(other) = keys.size(key, MAX_WIDTH)?
                && other != head_dim
            {
                let what = format!("{} of {other} with heads of {head_dim}", keys.full_name(key));
                return Err(ModelError::unsupported(path, what));
            }
        }
        let vocab_size = match keys.size("vocab_size", MAX_VOCAB)? {
            Some(n) => n,
            None => {
                let tokens = metadata.strings(TOKENS).map_or(0, <[String]>::len);
                size(path, TOKENS, tokens as u64, MAX_VOCAB)?
            }
        };
        // llama.cpp reads a window for none of the three; only Mistral, a "llama" here, has one.
        let sliding_window = match family {
            Family::Llama => keys.size("attention.sliding_window", MAX_CONTEXT)?,
            _ => None,
        };
        let config = Self {
            family,
            n_layers: keys.required_size("block_count", MAX_LAYERS)?,
            hidden_size,
            n_heads,
            n_kv_heads,
            head_dim,
            intermediate_size: keys.required_size("feed_forward_length", MAX_WIDTH)?,
            vocab_size,
            max_context: keys.required_size("context_length", MAX_CONTEXT)?,
            rms_norm_eps: keys.number(EPS)?.ok_or_else(|| keys.invalid(EPS, "is missing"))?,
            rope_theta: keys.number(THETA)?.unwrap_or(10_000.0).into(),
            rope_scaling: rope_scaling(&keys)?,
            rope_freq_factors: None,
            sliding_window: sliding_window.map(|window| window as u32),
            qkv_bias: has_tensor("blk.0.attn_q.bias"),
            qk_norm: family == Family::Qwen3,
            tie_embeddings: !has_tensor("output.weight"),
            eos_tokens: eos_tokens(path, metadata)?,
        };
        config.check(path, |field| match field {
            Field::KvHeads => keys.full_name("attention.head_count_kv"),
            Field::HeadDim => keys.full_name("attention.key_length"),
            Field::Eps => keys.full_name(EPS),
            Field::Theta => keys.full_name(THETA),
            Field::Scaling => keys.full_name("rope.scaling"),
            Field::Eos => "tokenizer.ggml.eos_token_id".into(),
        })?;
        Ok(config)
    }
}

/// What the forward pass would otherwise leave out without a word.
fn refuse_unsupported(keys: &Keys<'_>) -> Result<()> {
    if keys.metadata.u64("split.count").is_some_and(|count| count > 1) {
        let what = "a GGUF model in several files; join them with llama-gguf-split --merge";
        return Err(ModelError::unsupported(keys.path, what));
    }
    if let Some(experts) = keys.integer("expert_count")?
        && experts > 0
    {
        let what = format!("{} {experts}: mixture of experts", keys.full_name("expert_count"));
        return Err(ModelError::unsupported(keys.path, what));
    }
    Ok(())
}

fn rope_scaling(keys: &Keys<'_>) -> Result<RopeScaling> {
    let kind = "rope.scaling.type";
    let name = keys.full_name(kind);
    let linear = |factor: Option<f32>| factor.filter(|factor| *factor != 1.0);
    match keys.metadata.str(&name) {
        None if keys.metadata.contains(&name) => Err(keys.invalid(kind, "is no string")),
        // Files of 2023 name a scale and no type.
        None => Ok(linear(keys.number("rope.scale_linear")?)
            .map_or(RopeScaling::None, |factor| RopeScaling::Linear { factor: factor.into() })),
        Some("none") => Ok(RopeScaling::None),
        Some("linear") => {
            let factor = keys.number("rope.scaling.factor")?;
            Ok(linear(factor)
                .map_or(RopeScaling::None, |factor| RopeScaling::Linear { factor: factor.into() }))
        }
        Some(other) => Err(ModelError::unsupported(
            keys.path,
            format!("{name} {other}; supported are none, linear and factors in rope_freqs.weight"),
        )),
    }
}

fn eos_tokens(path: &Path, metadata: &Metadata) -> Result<Vec<u32>> {
    let mut tokens = Vec::new();
    for key in EOS_KEYS.iter().filter(|key| metadata.contains(key)) {
        let token = metadata.u64(key).and_then(|id| u32::try_from(id).ok());
        let token = token.ok_or_else(|| ModelError::invalid(path, *key, "is no token id"))?;
        if !tokens.contains(&token) {
            tokens.push(token);
        }
    }
    Ok(tokens)
}

/// The metadata keys of one architecture.
struct Keys<'a> {
    path: &'a Path,
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl Keys<'_> {
    fn integer(&self, key: &str) -> Result<Option<u64>> {
        let name = self.full_name(key);
        match self.metadata.u64(&name) {
            None if self.metadata.contains(&name) => {
                Err(self.invalid(key, "is no unsigned integer, the same for all layers"))
            }
            value => Ok(value),
        }
    }

    fn size(&self, key: &str, max: usize) -> Result<Option<usize>> {
        let value = self.integer(key)?;
        value.map(|value| size(self.path, &self.full_name(key), value, max)).transpose()
    }

    fn required_size(&self, key: &str, max: usize) -> Result<usize> {
        self.size(key, max)?.ok_or_else(|| self.invalid(key, "is missing"))
    }

    fn number(&self, key: &str) -> Result<Option<f32>> {
        let name = self.full_name(key);
        match self.metadata.f32(&name) {
            None if self.metadata.contains(&name) => Err(self.invalid(key, "is no number")),
            value => Ok(value),
        }
    }

    fn full_name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn invalid(&self, key: &str, reason: impl Into<String>) -> ModelError {
        ModelError::invalid(self.path, self.full_name(key), reason)
    }
}

const EPS: &str = "attention.layer_norm_rms_epsilon";
const THETA: &str = "rope.freq_base";
const TOKENS: &str = "tokenizer.ggml.tokens";
/// End of sequence, of turn, of message.
const EOS_KEYS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
