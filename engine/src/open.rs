//! The front door: from the name of a model to a running engine.

mod cache_size;
mod calibration;
mod device;
mod device_choice;
mod drafter;
mod error;
mod files;
mod memory;
mod settings;

pub use device::{ChosenDevice, DeviceReason};
pub use device_choice::DeviceChoice;
pub use drafter::DrafterError;
pub use error::OpenError;
pub use files::{ModelFiles, OpenProgress, check_model, find_model};
pub use settings::Settings;

#[cfg(doc)]
use crate::draft_settings::DraftConfig;

use crate::handle::Engine;
use galley_backend::{Formats, setters};
use galley_drafter_host::Search;
use std::ffi::OsString;
use std::sync::Arc;

/// An engine that is not running yet: a model by name, and [`Settings`].
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use galley_engine::{Engine, Request};
/// # // The drafter comes as a shared library of this workspace.
/// # let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
/// # let (model, built) = (root.join("tests/data/models/llama3"), root.join("target/doctest"));
/// # let model = model.to_str().ok_or("the path is not UTF-8")?;
/// # let mut build = std::process::Command::new(option_env!("CARGO").unwrap_or("cargo"));
/// # build.args(["build", "--quiet", "--locked", "--package", "galley-drafter-ngram", "--target-dir"]);
/// # assert!(build.arg(&built).current_dir(&root).status()?.success());
/// # let plugins = built.join("debug");
/// let draft = |draft_length| -> Result<_, Box<dyn std::error::Error>> {
///     let engine = Engine::open(model)?
///         .plugin_path(&plugins)
///         .drafter("ngram,min=1")
///         .draft_length(draft_length)
///         .kv_cache_tokens(1024)
///         .build()?;
///     Ok(engine.generate(Request::new("to be or not to be or not").seed(7).max_tokens(48))?)
/// };
/// let (plain, drafted) = (draft(0)?, draft(4)?);
/// assert_eq!(plain.tokens, drafted.tokens, "drafts change no token");
/// assert!(drafted.usage.drafts.drafted > 0 && plain.usage.drafts.drafted == 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "it becomes an engine with `build`"]
pub struct EngineBuilder {
    model: String,
    downloads: bool,
    plugin_path: Option<OsString>,
    search: Option<Search>,
    /// Drafters to find by name when the engine is built, with their options.
    drafters: Vec<String>,
    settings: Settings,
    on_progress: Arc<dyn Fn(OpenProgress<'_>) + Send + Sync>,
}

impl Engine {
    /// The builder of an engine for a model: a directory in Hugging Face's layout, a GGUF file, a
    /// model id of the hub (`ORG/NAME`, `ORG/NAME@REVISION`) or a known name such as
    /// `smollm2-135m-instruct`. Nothing is read before [`EngineBuilder::build`].
    ///
    /// # Errors
    ///
    /// If the name is neither that of a file nor a possible name of a model.
    pub fn open(model: &str) -> Result<EngineBuilder, OpenError> {
        check_model(model)?;
        Ok(EngineBuilder {
            model: model.to_owned(),
            downloads: false,
            plugin_path: None,
            search: None,
            drafters: Vec::new(),
            settings: Settings::default(),
            on_progress: Arc::new(|_| {}),
        })
    }
}

setters! {
    impl EngineBuilder;
    /// Sets the device; by default the first GPU that this build can use, or else the CPU.
    device(device: DeviceChoice) => settings.device = device;
    /// Sets the formats of weights, operands and KV cache: see [`Settings::formats`].
    formats(formats: Formats) => settings.formats = formats;
    /// Sets the number of CPU threads; by default one per usable core.
    threads(n_threads: usize) => settings.threads = Some(n_threads);
    /// Sets the longest sequence, prompt and output together; by default the model's own limit.
    max_model_len(n_tokens: usize) => settings.max_model_len = Some(n_tokens);
    /// Sets the size of the KV cache in tokens: see [`Settings::kv_cache_tokens`].
    kv_cache_tokens(n_tokens: usize) => settings.kv_cache_tokens = Some(n_tokens);
    /// Sets the most sequences that run together.
    max_num_seqs(n_seqs: usize) => settings.engine.max_num_seqs = n_seqs;
    /// Sets the most tokens of one step, prompts and decodes together.
    max_num_batched_tokens(n_tokens: usize) => settings.engine.max_num_batched_tokens = n_tokens;
    /// Sets the most requests that wait for admission: see [`EngineConfig::max_waiting`].
    ///
    /// [`EngineConfig::max_waiting`]: crate::EngineConfig::max_waiting
    max_waiting(n_requests: usize) => settings.engine.max_waiting = n_requests;
    /// Sets whether prompts reuse the KV of earlier prompts.
    prefix_caching(is_on: bool) => settings.engine.prefix_caching = is_on;
    /// Sets the number of draft tokens per round for requests that give no number.
    draft_length(n_tokens: u32) => settings.drafting.draft_length = n_tokens;
}

impl EngineBuilder {
    /// Sets whether a model that is not on this machine is fetched, also one that a drafter drafts
    /// with. Off by default.
    pub fn download(mut self, downloads: bool) -> Self {
        self.downloads = downloads;
        self
    }

