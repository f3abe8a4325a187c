//! Reads and writes the memory that drafters point to, checks all that can be checked, and stops
//! panics.

use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use galley_drafter_abi::{GD_INTERNAL, GD_INVALID, GD_OK, gd_host, gd_status};

use crate::host::Host;

/// Copies a struct that begins with its size, up to that size. Missing fields are zero. Only whole
/// words are copied, so that half a function pointer is never read as a pointer.
///
/// # Safety
///
/// `from` points to a size, and that many bytes can be read; zeros are a valid `T`.
pub(crate) unsafe fn read_prefix<T>(from: *const T) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the caller promises a size at `from` and that many bytes, and the copy never exceeds
    // the size of `value`. Zeros are a valid `T`, and so are the fields that the writer of the
    // struct set.
    unsafe {
        let n_words = from.cast::<usize>().read_unaligned() / size_of::<usize>();
        let n_bytes = n_words.clamp(1, size_of::<T>() / size_of::<usize>()) * size_of::<usize>();
        value.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(from.cast(), n_bytes);
        value.assume_init()
    }
}

/// Runs a host function and returns its status; a panic becomes `GD_INTERNAL` and does not reach
/// the drafter.
pub(crate) fn status(call: impl FnOnce() -> Result<(), gd_status>) -> gd_status {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => GD_OK,
        Ok(Err(status)) => status,
        Err(_) => GD_INTERNAL,
    }
}

/// The host behind a table, or behind a copy of it.
///
/// # Safety
///
/// `host` is NULL or a table of `host_table` whose drafter is not destroyed.
pub(crate) unsafe fn host_of<'a>(host: *const gd_host) -> Result<&'a Host, gd_status> {
    if host.is_null() {
        return Err(GD_INVALID);
    }
    // SAFETY: not NULL, and the drafter passes the table that it got from `host_table`, or a copy.
    let data = unsafe { (*host).host_data }.cast_const().cast::<Host>();
    // SAFETY: NULL, or set by `host_table` to a host that lives until the drafter is destroyed.
    unsafe { data.as_ref() }.ok_or(GD_INVALID)
}

/// Reads an argument struct; `GD_INVALID` if it is NULL or shorter than its required fields.
///
/// # Safety
///
/// `from` is NULL or as for [`read_prefix`].
pub(crate) unsafe fn argument<T>(from: *const T, n_required_bytes: usize) -> Result<T, gd_status> {
    if from.is_null() {
        return Err(GD_INVALID);
    }
    // SAFETY: not NULL, and every struct of the header begins with its size.
    if unsafe { from.cast::<usize>().read_unaligned() } < n_required_bytes {
        return Err(GD_INVALID);
    }
    // SAFETY: as above; the argument structs of all callers hold plain numbers and pointers only.
    Ok(unsafe { read_prefix(from) })
}

/// Writes the fields of `value` that fit into the size of `out`, and leaves that size as it is.
///
/// # Safety
///
/// `out` is NULL or points to a size, and that many bytes can be written.
pub(crate) unsafe fn fill<T>(out: *mut T, value: &T) -> Result<(), gd_status> {
    check_out(out)?;
    // SAFETY: not NULL, and every struct of the header begins with its size.
    let struct_size = unsafe { out.cast::<usize>().read_unaligned() };
    let n_bytes = struct_size.min(size_of::<T>());
    let behind = size_of::<usize>();
    if n_bytes <= behind {
        return Err(GD_INVALID);
    }
    // SAFETY: the drafter promises that `out` has that many bytes, and `value` has no fewer.
    unsafe {
        let from = std::ptr::from_ref(value).cast::<u8>().add(behind);
        out.cast::<u8>().add(behind).copy_from_nonoverlapping(from, n_bytes - behind);
    }
    Ok(())
}

/// An array that the drafter passed. NULL is valid only for an empty array.
///
/// # Safety
///
/// `from` is NULL or points to `n_items` items that live for `'a`.
pub(crate) unsafe fn items<'a, T>(from: *const T, n_items: usize) -> Result<&'a [T], gd_status> {
    if n_items == 0 {
        return Ok(&[]);
    }
    let fits = n_items.checked_mul(size_of::<T>()).is_some_and(|n| n <= isize::MAX as usize);
    if from.is_null() || !from.is_aligned() || !fits {
        return Err(GD_INVALID);
    }
    // SAFETY: all that can be checked is checked; the drafter promises `n_items` items that live
    // until the call returns.
    Ok(unsafe { std::slice::from_raw_parts(from, n_items) })
}

/// Checks the address to which a handle is written.
pub(crate) fn check_out<T>(out: *mut T) -> Result<(), gd_status> {
    if out.is_null() { Err(GD_INVALID) } else { Ok(()) }
}
