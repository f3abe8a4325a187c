//! The tables that a drafter gets: each function checks its arguments and calls the host's
//! function.

use super::memory::{GuardedWords, MAX_SIZE, prefix_of};
use super::{Between, Lending, between_of};
use crate::observed::{Breach, Function};
use crate::target::TARGET;
use galley_drafter_abi as abi;
use galley_drafter_abi::{
    GD_INVALID, GD_OK, GD_UNSUPPORTED, gd_host, gd_layers, gd_matcher, gd_model, gd_queue,
    gd_status, gd_str, gd_view,
};
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_void};

/// The host's own tables.
pub(super) struct HostTables {
    raw: *const gd_host,
    host: gd_host,
    models: abi::gd_host_models,
    views: abi::gd_host_views,
    observe: abi::gd_host_observe,
    layers: abi::gd_host_layers,
    chain: abi::gd_host_chain,
    tokens: abi::gd_host_tokens,
    suffix: abi::gd_host_suffix,
    replay: abi::gd_host_replay,
}

impl HostTables {
    /// # Safety
    ///
    /// `raw` is the host's table and outlives the result.
    pub(super) unsafe fn of(raw: *const gd_host) -> Self {
        // SAFETY: the host's table begins with its size.
        let host = unsafe { prefix_of(raw) };
        let table = |id: &[u8]| match host.extension {
            // SAFETY: the host is live, and the id ends with a NUL.
            Some(extension) => unsafe { extension(raw, id.as_ptr().cast()) },
            None => std::ptr::null(),
        };
        // SAFETY: this host offers every extension, and each table has the type of its id and
        // begins with its size.
        unsafe {
            HostTables {
                raw,
                host,
                models: prefix_of(table(abi::GD_EXT_MODELS).cast()),
                views: prefix_of(table(abi::GD_EXT_VIEWS).cast()),
                observe: prefix_of(table(abi::GD_EXT_OBSERVE).cast()),
                layers: prefix_of(table(abi::GD_EXT_LAYERS).cast()),
                chain: prefix_of(table(abi::GD_EXT_CHAIN).cast()),
                tokens: prefix_of(table(abi::GD_EXT_TOKENS).cast()),
                suffix: prefix_of(table(abi::GD_EXT_SUFFIX).cast()),
                replay: prefix_of(table(abi::GD_EXT_REPLAY).cast()),
            }
        }
    }

    pub(super) fn rerecord(&self) {
        if let Some(rerecord) = self.host.rerecord {
            // SAFETY: the host is live until the drafter is destroyed.
            unsafe { rerecord(self.raw) };
        }
    }
}

/// The tables that the drafter gets instead of the host's.
pub(super) struct LentTables {
    /// Written once, before the drafter has a pointer to it.
    host: UnsafeCell<GuardedWords>,
    tables: Vec<(&'static CStr, GuardedWords)>,
}

impl LentTables {
    pub(super) fn new(lending: &Lending) -> Self {
        let host = gd_host {
            struct_size: 0,
            abi_major: abi::GD_ABI_MAJOR,
            abi_minor: abi::GD_ABI_MINOR + if lending.is_newer { 7 } else { 0 },
            host_data: std::ptr::null_mut(),
            extension: Some(extension),
            log: Some(log),
            rerecord: Some(rerecord),
        };
        // SAFETY: `host` is a struct of the header.
        let host = unsafe { GuardedWords::of(&host) };
        let mut lent = LentTables {
            host: UnsafeCell::new(host.with_traps(lending.host_words, lending.is_newer)),
            tables: Vec::new(),
        };
        let models = (Some(describe as _), Some(load as _));
        let tokens = (Some(lookup as _), Some(row as _), Some(push as _));
        let struct_size = 0;
        lent.add(
            abi::GD_EXT_MODELS,
            lending,
            abi::gd_host_models { struct_size, describe: models.0, load: models.1 },
        );
        lent.add(
            abi::GD_EXT_VIEWS,
            lending,
            abi::gd_host_views { struct_size, window: Some(window) },
        );
        lent.add(
            abi::GD_EXT_OBSERVE,
            lending,
            abi::gd_host_observe { struct_size, observe: Some(observe) },
        );
        lent.add(
            abi::GD_EXT_LAYERS,
            lending,
            abi::gd_host_layers { struct_size, mask: Some(mask), change: Some(change) },
        );
        lent.add(
            abi::GD_EXT_CHAIN,
            lending,
            abi::gd_host_chain { struct_size, chain: Some(chain) },
        );
        lent.add(
            abi::GD_EXT_TOKENS,
            lending,
            abi::gd_host_tokens { struct_size, lookup: tokens.0, row: tokens.1, push: tokens.2 },
        );
        let suffix = (Some(matcher as _), Some(propose as _), Some(query as _));
        lent.add(
            abi::GD_EXT_SUFFIX,
            lending,
            abi::gd_host_suffix {
                struct_size,
                matcher: suffix.0,
                propose: suffix.1,
                query: suffix.2,
            },
        );
        lent.add(
            abi::GD_EXT_REPLAY,
            lending,
            abi::gd_host_replay { struct_size, replay: Some(replay), score: Some(score) },
        );
        lent
    }

