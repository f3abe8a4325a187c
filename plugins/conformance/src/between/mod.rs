//! Stands between a drafter and its host: every call of either side passes through here, is looked at, and is
//! passed on. Where told to, it lends less than the host does, or more, or functions that fail.
//!
//! All the `unsafe` of the check is in this folder.

mod drafter;
mod memory;
mod tables;

use crate::observed::{Breach, Callback, Function, Observed, Shared};
use galley_drafter_abi as abi;
use galley_drafter_abi::{GD_INVALID, GD_WRONG_PHASE, gd_host, gd_status};
use galley_drafter_host::{CreateFn, Drafter, Library, LoadError, ModelFacts};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::ThreadId;

/// How what is lent differs from what the host lends.
#[derive(Clone, Debug, Default)]
pub struct Lending {
    /// An extension that is not there.
    pub withheld: Option<String>,
    /// A function that only ever returns this status.
    pub failing: Option<(Function, gd_status)>,
    /// How many words the tables of extensions have, `struct_size` included. None: all of them.
    pub table_words: Option<usize>,
    /// The same of `gd_host`.
    pub host_words: Option<usize>,
    /// A later minor version: every struct is larger.
    pub is_newer: bool,
    /// What lies in memory behind the texts of options.
    pub behind_texts: &'static str,
}

/// Creates a drafter of `library` with everything it calls and is called for in view.
pub(crate) fn create(
    library: &Library,
    options: &BTreeMap<String, String>,
    facts: ModelFacts,
    lending: Lending,
) -> (Result<Drafter, LoadError>, Shared) {
    let observed = Shared::default();
    let order = Order { create: library.create_fn(), lending, observed: Arc::clone(&observed) };
    NEXT.set(Some(order));
    // SAFETY: it passes on what the library's own create does, to a host that is there as long.
    let library = unsafe { library.with_create(drafter::create) };
    (Drafter::create(&library, options, facts), observed)
}

/// What the next `create` on this thread does: a function of C has no place to keep it.
struct Order {
    create: CreateFn,
    lending: Lending,
    observed: Shared,
}

thread_local! {
    static NEXT: RefCell<Option<Order>> = const { RefCell::new(None) };
    /// Of the drafter whose callback runs on this thread, for calls that do not say whose they are.
    static CURRENT: RefCell<Option<Shared>> = const { RefCell::new(None) };
}

/// Behind the `gd_host` of one drafter.
struct Between {
    inner: tables::Inner,
    lent: tables::Lent,
    lending: Lending,
    observed: Shared,
    inside: Mutex<Option<(Callback, ThreadId)>>,
}

impl Between {
    fn saw<R>(&self, look: impl FnOnce(&mut Observed) -> R) -> R {
        look(&mut self.observed.lock())
    }

    fn breach(&self, breach: Breach, sentence: String) {
        self.saw(|observed| observed.breach(breach, sentence));
    }

    /// Where a call comes from, in words.
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

    /// Notes a call; gives the status of one that is to fail.
    fn enter(&self, function: Function) -> Option<gd_status> {
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

    /// Runs a callback of the drafter and notes what it came to; None has no status.
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

/// The `Between` of a table that was lent, or of a copy of it.
///
/// # Safety
///
/// `host` is NULL or a table that [`tables::Lent`] lent, whose drafter is not destroyed.
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
    // SAFETY: set by `drafter::create` to what it made, which is freed in destroy.
    unsafe { data.as_ref() }
}
