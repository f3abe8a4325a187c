//! The configuration of a model, in one form for every file format.

mod families;
mod fields;
mod gguf;
mod hf;
mod hf_rope;
mod rope;

use crate::end_tokens::EndTokens;
use crate::{ModelError, Result};
use std::path::Path;

/// An architecture of the Llama family. The forward pass does not read it: the other fields of
/// [`ModelConfig`] state every difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 2, 3.x and all models with their architecture, such as SmolLM2.
    Llama,
    /// Llama with a sliding window.
    Mistral,
    /// Llama with biases on queries, keys and values (Qwen2, Qwen2.5).
    Qwen2,
    /// Llama with RMS norms on query and key heads (Qwen3).
    Qwen3,
}

/// Shapes and constants of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Architecture family.
    pub family: Family,
    /// Decoder layers.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Longest sequence that the model is opened for, tokens: by its files, or by
    /// [`Checkpoint::set_max_context`](crate::weights::Checkpoint::set_max_context).
    pub max_context: usize,
    /// Epsilon: added to the mean square in every RMS norm.
    pub rms_norm_eps: f32,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Scaling of the rotary frequencies.
    pub rope_scaling: RopeScaling,
    /// One divisor per rotary frequency, `head_dim / 2` in total: the form that Llama 3's scaling
    /// has in GGUF files.
    pub rope_freq_factors: Option<Vec<f32>>,
    /// Number of latest tokens that a token attends to, itself included.
    pub sliding_window: Option<u32>,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether query and key heads have RMS norms.
    pub qk_norm: bool,
    /// Whether the output head is the embedding matrix.
    pub tie_embeddings: bool,
    /// Tokens that end a generation, as far as the configuration names them.
    /// [`EndTokens::with_tokenizer`] adds the tokenizer's.
    pub end_tokens: EndTokens,
}

/// Scaling of rotary frequencies for contexts beyond the original training length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// No scaling.
    None,
    /// Divides all frequencies by a factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: divides low frequencies, keeps high ones, with a smooth ramp between.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original_context / low_freq_factor` are low.
        low_freq_factor: f64,
        /// Wavelengths below `original_context / high_freq_factor` are high.
        high_freq_factor: f64,
        /// Context length of the original training, tokens.
        original_context: f64,
    },
    /// YaRN (arXiv 2309.00071): keeps frequencies that turn often within the original context,
    /// divides frequencies that turn rarely, with a ramp between. It also scales queries and keys.
    Yarn(Yarn),
    /// NTK-aware: a larger base. It grows with the ratio of the opened context to the original one.
    Dynamic {
        /// Strength of the scaling.
        factor: f64,
        /// Context length of the original training, tokens.
        original_context: f64,
    },
}

/// Parameters of YaRN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// The divisor of frequencies that turn rarely.
    pub factor: f64,
    /// Context length of the original training, tokens.
    pub original_context: f64,
    /// A frequency with more turns than this within the original context is kept.
    pub beta_fast: f64,
    /// A frequency with fewer turns than this within the original context is divided.
    pub beta_slow: f64,
    /// Whether the ends of the ramp move outwards to whole frequency indices.
    pub truncate: bool,
    /// Multiplies cosines and sines.
    pub attention_factor: f64,
}

impl ModelConfig {
    /// Number of weights in the matrices of one layer.
    pub fn layer_parameters(&self) -> usize {
        let attention = self.hidden_size * self.head_dim * 2 * (self.n_heads + self.n_kv_heads);
        attention + 3 * self.hidden_size * self.intermediate_size
    }

    /// Number of weights in the output head. The embedding has the same number.
    pub fn head_parameters(&self) -> usize {
        self.vocab_size * self.hidden_size
    }

    /// Number of weights in all matrices. A tied embedding counts once.
    pub fn parameters(&self) -> usize {
        let n_heads = if self.tie_embeddings { 1 } else { 2 };
        self.n_layers * self.layer_parameters() + n_heads * self.head_parameters()
    }

