//! Texts and token ids that the library gives out.

use crate::failure::Failure;
use crate::handles::{Kind, Table};
use crate::process;
use std::ffi::c_char;

/// A text that the library owns until galley_string_free. Copies of the struct are the same text.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct galley_string {
    /// UTF-8; a NUL follows. Never NULL after success.
    pub ptr: *const c_char,
    /// In bytes, without the NUL.
    pub len: usize,
    /// The library's number of the text. 0: no text.
    pub id: u64,
}

/// Token ids that the library owns until galley_tokens_free. Copies of the struct are the same ids.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct galley_tokens {
    /// The ids. Not to be read where len is 0.
    pub ptr: *const u32,
    /// Number of ids.
    pub len: usize,
    /// The library's number of the list. 0: no list.
    pub id: u64,
}

static STRINGS: Table<Vec<u8>> = Table::new(Kind::String);
static TOKENS: Table<Vec<u32>> = Table::new(Kind::Tokens);

impl galley_string {
    /// No text.
    pub(crate) const EMPTY: Self = galley_string { ptr: std::ptr::null(), len: 0, id: 0 };

    pub(crate) fn new(text: impl Into<String>) -> Result<Self, Failure> {
        let bytes = with_nul(text.into());
        // The bytes lie still while the table has them: a Vec may move, its memory does not.
        let (ptr, len) = (bytes.as_ptr().cast(), bytes.len() - 1);
        let id = STRINGS.insert(bytes).ok_or_else(|| Failure::full("texts"))?;
        Ok(galley_string { ptr, len, id })
    }
}

impl galley_tokens {
    /// No ids.
    pub(crate) const EMPTY: Self = galley_tokens { ptr: std::ptr::null(), len: 0, id: 0 };

    pub(crate) fn new(ids: Vec<u32>) -> Result<Self, Failure> {
        let (ptr, len) = (ids.as_ptr(), ids.len());
        let id = TOKENS.insert(ids).ok_or_else(|| Failure::full("lists of tokens"))?;
        Ok(galley_tokens { ptr, len, id })
    }
}

/// The bytes of a text, and a NUL.
pub(crate) fn with_nul(text: String) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    bytes.reserve_exact(1);
    bytes.push(0);
    bytes
}

/// Frees a text and clears the struct. NULL, an empty struct and a freed text are ignored.
///
/// # Safety
///
/// Pointers are NULL, or valid as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn galley_string_free(string: *mut galley_string) {
    if string.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    let id = unsafe { string.replace(galley_string::EMPTY) }.id;
    if !process::is_child() {
        let _ = STRINGS.remove(id);
    }
}

/// Frees token ids and clears the struct. NULL, an empty struct and freed ids are ignored.
///
/// # Safety
///
/// Pointers are NULL, or valid as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn galley_tokens_free(tokens: *mut galley_tokens) {
    if tokens.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    let id = unsafe { tokens.replace(galley_tokens::EMPTY) }.id;
    if !process::is_child() {
        let _ = TOKENS.remove(id);
    }
}