    fn add<T: Copy>(&mut self, id: &'static [u8], lending: &Lending, table: T) {
        let id = CStr::from_bytes_with_nul(id).expect("the header's ids end with a NUL");
        if lending.withheld.as_deref() != id.to_str().ok() {
            // SAFETY: `table` is a table of the header.
            let words = unsafe { GuardedWords::of(&table) };
            self.tables.push((id, words.with_traps(lending.table_words, lending.is_newer)));
        }
    }

    pub(super) fn point_to(&self, between: *mut Between) {
        // SAFETY: create calls this once, before the drafter has a pointer to it.
        let host = unsafe { &mut *self.host.get() }.as_mut_ptr::<gd_host>();
        // SAFETY: the words hold a whole gd_host, whatever part of it `struct_size` covers.
        unsafe { (*host).host_data = between.cast() };
    }

    pub(super) fn host(&self) -> *const gd_host {
        // SAFETY: only `point_to` writes it, before the drafter has a pointer to it.
        unsafe { &*self.host.get() }.as_ptr()
    }
}

unsafe extern "C" fn extension(host: *const gd_host, id: *const c_char) -> *const c_void {
    // SAFETY: the drafter passes the host that it got.
    let Some(between) = (unsafe { between_of(host) }) else { return std::ptr::null() };
    if id.is_null() {
        between.breach(Breach::Argument, "extension was asked for the id NULL".to_owned());
        return std::ptr::null();
    }
    // SAFETY: not NULL, and the header promises a NUL-terminated text.
    let id = unsafe { CStr::from_ptr(id) };
    let found = between.lent.tables.iter().find(|(known, _)| *known == id);
    found.map_or(std::ptr::null(), |(_, words)| words.as_ptr())
}

unsafe extern "C" fn log(host: *const gd_host, level: i32, message: gd_str) {
    // SAFETY: the drafter passes the host that it got.
    let Some(between) = (unsafe { between_of(host) }) else { return };
    between.enter(Function::Log);
    let is_text = if message.len == 0 {
        true
    } else if message.ptr.is_null() || message.len > MAX_SENTENCE {
        false
    } else {
        // SAFETY: the drafter passes a text that lives until this call returns.
        let bytes = unsafe { std::slice::from_raw_parts(message.ptr.cast::<u8>(), message.len) };
        if level == abi::GD_LOG_ERROR.cast_signed() {
            let text = String::from_utf8_lossy(bytes).into_owned();
            between.saw(|observed| observed.sentence = Some(text));
        }
        std::str::from_utf8(bytes).is_ok()
    };
    if !is_text || !(0..=abi::GD_LOG_ERROR.cast_signed()).contains(&level) {
        let (place, len) = (between.place(), message.len);
        let sentence = format!("{len} bytes at level {level} were logged {place}");
        between.breach(Breach::Log, sentence);
        return;
    }
    if let Some(log) = between.inner.host.log {
        // SAFETY: the call is passed on to the host that owns the table.
        unsafe { log(between.inner.raw, level, message) };
    }
}

unsafe extern "C" fn rerecord(host: *const gd_host) {
    // SAFETY: the drafter passes the host that it got.
    let Some(between) = (unsafe { between_of(host) }) else { return };
    between.enter(Function::Rerecord);
    if !between.is_inside() {
        between.breach(Breach::Phase, format!("rerecord was called {}", between.place()));
    }
    between.inner.rerecord();
}

/// Records a call and passes it on, unless the function must fail.
///
/// # Safety
///
/// The drafter passes the host that it got.
unsafe fn forward(
    host: *const gd_host,
    function: Function,
    call: impl FnOnce(&Between, *const gd_host) -> Option<gd_status>,
) -> gd_status {
    // SAFETY: promised by the caller.
    let Some(between) = (unsafe { between_of(host) }) else { return GD_INVALID };
    if let Some(status) = between.enter(function) {
        return status;
    }
    let status = call(between, between.inner.raw).unwrap_or(GD_UNSUPPORTED);
    between.leave(function, status);
    status
}

/// Checks the `struct_size` of a drafter's struct. `n_bytes` is the minimum.
///
/// # Safety
///
/// `of` is NULL or points to a struct that begins with its size.
unsafe fn check_size<T>(between: &Between, function: Function, of: *const T, n_bytes: usize) {
    if of.is_null() {
        return;
    }
    // SAFETY: not NULL, and promised by the caller.
    let said = unsafe { of.cast::<usize>().read_unaligned() };
    if said < n_bytes || said > MAX_SIZE {
        let kind = std::any::type_name::<T>().rsplit(':').next().unwrap_or_default();
        let (name, place) = (function.name(), between.place());
        let sentence = format!(
            "{name} {place}: its {kind} says that it has {said} bytes, and it has {}",
            size_of::<T>()
        );
        between.breach(Breach::Size, sentence);
    }
}

macro_rules! forwarders {
    ($($name:ident: $function:ident of $table:ident, ($($arg:ident: $kind:ty),*) $look:expr;)*) => {$(
        unsafe extern "C" fn $name(host: *const gd_host, $($arg: $kind),*) -> gd_status {
            // SAFETY: the drafter passes the host that it got, and structs that begin with their sizes.
            unsafe {
                forward(host, Function::$function, |between, inner| {
                    let look: fn(&Between, $($kind),*) = $look;
                    look(between, $($arg),*);
                    Some(between.inner.$table.$name?(inner, $($arg),*))
                })
            }
        }
    )*};
}

forwarders! {
    describe: Describe of models, (model: gd_model, out: *mut abi::gd_model_info)
        |between, _, out| check_size(between, Function::Describe, out, SOMETHING);
    load: Load of models, (source: gd_str, out: *mut gd_model) |_, _, _| {};
    window: Window of views, (args: *const abi::gd_window_args, out: *mut gd_view)
        |between, args, _| check_size(between, Function::Window, args, size_of::<abi::gd_window_args>());
    observe: Observe of observe, (args: *const abi::gd_observe_args, out: *mut gd_view) look_observe;
    mask: Mask of layers, (model: gd_model, attention: *const u8, mlp: *const u8, n_layers: u32, out: *mut gd_layers)
        |_, _, _, _, _, _| {};
    change: Change of layers, (layers: gd_layers, attention: *const u8, mlp: *const u8, n_layers: u32)
        |_, _, _, _, _| {};
    chain: Chain of chain, (args: *const abi::gd_chain_args)
        |between, args| check_size(between, Function::Chain, args, size_of::<abi::gd_chain_args>());
    lookup: Lookup of tokens, (queue: gd_queue, min_n: u32, max_n: u32) |_, _, _, _| {};
    row: Row of tokens, (queue: gd_queue, row: u32, out: *mut abi::gd_row)
        |between, _, _, out| check_size(between, Function::Row, out, SOMETHING);
    push: Push of tokens, (queue: gd_queue, row: u32, tokens: *const u32, n_tokens: u32) look_push;
    matcher: Matcher of suffix, (args: *const abi::gd_matcher_args, out: *mut gd_matcher) look_matcher;
    propose: Propose of suffix, (queue: gd_queue, matcher: gd_matcher) |_, _, _| {};
    query: Query of suffix, (args: *const abi::gd_query, out: *mut abi::gd_match)
        |between, args, out| {
            check_size(between, Function::Query, args, size_of::<abi::gd_query>());
            check_size(between, Function::Query, out, SOMETHING);
        };
    replay: Replay of replay, (queue: gd_queue, layers: gd_layers, n_tokens: u32) |_, _, _, _| {};
    score: Score of replay, (layers: gd_layers, out: *mut abi::gd_replay_score)
        |between, _, out| check_size(between, Function::Score, out, SOMETHING);
}

fn look_observe(between: &Between, args: *const abi::gd_observe_args, _: *mut gd_view) {
    // SAFETY: the drafter passes a struct that begins with its size.
    unsafe { check_size(between, Function::Observe, args, size_of::<abi::gd_observe_args>()) };
    if args.is_null() {
        return;
    }
    // SAFETY: not NULL, and it begins with its size.
    check_reserved(between, Function::Observe, unsafe { prefix_of(args) }.reserved);
}

fn look_matcher(between: &Between, args: *const abi::gd_matcher_args, _: *mut gd_matcher) {
    // SAFETY: the drafter passes a struct that begins with its size.
    unsafe { check_size(between, Function::Matcher, args, size_of::<abi::gd_matcher_args>()) };
    if !args.is_null() {
        // SAFETY: not NULL, and it begins with its size.
        check_reserved(between, Function::Matcher, unsafe { prefix_of(args) }.reserved);
    }
}

fn check_reserved(between: &Between, function: Function, reserved: u32) {
    if reserved != 0 {
        let (place, name) = (between.place(), function.name());
        let sentence = format!("{name} {place}: the reserved field is {reserved}, not 0");
        between.breach(Breach::Size, sentence);
    }
}

/// Compares pushed draft tokens with the row's draft length and the vocabulary, because the host
/// cuts or refuses them silently.
fn look_push(between: &Between, queue: gd_queue, row: u32, tokens: *const u32, n_tokens: u32) {
    let mut known = abi::gd_row {
        struct_size: size_of::<abi::gd_row>(),
        sequence: 0,
        n_tokens: 0,
        tokens: std::ptr::null(),
        draft_length: 0,
        reserved: 0,
    };
    let Some(ask) = between.inner.tokens.row else { return };
    // SAFETY: the host is live; it checks the queue and the row.
    if unsafe { ask(between.inner.raw, queue, row, &raw mut known) } != GD_OK {
        return;
    }
    let draft_length = known.draft_length;
    if n_tokens > draft_length {
        let sentence = format!(
            "{n_tokens} tokens were pushed for a row with a draft length of {draft_length}"
        );
        between.breach(Breach::Guess, sentence);
        return;
    }
    if tokens.is_null() || n_tokens == 0 {
        return;
    }
    // SAFETY: the drafter passes n_tokens tokens, which is at most a draft length.
    let tokens = unsafe { std::slice::from_raw_parts(tokens, n_tokens as usize) };
    let vocab_size = TARGET.vocab_size;
    if let Some(token) = tokens.iter().find(|&&token| token >= vocab_size) {
        let sentence = format!("the token {token} was pushed, and the vocabulary has {vocab_size}");
        between.breach(Breach::Guess, sentence);
    }
}

/// A struct to be filled has at least its size and one field.
const SOMETHING: usize = 2 * size_of::<usize>();

/// Limit on a log message in bytes. A log message is a sentence.
const MAX_SENTENCE: usize = 1 << 20;
