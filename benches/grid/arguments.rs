//! The command line of the grid: the passes to measure.

use galley_backend::cpu::CpuConfig;
use galley_backend::{Formats, OperandFormat, WeightFormat};
use galley_benches::flags;
use galley_model::Device;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

pub(crate) struct Arguments {
    pub(crate) model: PathBuf,
    pub(crate) device: Device,
    pub(crate) contexts: Vec<usize>,
    pub(crate) batches: Vec<usize>,
    pub(crate) gammas: Vec<usize>,
    pub(crate) drafts: Vec<Draft>,
    pub(crate) repeats: usize,
    /// Bytes a second that the device can move; needed for rooflines.
    pub(crate) bandwidth: Option<f64>,
}

/// Self-speculation: the target drafts over a part of its own cache, with a KV budget in tokens.
pub(crate) enum Draft {
    /// StreamingLLM: the first block and the most recent tokens.
    StreamingLlm(usize),
    /// SnapKV: a separate selection of tokens for every layer and KV head, and the most recent
    /// tokens.
    SnapKv(usize),
}

impl Draft {
    /// Number of cached tokens that a draft step reads.
    pub(crate) fn budget(&self) -> usize {
        match self {
            Draft::StreamingLlm(budget) | Draft::SnapKv(budget) => *budget,
        }
    }

    /// The acceptance rate of Llama-3.1-8B on PG-19 by context, from tables of the paper and its
    /// code. SnapKV's rate is published from 32k on; it is used for shorter contexts too.
    pub(crate) fn published_acceptance(&self, context: usize) -> f64 {
        match (self, context) {
            (Draft::SnapKv(_), _) => 0.89,
            (Draft::StreamingLlm(_), ..6000) => 0.84,
            (Draft::StreamingLlm(_), ..12000) => 0.83,
            (Draft::StreamingLlm(_), ..24000) => 0.82,
            (Draft::StreamingLlm(_), ..48000) => 0.81,
            (Draft::StreamingLlm(_), _) => 0.79,
        }
    }
}

impl FromStr for Draft {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(':').and_then(|(name, budget)| {
            let budget = budget.parse().ok().filter(|budget| *budget >= 64)?;
            match name {
                "streaming-llm" => Some(Draft::StreamingLlm(budget)),
                "snap-kv" => Some(Draft::SnapKv(budget)),
                _ => None,
            }
        });
        parsed.ok_or_else(|| format!("{text:?} is not streaming-llm:BUDGET or snap-kv:BUDGET"))
    }
}

impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Draft::StreamingLlm(budget) => write!(f, "streaming-llm:{budget}"),
            Draft::SnapKv(budget) => write!(f, "snap-kv:{budget}"),
        }
    }
}

const USAGE: &str = "--model DIR [--device cpu|cuda:N|emulated] [--weights native|q8|q4|bf16] \
                     [--contexts 4096,…] [--batches 4,…] [--gammas 1,…] \
                     [--drafts streaming-llm:512,snap-kv:2048] [--repeats 5] [--bandwidth GB/S, for rooflines]";

impl Arguments {
    /// The arguments of the process. An error in them ends the process.
    pub(crate) fn from_command_line() -> Self {
        Self::parse(std::env::args().skip(1)).unwrap_or_else(|error| {
            eprintln!("{error}\nusage: {USAGE}");
            std::process::exit(2)
        })
    }

    fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Arguments {
            model: PathBuf::new(),
            device: CpuConfig::default().into(),
            contexts: vec![4096],
            batches: vec![4],
            gammas: vec![1, 2, 3, 4],
            drafts: vec![Draft::StreamingLlm(512), Draft::SnapKv(2048)],
            repeats: 5,
            bandwidth: None,
        };
        let (mut device_name, mut weights) = ("cpu".to_owned(), WeightFormat::Native);
        for flag in flags(words) {
            let (word, value) = flag?;
            match word.as_str() {
                "--model" => arguments.model = value.into(),
                "--device" => device_name = value,
                "--weights" => weights = value.parse()?,
                "--contexts" => arguments.contexts = list(&word, &value)?,
                "--batches" => arguments.batches = list(&word, &value)?,
                "--gammas" => arguments.gammas = list(&word, &value)?,
                "--drafts" => arguments.drafts = list(&word, &value)?,
                "--bandwidth" => {
                    let rate: f64 = value.parse().map_err(|_| "--bandwidth is in GB/s")?;
                    arguments.bandwidth = Some(rate * 1e9);
                }
                "--repeats" => arguments.repeats = value.parse().map_err(|_| "--repeats N")?,
                _ => return Err(format!("{word} is unknown")),
            }
        }
        let formats = Formats::new(OperandFormat::Bf16, Some(weights));
        arguments.device = device(&device_name, formats.map_err(|error| error.to_string())?)?;
        let largest = arguments.drafts.iter().map(Draft::budget);
        let shortest = arguments.contexts.iter().copied().min().unwrap_or(0);
        if largest.max().is_some_and(|budget| budget > shortest) {
            return Err("a budget is larger than a context: it would draft over everything".into());
        }
        if arguments.model.as_os_str().is_empty() || arguments.repeats == 0 {
            return Err("a model, and at least one repeat".into());
        }
        Ok(arguments)
    }
}

fn list<T: FromStr>(name: &str, text: &str) -> Result<Vec<T>, String> {
    let parsed = text.split(',').map(|item| item.parse().map_err(|_| format!("{name}: {item:?}?")));
    parsed.collect()
}

fn device(text: &str, formats: Formats) -> Result<Device, String> {
    match text {
        "cpu" => Ok(CpuConfig::default().formats(formats).into()),
        #[cfg(feature = "emulate")]
        "emulated" => {
            use galley_backend::cuda::{CudaConfig, CudaDevice};
            Ok(CudaConfig::new(CudaDevice::Emulated).formats(formats).into())
        }
        #[cfg(feature = "cuda")]
        _ if text.starts_with("cuda:") => {
            use galley_backend::cuda::{CudaConfig, CudaDevice};
            let number = text["cuda:".len()..].parse().map_err(|_| "cuda:N, N a number")?;
            Ok(CudaConfig::new(CudaDevice::Gpu(number)).formats(formats).into())
        }
        _ => Err(format!("--device {text}: this build has no such device")),
    }
}
