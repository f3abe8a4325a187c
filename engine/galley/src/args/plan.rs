//! The flags of `galley plan`.

use crate::numbers;
use clap::Args;
use galley_backend::WeightFormat;
use std::str::FromStr;

#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// A config.json, a Hugging Face directory, a .gguf file, a hub id or a known name. Weights are not needed.
    #[arg(short, long)]
    pub(crate) model: String,
    /// The GPU by name, such as H100-SXM; a wrong name lists all names.
    #[arg(long, conflicts_with_all = ["bandwidth_gb_s", "tflops"])]
    pub(crate) gpu: Option<String>,
    /// Memory bandwidth of the hardware in GB/s, instead of --gpu: measured, or of its datasheet.
    #[arg(long, value_parser = numbers::positive)]
    pub(crate) bandwidth_gb_s: Option<f64>,
    /// Dense operations on 16-bit operands in TFLOP/s, beside --bandwidth-gb-s.
    #[arg(long, value_parser = numbers::positive)]
    pub(crate) tflops: Option<f64>,
    /// Memory of one GPU in GB of 10^9 bytes; the GPU's own by default.
    #[arg(long, value_parser = numbers::positive)]
    pub(crate) memory_gb: Option<f64>,
    /// GPUs that share the model (tensor parallelism).
    #[arg(long, default_value_t = 1, value_parser = numbers::count)]
    pub(crate) tp: usize,
    /// Sequences that decode together, one plan for each number.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = numbers::sequences)]
    pub(crate) batch: Vec<usize>,
    /// Cached tokens of each sequence, one plan for each number.
    #[arg(long, value_delimiter = ',', default_value = "4096", value_parser = numbers::count)]
    pub(crate) context: Vec<usize>,
    /// Share of draft tokens that are accepted, from 0 to 1. A number alone is for the drafters with a KV budget
    /// (streaming-llm, snap-kv, self-spec) and for small-model; DRAFTER=A is for one drafter. By default that of
    /// published measurements, for streaming-llm and small-model.
    #[arg(long, value_delimiter = ',', value_name = "[DRAFTER=]A")]
    pub(crate) acceptance: Vec<Acceptance>,
    /// Cached tokens that a draft token attends to, one option for each number.
    #[arg(long, value_delimiter = ',', default_value = "512", value_parser = numbers::budget)]
    pub(crate) kv_budget: Vec<u32>,
    /// A second model that drafts, in a form that --model takes.
    #[arg(long)]
    pub(crate) draft_model: Option<String>,
    /// Layers that the drafter layer-skip computes; half of them by default.
    #[arg(long, value_parser = numbers::count)]
    pub(crate) draft_layers: Option<usize>,
    /// Longest draft to consider, tokens a round.
    #[arg(long, default_value_t = 8, value_parser = numbers::bench_draft_length)]
    pub(crate) max_draft_length: u32,
    /// Format of weights: native (as in a GGUF file, otherwise bf16), bf16, f32, q8 or q4 (1.06 and 0.56 bytes a
    /// weight). The default is bf16 with --gpu, as Galley expands weights on a GPU, and native without.
    #[arg(long)]
    pub(crate) weights: Option<WeightFormat>,
    /// Bits of a value of the KV cache: 4, 8, 16 or 32.
    #[arg(long, default_value_t = 16, value_parser = numbers::kv_bits)]
    pub(crate) kv_bits: u32,
    /// Print one JSON object (see docs/planning.md).
    #[arg(long)]
    pub(crate) json: bool,
}

/// The acceptance of one drafter, or of all without one of their own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Acceptance {
    /// The drafter; None: all with a KV budget, and small-model.
    pub(crate) drafter: Option<String>,
    /// From 0 to 1.
    pub(crate) rate: f64,
}

impl FromStr for Acceptance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (drafter, rate) = match text.split_once('=') {
            Some((drafter, rate)) => (Some(drafter.trim().to_owned()), rate),
            None => (None, text),
        };
        let rate = rate.trim().parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
        let rate = rate.ok_or("a number from 0 to 1 is needed, or DRAFTER=NUMBER")?;
        Ok(Self { drafter, rate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acceptances_are_shares_with_or_without_a_drafter() {
        let read = |text: &str| text.parse::<Acceptance>().map(|read| (read.drafter, read.rate));
        assert_eq!(read("0.8"), Ok((None, 0.8)));
        assert_eq!(read("ngram = 1"), Ok((Some("ngram".into()), 1.0)));
        for wrong in ["", "1.1", "-0.1", "NaN", "ngram", "ngram=", "a=b=0.5"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
