//! The log sink: lines of the engine and its drafters, for the program around them.

use crate::border::call;
use crate::codes;
use crate::error::galley_error;
use crate::failure::Failure;
use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// A log sink. level is one of GALLEY_LOG_ERROR to GALLEY_LOG_TRACE; message is a line, and lives during the call.
pub type galley_log_fn = Option<
    extern "C" fn(user: *mut c_void, level: i32, message: *const c_char, message_len: usize),
>;

#[derive(Clone, Copy)]
struct Sink {
    function: extern "C" fn(*mut c_void, i32, *const c_char, usize),
    user: *mut c_void,
}

// SAFETY: the library passes `user` on and never looks behind it. The header says that the sink is called on any
// thread.
unsafe impl Send for Sink {}

// SAFETY: as above.
unsafe impl Sync for Sink {}

/// The sink. A call of it holds the lock for reading, so that a writer waits for running calls.
static SINK: RwLock<Option<Sink>> = RwLock::new(None);

/// The highest level that the sink hears; 0 without a sink. Read before a line is written.
static LEVEL: AtomicI32 = AtomicI32::new(0);

thread_local! {
    /// Whether this thread is inside the sink. Lines of calls that the sink makes are left out.
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Makes the library's log go to [`SINK`], from the first sink on. False if the log of this program goes elsewhere,
/// which a Rust program may have chosen.
fn install() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| tracing::subscriber::set_global_default(ToSink).is_ok())
}

/// Sends log lines up to level to sink, in place of an earlier sink; NULL ends logging. There is no log without a
/// sink.
///
/// sink is called on any thread, engine threads too, several at a time; user is passed on. When the function returns,
/// no call of an earlier sink runs any more. A sink must return soon, must call no function of this library, and must
/// neither throw nor longjmp.
#[unsafe(no_mangle)]
pub extern "C" fn galley_set_log(
    sink: galley_log_fn,
    user: *mut c_void,
    level: i32,
) -> *mut galley_error {
    let sink = sink.map(|function| Sink { function, user });
    call(move || {
        if IS_INSIDE.get() {
            let message = "a sink must not call galley_set_log: it would wait for its own end";
            return Err(Failure::new(codes::GALLEY_INVALID_ARGUMENT, message));
        }
        if !(codes::GALLEY_LOG_ERROR..=codes::GALLEY_LOG_TRACE).contains(&level) && sink.is_some() {
            return Err(Failure::argument("level", "GALLEY_LOG_ERROR to GALLEY_LOG_TRACE"));
        }
        if sink.is_some() && !install() {
            let message = "the log of this program goes elsewhere already";
            return Err(Failure::new(codes::GALLEY_UNSUPPORTED, message));
        }
        let level = if sink.is_some() { level } else { 0 };
        let mut current = SINK.write().unwrap_or_else(PoisonError::into_inner);
        *current = sink;
        LEVEL.store(level, Ordering::Relaxed);
        Ok(())
    })
}

fn level_of(metadata: &Metadata<'_>) -> i32 {
    match *metadata.level() {
        Level::ERROR => codes::GALLEY_LOG_ERROR,
        Level::WARN => codes::GALLEY_LOG_WARN,
        Level::INFO => codes::GALLEY_LOG_INFO,
        Level::DEBUG => codes::GALLEY_LOG_DEBUG,
        Level::TRACE => codes::GALLEY_LOG_TRACE,
    }
}

/// Receives the events of this library's crates. Spans are not used there.
struct ToSink;

impl Subscriber for ToSink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        level_of(metadata) <= LEVEL.load(Ordering::Relaxed)
    }

    /// Asked anew for every event, because the level changes.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        tracing::subscriber::Interest::sometimes()
    }

    fn event(&self, event: &Event<'_>) {
        if IS_INSIDE.get() {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let text = line.finish();
        let sink = SINK.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Sink { function, user }) = *sink {
            IS_INSIDE.set(true);
            function(user, level_of(event.metadata()), text.as_ptr().cast(), text.len() - 1);
            IS_INSIDE.set(false);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A line: the message, and the other fields after it.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    /// The text with a NUL at its end.
    fn finish(self) -> String {
        format!("{}{}\0", self.message, self.fields).replace(['\n', '\r'], " ")
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
