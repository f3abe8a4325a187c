//! The interposer between a drafter and its host: it records every call in both directions and
//! passes the call on. A [`Lending`] can withhold an extension, shorten or enlarge tables, and make
//! functions fail.
//!
//! This folder holds all `unsafe` of the check.

mod drafter;
mod memory;
mod tables;

use crate::observed::{Breach, Callback, Function, Observed, SharedRecord};
use galley_drafter_abi as abi;
use galley_drafter_abi::{GD_INVALID, GD_WRONG_PHASE, gd_host, gd_status};
use galley_drafter_host::{CreateFn, Drafter, Library, LoadError, ModelFacts};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::ThreadId;

/// Differences between the tables that a drafter gets and the tables of the host.
#[derive(Clone, Debug, Default)]
pub struct Lending {
    /// The id of an extension that the drafter does not get.
    pub withheld: Option<String>,
    /// A function that always returns this status.
    pub failing: Option<(Function, gd_status)>,
    /// Number of words in the tables of extensions, `struct_size` included. None: all words.
    pub table_words: Option<usize>,
    /// The same number for `gd_host`, at least 3 so that `host_data` stays.
    pub host_words: Option<usize>,
    /// Whether the host claims a later minor version, with larger structs.
    pub is_newer: bool,
    /// Bytes in memory after the texts of options.
    pub behind_texts: &'static str,
}

/// Creates a drafter of `library` behind an interposer that records every call in both directions.
pub(crate) fn create(
    library: &Library,
    options: &BTreeMap<String, String>,
    facts: ModelFacts,
    lending: Lending,
) -> (Result<Drafter, LoadError>, SharedRecord) {
    let observed = SharedRecord::default();
    let order = Order { create: library.create_fn(), lending, observed: Arc::clone(&observed) };
    NEXT.set(Some(order));
    // SAFETY: `drafter::create` calls the library's own create, with a host that lives as long as
    // the real one.
    let library = unsafe { library.with_create(drafter::create) };
    (Drafter::create(&library, options, facts), observed)
}

/// Arguments for the next `create` on this thread: the C function has no parameter for them.
struct Order {
    create: CreateFn,
    lending: Lending,
    observed: SharedRecord,
}

thread_local! {
    static NEXT: RefCell<Option<Order>> = const { RefCell::new(None) };
    /// The record of the drafter whose callback runs on this thread, for calls that do not identify
    /// their drafter.
    static CURRENT: RefCell<Option<SharedRecord>> = const { RefCell::new(None) };
}

/// The object behind the `gd_host` of one drafter.
struct Between {
    inner: tables::HostTables,
    lent: tables::LentTables,
    lending: Lending,
    observed: SharedRecord,
    inside: Mutex<Option<(Callback, ThreadId)>>,
}

impl Between {
    fn saw<R>(&self, look: impl FnOnce(&mut Observed) -> R) -> R {
        look(&mut self.observed.lock())
    }

    fn breach(&self, breach: Breach, sentence: String) {
        self.saw(|observed| observed.breach(breach, sentence));
    }

    /// Describes the place of a call, for messages.
    fn place(&self) -> String {
        match *self.inside.lock() {
            None => "outside of any callback".to_owned(),
            Some((callback, thread)) if thread == std::thread::current().id() => {
                format!("in {}", callback.name())
            }
            Some((callback, _)) => format!("from another thread during {}", callback.name()),
        }
    }

    fn is_inside(&self) -> bool {
        let here = std::thread::current().id();
        self.inside.lock().is_some_and(|(_, thread)| thread == here)
    }

    /// Records a call; returns the status if the function must fail.
    fn enter(&self, function: Function) -> Option<gd_status> {
        let is_asked = matches!(*self.inside.lock(), Some((Callback::GetExtension, _)));
        if is_asked && !function.is_for_any_phase() {
            let name = function.name();
            self.breach(Breach::Phase, format!("{name} was called {}", self.place()));
        }
        self.saw(|observed| {
            observed.called.insert(function);
            observed.is_recordable &= !function.forbids_recording();
        });
        self.lending.failing.filter(|(failing, _)| *failing == function).map(|(_, status)| status)
    }

    fn leave(&self, function: Function, status: gd_status) {
        let name = function.name();
        match status {
            GD_WRONG_PHASE => {
                self.breach(Breach::Phase, format!("{name} was called {}", self.place()));
            }
            GD_INVALID => {
                let place = self.place();
                let sentence = format!("{name} {place} had a wrong argument or handle");
                self.breach(Breach::Argument, sentence);
            }
            _ => {}
        }
    }

    /// Runs a callback of the drafter and records its status; None for a callback without a status.
    fn within(
        &self,
        callback: Callback,
        call: impl FnOnce() -> Option<gd_status>,
    ) -> Option<gd_status> {
        *self.inside.lock() = Some((callback, std::thread::current().id()));
        self.saw(|observed| observed.sentence = None);
        CURRENT.set(Some(Arc::clone(&self.observed)));
        let status = call();
        CURRENT.set(None);
        *self.inside.lock() = None;
        self.saw(|observed| {
            let sentence = observed.sentence.take();
            let Some(status) = status else { return };
            observed.returned.push(crate::observed::Returned { callback, status, sentence });
            let may_be_nothing = callback == Callback::Guess;
            let is_known = (abi::GD_INTERNAL..=abi::GD_OK).contains(&status)
                || (may_be_nothing && status == abi::GD_NO_GUESS);
            if !is_known {
                let name = callback.name();
                observed.breach(
                    Breach::Status,
                    format!("{name} gave {status}, which is no status of the header"),
                );
            }
        });
        status
    }
}

/// The `Between` behind a lent table or behind a copy of it.
///
/// # Safety
///
/// `host` is NULL or a table of [`tables::LentTables`], and its drafter is not destroyed.
unsafe fn between_of<'a>(host: *const gd_host) -> Option<&'a Between> {
    if host.is_null() {
        let sentence = "a host function was called with NULL for the host".to_owned();
        CURRENT.with_borrow(|current| {
            if let Some(observed) = current {
                observed.lock().breach(Breach::Argument, sentence);
            }
        });
        return None;
    }
    // SAFETY: not NULL, and promised by the caller.
    let data = unsafe { (*host).host_data }.cast_const().cast::<Between>();
    // SAFETY: `drafter::create` set it to the `Between` that it allocated, which destroy frees.
    unsafe { data.as_ref() }
}
