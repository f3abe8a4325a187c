//! Settings of an engine as JSON, and the engine that they describe.

use crate::error::ApiError;
use crate::json::{Field, Object, read_into, text};
use crate::limits::{
    BLOCK_MULTIPLE, MAX_BLOCK_TOKENS, MAX_COUNT, MAX_DRAFT_LENGTH, MAX_SEQUENCES, MAX_SUFFIX_BYTES,
    MAX_THREADS, MIN_MEMORY_SHARE,
};
use galley_backend::{BackendError, Formats, OperandFormat};
use galley_engine::drafters::Search;
use galley_engine::{Engine, EngineBuilder, ModelFiles, OpenProgress, Settings};
use std::ffi::{OsStr, OsString};
use std::str::FromStr;
use std::time::Duration;

/// Settings of an engine that have passed all checks that need no model.
#[derive(Clone)]
pub struct EngineBody {
    builder: EngineBuilder,
    drafters: Vec<String>,
    plugin_path: Option<OsString>,
}

/// Reads the settings of an engine: one JSON object. `docs/requests.md` lists its keys.
///
/// # Errors
///
/// The first wrong field, or a name that cannot be that of a model. Nothing is read from files before
/// [`EngineBody::open`].
pub fn parse_settings(json: &[u8]) -> Result<EngineBody, ApiError> {
    read(json).map_err(ApiError::of_settings)
}

