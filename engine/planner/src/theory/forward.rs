//! The time of one forward: memory traffic plus arithmetic, per GPU of a tensor-parallel group.
//!
//! The terms add up and do not overlap: a roofline, which takes the larger of memory and arithmetic, misses the published
//! theory by up to 12 %.

use super::hardware::Hardware;
use super::model_shape::{Formats, ModelShape};
use std::fmt;

/// Hardware, the number of its GPUs that share a model, and the formats in their memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// One GPU of the group.
    pub hardware: Hardware,
    /// GPUs that share every matrix and the KV heads.
    pub tensor_parallel: usize,
    /// Bytes of weights and KV.
    pub formats: Formats,
}

/// The query heads of a model do not divide evenly among the GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadsNotDivided {
    /// GPUs of the group.
    pub tensor_parallel: usize,
    /// Query heads of the model.
    pub n_heads: usize,
}

impl fmt::Display for HeadsNotDivided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tensor_parallel, n_heads } = self;
        let divides = |n: &usize| n_heads.is_multiple_of(*n);
        let possible: Vec<_> = (1..=*n_heads.min(&64)).filter(divides).collect();
        let possible: Vec<_> = possible.iter().map(usize::to_string).collect();
        let possible = possible.join(", ");
        write!(f, "{tensor_parallel} GPUs cannot share {n_heads} query heads: take {possible}")
    }
}

impl std::error::Error for HeadsNotDivided {}

/// Coefficients of the time of a forward, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ForwardCosts {
    /// c: the weights are read once a forward.
    pub weights_s: f64,
    /// f: arithmetic of the linears and traffic of activations, for each row (a query token of a sequence).
    pub row_s: f64,
    /// kv: KV is read, for each cached token of each sequence.
    pub kv_token_s: f64,
    /// a: attention arithmetic and traffic of its scores, for each row and each cached token.
    pub score_s: f64,
    /// Most cached tokens that a row attends to; None: all.
    pub sliding_window: Option<f64>,
}

/// The time of one forward by its causes, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepTime {
    /// Reading weights.
    pub weights_s: f64,
    /// Reading the KV cache.
    pub kv_s: f64,
    /// Arithmetic, and the traffic of activations and scores, which grows with it.
    pub compute_s: f64,
}

/// The cause that takes the largest part of a forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bottleneck {
    /// Reading weights: more sequences would share the reads.
    Weights,
    /// Reading the KV cache: grows with batch and context.
    Kv,
    /// Arithmetic: grows with rows.
    Compute,
}

/// Bytes of an activation or of an attention score.
const ACTIVATION_BYTES: f64 = 2.0;
/// A score is written and read once.
const SCORE_PASSES: f64 = 2.0;
/// Operations on an attention score beside the two products: scale, maximum, exponential, sum, division.
const SCORE_FLOPS: f64 = 5.0;
/// Values of the residual width that each GPU of a group moves in full for a row and layer: inputs and outputs of
/// attention and MLP (4), and norms and additions (11).
const RESIDUAL_VALUES: f64 = 4.0 + 11.0;

impl ForwardCosts {
    /// The coefficients of a model on a deployment. KV heads that do not divide among the GPUs are copied, so that each GPU
    /// has the next whole number.
    ///
    /// # Errors
    ///
    /// Query heads that do not divide among the GPUs.
    pub fn new(shape: &ModelShape, deployment: &Deployment) -> Result<Self, HeadsNotDivided> {
        let (n_heads, tensor_parallel) = (shape.n_heads, deployment.tensor_parallel);
        if tensor_parallel == 0 || !n_heads.is_multiple_of(tensor_parallel) {
            return Err(HeadsNotDivided { tensor_parallel, n_heads });
        }
        let gpus = tensor_parallel as f64;
        let bandwidth = deployment.hardware.bandwidth_bytes_per_s;
        let flops = deployment.hardware.flops_per_s;
        let formats = deployment.formats;
        let layers = shape.n_layers as f64;
        let heads = n_heads as f64 / gpus;
        let head_dim = shape.head_dim as f64;
        let kv_values = deployment.kv_heads(shape) * head_dim;

        let weights = shape.forward_weights() / gpus;
        let split_values =
            2.0 * heads * head_dim + 2.0 * kv_values + 3.0 * shape.intermediate_size as f64 / gpus;
        let activations = layers * (RESIDUAL_VALUES * shape.hidden_size as f64 + split_values);
        let score_flops = layers * heads * (4.0 * head_dim + SCORE_FLOPS);
        let score_bytes = SCORE_PASSES * ACTIVATION_BYTES * layers * heads;
        Ok(Self {
            weights_s: formats.bytes_per_weight * weights / bandwidth,
            row_s: 2.0 * weights / flops + ACTIVATION_BYTES * activations / bandwidth,
            kv_token_s: formats.bytes_per_kv_value * 2.0 * layers * kv_values / bandwidth,
            score_s: score_flops / flops + score_bytes / bandwidth,
            sliding_window: shape.sliding_window.map(|tokens| tokens as f64),
        })
    }

    /// The time of a forward over `batch` sequences with `rows` query tokens each, over `context` cached tokens each.
    pub fn step(&self, batch: f64, rows: f64, context: f64) -> StepTime {
        let context = self.attended(context);
        StepTime {
            weights_s: self.weights_s,
            kv_s: batch * context * self.kv_token_s,
            compute_s: batch * rows * (self.row_s + context * self.score_s),
        }
    }

    /// The time of selecting KV by one more pass over all keys with one query token a sequence, seconds.
    pub(super) fn key_pass_s(&self, batch: f64, context: f64) -> f64 {
        batch * self.attended(context) * (self.kv_token_s / 2.0 + self.score_s)
    }

    fn attended(&self, context: f64) -> f64 {
        self.sliding_window.map_or(context, |window| context.min(window))
    }
}

impl Deployment {
    /// KV heads on each GPU.
    pub(super) fn kv_heads(&self, shape: &ModelShape) -> f64 {
        shape.n_kv_heads.div_ceil(self.tensor_parallel.max(1)) as f64
    }
}

impl StepTime {
    /// The whole forward, seconds.
    pub fn total_s(&self) -> f64 {
        self.weights_s + self.kv_s + self.compute_s
    }

    /// The share of a part in the whole, from 0 to 1.
    pub fn share(&self, part: Bottleneck) -> f64 {
        let part_s = match part {
            Bottleneck::Weights => self.weights_s,
            Bottleneck::Kv => self.kv_s,
            Bottleneck::Compute => self.compute_s,
        };
        part_s / self.total_s()
    }

    /// The largest part.
    pub fn bottleneck(&self) -> Bottleneck {
        if self.kv_s >= self.weights_s.max(self.compute_s) {
            Bottleneck::Kv
        } else if self.weights_s >= self.compute_s {
            Bottleneck::Weights
        } else {
            Bottleneck::Compute
        }
    }
}