    /// Values that the KV cache holds per token, over all layers.
    pub fn kv_values_per_token(&self) -> usize {
        2 * self.n_layers * self.n_kv_heads * self.head_dim
    }

    /// Longest context that the model may be opened with, tokens. [`Self::max_context`] must still
    /// have the value of the files.
    pub(crate) fn longest_context(&self) -> usize {
        match self.rope_scaling {
            // The files give the length of the training sequences; the factor extends it.
            RopeScaling::Linear { factor } => {
                hf_rope::stretched(factor, self.max_context as f64).max(self.max_context)
            }
            // The formula of the base takes any length.
            RopeScaling::Dynamic { .. } => MAX_CONTEXT,
            RopeScaling::None | RopeScaling::Llama3 { .. } | RopeScaling::Yarn(_) => {
                self.max_context
            }
        }
    }

    /// Checks relations between fields. `field` translates a field to its name in the file.
    fn check(&self, path: &Path, field: impl Fn(Field) -> String) -> Result<()> {
        let invalid = |f: Field, reason: String| Err(ModelError::invalid(path, field(f), reason));
        let (n_heads, n_kv_heads) = (self.n_heads, self.n_kv_heads);
        if !n_heads.is_multiple_of(n_kv_heads) {
            return invalid(
                Field::KvHeads,
                format!("{n_kv_heads} does not divide {n_heads} heads"),
            );
        }
        if !self.head_dim.is_multiple_of(2) {
            return invalid(Field::HeadDim, format!("{} is odd", self.head_dim));
        }
        if n_heads.checked_mul(self.head_dim).is_none_or(|width| width > MAX_WIDTH) {
            let reason = format!("{n_heads} heads of {} are too wide", self.head_dim);
            return invalid(Field::HeadDim, reason);
        }
        if !(self.rms_norm_eps.is_normal() && 0.0 < self.rms_norm_eps && self.rms_norm_eps < 1.0) {
            return invalid(Field::Eps, format!("{} is not between 0 and 1", self.rms_norm_eps));
        }
        let theta = self.rope_theta as f32;
        if !(theta.is_finite() && theta >= 1.0) {
            return invalid(Field::Theta, format!("{} is no base of a power", self.rope_theta));
        }
        self.check_rope_scaling().or_else(|reason| invalid(Field::Scaling, reason))
    }

    /// `id` as a token. If the vocabulary has no such token: a warning, and `None`.
    fn known_token(&self, path: &Path, field: &str, id: i128) -> Option<u32> {
        let token = u32::try_from(id).ok().filter(|&token| (token as usize) < self.vocab_size);
        if token.is_none() {
            tracing::warn!(
                "{}: {field}: {id} is ignored: it is not in the vocabulary of {}",
                path.display(),
                self.vocab_size
            );
        }
        token
    }
}

/// Fields with the same checks in all formats, and different names.
#[derive(Clone, Copy)]
enum Field {
    KvHeads,
    HeadDim,
    Eps,
    Theta,
    Scaling,
}

/// `value` as a size between 1 and `max`, or an error.
fn size(path: &Path, field: &str, value: u64, max: usize) -> Result<usize> {
    match usize::try_from(value) {
        Ok(size) if (1..=max).contains(&size) => Ok(size),
        _ => Err(ModelError::invalid(path, field, format!("{value} is not between 1 and {max}"))),
    }
}

/// Far more layers than any model has.
const MAX_LAYERS: usize = 1 << 20;
/// Far wider than any model; the product of two such sizes still fits a `usize`.
const MAX_WIDTH: usize = 1 << 24;
/// Far more tokens than any vocabulary has.
const MAX_VOCAB: usize = 1 << 24;
/// Positions are 31 bits wide in the kernels.
const MAX_CONTEXT: usize = i32::MAX as usize;
