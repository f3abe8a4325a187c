//! The drafter as its host sees it: a proxy that calls the real drafter and watches every callback.

mod extension;

use super::memory::{GuardedWords, MAX_SIZE, prefix_of};
use super::tables::{HostTables, LentTables};
use super::{Between, NEXT};
use crate::observed::{Breach, Callback};
use extension::{Extensions, get_extension};
use galley_drafter_abi as abi;
use galley_drafter_abi::{GD_INTERNAL, GD_OK, gd_drafter, gd_host, gd_option, gd_status, gd_str};
use parking_lot::Mutex;
use std::time::Instant;

/// The struct behind the `gd_drafter` that the host gets.
#[repr(C)]
struct Proxy {
    head: gd_drafter, // first, so that a pointer to it also points to the whole
    real: *mut gd_drafter,
    calls: gd_drafter,
    extensions: Extensions,
    between: *mut Between,
}

/// Creates the real drafter and its proxy, as the [`super::Order`] of this thread says.
///
/// # Safety
///
/// As the header says of `gd_library.create`.
pub(super) unsafe extern "C" fn create(
    host: *const gd_host,
    options: *const gd_option,
    n_options: usize,
    out: *mut *mut gd_drafter,
) -> gd_status {
    let Some(order) = NEXT.take() else { return GD_INTERNAL };
    let lent = LentTables::new(&order.lending);
    let between = Box::into_raw(Box::new(Between {
        // SAFETY: the host passes its table, which lives until the drafter is destroyed.
        inner: unsafe { HostTables::of(host) },
        lent,
        lending: order.lending,
        observed: order.observed,
        inside: Mutex::new(None),
    }));
    // SAFETY: allocated above, and not freed before `free`.
    let seen = unsafe { &*between };
    seen.lent.point_to(between);
    // SAFETY: the host passes n_options options, and their texts live until this call returns.
    let texts = unsafe { OptionTexts::of(options, n_options, seen.lending.behind_texts) };
    let mut real = std::ptr::null_mut();
    let status = seen.within(Callback::Create, || {
        let (host, options) = (seen.lent.host(), texts.options.as_ptr());
        // SAFETY: the create of the library; its host lives until destroy, and its options until it
        // returns.
        Some(unsafe { (order.create)(host, options, n_options, &raw mut real) })
    });
    drop(texts);
    let status = status.unwrap_or(GD_INTERNAL);
    if status != GD_OK {
        if !real.is_null() {
            seen.breach(Breach::Status, "create failed and gave a drafter all the same".to_owned());
        }
        // SAFETY: allocated above; no drafter points to it.
        unsafe { free(between) };
        return status;
    }
    if real.is_null() {
        // SAFETY: as above. The host reports that create returned NULL.
        unsafe { free(between) };
        return GD_OK;
    }
    // SAFETY: create returned a struct that begins with its size.
    let calls: gd_drafter = unsafe { prefix_of(real) };
    if calls.struct_size > MAX_SIZE {
        let n_bytes = calls.struct_size;
        seen.breach(Breach::Size, format!("its gd_drafter says that it has {n_bytes} bytes"));
    }
    let head = gd_drafter {
        struct_size: calls.struct_size.min(size_of::<gd_drafter>()),
        data: std::ptr::null_mut(),
        destroy: calls.destroy.map(|_| destroy as _),
        activate: calls.activate.map(|_| activate as _),
        deactivate: calls.deactivate.map(|_| deactivate as _),
        after_prefill: calls.after_prefill.map(|_| after_prefill as _),
        guess: calls.guess.map(|_| guess as _),
        end: calls.end.map(|_| end as _),
        cost: calls.cost.map(|_| cost as _),
        get_extension: calls.get_extension.map(|_| get_extension as _),
    };
    // SAFETY: create returned this drafter, and these are its callbacks.
    let extensions = unsafe { Extensions::of(real, &calls, seen) };
    let proxy = Box::new(Proxy { head, real, calls, extensions, between });
    proxy.ask_again(seen);
    // SAFETY: `out` is the place where the host expects the new drafter.
    unsafe { out.write(Box::into_raw(proxy).cast()) };
    GD_OK
}

