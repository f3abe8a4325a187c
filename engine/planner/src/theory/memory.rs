//! The memory of a GPU: weights, and KV of the sequences.

use super::forward::Deployment;
use super::model_shape::ModelShape;
use std::ops::Add;

/// The share of a GPU's memory that weights and KV may take: the default of `--gpu-memory-utilization`.
pub const MEMORY_SHARE: f64 = 0.9;

/// Bytes on each GPU of a deployment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryNeeds {
    /// Weights of all models, embeddings included.
    pub weight_bytes: f64,
    /// KV of one token of one sequence.
    pub kv_bytes_per_token: f64,
}

impl MemoryNeeds {
    /// The needs of a model.
    pub fn new(shape: &ModelShape, deployment: &Deployment) -> Self {
        let (gpus, formats) = (deployment.tensor_parallel.max(1) as f64, deployment.formats);
        let kv_heads = deployment.kv_heads(shape);
        let kv_values = 2.0 * shape.n_layers as f64 * kv_heads * shape.head_dim as f64;
        Self {
            weight_bytes: shape.weights() * formats.bytes_per_weight / gpus,
            kv_bytes_per_token: kv_values * formats.bytes_per_kv_value,
        }
    }

    /// KV of a batch of sequences of one length, bytes.
    pub fn kv_bytes(&self, batch: usize, context_tokens: usize) -> f64 {
        self.kv_bytes_per_token * batch as f64 * context_tokens as f64
    }

    /// The most sequences of this length whose KV fits beside the weights into [`MEMORY_SHARE`] of the memory.
    pub fn max_sequences(&self, memory_bytes: f64, context_tokens: usize) -> usize {
        let left = (memory_bytes * MEMORY_SHARE - self.weight_bytes).max(0.0);
        (left / self.kv_bytes(1, context_tokens)) as usize
    }
}

impl Add for MemoryNeeds {
    type Output = Self;

    /// The needs of two models side by side.
    fn add(self, other: Self) -> Self {
        Self {
            weight_bytes: self.weight_bytes + other.weight_bytes,
            kv_bytes_per_token: self.kv_bytes_per_token + other.kv_bytes_per_token,
        }
    }
}
