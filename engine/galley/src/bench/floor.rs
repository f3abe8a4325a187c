//! The least time that a step can take: bytes over bandwidth, operations over peak.

use crate::args::ModelArgs;
use crate::load::Loaded;
use anyhow::Result;
use galley_backend::OperandFormat;
use galley_backend::cpu::{InstructionSet, peak_flops, read_bandwidth};
use galley_model::config::ModelConfig;

/// The settings under which the machine's bandwidth and peak are measured.
pub(super) struct Machine {
    instruction_set: InstructionSet,
    format: OperandFormat,
    n_threads: usize,
}

/// Bandwidth and peak of the machine at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) read_bytes_s: f64,
    pub(super) flops_s: f64,
}

impl Machine {
    pub(super) fn new(args: &ModelArgs) -> Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            instruction_set: args.instruction_set()?.unwrap_or_else(InstructionSet::best),
            format: args.dtype,
            n_threads: args.threads.unwrap_or_else(cores),
        })
    }

    /// Measures the machine, which takes some tenths of a second. None if there is no memory to measure with.
    pub(super) fn now(&self) -> Option<Moment> {
        let read_bytes_s = read_bandwidth(self.instruction_set, self.n_threads);
        let flops_s = peak_flops(self.instruction_set, self.format, self.n_threads);
        let is_rate = |rate: f64| rate.is_finite() && rate > 0.0;
        (is_rate(read_bytes_s) && is_rate(flops_s)).then_some(Moment { read_bytes_s, flops_s })
    }
}

impl Moment {
    /// The mean of the moments before and after a measurement.
    pub(super) fn mean(&self, other: &Self) -> Self {
        Self {
            read_bytes_s: (self.read_bytes_s + other.read_bytes_s) / 2.0,
            flops_s: (self.flops_s + other.flops_s) / 2.0,
        }
    }
}

/// The cost of a model per step, per row and per cached token.
pub(super) struct Floor {
    /// Bytes of weights that a step reads.
    weight_bytes: f64,
    kv_bytes_per_token: f64,
    /// Operations of one row through all layers, without attention and output head.
    layer_flops: f64,
    head_flops: f64,
    /// Operations of one row, per token that it attends to.
    attention_flops: f64,
    window: f64,
}

impl Floor {
    pub(super) fn of(c: &ModelConfig, loaded: &Loaded) -> Self {
        Self {
            weight_bytes: loaded.step_weight_bytes as f64,
            kv_bytes_per_token: loaded.kv_bytes_per_token as f64,
            layer_flops: 2.0 * (c.n_layers * c.layer_parameters()) as f64,
            head_flops: 2.0 * c.head_parameters() as f64,
            attention_flops: 4.0 * (c.n_layers * c.n_heads * c.head_dim) as f64,
            window: c.sliding_window.map_or(f64::INFINITY, f64::from),
        }
    }

    /// Seconds of one decode step of `batch` sequences with `context` cached tokens each.
    pub(super) fn decode_s(&self, batch: usize, context: usize, machine: &Moment) -> f64 {
        let (batch, context) = (batch as f64, (context as f64).min(self.window));
        let bytes = self.weight_bytes + batch * context * self.kv_bytes_per_token;
        let row = self.layer_flops + self.head_flops + context * self.attention_flops;
        (bytes / machine.read_bytes_s).max(batch * row / machine.flops_s)
    }

    /// Seconds of the prefill of `batch` prompts of `context` tokens each.
    pub(super) fn prefill_s(&self, batch: usize, context: usize, machine: &Moment) -> f64 {
        let (batch, context) = (batch as f64, context as f64);
        let seen = (context / 2.0).min(self.window);
        let row = self.layer_flops + seen * self.attention_flops;
        batch * (context * row + self.head_flops) / machine.flops_s
    }
}