impl Proxy {
    /// Asks the drafter for tables again.
    fn ask_again(&self, between: &Between) {
        // SAFETY: a proxy belongs to a drafter that is not destroyed.
        unsafe { self.extensions.ask_again(self.real, &self.calls, between) };
    }
}

/// # Safety
///
/// `create` allocated it, and no pointer to it is left.
unsafe fn free(between: *mut Between) {
    // SAFETY: promised by the caller.
    drop(unsafe { Box::from_raw(between) });
}

/// # Safety
///
/// `this` is the pointer that `create` returned.
unsafe fn parts<'a>(this: *mut gd_drafter) -> (&'a Proxy, &'a Between) {
    // SAFETY: create allocated it as a boxed Proxy, whose Between lives as long.
    unsafe {
        let proxy = &*this.cast::<Proxy>();
        (proxy, &*proxy.between)
    }
}

unsafe extern "C" fn destroy(this: *mut gd_drafter) {
    // SAFETY: the host passes the drafter that it got.
    let (proxy, between) = unsafe { parts(this) };
    between.within(Callback::Destroy, || {
        if let Some(destroy) = proxy.calls.destroy {
            // SAFETY: the host calls destroy last.
            unsafe { destroy(proxy.real) };
        }
        None
    });
    let between = proxy.between;
    // SAFETY: create allocated it as a boxed Proxy, and this is the last call.
    drop(unsafe { Box::from_raw(this.cast::<Proxy>()) });
    // SAFETY: the drafter that used it is destroyed.
    unsafe { free(between) };
}

unsafe extern "C" fn activate(this: *mut gd_drafter, limits: *const abi::gd_limits) -> gd_status {
    // SAFETY: the host passes the drafter that it got.
    let (proxy, between) = unsafe { parts(this) };
    let Some(call) = proxy.calls.activate else { return GD_INTERNAL };
    // SAFETY: the host passes a struct of the header.
    let given = unsafe { GuardedWords::of(&*limits) };
    let status = run(between, Callback::Activate, given, |limits| {
        // SAFETY: as the host calls it, with a copy of its limits.
        unsafe { call(proxy.real, limits) }
    });
    proxy.ask_again(between);
    status
}

unsafe extern "C" fn deactivate(this: *mut gd_drafter) {
    // SAFETY: the host passes the drafter that it got.
    let (proxy, between) = unsafe { parts(this) };
    let Some(call) = proxy.calls.deactivate else { return };
    between.within(Callback::Deactivate, || {
        // SAFETY: as the host calls it.
        unsafe { call(proxy.real) };
        None
    });
    proxy.ask_again(between);
}

unsafe extern "C" fn after_prefill(
    this: *mut gd_drafter,
    batch: *const abi::gd_batch,
) -> gd_status {
    // SAFETY: the host passes the drafter that it got.
    let (proxy, between) = unsafe { parts(this) };
    let Some(call) = proxy.calls.after_prefill else { return GD_INTERNAL };
    // SAFETY: the host passes a struct of the header.
    let given = unsafe { GuardedWords::of(&*batch) };
    run(between, Callback::AfterPrefill, given, |batch| {
        // SAFETY: as the host calls it, with a copy of its batch.
        unsafe { call(proxy.real, batch) }
    })
}

unsafe extern "C" fn guess(this: *mut gd_drafter, batch: *const abi::gd_batch) -> gd_status {
    // SAFETY: the host passes the drafter that it got.
    let (proxy, between) = unsafe { parts(this) };
    let Some(call) = proxy.calls.guess else { return GD_INTERNAL };
    // SAFETY: the host passes a struct of the header.
    let given = unsafe { GuardedWords::of(&*batch) };
    between.saw(|observed| observed.is_recordable = true);
    let status = run(between, Callback::Guess, given, |batch| {
        let started = Instant::now();
        // SAFETY: as the host calls it, with a copy of its batch.
        let status = unsafe { call(proxy.real, batch) };
        let duration = started.elapsed();
        between.saw(|observed| observed.guesses.push(duration));
        status
    });
    // The host then calls `guess` in every round, so that its programs can be compared.
    between.inner.rerecord();
    status
}

