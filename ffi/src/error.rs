//! Errors of C: a code, a sentence, and the key of the JSON that is wrong.

use crate::codes;
use crate::failure::Failure;
use crate::handles::{Kind, Table};
use crate::process;
use std::ffi::{CStr, CString, c_char};
use std::sync::Arc;

/// The reason why a function failed.
pub enum galley_error {}

struct Body {
    code: i32,
    message: CString,
    field: Option<CString>,
}

static ERRORS: Table<Arc<Body>> = Table::new(Kind::Error);

/// The errors that need no table, and that are never freed: a forked child, and a table that is full. No table gives
/// out such numbers, because their generation is 0.
const FORKED: usize = (Kind::Error as usize) << 56 | 1;
const FULL: usize = (Kind::Error as usize) << 56 | 2;

pub(crate) fn forked() -> *mut galley_error {
    std::ptr::without_provenance_mut(FORKED)
}

/// The error of a failure, which the caller frees.
pub(crate) fn raise(failure: Failure) -> *mut galley_error {
    let body = Body {
        code: failure.code,
        message: c_string(failure.message),
        field: failure.field.map(c_string),
    };
    let id = ERRORS.insert(Arc::new(body)).map_or(FULL, |id| id as usize);
    std::ptr::without_provenance_mut(id)
}

/// A NUL inside ends no text of C early: U+FFFD stands for it.
fn c_string(text: String) -> CString {
    CString::new(text).unwrap_or_else(|error| {
        let text = String::from_utf8_lossy(&error.into_vec()).replace('\0', "\u{fffd}");
        CString::new(text).unwrap_or_default()
    })
}

/// The parts of an error: its code, message and field.
type Parts = (i32, *const c_char, *const c_char);

/// The parts of an error. The message of an error that has been freed says so.
fn parts(error: *const galley_error) -> Parts {
    let fixed = |code, message: &'static CStr| (code, message.as_ptr(), std::ptr::null());
    let forked =
        c"this process was forked after its parent had opened an engine: fork first, or start a new program (spawn)";
    match error.addr() {
        0 => fixed(codes::GALLEY_OK, c""),
        FULL => fixed(
            codes::GALLEY_FAILED,
            c"too many errors at a time: free them with galley_error_free",
        ),
        FORKED => fixed(codes::GALLEY_FORKED, forked),
        _ if process::is_child() => fixed(codes::GALLEY_FORKED, forked),
        id => match ERRORS.find(id as u64) {
            // The table keeps the body alive until galley_error_free.
            Ok(body) => {
                let field = body.field.as_ref().map_or(std::ptr::null(), |field| field.as_ptr());
                (body.code, body.message.as_ptr(), field)
            }
            Err(_) => fixed(codes::GALLEY_INVALID_HANDLE, c"the error has been freed"),
        },
    }
}

/// One of GALLEY_OK to GALLEY_BUG. GALLEY_OK for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn galley_error_code(error: *const galley_error) -> i32 {
    parts(error).0
}

/// A sentence with the way out. It begins with the field, if there is one: "temperature: -1 is not between 0 and 100".
/// Empty for NULL. Lives until galley_error_free.
#[unsafe(no_mangle)]
pub extern "C" fn galley_error_message(error: *const galley_error) -> *const c_char {
    parts(error).1
}

/// The key of the JSON that is wrong, such as "temperature"; or NULL. Lives until galley_error_free.
#[unsafe(no_mangle)]
pub extern "C" fn galley_error_field(error: *const galley_error) -> *const c_char {
    parts(error).2
}

/// Frees an error. NULL and freed errors are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn galley_error_free(error: *mut galley_error) {
    if !process::is_child() {
        let _ = ERRORS.remove(error.addr() as u64);
    }
}
