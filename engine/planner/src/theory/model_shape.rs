//! The shape of a decoder, as far as its time and memory depend on it.

/// Sizes of a dense decoder of the Llama family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelShape {
    /// Decoder layers.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Values a head.
    pub head_dim: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Rows of the output head.
    pub vocab_size: usize,
    /// Whether the output head is the embedding matrix.
    pub tie_embeddings: bool,
    /// Latest tokens that a token attends to, itself included; None: all.
    pub sliding_window: Option<usize>,
}

/// Bytes of weights and KV. Activations have 2 bytes a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Formats {
    /// Bytes of a weight: 2 in bf16, 1.0625 and 0.5625 in blocks of 8 and of 4 bits.
    pub bytes_per_weight: f64,
    /// Bytes of a value of the KV cache: 2 in bf16.
    pub bytes_per_kv_value: f64,
}

impl Formats {
    /// Weights and KV in bf16.
    pub const BF16: Self = Self { bytes_per_weight: 2.0, bytes_per_kv_value: 2.0 };
    /// Weights in blocks of 32 codes of 8 bits with a 16-bit scale, and KV in bf16.
    pub const Q8: Self = Self { bytes_per_weight: 34.0 / 32.0, ..Self::BF16 };
    /// Weights in blocks of 32 codes of 4 bits with a 16-bit scale, and KV in bf16.
    pub const Q4: Self = Self { bytes_per_weight: 18.0 / 32.0, ..Self::BF16 };
}

impl ModelShape {
    /// The same model with this number of layers: the draft of a drafter that skips layers.
    pub fn with_layers(self, n_layers: usize) -> Self {
        Self { n_layers, ..self }
    }

    /// Weights that a forward reads: all matrices of all layers and the output head, without an input embedding of its own.
    pub fn forward_weights(&self) -> f64 {
        self.n_layers as f64 * self.layer_weights() + self.head_weights()
    }

    /// Weights in all matrices, which memory has to hold. A tied embedding counts once.
    pub fn weights(&self) -> f64 {
        let n_embeddings = if self.tie_embeddings { 0.0 } else { 1.0 };
        self.forward_weights() + n_embeddings * self.head_weights()
    }

    /// Values in the KV cache of one token, over all layers.
    pub fn kv_values_per_token(&self) -> f64 {
        2.0 * self.n_layers as f64 * (self.n_kv_heads as f64 * self.head_dim as f64)
    }

    fn layer_weights(&self) -> f64 {
        let hidden = self.hidden_size as f64;
        let attention = 2.0 * (self.n_heads as f64 + self.n_kv_heads as f64) * self.head_dim as f64;
        hidden * (attention + 3.0 * self.intermediate_size as f64)
    }

    fn head_weights(&self) -> f64 {
        self.vocab_size as f64 * self.hidden_size as f64
    }
}