unsafe extern "C" fn end(this: *mut gd_drafter, sequence: u64) {
    // SAFETY: the host passes the drafter that it got.
    let (proxy, between) = unsafe { parts(this) };
    let Some(call) = proxy.calls.end else { return };
    between.within(Callback::End, || {
        // SAFETY: as the host calls it.
        unsafe { call(proxy.real, sequence) };
        None
    });
}

unsafe extern "C" fn cost(
    this: *mut gd_drafter,
    context_tokens: u64,
    budget_tokens: u32,
    out: *mut abi::gd_cost,
) -> gd_status {
    // SAFETY: the host passes the drafter that it got.
    let (proxy, between) = unsafe { parts(this) };
    let Some(call) = proxy.calls.cost else { return GD_INTERNAL };
    // SAFETY: the host passes a struct of the header that the host has filled.
    let mut given = unsafe { GuardedWords::of(&*out) }.guarded();
    let to = given.as_mut_ptr::<abi::gd_cost>();
    let status = between.within(Callback::Cost, || {
        // SAFETY: as the host calls it, with a struct of the same size.
        Some(unsafe { call(proxy.real, context_tokens, budget_tokens, to) })
    });
    if !given.is_whole_behind(size_of::<abi::gd_cost>() / size_of::<usize>()) {
        between.breach(Breach::Beyond, "cost wrote behind its gd_cost".to_owned());
    }
    // SAFETY: `given` begins with a gd_cost, and `out` has room for one.
    unsafe { out.write(given.as_ptr::<abi::gd_cost>().read()) };
    status.unwrap_or(GD_INTERNAL)
}

/// Runs a callback with its own copy of a struct that it must not write to.
fn run<T>(
    between: &Between,
    callback: Callback,
    given: GuardedWords,
    call: impl FnOnce(*const T) -> gd_status,
) -> gd_status {
    let given = given.given(between.lending.is_newer);
    let before = given.to_vec();
    let status = between.within(callback, || Some(call(given.as_ptr())));
    if !given.is_same(&before) {
        let name = callback.name();
        between.breach(Breach::Beyond, format!("{name} wrote into a struct that it may only read"));
    }
    status.unwrap_or(GD_INTERNAL)
}

/// Copies of the options, with `behind` after each text. The copies are freed when create has
/// returned.
struct OptionTexts {
    options: Vec<gd_option>,
    _texts: Vec<Vec<u8>>,
}

impl OptionTexts {
    /// # Safety
    ///
    /// `options` points to `n_options` options whose texts can be read.
    unsafe fn of(options: *const gd_option, n_options: usize, behind: &str) -> Self {
        let mut all = OptionTexts { options: Vec::new(), _texts: Vec::new() };
        for i in 0..n_options {
            // SAFETY: promised by the caller.
            let option = unsafe { options.add(i).read() };
            // SAFETY: as above, for the option's two texts.
            let (name, value) =
                unsafe { (all.copy(option.name, behind), all.copy(option.value, behind)) };
            all.options.push(gd_option { name, value });
        }
        all
    }

    /// # Safety
    ///
    /// `text.len` bytes can be read at `text.ptr`.
    unsafe fn copy(&mut self, text: gd_str, behind: &str) -> gd_str {
        // SAFETY: promised by the caller.
        let bytes = unsafe { std::slice::from_raw_parts(text.ptr.cast::<u8>(), text.len) };
        let copy = [bytes, behind.as_bytes()].concat();
        let text = gd_str { ptr: copy.as_ptr().cast(), len: text.len };
        self._texts.push(copy);
        text
    }
}
