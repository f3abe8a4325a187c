//! The parts that all calls share: results, panics, a forked child, and arguments of C as values of Rust.

use crate::error::{self, galley_error};
use crate::failure::Failure;
use crate::process;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Carries out a call without a result.
pub(crate) fn call(work: impl FnOnce() -> Result<(), Failure>) -> *mut galley_error {
    if process::is_child() {
        return error::forked();
    }
    // A caller sees no state that a panic has left half changed: tables hold whole objects, and the engine has its
    // own catch.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => std::ptr::null_mut(),
        Ok(Err(failure)) => error::raise(failure),
        Err(panic) => error::raise(Failure::bug(&*panic)),
    }
}

/// Carries out a call with a result, which a failure leaves at `empty`.
///
/// # Safety
///
/// `out` is NULL or valid for a write.
pub(crate) unsafe fn give<T: Copy>(
    out: *mut T,
    empty: T,
    work: impl FnOnce() -> Result<T, Failure>,
) -> *mut galley_error {
    // SAFETY: the caller's promise.
    unsafe { put(out, empty) };
    call(|| {
        if out.is_null() {
            return Err(Failure::argument("out", "a place for the result, not NULL"));
        }
        let value = work()?;
        // SAFETY: the caller's promise.
        unsafe { put(out, value) };
        Ok(())
    })
}

/// Writes to an optional place.
///
/// # Safety
///
/// `out` is NULL or valid for a write.
pub(crate) unsafe fn put<T: Copy>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: the caller's promise, and `out` is not NULL. The place may hold no value yet, and values have no
        // Drop.
        unsafe { out.write(value) };
    }
}

/// Writes to every place of an optional array.
///
/// # Safety
///
/// `out` is NULL or valid for writes of `len` elements.
pub(crate) unsafe fn put_all<T: Copy>(out: *mut T, value: T, len: usize) {
    if is_array(out, len) {
        for i in 0..len {
            // SAFETY: the caller's promise, and `out` is aligned, not NULL, and leads to a possible number of bytes.
            unsafe { out.add(i).write(value) };
        }
    }
}

/// Whether there can be an array of `len` elements at `ptr`.
pub(crate) fn is_array<T>(ptr: *const T, len: usize) -> bool {
    let fits = len.checked_mul(size_of::<T>()).is_some_and(|n| isize::try_from(n).is_ok());
    !ptr.is_null() && ptr.is_aligned() && fits
}

/// The elements that `ptr` points to. `name` is that of the argument. The result lives as long as the call.
///
/// # Safety
///
/// `ptr` is NULL, or valid for reads of `len` elements that do not change during the call.
pub(crate) unsafe fn slice<'a, T: Copy>(
    name: &str,
    ptr: *const T,
    len: usize,
) -> Result<&'a [T], Failure> {
    if len == 0 {
        return Ok(&[]);
    }
    if !is_array(ptr, len) {
        return Err(Failure::argument(name, "an aligned pointer to as many elements as it says"));
    }
    // SAFETY: the caller's promise, and `ptr` is aligned, not NULL, and leads to a possible number of bytes.
    Ok(unsafe { std::slice::from_raw_parts(ptr, len) })
}

/// The bytes that `ptr` points to.
///
/// # Safety
///
/// As for [`slice`].
pub(crate) unsafe fn bytes<'a>(
    name: &str,
    ptr: *const c_char,
    len: usize,
) -> Result<&'a [u8], Failure> {
    // SAFETY: the caller's promise; a char of C is a byte.
    unsafe { slice(name, ptr.cast::<u8>(), len) }
}

/// The text that `ptr` points to.
///
/// # Safety
///
/// As for [`slice`].
pub(crate) unsafe fn text<'a>(
    name: &str,
    ptr: *const c_char,
    len: usize,
) -> Result<&'a str, Failure> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { bytes(name, ptr, len) }?;
    std::str::from_utf8(bytes).map_err(|error| {
        Failure::argument(name, &format!("UTF-8: byte {} is not", error.valid_up_to()))
    })
}
