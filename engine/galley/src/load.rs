//! Loading: from command-line arguments to a running engine.

use crate::args::ModelArgs;
use crate::cache_size::Needs;
use crate::console::note;
use crate::device::{self, Choice};
use crate::memory;
pub(crate) use crate::memory::{forget_peak_rss, peak_rss_bytes};
use crate::pull;
use anyhow::{Context, Result, anyhow, bail};
use galley_backend::BackendError;
use galley_backend::cpu::usable_cores;
#[cfg(feature = "cuda")]
use galley_backend::cuda::{CudaConfig, CudaDevice};
use galley_engine::{DraftConfig, Engine, EngineConfig, SchedulePolicy};
use galley_model::chat::ChatTemplate;
use galley_model::config::ModelConfig;
use galley_model::end_tokens::EndTokens;
use galley_model::tokenizer::Tokenizer;
use galley_model::weights::Checkpoint;
use galley_model::{Device, LoadOptions, ModelError, load};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// More tokens than the KV of any GPU holds: the backend reduces the pool to the available memory.
#[cfg(feature = "cuda")]
const MOST_KV_TOKENS: usize = 1 << 30;

/// The opened files of a model. They suffice to tokenize a prompt.
pub(crate) struct Files {
    pub(crate) path: PathBuf,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) tokenizer: Arc<Tokenizer>,
}

impl Files {
    /// Finds and opens the model that `--model` names.
    pub(crate) fn open(model: &str) -> Result<Self> {
        let path = pull::find_or_fetch(model)?;
        let checkpoint = Checkpoint::open(&path)?;
        let tokenizer = Arc::new(Tokenizer::open(&path, checkpoint.gguf())?);
        Ok(Self { path, checkpoint, tokenizer })
    }

    /// [`Files::open`] with the context length of `--max-model-len`.
    pub(crate) fn open_for(args: &ModelArgs) -> Result<Self> {
        let mut files = Self::open(&args.model)?;
        if let Some(tokens) = args.max_model_len {
            files.checkpoint.set_max_context(tokens).context("--max-model-len")?;
        }
        Ok(files)
    }

    /// The tokens that end a generation, each with the file or field that names it.
    pub(crate) fn end_tokens(&self) -> EndTokens {
        let config = self.config();
        config.end_tokens.with_tokenizer(Some(&self.tokenizer), config.vocab_size)
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

/// A running engine, and the figures of its loading.
pub(crate) struct Loaded {
    pub(crate) engine: Engine,
    pub(crate) device: String,
    pub(crate) is_on_cpu: bool,
    pub(crate) weight_bytes: usize,
    pub(crate) kv_bytes_per_token: usize,
    pub(crate) load_time: Duration,
    /// Peak resident memory at the end of loading, in bytes.
    pub(crate) load_peak_rss_bytes: usize,
}

/// Packs the weights and starts an engine. Without `--kv-cache-tokens`, the KV cache holds at most
/// `wanted_tokens` on the CPU, and as many tokens as fit on a GPU.
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
    let mut options = LoadOptions {
        block_size: args.block_size,
        n_blocks: 0,
        max_rows: args.max_num_batched_tokens,
        max_logit_rows: max_logit_rows(args, drafting),
    };
    let tokens = match (args.kv_cache_tokens, device) {
        // The backend reduces the pool to the memory of the device.
        #[cfg(feature = "cuda")]
        (asked, Device::Cuda(CudaConfig { device: CudaDevice::Gpu(_), .. }))
            if asked != Some(0) =>
        {
            asked.unwrap_or(MOST_KV_TOKENS)
        }
        (asked, _) => {
            // The KV of a draft model takes at most as many blocks as the target's. Unused blocks take no memory.
            let needs = drafting.drafters.iter().flat_map(|setup| &setup.library.manifest().needs);
            let loads = needs.into_iter().any(|need| need.starts_with("galley.models/"));
            let wanted = wanted_tokens.saturating_mul(1 + usize::from(loads));
            let room = memory::room(Path::new("/"));
            let needs = Needs::new(files.config(), args.dtype, &options);
            let n_threads = args.threads.unwrap_or_else(usable_cores);
            needs.with_threads(n_threads, &room).tokens(asked, wanted, &room)?
        }
    };
    options.n_blocks = tokens.div_ceil(args.block_size);
    let bar = progress_bar("loading", "layers", 0);
    let model = load(&files.checkpoint, device, options, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })
    .map_err(|error| match error {
        ModelError::Backend(BackendError::Threads { .. }) => {
            anyhow!("{}: {error}", device::threads_flag(args))
        }
        error => anyhow!(error).context(format!("cannot load {}", files.path.display())),
    })?;
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

/// One logit row per sequence, and one more for each draft token of the sequence.
fn max_logit_rows(args: &ModelArgs, drafting: &DraftConfig) -> usize {
    if drafting.drafters.is_empty() {
        return args.max_num_seqs;
    }
    let per_sequence = 1 + drafting.max_draft_length as usize;
    args.max_num_seqs.saturating_mul(per_sequence).min(args.max_num_batched_tokens)
}

/// A progress bar on standard error, visible if standard error is a terminal.
pub(crate) fn progress_bar(doing: &str, of: &str, len: usize) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{doing} {{bar:30}} {{pos}}/{{len}} {of}"));
    ProgressBar::new(len as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
