//! From command-line arguments to a running engine.

use crate::args::ModelArgs;
use crate::console::note;
use crate::device::{self, Choice};
use crate::pull;
use anyhow::{Context, Result, bail};
#[cfg(feature = "cuda")]
use galley_backend::cuda::{CudaConfig, CudaDevice};
use galley_engine::{DraftConfig, Engine, EngineConfig, SchedulePolicy};
use galley_model::chat::ChatTemplate;
use galley_model::config::ModelConfig;
use galley_model::tokenizer::Tokenizer;
use galley_model::weights::Checkpoint;
use galley_model::{Device, LoadOptions, load};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// More KV than any GPU holds: the pool is cut down to what is there.
#[cfg(feature = "cuda")]
const MOST_KV_TOKENS: usize = 1 << 30;

/// A model's files, opened: enough to tokenize with.
pub(crate) struct Files {
    pub(crate) path: PathBuf,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) tokenizer: Arc<Tokenizer>,
}

impl Files {
    /// Finds and opens the model that `--model` names.
    pub(crate) fn open(model: &str) -> Result<Self> {
        let path = pull::resolve(model)?;
        let checkpoint = Checkpoint::open(&path)?;
        let tokenizer = Arc::new(Tokenizer::open(&path, checkpoint.gguf())?);
        Ok(Self { path, checkpoint, tokenizer })
    }

    pub(crate) fn config(&self) -> &ModelConfig {
        self.checkpoint.config()
    }

    pub(crate) fn chat_template(&self) -> Result<ChatTemplate> {
        Ok(ChatTemplate::open(&self.path, self.checkpoint.gguf(), &self.tokenizer)?)
    }

    /// The template in the file that `--chat-template` names, or the model's own.
    pub(crate) fn chat_template_in(&self, file: Option<&Path>) -> Result<ChatTemplate> {
        let Some(file) = file else { return self.chat_template() };
        ChatTemplate::from_file(file, &self.tokenizer)
            .context("--chat-template (GALLEY_CHAT_TEMPLATE)")
    }
}

/// An engine and what its loading showed.
pub(crate) struct Loaded {
    pub(crate) engine: Engine,
    pub(crate) device: String,
    pub(crate) is_on_cpu: bool,
    pub(crate) weight_bytes: usize,
    pub(crate) kv_bytes_per_token: usize,
    pub(crate) load_time: Duration,
    /// Most memory resident up to here, bytes.
    pub(crate) load_peak_rss_bytes: usize,
}

/// Packs the weights and starts an engine whose cache holds `wanted_tokens`, or what
/// `--kv-cache-tokens` says.
pub(crate) fn start(
    files: &Files,
    args: &ModelArgs,
    drafting: &DraftConfig,
    wanted_tokens: usize,
) -> Result<Loaded> {
    let started = Instant::now();
    let Choice { device, reason } = device::choose(args)?;
    let is_on_cpu = matches!(device, Device::Cpu(_));
    if args.max_num_batched_tokens < args.max_num_seqs {
        bail!(
            "--max-num-batched-tokens {} is below --max-num-seqs {}: every sequence needs a token \
             a step",
            args.max_num_batched_tokens,
            args.max_num_seqs
        );
    }
    let bytes_per_token = files.config().kv_values_per_token() * args.dtype.bytes();
    let tokens = match (args.kv_cache_tokens, device) {
        (Some(tokens), _) => tokens,
        // The pool takes what the device has.
        #[cfg(feature = "cuda")]
        (None, Device::Cuda(CudaConfig { device: CudaDevice::Gpu(_), .. })) => MOST_KV_TOKENS,
        (None, _) => {
            // A draft model's KV takes no more blocks than the target's; what is not used is not touched.
            let needs = drafting.drafters.iter().flat_map(|setup| &setup.library.manifest().needs);
            let loads = needs.into_iter().any(|need| need.starts_with("galley.models/"));
            let n_models = 1 + usize::from(loads);
            let affordable = free_memory_bytes() / 2 / bytes_per_token;
            (n_models * wanted_tokens).min(affordable).max(args.block_size)
        }
    };
    let options = LoadOptions {
        block_size: args.block_size,
        n_blocks: tokens.div_ceil(args.block_size),
        max_rows: args.max_num_batched_tokens,
        max_logit_rows: max_logit_rows(args, drafting),
    };
    let bar = progress_bar("loading", "layers", 0);
    let model = load(&files.checkpoint, device, options, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })
    .with_context(|| format!("cannot load {}", files.path.display()))?;
    bar.finish_and_clear();
    if let (Some(reason), true) = (reason, cfg!(feature = "cuda")) {
        note(format_args!("{}: {reason}", model.device()));
    }
    let (device, weight_bytes) = (model.device(), model.weight_bytes());
    let kv_bytes_per_token = model.kv_shape().bytes_per_token();
    let engine = Engine::start_with_drafters(
        model,
        Some(Arc::clone(&files.tokenizer)),
        EngineConfig {
            max_num_seqs: args.max_num_seqs,
            max_num_batched_tokens: args.max_num_batched_tokens,
            prefix_caching: !args.no_prefix_caching,
            policy: SchedulePolicy::Fixed,
        },
        drafting,
    )?;
    let (load_time, load_peak_rss_bytes) = (started.elapsed(), peak_rss_bytes());
    Ok(Loaded {
        engine,
        device,
        is_on_cpu,
        weight_bytes,
        kv_bytes_per_token,
        load_time,
        load_peak_rss_bytes,
    })
}

/// One row of logits a sequence, and one more for each token of its draft.
fn max_logit_rows(args: &ModelArgs, drafting: &DraftConfig) -> usize {
    if drafting.drafters.is_empty() {
        return args.max_num_seqs;
    }
    let per_sequence = 1 + drafting.max_draft_length as usize;
    args.max_num_seqs.saturating_mul(per_sequence).min(args.max_num_batched_tokens)
}

/// A bar on standard error, if that is a terminal.
pub(crate) fn progress_bar(doing: &str, of: &str, len: usize) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{doing} {{bar:30}} {{pos}}/{{len}} {of}"));
    ProgressBar::new(len as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Memory that the system could give out now; 4 GiB where it does not say.
fn free_memory_bytes() -> usize {
    proc_field("/proc/meminfo", "MemAvailable:").unwrap_or(4 << 30)
}

/// Most memory that this process has had resident since its start, or since
/// [`forget_peak_rss`], in bytes.
pub(crate) fn peak_rss_bytes() -> usize {
    proc_field("/proc/self/status", "VmHWM:").unwrap_or(0)
}

/// Starts [`peak_rss_bytes`] anew: what a measurement's own probes took is not the engine's.
pub(crate) fn forget_peak_rss() {
    // Where the system has no such file, peaks include the probes.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// A field in kB of a file of the Linux kernel, in bytes.
fn proc_field(path: &str, name: &str) -> Option<usize> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<usize>().ok()? << 10)
}
