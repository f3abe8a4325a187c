//! Engines: opening and closing them, waiting for their end, and their facts.

use crate::border::{bytes, call, give, put};
use crate::codes;
use crate::error::galley_error;
use crate::facts;
use crate::failure::Failure;
use crate::handles::{Kind, Table};
use crate::library::search;
use crate::process;
use crate::signal::deadline;
use crate::strings::galley_string;
use ::galley_engine::{Engine, OpenProgress};
use galley_api::ModelTexts;
use serde_json::json;
use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// A running model.
pub enum galley_engine {}

/// The object behind the handle of an engine. Queues keep it too.
pub(crate) struct OpenEngine {
    pub(crate) engine: Engine,
    pub(crate) texts: ModelTexts,
    has_chat_template: bool,
    /// The directory or file of the model.
    path: String,
    /// The handle is closed. Queues may go on.
    is_closed: AtomicBool,
}

static ENGINES: Table<Arc<OpenEngine>> = Table::new(Kind::Engine);

pub(crate) fn find_engine(engine: *mut galley_engine) -> Result<Arc<OpenEngine>, Failure> {
    ENGINES.find(engine.addr() as u64).map_err(|stale| Failure::handle("engine", stale))
}

/// Hears of the opening of an engine. json lives during the call:
/// {"stage": "download", "file": "model.safetensors", "done_bytes": 1024, "total_bytes": 2048 or null} or
/// {"stage": "load", "done_layers": 3, "total_layers": 31}.
pub type galley_progress_fn =
    Option<extern "C" fn(user: *mut c_void, json: *const c_char, json_len: usize)>;

/// The caller's function, and the thread that may call it.
#[derive(Clone, Copy)]
struct Listener {
    function: extern "C" fn(*mut c_void, *const c_char, usize),
    user: *mut c_void,
    thread: ThreadId,
}

// SAFETY: the function is called on the thread that gave it alone (`Listener::hear` asks), and `user` is only passed
// on.
unsafe impl Send for Listener {}

// SAFETY: as above.
unsafe impl Sync for Listener {}

impl Listener {
    fn hear(&self, event: OpenProgress<'_>) {
        let json = match event {
            OpenProgress::Download { file, done, total } => {
                json!({"stage": "download", "file": file, "done_bytes": done, "total_bytes": total})
            }
            OpenProgress::Layers { done, total } => {
                json!({"stage": "load", "done_layers": done, "total_layers": total})
            }
            _ => return,
        };
        let json = format!("{json}\0");
        if std::thread::current().id() == self.thread {
            (self.function)(self.user, json.as_ptr().cast(), json.len() - 1);
        }
    }
}

/// Opens a model, and waits until it is loaded. json has its settings: {"model": "smollm2-135m-instruct", "download":
/// true, "drafters": ["ngram"], …}.
///
/// progress may be NULL. It is called on this thread, before the function returns; user is passed on. It must neither
/// throw nor longjmp.
///
/// Drafters are searched in the folders of "plugin_path", then around this library: ../lib/galley/drafters,
/// galley/drafters and its own folder; then in the folders of the program and the system.
///
/// # Safety
///
/// Pointers are NULL, or valid as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn galley_engine_open(
    json: *const c_char,
    json_len: usize,
    progress: galley_progress_fn,
    user: *mut c_void,
    out: *mut *mut galley_engine,
) -> *mut galley_error {
    let thread = std::thread::current().id();
    let listener = progress.map(|function| Listener { function, user, thread });
    let work = || {
        // SAFETY: the caller's promise.
        let json = unsafe { bytes("json", json, json_len) }?;
        let body = galley_api::parse_settings(json)?;
        let owning = process::own();
        let on_progress = move |event: OpenProgress<'_>| {
            if let Some(listener) = &listener {
                listener.hear(event);
            }
        };
        let (engine, files) = body.open(on_progress, search)?;
        let open = OpenEngine {
            engine,
            texts: ModelTexts::of(&files),
            has_chat_template: files.chat_template().is_ok(),
            path: files.path.to_string_lossy().into_owned(),
            is_closed: AtomicBool::new(false),
        };
        let id = ENGINES.insert(Arc::new(open)).ok_or_else(|| Failure::full("engines"))?;
        owning.keep();
        Ok(std::ptr::without_provenance_mut(id as usize))
    };
    // SAFETY: the caller's promise.
    unsafe { give(out, std::ptr::null_mut(), work) }
}