    /// Adds a drafter by name, with its options: `streaming-llm,budget=512`. The first one is for
    /// requests that name none. A value with a comma stands in double quotes. Without a drafter, and
    /// with `auto`, the engine chooses round by round ([`DraftConfig::choose_from_own`]); `none` is plain decoding.
    pub fn drafter(mut self, drafter: &str) -> Self {
        self.drafters.push(drafter.to_owned());
        self
    }

    /// Sets the folders that are searched for drafters first, separated as in `PATH`. By default
    /// the folders around the running program and the system's are searched.
    pub fn plugin_path(mut self, folders: impl Into<OsString>) -> Self {
        self.plugin_path = Some(folders.into());
        self
    }

    /// Sets the folders that are searched for drafters, in place of [`EngineBuilder::plugin_path`] and all others.
    pub fn drafter_search(mut self, search: Search) -> Self {
        self.search = Some(search);
        self
    }

    /// Calls `on_progress` for every event of downloading and loading, in place of an earlier function.
    pub fn on_progress(
        mut self,
        on_progress: impl Fn(OpenProgress<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.on_progress = Arc::new(on_progress);
        self
    }

    /// Changes any of the settings, also those without a method here.
    pub fn configure(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Finds the model, loads it and starts the engine.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]. A model that is not here is [`OpenError::Hub`], unless
    /// [`EngineBuilder::download`] is set.
    pub fn build(self) -> Result<Engine, OpenError> {
        self.build_with_files().map(|(engine, _)| engine)
    }

    /// [`EngineBuilder::build`], which also returns the files of the model: its tokenizer, and its
    /// chat template.
    ///
    /// # Errors
    ///
    /// See [`EngineBuilder::build`].
    pub fn build_with_files(self) -> Result<(Engine, ModelFiles), OpenError> {
        let EngineBuilder { model, downloads, plugin_path, search, drafters, .. } = self;
        let (mut settings, on_progress) = (self.settings, self.on_progress);
        let search = search.unwrap_or_else(|| {
            let executable = std::env::current_exe().ok();
            Search::standard(plugin_path.as_deref(), executable.as_deref())
        });
        let added = settings.drafting.add_named(&drafters, &search);
        added.map_err(|(wanted, reason)| OpenError::Drafter { wanted, reason })?;
        settings.drafting.find_model = {
            let on_progress = Arc::clone(&on_progress);
            Arc::new(move |name| {
                let found = find_model(name, downloads, &*on_progress);
                found.map_err(Into::into)
            })
        };
        let files = settings.open_files(&find_model(&model, downloads, &*on_progress)?)?;
        let on_layer = &mut |done, total| on_progress(OpenProgress::Layers { done, total });
        Ok((settings.start(&files, on_layer)?, files))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(opened: Result<EngineBuilder, OpenError>) -> String {
        opened.and_then(EngineBuilder::build).map(drop).expect_err("an error").to_string()
    }

    #[test]
    fn a_model_that_is_not_here_is_refused_by_name() {
        assert!(refused(Engine::open("no/such/model")).contains("no/such/model"));
    }

    #[cfg(feature = "hub")]
    #[test]
    fn without_download_the_error_names_the_command_that_fetches() {
        let error = refused(Engine::open("galley-tests/no-such-model"));
        assert!(error.contains("`galley pull galley-tests/no-such-model`"), "{error}");
    }

    const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/models/smollm2");

    #[test]
    fn progress_counts_every_layer_of_the_model() {
        let (sender, events) = std::sync::mpsc::channel();
        let builder = Engine::open(MODEL).expect("a tiny model").kv_cache_tokens(64);
        let builder = builder.on_progress(move |event| {
            let OpenProgress::Layers { done, total } = event else { panic!("{event:?}") };
            sender.send((done, total)).expect("the test listens");
        });
        let engine = builder.build().expect("an engine");
        let total = engine.model().config.n_layers + 1;
        let events: Vec<_> = events.try_iter().collect();
        assert_eq!((events.first(), events.last()), (Some(&(0, total)), Some(&(total, total))));
    }

    #[test]
    fn a_drafter_that_is_not_found_is_named() {
        let open = || Engine::open(MODEL).map(|builder| builder.kv_cache_tokens(64));
        let error = refused(open().map(|builder| builder.drafter("no-such-drafter,k=1")));
        assert!(error.contains("no-such-drafter"), "{error}");
        let error = refused(open().map(|builder| builder.drafter("ngram,min")));
        assert!(error.contains("\"ngram,min\"") && error.contains("KEY=VALUE"), "{error}");
        let error = refused(open().map(|builder| builder.max_model_len(1 << 30)));
        assert!(error.starts_with("max_model_len: "), "{error}");
    }
}