/// Reads the settings of an engine, loads its model and starts it.
///
/// `on_progress` hears of downloads and of the layers that are loaded, on the thread of the caller. `search` returns the
/// folders in which drafters are searched for; its argument is the setting `plugin_path`.
///
/// ```
/// use galley_engine::drafters::Search;
/// # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/models/smollm2");
/// let settings = format!(r#"{{"model": "{model}", "kv_cache_tokens": 1024}}"#);
/// let search = |folders: Option<&_>| Search::standard(folders, None);
/// let (engine, files) = galley_api::open_engine(settings.as_bytes(), |_| {}, search)?;
///
/// let texts = galley_api::ModelTexts::of(&files);
/// let body = galley_api::parse_request(br#"{"prompt": "Once upon a time", "max_tokens": 4}"#)?;
/// let handle = engine.submit(body.into_request(&texts)?)?;
/// let submitted = handle.submitted().clone();
/// let answers = handle.collect()?;
/// println!("{}", galley_api::AnswerBody::new(&submitted, &answers, engine.drafters()).to_json());
/// # Ok::<(), galley_api::ApiError>(())
/// ```
///
/// # Errors
///
/// A wrong field, a drafter or a model that is not found, or a model that cannot be loaded.
pub fn open_engine(
    json: &[u8],
    on_progress: impl Fn(OpenProgress<'_>) + Send + Sync + 'static,
    search: impl FnOnce(Option<&OsStr>) -> Search,
) -> Result<(Engine, ModelFiles), ApiError> {
    parse_settings(json)?.open(on_progress, search)
}

impl EngineBody {
    /// Loads the model and starts the engine: see [`open_engine`].
    ///
    /// # Errors
    ///
    /// A drafter or a model that is not found, or a model that cannot be loaded.
    pub fn open(
        self,
        on_progress: impl Fn(OpenProgress<'_>) + Send + Sync + 'static,
        search: impl FnOnce(Option<&OsStr>) -> Search,
    ) -> Result<(Engine, ModelFiles), ApiError> {
        let Self { mut builder, drafters, plugin_path } = self;
        for wanted in &drafters {
            builder = builder.drafter(wanted);
        }
        builder = builder.drafter_search(search(plugin_path.as_deref()));
        Ok(builder.on_progress(on_progress).build_with_files()?)
    }
}

fn read(json: &[u8]) -> Result<EngineBody, ApiError> {
    let mut object = Field::body(text(json)?).object()?;
    let model = object.take("model").map(|field| field.string()).transpose()?;
    let mut settings = Settings::default();
    read_model(&mut object, &mut settings)?;
    read_engine(&mut object, &mut settings)?;
    let downloads = object.take("download").map(|field| field.bool()).transpose()?;
    let drafters = object.take("drafters").map(|field| field.strings()).transpose()?;
    let plugin_path = object.take("plugin_path").map(|field| field.string()).transpose()?;
    object.finish("")?;
    let model = model.ok_or_else(|| ApiError::invalid("model", "the name of a model is needed"))?;
    let builder = Engine::open(&model)?.download(downloads.unwrap_or(false));
    Ok(EngineBody {
        builder: builder.configure(|to| *to = settings),
        drafters: drafters.unwrap_or_default(),
        plugin_path: plugin_path.map(OsString::from),
    })
}

/// The settings of the device and the model's memory.
fn read_model(object: &mut Object<'_>, to: &mut Settings) -> Result<(), ApiError> {
    read_into(object, "device", &mut to.device, named)?;
    to.formats = read_formats(object)?;
    read_into(object, "cpu", &mut to.instruction_set, |field| {
        let name = field.string()?;
        name.parse().map(Some).map_err(|error: BackendError| field.wrong(error.to_string()))
    })?;
    read_into(object, "threads", &mut to.threads, |field| {
        field.whole(1, MAX_THREADS as i128).map(Some)
    })?;
    read_into(object, "gpu_memory_utilization", &mut to.gpu_memory_utilization, |field| {
        let share = field.f64()?;
        match (MIN_MEMORY_SHARE..=1.0).contains(&share) {
            true => Ok(share),
            false => Err(field.wrong(format!("{share} is not between {MIN_MEMORY_SHARE} and 1"))),
        }
    })?;
    read_into(object, "block_size", &mut to.block_size, |field| {
        let size: usize = field.whole(1, MAX_BLOCK_TOKENS.into())?;
        match size.is_multiple_of(BLOCK_MULTIPLE as usize) {
            true => Ok(size),
            false => Err(field.wrong(format!("{size} is no multiple of {BLOCK_MULTIPLE}"))),
        }
    })?;
    read_into(object, "max_model_len", &mut to.max_model_len, |field| count(field).map(Some))?;
    read_into(object, "kv_cache_tokens", &mut to.kv_cache_tokens, |field| count(field).map(Some))
}

/// The formats, which two keys set together.
fn read_formats(object: &mut Object<'_>) -> Result<Formats, ApiError> {
    let mut dtype = OperandFormat::Bf16;
    let mut weights = None;
    read_into(object, "dtype", &mut dtype, named)?;
    read_into(object, "weights", &mut weights, |field| named(field).map(Some))?;
    Formats::new(dtype, weights).map_err(|error| ApiError::invalid("weights", error.to_string()))
}

/// The settings of the engine's loop and of drafting.
fn read_engine(object: &mut Object<'_>, to: &mut Settings) -> Result<(), ApiError> {
    let engine = &mut to.engine;
    read_into(object, "max_num_seqs", &mut engine.max_num_seqs, |field| {
        field.whole(1, MAX_SEQUENCES.into())
    })?;
    read_into(object, "max_num_batched_tokens", &mut engine.max_num_batched_tokens, count)?;
    read_into(object, "max_waiting", &mut engine.max_waiting, count)?;
    read_into(object, "prefix_caching", &mut engine.prefix_caching, Field::bool)?;
    let drafting = &mut to.drafting;
    let length = |field: &Field<'_>| field.whole(0, MAX_DRAFT_LENGTH.into());
    read_into(object, "draft_length", &mut drafting.draft_length, length)?;
    read_into(object, "max_draft_length", &mut drafting.max_draft_length, length)?;
    read_into(object, "calibrate", &mut drafting.calibrates, Field::bool)?;
    read_into(object, "max_inter_token_ms", &mut drafting.max_inter_token, |field| {
        field.whole(1, MAX_COUNT.into()).map(|ms: u64| Some(Duration::from_millis(ms)))
    })?;
    read_into(object, "kv_budget", &mut drafting.kv_budget, |field| {
        field.whole(1, MAX_COUNT.into()).map(Some)
    })?;
    read_into(object, "suffix_bytes", &mut drafting.suffix_bytes, |field| {
        field.whole(0, MAX_SUFFIX_BYTES.into())
    })
}

/// A number of tokens, requests or the like, at least one.
fn count(field: &Field<'_>) -> Result<usize, ApiError> {
    field.whole(1, MAX_COUNT.into())
}

/// A value that is written as a name.
fn named<T: FromStr<Err = String>>(field: &Field<'_>) -> Result<T, ApiError> {
    field.string()?.parse().map_err(|reason| field.wrong(reason))
}

#[cfg(test)]
mod tests;