/// Closes an engine. The engine ends, and frees its memory, when its last queue has been closed too: the later of
/// these calls waits for it. A call in progress on another thread keeps the engine or queue too, so that a close may
/// return before the memory is freed.
#[unsafe(no_mangle)]
pub extern "C" fn galley_engine_close(engine: *mut galley_engine) -> *mut galley_error {
    call(|| {
        let closed = ENGINES.remove(engine.addr() as u64);
        let closed = closed.map_err(|stale| Failure::handle("engine", stale))?;
        closed.is_closed.store(true, Ordering::Relaxed);
        Ok(())
    })
}

/// Refuses new requests from now on, and waits until all accepted requests have ended. Their events must be read
/// meanwhile, by another thread. A negative timeout_ms waits without end; 0 only asks, which takes 100 ms at most.
///
/// drained (may be NULL) receives 1 if all have ended, and 0 after the timeout.
///
/// # Safety
///
/// Pointers are NULL, or valid as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn galley_engine_drain(
    engine: *mut galley_engine,
    timeout_ms: i64,
    drained: *mut i32,
) -> *mut galley_error {
    // SAFETY: the caller's promise.
    unsafe { put(drained, 0) };
    call(|| {
        let engine = find_engine(engine)?;
        let deadline = deadline(if timeout_ms == 0 { ASKING_MS } else { timeout_ms });
        let mut slice = FIRST_SLICE;
        loop {
            let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
            slice = (2 * slice).min(LAST_SLICE).min(left.unwrap_or(LAST_SLICE));
            let is_drained = engine.engine.drain(slice);
            if is_drained {
                // SAFETY: the caller's promise.
                unsafe { put(drained, 1) };
            }
            if is_drained || left.is_some_and(|left| left.is_zero()) {
                return Ok(());
            }
            if engine.is_closed.load(Ordering::Relaxed) {
                return Err(Failure::new(codes::GALLEY_CLOSED, "the engine is closed"));
            }
        }
    })
}

/// The times between two looks of a waiting function at the closing of its engine. They grow, because the engine keeps
/// a note of each wait until it is drained.
const FIRST_SLICE: Duration = Duration::from_millis(10);
const LAST_SLICE: Duration = Duration::from_millis(320);

/// The time in which an engine answers, in the middle of a step too.
const ASKING_MS: i64 = 100;

/// The facts of an engine as JSON: {"path", "device", "fingerprint", "drafters": ["ngram"], "limits", …}.
///
/// out receives a text: free it with galley_string_free.
///
/// # Safety
///
/// Pointers are NULL, or valid as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn galley_engine_info(
    engine: *mut galley_engine,
    out: *mut galley_string,
) -> *mut galley_error {
    let work = || {
        let open = find_engine(engine)?;
        let info = facts::info(&open.engine, &open.path, open.has_chat_template);
        galley_string::new(info.to_string())
    };
    // SAFETY: the caller's promise.
    unsafe { give(out, galley_string::EMPTY, work) }
}

/// The statistics of an engine as of its last step, as JSON.
///
/// out receives a text: free it with galley_string_free.
///
/// # Safety
///
/// Pointers are NULL, or valid as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn galley_engine_stats(
    engine: *mut galley_engine,
    out: *mut galley_string,
) -> *mut galley_error {
    let work = || {
        let OpenEngine { engine, .. } = &*find_engine(engine)?;
        galley_string::new(facts::stats(&engine.stats(), engine.drafters()).to_string())
    };
    // SAFETY: the caller's promise.
    unsafe { give(out, galley_string::EMPTY, work) }
}
