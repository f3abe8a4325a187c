//! Texts to tokens and back, and chats to prompts.

use crate::border::{give, slice, text};
use crate::codes;
use crate::engine::{find_engine, galley_engine};
use crate::error::galley_error;
use crate::failure::Failure;
use crate::strings::{galley_string, galley_tokens};
use std::ffi::c_char;

/// Refuses flags that a function does not have.
fn check_flags(flags: u32, known: u32) -> Result<(), Failure> {
    match flags & !known {
        0 => Ok(()),
        _ => Err(Failure::argument(
            "flags",
            &format!("a sum of flags of this function: {flags} is not"),
        )),
    }
}

/// The tokens of a text. flags: GALLEY_ADD_SPECIAL, GALLEY_PLAIN_TEXT.
///
/// out receives token ids: free them with galley_tokens_free.
///
/// # Safety
///
/// Pointers are NULL, or valid as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn galley_tokenize(
    engine: *mut galley_engine,
    text: *const c_char,
    text_len: usize,
    flags: u32,
    out: *mut galley_tokens,
) -> *mut galley_error {
    let work = || {
        let engine = find_engine(engine)?;
        check_flags(flags, codes::GALLEY_ADD_SPECIAL | codes::GALLEY_PLAIN_TEXT)?;
        // SAFETY: the caller's promise.
        let text = unsafe { self::text("text", text, text_len) }?;
        let tokenizer = engine.texts.tokenizer();
        let add_special = flags & codes::GALLEY_ADD_SPECIAL != 0;
        let ids = match flags & codes::GALLEY_PLAIN_TEXT {
            0 => tokenizer.encode(text, add_special),
            _ if add_special => return Err(Failure::argument("flags", "one of the two, not both")),
            _ => tokenizer.encode_plain(text),
        };
        galley_tokens::new(ids.map_err(|e| Failure::new(codes::GALLEY_FAILED, e.to_string()))?)
    };
    // SAFETY: the caller's promise.
    unsafe { give(out, galley_tokens::EMPTY, work) }
}

/// The text of tokens. Bytes that are not UTF-8 become U+FFFD. Ids without a token add no text. flags:
/// GALLEY_SKIP_SPECIAL.
///
/// out receives a text: free it with galley_string_free.
///
/// # Safety
///
/// Pointers are NULL, or valid as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn galley_detokenize(
    engine: *mut galley_engine,
    ids: *const u32,
    n_ids: usize,
    flags: u32,
    out: *mut galley_string,
) -> *mut galley_error {
    let work = || {
        let engine = find_engine(engine)?;
        check_flags(flags, codes::GALLEY_SKIP_SPECIAL)?;
        // SAFETY: the caller's promise.
        let ids = unsafe { slice("ids", ids, n_ids) }?;
        galley_string::new(engine.texts.tokenizer().decode(ids, flags != 0))
    };
    // SAFETY: the caller's promise.
    unsafe { give(out, galley_string::EMPTY, work) }
}

/// The prompt that the model's chat template makes of {"messages": […]}, with "tools", "chat_template_kwargs",
/// "add_generation_prompt" and "continue_final_message" as in a request.
///
/// out receives a text: free it with galley_string_free.
///
/// # Safety
///
/// Pointers are NULL, or valid as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn galley_chat_render(
    engine: *mut galley_engine,
    json: *const c_char,
    json_len: usize,
    out: *mut galley_string,
) -> *mut galley_error {
    let work = || {
        let engine = find_engine(engine)?;
        // SAFETY: the caller's promise.
        let json = unsafe { text("json", json, json_len) }?;
        galley_string::new(engine.texts.render_chat(json)?)
    };
    // SAFETY: the caller's promise.
    unsafe { give(out, galley_string::EMPTY, work) }
}
