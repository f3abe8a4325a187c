//! Tables of the drafter: the host gets tables of the proxy, and the drafter is asked for its tables
//! more often than a host asks.

use super::{Proxy, parts};
use crate::interposer::Between;
use crate::interposer::memory::{GuardedWords, MAX_SIZE, prefix_of};
use crate::observed::{Breach, Callback};
use galley_drafter_abi as abi;
use galley_drafter_abi::{gd_drafter, gd_drafter_feedback, gd_verified};
use std::ffi::{CStr, c_char, c_void};

/// The feedback table of a drafter, and the table of its proxy.
pub(super) struct Extensions {
    raw: *const c_void,
    real: Option<gd_drafter_feedback>,
    lent: gd_drafter_feedback,
}

impl Extensions {
    /// Asks a new drafter for its tables and checks them.
    ///
    /// # Safety
    ///
    /// `real` is a drafter that is not destroyed, and `calls` are its callbacks.
    pub(super) unsafe fn of(real: *mut gd_drafter, calls: &gd_drafter, between: &Between) -> Self {
        // SAFETY: promised by the caller.
        let raw = unsafe { ask(real, calls, FEEDBACK, between) };
        // SAFETY: a table that the drafter gives under this id has this type, and begins with its size.
        let real =
            (!raw.is_null()).then(|| unsafe { prefix_of(raw.cast::<gd_drafter_feedback>()) });
        if let Some(table) = &real {
            let said = table.struct_size;
            if !(size_of::<gd_drafter_feedback>()..=MAX_SIZE).contains(&said) {
                let sentence = format!("its feedback table says that it has {said} bytes");
                between.breach(Breach::Table, sentence);
            } else if table.feedback.is_none() {
                between.breach(Breach::Table, "its feedback table has no feedback".to_owned());
            }
            between.saw(|observed| observed.has_feedback = true);
        }
        let struct_size = size_of::<gd_drafter_feedback>();
        let callback = real.and_then(|table| table.feedback).map(|_| feedback as _);
        Extensions { raw, real, lent: gd_drafter_feedback { struct_size, feedback: callback } }
    }

    /// Asks again: for ids that no drafter knows, and for the known one.
    ///
    /// # Safety
    ///
    /// As [`Self::of`].
    pub(super) unsafe fn ask_again(
        &self,
        real: *mut gd_drafter,
        calls: &gd_drafter,
        between: &Between,
    ) {
        for id in UNKNOWN {
            // SAFETY: promised by the caller.
            if !unsafe { ask(real, calls, id, between) }.is_null() {
                let sentence = format!("get_extension gave a table for {id:?}");
                between.breach(Breach::Extension, sentence);
            }
        }
        // SAFETY: promised by the caller.
        if unsafe { ask(real, calls, FEEDBACK, between) } != self.raw {
            let sentence = format!("get_extension gave another table for {FEEDBACK:?} than before");
            between.breach(Breach::Extension, sentence);
        }
    }
}

/// # Safety
///
/// `real` is a drafter that is not destroyed, and `calls` are its callbacks.
unsafe fn ask(
    real: *mut gd_drafter,
    calls: &gd_drafter,
    id: &CStr,
    between: &Between,
) -> *const c_void {
    let mut table = std::ptr::null();
    let Some(call) = calls.get_extension else { return table };
    between.within(Callback::GetExtension, || {
        // SAFETY: promised by the caller; the id ends with a NUL.
        table = unsafe { call(real, id.as_ptr()) };
        None
    });
    table
}

/// The host asks the proxy, which has asked the drafter already.
///
/// # Safety
///
/// As the header says of `gd_drafter.get_extension`.
pub(super) unsafe extern "C" fn get_extension(
    this: *mut gd_drafter,
    id: *const c_char,
) -> *const c_void {
    // SAFETY: the host passes the drafter that it got.
    let (proxy, _) = unsafe { parts(this) };
    // SAFETY: the host passes a NUL-terminated text.
    let is_feedback = unsafe { CStr::from_ptr(id) } == FEEDBACK;
    match proxy.extensions.real {
        Some(_) if is_feedback => (&raw const proxy.extensions.lent).cast(),
        _ => std::ptr::null(),
    }
}

unsafe extern "C" fn feedback(this: *mut gd_drafter, verified: *const gd_verified) {
    // SAFETY: the host passes the drafter that it got.
    let (proxy, between): (&Proxy, &Between) = unsafe { parts(this) };
    let Some(call) = proxy.extensions.real.and_then(|table| table.feedback) else { return };
    // SAFETY: the host passes a struct of the header.
    let mut given = unsafe { *verified };
    let n_rows = given.n_rows as usize;
    // SAFETY: the host passes arrays of n_rows items. The copies are as long, so that a sanitizer sees
    // reads behind their end.
    let (sequences, n_proposed, n_accepted) = unsafe {
        (
            std::slice::from_raw_parts(given.sequences, n_rows).to_vec(),
            std::slice::from_raw_parts(given.n_proposed, n_rows).to_vec(),
            std::slice::from_raw_parts(given.n_accepted, n_rows).to_vec(),
        )
    };
    let before = (sequences.clone(), n_proposed.clone(), n_accepted.clone());
    given.sequences = sequences.as_ptr();
    (given.n_proposed, given.n_accepted) = (n_proposed.as_ptr(), n_accepted.as_ptr());
    // SAFETY: `given` is a struct of the header.
    let words = unsafe { GuardedWords::of(&given) }.given(between.lending.is_newer);
    let words_before = words.to_vec();
    between.within(Callback::Feedback, || {
        // SAFETY: as the host calls it, with copies of its struct and arrays.
        unsafe { call(proxy.real, words.as_ptr()) };
        None
    });
    if !words.is_same(&words_before) || (sequences, n_proposed, n_accepted) != before {
        let sentence = "feedback wrote into a struct or array that it may only read".to_owned();
        between.breach(Breach::Beyond, sentence);
    }
}

/// Ids that no drafter of this version knows.
const UNKNOWN: [&CStr; 5] =
    [c"", c"galley.unknown/1", c"galley.feedback/0", c"galley.feedback/10", c"galley.feedback"];

/// The id of the header.
const FEEDBACK: &CStr = match CStr::from_bytes_with_nul(abi::GD_EXT_FEEDBACK) {
    Ok(id) => id,
    Err(_) => panic!("the header's ids end with a NUL"),
};
