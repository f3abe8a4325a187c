//! The configuration in the metadata of a GGUF file.

use super::families::{FAMILIES, instead_of};
use super::hf_rope::{BETA_FAST, BETA_SLOW, stretched};
use super::rope::attention_factor;
use super::{
    Field, MAX_CONTEXT, MAX_LAYERS, MAX_VOCAB, MAX_WIDTH, ModelConfig, RopeScaling, Yarn, size,
};
use crate::end_tokens::{EndSource, EndTokens};
use crate::{ModelError, Result, config::Family, metadata::Metadata};
use std::path::Path;

impl ModelConfig {
    /// Reads GGUF metadata; `path` is for errors. `has_tensor` says whether the file has a tensor
    /// of a GGUF name: some facts show only in the tensors.
    ///
    /// [`Self::rope_freq_factors`] stays empty: it is the contents of a tensor.
    pub fn from_gguf(
        path: &Path,
        metadata: &Metadata,
        has_tensor: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let architecture = metadata
            .str("general.architecture")
            .ok_or_else(|| ModelError::invalid(path, "general.architecture", "is missing"))?;
        let Some(known) = FAMILIES.iter().find(|known| known.gguf == architecture) else {
            let instead = instead_of(architecture, |known| known.gguf);
            let reason = format!("architecture {architecture} is not supported; {instead}");
            return Err(ModelError::unsupported(path, reason));
        };
        let family = known.family;
        let keys = ArchitectureKeys { path, metadata, architecture };
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
                let reason = format!("{} of {other} with heads of {head_dim}", keys.full_name(key));
                return Err(ModelError::unsupported(path, reason));
            }
        }
        let vocab_size = match keys.size("vocab_size", MAX_VOCAB)? {
            Some(n) => n,
            None => {
                let tokens = metadata.strings(TOKENS).map_or(0, <[String]>::len);
                size(path, TOKENS, tokens as u64, MAX_VOCAB)?
            }
        };
        // llama.cpp reads no window here. Galley does for `llama`, because Mistral has one.
        let sliding_window = match family {
            Family::Llama => keys.size("attention.sliding_window", MAX_CONTEXT)?,
            _ => None,
        };
        let trained_context = keys.required_size("context_length", MAX_CONTEXT)?;
        let rope_scaling = rope_scaling(&keys, trained_context)?;
        let mut config = Self {
            family,
            n_layers: keys.required_size("block_count", MAX_LAYERS)?,
            hidden_size,
            n_heads,
            n_kv_heads,
            head_dim,
            intermediate_size: keys.required_size("feed_forward_length", MAX_WIDTH)?,
            vocab_size,
            max_context: match rope_scaling {
                RopeScaling::Yarn(Yarn { factor, original_context, .. }) => {
                    // `context_length` may include the factor already.
                    stretched(factor, original_context).max(trained_context)
                }
                _ => trained_context,
            },
            rms_norm_eps: keys.number(EPS)?.ok_or_else(|| keys.invalid(EPS, "is missing"))?,
            rope_theta: keys.number(THETA)?.unwrap_or(10_000.0).into(),
            rope_scaling,
            rope_freq_factors: None,
            sliding_window: sliding_window.map(|window| window as u32),
            qkv_bias: has_tensor("blk.0.attn_q.bias"),
            qk_norm: family == Family::Qwen3,
            tie_embeddings: !has_tensor("output.weight"),
            end_tokens: EndTokens::default(),
        };
        config.add_gguf_end_tokens(path, metadata);
        config.check(path, |field| match field {
            Field::KvHeads => keys.full_name("attention.head_count_kv"),
            Field::HeadDim => keys.full_name("attention.key_length"),
            Field::Eps => keys.full_name(EPS),
            Field::Theta => keys.full_name(THETA),
            Field::Scaling => keys.full_name("rope.scaling"),
        })?;
        Ok(config)
    }

    /// Adds the end tokens. Each key has one id or a list of ids.
    fn add_gguf_end_tokens(&mut self, path: &Path, metadata: &Metadata) {
        for key in EOS_KEYS.into_iter().filter(|key| metadata.contains(key)) {
            let list = || metadata.i32s(key).into_iter().flatten().copied().map(i128::from);
            let ids: Vec<i128> = metadata.integer(key).into_iter().chain(list()).collect();
            if ids.is_empty() {
                tracing::warn!("{}: {key} is ignored: it is no token id", path.display());
            }
            for id in ids {
                if let Some(token) = self.known_token(path, key, id) {
                    self.end_tokens.add(token, EndSource::Gguf(key));
                }
            }
        }
    }
}

