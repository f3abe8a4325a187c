//! What a checkpoint says about its model, in one form for every file format.

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
    /// Longest sequence the model was made for, tokens.
    pub max_context: usize,
    /// Added to the mean square in every RMS norm.
    pub rms_norm_eps: f32,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// How rotary frequencies are stretched.
    pub rope_scaling: RopeScaling,
    /// Attend to this many most recent tokens only, the token itself included.
    pub sliding_window: Option<u32>,
    /// Biases on queries, keys and values.
    pub qkv_bias: bool,
    /// RMS norms on query and key heads.
    pub qk_norm: bool,
    /// The output head is the embedding.
    pub tie_embeddings: bool,
    /// Tokens that end a generation.
    pub eos_tokens: Vec<u32>,
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
}
