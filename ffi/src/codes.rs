//! The numbers of the header: codes of errors, kinds and flags of events, flags of functions, levels of the log.

/// The interface that this header describes: see galley_abi_version.
pub const GALLEY_ABI_VERSION: u32 = 0;

/// Success: the code of no error.
pub const GALLEY_OK: i32 = 0;
/// An argument is NULL, out of its range or not UTF-8.
pub const GALLEY_INVALID_ARGUMENT: i32 = 1;
/// The handle is NULL, of another kind, or was never given out.
pub const GALLEY_INVALID_HANDLE: i32 = 2;
/// The handle has been closed. A function that waits returns it when another thread closes its handle.
pub const GALLEY_CLOSED: i32 = 3;
/// This process was forked after its parent had opened an engine: fork first, or start a new program.
pub const GALLEY_FORKED: i32 = 4;
/// A request is wrong: galley_error_field names the key.
pub const GALLEY_INVALID_REQUEST: i32 = 5;
/// A setting of an engine is wrong: galley_error_field names the key.
pub const GALLEY_INVALID_SETTING: i32 = 6;
/// The model is not on this machine, or could not be fetched.
pub const GALLEY_MODEL_NOT_FOUND: i32 = 7;
/// The model cannot be loaded: its files or the memory of this machine do not allow it.
pub const GALLEY_LOAD_FAILED: i32 = 8;
/// Too many requests wait: submit again when some have ended.
pub const GALLEY_BUSY: i32 = 9;
/// The engine accepts no requests any more.
pub const GALLEY_STOPPED: i32 = 10;
/// The operation began and could not be finished; or the system gave no memory, thread or file descriptor.
pub const GALLEY_FAILED: i32 = 11;
/// This build, system or model cannot do it.
pub const GALLEY_UNSUPPORTED: i32 = 12;
/// A fault of Galley. The engine may be used further; please report the message.
pub const GALLEY_BUG: i32 = 13;

/// galley_event.kind: a sequence has a new token.
pub const GALLEY_TOKEN: u32 = 1;
/// galley_event.kind: a sequence has ended. json has the object of outputs[i] in an answer, without its tokens:
/// {"index", "finish_reason", "stop_reason", "usage"}.
pub const GALLEY_FINISHED: u32 = 2;
/// galley_event.kind: the request cannot continue. json has {"error": {"code", "message"}}.
pub const GALLEY_ERROR: u32 = 3;

/// galley_event.flags: logprob has a value.
pub const GALLEY_HAS_LOGPROB: u32 = 1;
/// galley_event.flags: no event of this request follows.
pub const GALLEY_IS_LAST: u32 = 2;

/// Flag of galley_tokenize: adds the begin and end tokens that the model expects, as for a prompt of text. A rendered
/// chat template has them already.
pub const GALLEY_ADD_SPECIAL: u32 = 1;
/// Flag of galley_tokenize: a special token that is spelt out in the text is text.
pub const GALLEY_PLAIN_TEXT: u32 = 2;
/// Flag of galley_detokenize: leaves out special tokens, as the text of an answer does.
pub const GALLEY_SKIP_SPECIAL: u32 = 4;

/// Level of the log: a failure.
pub const GALLEY_LOG_ERROR: i32 = 1;
/// Level of the log: something that is ignored, or done in another way than asked.
pub const GALLEY_LOG_WARN: i32 = 2;
/// Level of the log: facts for people.
pub const GALLEY_LOG_INFO: i32 = 3;
/// Level of the log: facts for authors of drafters.
pub const GALLEY_LOG_DEBUG: i32 = 4;
/// Level of the log: everything.
pub const GALLEY_LOG_TRACE: i32 = 5;