/// Refuses settings that the forward pass does not compute.
fn refuse_unsupported(keys: &ArchitectureKeys<'_>) -> Result<()> {
    if keys.metadata.u64("split.count").is_some_and(|count| count > 1) {
        let reason = "a GGUF model in several files; join them with llama-gguf-split --merge";
        return Err(ModelError::unsupported(keys.path, reason));
    }
    if let Some(experts) = keys.integer("expert_count")?
        && experts > 0
    {
        let reason = format!("{} {experts}: mixture of experts", keys.full_name("expert_count"));
        return Err(ModelError::unsupported(keys.path, reason));
    }
    Ok(())
}

/// Reads the scaling as llama.cpp does: a factor without a type divides all frequencies.
fn rope_scaling(keys: &ArchitectureKeys<'_>, trained_context: usize) -> Result<RopeScaling> {
    let kind = "rope.scaling.type";
    let name = keys.full_name(kind);
    let factor = match keys.number("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        // The key of files from 2023.
        None => keys.number("rope.scale_linear")?,
    };
    // Zero counts as absent.
    let factor = factor.filter(|factor| *factor != 0.0).map_or(1.0, f64::from);
    let attention = keys.number("rope.scaling.attn_factor")?.map_or(1.0, f64::from);
    let kind = match keys.metadata.str(&name) {
        None if keys.metadata.contains(&name) => return Err(keys.invalid(kind, "is no string")),
        kind => kind.unwrap_or("linear"),
    };
    if kind != "yarn" && attention != 1.0 {
        let field = keys.full_name("rope.scaling.attn_factor");
        let reason = format!("{field} {attention}: only yarn may have one");
        return Err(ModelError::unsupported(keys.path, reason));
    }
    match kind {
        "none" => Ok(RopeScaling::None),
        "linear" if factor == 1.0 => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor }),
        "yarn" => yarn(keys, factor, attention, trained_context).map(RopeScaling::Yarn),
        "longrope" => {
            let reason = format!(
                "{name} longrope: two sets of frequencies, one for short and one for long sequences, which no model of \
                 Galley's families has; supported are {SUPPORTED}"
            );
            Err(ModelError::unsupported(keys.path, reason))
        }
        other => Err(ModelError::unsupported(
            keys.path,
            format!("{name} {other}; supported are {SUPPORTED}"),
        )),
    }
}

fn yarn(
    keys: &ArchitectureKeys<'_>,
    factor: f64,
    attention: f64,
    trained_context: usize,
) -> Result<Yarn> {
    let extrapolation = keys.number("rope.scaling.yarn_ext_factor")?;
    if let Some(share) = extrapolation.filter(|share| *share >= 0.0 && *share != 1.0) {
        let field = keys.full_name("rope.scaling.yarn_ext_factor");
        return Err(ModelError::unsupported(
            keys.path,
            format!("{field} {share}; only 1 is supported"),
        ));
    }
    let number =
        |key, default: f64| Ok::<_, ModelError>(keys.number(key)?.map_or(default, f64::from));
    Ok(Yarn {
        factor,
        original_context: number("rope.scaling.original_context_length", trained_context as f64)?,
        beta_fast: number("rope.scaling.yarn_beta_fast", BETA_FAST)?,
        beta_slow: number("rope.scaling.yarn_beta_slow", BETA_SLOW)?,
        truncate: true,
        attention_factor: attention * attention_factor(factor, 1.0),
    })
}

/// The metadata keys of one architecture.
struct ArchitectureKeys<'a> {
    path: &'a Path,
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl ArchitectureKeys<'_> {
    /// An integer, or a list that repeats the same integer for each layer.
    fn integer(&self, key: &str) -> Result<Option<u64>> {
        let name = self.full_name(key);
        if let Some([first, rest @ ..]) = self.metadata.i32s(&name)
            && rest.iter().all(|other| other == first)
            && let Ok(value) = u64::try_from(*first)
        {
            return Ok(Some(value));
        }
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

const SUPPORTED: &str = "none, linear, yarn and factors in rope_freqs.weight";
const EPS: &str = "attention.layer_norm_rms_epsilon";
const THETA: &str = "rope.freq_base";
const TOKENS: &str = "tokenizer.ggml.tokens";
/// End of sequence, of turn and of message, and the list that Ollama's converter writes.
const EOS_KEYS: [&str; 4] = [
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.eos_token_ids",
];
