//! What a checkpoint says about its model, in one form for every file format.

mod families;
mod fields;
mod gguf;
mod hf;
mod hf_rope;
mod rope;

use crate::end_tokens::EndTokens;
use crate::{ModelError, Result};
use std::path::Path;

/// A member of the Llama family. The forward pass does not ask for it: what differs is spelled out
/// in the other fields of [`ModelConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 2, 3.x and everything with their architecture, SmolLM2 among them.
    Llama,
    /// Llama with a sliding window.
    Mistral,
    /// Llama with biases on queries, keys and values (Qwen2, Qwen2.5).
    Qwen2,
    /// Llama with RMS norms on query and key heads.
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
    /// Longest sequence that the model is opened for, tokens: the longest it was made for, or what
    /// [`Checkpoint::set_max_context`](crate::weights::Checkpoint::set_max_context) says.
    pub max_context: usize,
    /// Added to the mean square in every RMS norm.
    pub rms_norm_eps: f32,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// How rotary frequencies are stretched.
    pub rope_scaling: RopeScaling,
    /// One divisor per rotary frequency, `head_dim / 2` of them: Llama 3's scaling as GGUF files
    /// carry it.
    pub rope_freq_factors: Option<Vec<f32>>,
    /// Attend to this many most recent tokens only, the token itself included.
    pub sliding_window: Option<u32>,
    /// Biases on queries, keys and values.
    pub qkv_bias: bool,
    /// RMS norms on query and key heads.
    pub qk_norm: bool,
    /// The output head is the embedding.
    pub tie_embeddings: bool,
    /// Tokens that end a generation, as far as the configuration names them;
    /// [`EndTokens::with_tokenizer`] has all.
    pub end_tokens: EndTokens,
}

/// How rotary frequencies are stretched for contexts beyond the original training length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All frequencies divided by a factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a smooth ramp between.
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
    /// YaRN: frequencies that turn often within the original context kept, those that turn rarely divided, a ramp
    /// between; queries and keys stretched to make up for it.
    Yarn(Yarn),
    /// NTK-aware: a larger base, by how far the context that the model is opened with goes beyond the original one.
    Dynamic {
        /// How strongly.
        factor: f64,
        /// Context length of the original training, tokens.
        original_context: f64,
    },
}

/// The numbers of YaRN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// The divisor.
    pub factor: f64,
    /// Context length of the original training, tokens.
    pub original_context: f64,
    /// Frequencies that turn more often than this within the original context are kept.
    pub beta_fast: f64,
    /// Frequencies that turn less often than this are divided.
    pub beta_slow: f64,
    /// The ends of the ramp are moved out to whole frequencies.
    pub truncate: bool,
    /// Cosines and sines are multiplied by this.
    pub attention_factor: f64,
}

impl ModelConfig {
    /// Weights of the matrices of one layer.
    pub fn layer_parameters(&self) -> usize {
        let attention = self.hidden_size * self.head_dim * 2 * (self.n_heads + self.n_kv_heads);
        attention + 3 * self.hidden_size * self.intermediate_size
    }

    /// Weights of the output head, and as many of the embedding.
    pub fn head_parameters(&self) -> usize {
        self.vocab_size * self.hidden_size
    }

    /// Weights of all matrices, a tied embedding counted once.
    pub fn parameters(&self) -> usize {
        let n_heads = if self.tie_embeddings { 1 } else { 2 };
        self.n_layers * self.layer_parameters() + n_heads * self.head_parameters()
    }

    /// Values that the KV cache keeps of one token, over all layers.
    pub fn kv_values_per_token(&self) -> usize {
        2 * self.n_layers * self.n_kv_heads * self.head_dim
    }

    /// The longest context that it may be opened with, tokens, where [`Self::max_context`] is what its files say.
    pub(crate) fn longest_context(&self) -> usize {
        match self.rope_scaling {
            // Their files say how long the sequences are that it was tuned to, and the factor how far it may go.
            RopeScaling::Linear { factor } => {
                hf_rope::stretched(factor, self.max_context as f64).max(self.max_context)
            }
            // Its formula takes any length.
            RopeScaling::Dynamic { .. } => MAX_CONTEXT,
            RopeScaling::None | RopeScaling::Llama3 { .. } | RopeScaling::Yarn(_) => {
                self.max_context
            }
        }
    }

    /// Checks what holds between fields. `field` translates to the names of the file.
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

    /// `id` as a token, or a warning that there is no such token.
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

/// Fields that are checked the same way under different names.
#[derive(Clone, Copy)]
enum Field {
    KvHeads,
    HeadDim,
    Eps,
    Theta,
    Scaling,
}

/// `value` as a size, if it lies between 1 and `max`.
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
