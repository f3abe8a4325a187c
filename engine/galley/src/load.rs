//! Loading: from command-line arguments to a running engine.

use crate::args::ModelArgs;
use crate::console::note;
use crate::pull;
use crate::resident::peak_rss_bytes;
use anyhow::{Context, Error, Result, anyhow};
use galley_backend::cpu::usable_cores;
use galley_engine::{
    DeviceChoice, DeviceReason, DraftConfig, Engine, ModelFiles, OpenError, Settings, hub,
};
use galley_model::Device;
use galley_model::chat::ChatTemplate;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::Path;
use std::time::{Duration, Instant};

/// Opens the files of a model that is on this machine.
pub(crate) fn open(model: &str) -> Result<ModelFiles> {
    ModelFiles::open(&hub::find(model)?).map_err(by_flag)
}

/// Opens the files of the model of `--model`, which is fetched if needed, with the context length of `--max-model-len`.
pub(crate) fn open_for(args: &ModelArgs) -> Result<ModelFiles> {
    let settings = args.settings()?;
    let path = pull::find_or_fetch(&args.model)?;
    settings.open_files(&path).map_err(by_flag)
}

/// The template in the file of `--chat-template`, or the model's own.
pub(crate) fn chat_template(files: &ModelFiles, file: Option<&Path>) -> Result<ChatTemplate> {
    let Some(file) = file else {
        return files.chat_template().map_err(|error| anyhow!("{error} (--chat-template FILE)"));
    };
    ChatTemplate::from_file(file, &files.tokenizer)
        .context("--chat-template (GALLEY_CHAT_TEMPLATE)")
}

impl ModelArgs {
    /// The settings of an engine under these flags.
    pub(crate) fn settings(&self) -> Result<Settings> {
        let mut settings = Settings::default();
        settings.device = self.device;
        settings.gpu_memory_utilization = self.gpu_memory_utilization;
        settings.formats = self.formats()?;
        settings.instruction_set = self.instruction_set()?;
        settings.threads = self.threads;
        settings.block_size = self.block_size;
        settings.max_model_len = self.max_model_len;
        settings.kv_cache_tokens = self.kv_cache_tokens;
        settings.engine.max_num_seqs = self.max_num_seqs;
        settings.engine.max_num_batched_tokens = self.max_num_batched_tokens;
        settings.engine.prefix_caching = !self.no_prefix_caching;
        // The program submits its own requests alone.
        settings.engine.max_waiting = usize::MAX;
        Ok(settings)
    }
}

/// A running engine, and the figures of its loading.
pub(crate) struct Loaded {
    pub(crate) engine: Engine,
    pub(crate) device: String,
    pub(crate) is_on_cpu: bool,
    pub(crate) weight_bytes: usize,
    /// Bytes of weights that a step reads.
    pub(crate) step_weight_bytes: usize,
    pub(crate) kv_bytes_per_token: usize,
    pub(crate) load_time: Duration,
    /// Peak resident memory at the end of loading, in bytes.
    pub(crate) load_peak_rss_bytes: usize,
}

/// Packs the weights and starts an engine. Without `--kv-cache-tokens`, the KV cache holds at most
/// `wanted_tokens` on the CPU, and as many tokens as fit on a GPU.
pub(crate) fn start(
    files: &ModelFiles,
    args: &ModelArgs,
    drafting: &DraftConfig,
    wanted_tokens: usize,
) -> Result<Loaded> {
    let started = Instant::now();
    let mut settings = args.settings()?;
    settings.wanted_tokens = Some(wanted_tokens);
    settings.drafting = drafting.clone();
    let chosen = settings.choose_device().map_err(by_flag)?;
    let is_on_cpu = matches!(chosen.device, Device::Cpu(_));
    let n_cores = usable_cores();
    if let Some(n_threads) = args.threads.filter(|&n| is_on_cpu && n > n_cores) {
        note(format_args!(
            "note: --threads {n_threads}: {n_cores} of them work at once, on as many usable cores"
        ));
    }
    let bar = progress_bar("loading", "layers", 0);
    let engine = settings.start_on(chosen.device, files, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    let engine = engine.map_err(by_flag)?;
    bar.finish_and_clear();
    let model = engine.model();
    match chosen.reason {
        DeviceReason::Named => {}
        _ if !cfg!(feature = "cuda") => {}
        DeviceReason::Formats { .. } => note(format_args!("{}: --{}", model.device, chosen.reason)),
        reason => note(format_args!("{}: {reason}", model.device)),
    }
    let (load_time, load_peak_rss_bytes) = (started.elapsed(), peak_rss_bytes());
    Ok(Loaded {
        device: model.device.clone(),
        is_on_cpu,
        weight_bytes: model.weight_bytes,
        step_weight_bytes: model.step_weight_bytes,
        kv_bytes_per_token: model.kv_shape.bytes_per_token(),
        load_time,
        load_peak_rss_bytes,
        engine,
    })
}

/// An error of opening a model that names the flag which the user can change, not the setting.
pub(crate) fn by_flag(error: OpenError) -> Error {
    match error {
        OpenError::Setting { name, value, reason } => {
            anyhow!("--{} {value}: {reason}", name.replace('_', "-"))
        }
        OpenError::MaxModelLen(error) => Error::new(error).context("--max-model-len"),
        OpenError::TooFewTokens { max_num_batched_tokens, max_num_seqs } => anyhow!(
            "--max-num-batched-tokens {max_num_batched_tokens} is below --max-num-seqs {max_num_seqs}: every sequence \
             needs a token a step"
        ),
        OpenError::Load { path, reason } => {
            Error::new(reason).context(format!("cannot load {}", path.display()))
        }
        OpenError::Threads { asked, reason } => {
            let flag = asked.map_or("--threads".into(), |n| format!("--threads {n}"));
            anyhow!("{flag}: {reason}")
        }
        OpenError::DeviceFormats { setting, ref value, .. } => {
            anyhow!("{error}. Leave out --{setting} {value}, or take --device cpu")
        }
        OpenError::DeviceNotBuilt { device: DeviceChoice::Emulated } => {
            anyhow!("--device emulated: it is for tests, in builds with `--features emulate`")
        }
        OpenError::DeviceNotBuilt { device } => anyhow!(
            "--device {device}: this build has no CUDA. Build it with `cargo xtask cuda` (the compiler, once) and \
             `cargo build --release --package galley --features cuda`, or take --device cpu"
        ),
        error => error.into(),
    }
}

/// A progress bar on standard error, visible if standard error is a terminal.
pub(crate) fn progress_bar(doing: &str, of: &str, len: usize) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{doing} {{bar:30}} {{pos}}/{{len}} {of}"));
    ProgressBar::new(len as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_named_by_their_flags() {
        let (name, value) = ("kv_cache_tokens", "7489".to_owned());
        let error = OpenError::Setting { name, value, reason: "7488 tokens fit".into() };
        assert_eq!(by_flag(error).to_string(), "--kv-cache-tokens 7489: 7488 tokens fit");
        let too_few = OpenError::TooFewTokens { max_num_batched_tokens: 3, max_num_seqs: 64 };
        let text = by_flag(too_few).to_string();
        assert!(
            text.starts_with("--max-num-batched-tokens 3 is below --max-num-seqs 64"),
            "{text}"
        );
    }
}
