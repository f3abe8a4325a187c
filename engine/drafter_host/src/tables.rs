//! The host functions that drafters call: they read arguments and write results. `describe.rs`
//! gives the arguments their meaning. The functions of suffix indexes are in `tables/suffix.rs`.
//!
//! Every pointer here comes from a drafter. The drafter promises that the pointer is valid for the
//! type and count in the header; everything that can be checked is checked.

mod suffix;

use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use galley_drafter_abi as abi;
use galley_drafter_abi::{
    GD_INTERNAL, GD_INVALID, GD_NO_MEMORY, GD_UNSUPPORTED, gd_host, gd_layers, gd_model, gd_queue,
    gd_status, gd_str, gd_view,
};

use crate::ffi::{argument, check_out, fill, host_of, items, status};
use crate::host::{Host, Phase};
use crate::{ModelLoader, ModelRefused};

/// Owns the table that a drafter points to. A `Box` would assert unique access whenever it is
/// moved, and the drafter keeps a pointer.
pub(crate) struct HostTable(NonNull<gd_host>);

impl HostTable {
    /// A table whose functions use `host`, which must live until the drafter has been destroyed.
    pub(crate) fn new(host: &Arc<Host>) -> Self {
        HostTable(NonNull::from(Box::leak(Box::new(host_table(Arc::as_ptr(host))))))
    }

    /// The pointer that the drafter gets.
    pub(crate) fn as_ptr(&self) -> *mut gd_host {
        self.0.as_ptr()
    }
}

impl Drop for HostTable {
    fn drop(&mut self) {
        // SAFETY: `HostTable::new` leaked this Box, and the drafter that pointed to it is
        // destroyed or was never created.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

fn host_table(host: *const Host) -> gd_host {
    gd_host {
        struct_size: size_of::<gd_host>(),
        abi_major: abi::GD_ABI_MAJOR,
        abi_minor: abi::GD_ABI_MINOR,
        host_data: host.cast_mut().cast(),
        extension: Some(extension),
        log: Some(log),
        rerecord: Some(rerecord),
    }
}

unsafe extern "C" fn extension(host: *const gd_host, id: *const c_char) -> *const c_void {
    if host.is_null() || id.is_null() {
        return std::ptr::null();
    }
    // SAFETY: not NULL, and the header promises a NUL-terminated text.
    let id = unsafe { CStr::from_ptr(id) }.to_bytes_with_nul();
    let is = |known: &[u8]| id == known;
    match () {
        () if is(abi::GD_EXT_MODELS) => (&raw const MODELS).cast(),
        () if is(abi::GD_EXT_VIEWS) => (&raw const VIEWS).cast(),
        () if is(abi::GD_EXT_OBSERVE) => (&raw const OBSERVE).cast(),
        () if is(abi::GD_EXT_LAYERS) => (&raw const LAYERS).cast(),
        () if is(abi::GD_EXT_CHAIN) => (&raw const CHAIN).cast(),
        () if is(abi::GD_EXT_TOKENS) => (&raw const TOKENS).cast(),
        () if is(abi::GD_EXT_SUFFIX) => (&raw const suffix::SUFFIX).cast(),
        () if is(abi::GD_EXT_REPLAY) => (&raw const REPLAY).cast(),
        () => std::ptr::null(),
    }
}

unsafe extern "C" fn log(host: *const gd_host, level: i32, message: gd_str) {
    status(|| {
        // SAFETY: the drafter passes the host that it got.
        let host = unsafe { host_of(host)? };
        // SAFETY: the drafter passes a text that lives until this call returns.
        let bytes = unsafe { items(message.ptr.cast::<u8>(), message.len.min(MAX_LOG_BYTES))? };
        let text = String::from_utf8_lossy(bytes);
        let drafter = host.name();
        match u32::try_from(level) {
            Ok(abi::GD_LOG_DEBUG) => tracing::debug!(drafter, "{text}"),
            Ok(abi::GD_LOG_INFO) => tracing::info!(drafter, "{text}"),
            Ok(abi::GD_LOG_WARN) => tracing::warn!(drafter, "{text}"),
            // The message explains a failure; the code that handles the failure decides how loud to
            // be.
            _ => {
                tracing::debug!(drafter, "{text}");
                host.state().last_error = Some(text.into_owned());
            }
        }
        Ok(())
    });
}

unsafe extern "C" fn rerecord(host: *const gd_host) {
    status(|| {
        // SAFETY: the drafter passes the host that it got.
        let host = unsafe { host_of(host)? };
        host.at(Phase::is_inside, |state| {
            state.must_rerecord = true;
            Ok(())
        })
    });
}

unsafe extern "C" fn describe(
    host: *const gd_host,
    model: gd_model,
    out: *mut abi::gd_model_info,
) -> gd_status {
    status(|| {
        // SAFETY: the drafter passes the host that it got.
        let host = unsafe { host_of(host)? };
        let (_, facts) = host.state().model(model.id)?;
        let info = abi::gd_model_info {
            struct_size: 0,
            n_layers: facts.n_layers,
            n_heads: facts.n_heads,
            n_kv_heads: facts.n_kv_heads,
            head_dim: facts.head_dim,
            hidden_size: facts.hidden_size,
            vocab_size: facts.vocab_size,
            block_size_tokens: facts.block_size_tokens,
            max_context_tokens: facts.max_context_tokens,
            n_parameters: facts.n_parameters,
        };
        // SAFETY: the drafter passes a struct that begins with its size.
        unsafe { fill(out, &info) }
    })
}

unsafe extern "C" fn load(host: *const gd_host, source: gd_str, out: *mut gd_model) -> gd_status {
    status(|| {
        // SAFETY: the drafter passes the host that it got.
        let host = unsafe { host_of(host)? };
        // SAFETY: the drafter passes a text that lives until this call returns.
        let source = unsafe { items(source.ptr.cast::<u8>(), source.len)? };
        let source = std::str::from_utf8(source).map_err(|_| GD_INVALID)?;
        check_out(out)?;
        // The loader is taken out, so that it is not entered twice, and the lock is released,
        // because loading takes long.
        let loader =
            host.at(Phase::is_control, |state| state.lent.loader.take().ok_or(GD_UNSUPPORTED))?;
        // SAFETY: `Drafter::activate` lent a pointer to its `&mut dyn ModelLoader`, this is its
        // thread inside the callback, and the pointer has been taken out, so this is its only user.
        let loaded = unsafe { loader.cast::<&mut dyn ModelLoader>().as_mut() }.load(source);
        let mut state = host.state();
        state.lent.loader = Some(loader);
        let (status, reason) = match loaded {
            Ok((id, facts)) => {
                let id = state.models.insert((id, facts)).ok_or(GD_NO_MEMORY)?;
                // SAFETY: not NULL as checked above, and the drafter promises that it can be
                // written to.
                unsafe { out.write_unaligned(gd_model { id }) };
                return Ok(());
            }
            Err(ModelRefused::Unsupported(reason)) => (GD_UNSUPPORTED, reason),
            Err(ModelRefused::NoMemory(reason)) => (GD_NO_MEMORY, reason),
            Err(ModelRefused::Failed(reason)) => (GD_INTERNAL, reason),
        };
        // The drafter gets only a status.
        state.refusal = Some(reason);
        Err(status)
    })
}

unsafe extern "C" fn window(
    host: *const gd_host,
    args: *const abi::gd_window_args,
    out: *mut gd_view,
) -> gd_status {
    status(|| {
        // SAFETY: the drafter passes the host that it got, and a struct that begins with its size.
        let (host, args) = unsafe { (host_of(host)?, argument(args, WINDOW_BYTES)?) };
        check_out(out)?;
        let id = host.at(Phase::is_control, |state| state.window(&args))?;
        // SAFETY: not NULL as checked above, and the drafter promises that it can be written to.
        unsafe { out.write_unaligned(gd_view { id }) };
        Ok(())
    })
}

unsafe extern "C" fn observe(
    host: *const gd_host,
    args: *const abi::gd_observe_args,
    out: *mut gd_view,
) -> gd_status {
    status(|| {
        // SAFETY: the drafter passes the host that it got, and a struct that begins with its size.
        let (host, args) = unsafe { (host_of(host)?, argument(args, OBSERVE_BYTES)?) };
        check_out(out)?;
        let id = host.at(Phase::is_control, |state| state.observe(&args))?;
        // SAFETY: not NULL as checked above, and the drafter promises that it can be written to.
        unsafe { out.write_unaligned(gd_view { id }) };
        Ok(())
    })
}

unsafe extern "C" fn mask(
    host: *const gd_host,
    model: gd_model,
    attention: *const u8,
    mlp: *const u8,
    n_layers: u32,
    out: *mut gd_layers,
) -> gd_status {
    status(|| {
        // SAFETY: the drafter passes the host that it got.
        let host = unsafe { host_of(host)? };
        check_out(out)?;
        let id = host.at(Phase::is_control, |state| {
            let (model, facts) = state.model(model.id)?;
            let n_layers = equal(n_layers, facts.n_layers)?;
            // SAFETY: the drafter passes n_layers flags in each array, and n_layers is the model's
            // number of layers.
            let (attention, mlp) = unsafe { (items(attention, n_layers)?, items(mlp, n_layers)?) };
            state.mask(model, attention, mlp)
        })?;
        // SAFETY: not NULL as checked above, and the drafter promises that it can be written to.
        unsafe { out.write_unaligned(gd_layers { id }) };
        Ok(())
    })
}

unsafe extern "C" fn change(
    host: *const gd_host,
    layers: gd_layers,
    attention: *const u8,
    mlp: *const u8,
    n_layers: u32,
) -> gd_status {
    status(|| {
        // SAFETY: the drafter passes the host that it got.
        let host = unsafe { host_of(host)? };
        host.at(Phase::is_inside, |state| {
            let place = state.masks.place(layers.id).ok_or(GD_INVALID)?;
            let n_known = state.masks.at(place).mask.attention.len();
            let n_layers = equal(n_layers, u32::try_from(n_known).map_err(|_| GD_INVALID)?)?;
            // SAFETY: the drafter passes n_layers flags in each array, and n_layers is the mask's
            // number of layers.
            let (attention, mlp) = unsafe { (items(attention, n_layers)?, items(mlp, n_layers)?) };
            state.change(place, attention, mlp)
        })
    })
}

unsafe extern "C" fn chain(host: *const gd_host, args: *const abi::gd_chain_args) -> gd_status {
    status(|| {
        // SAFETY: the drafter passes the host that it got, and a struct that begins with its size.
        let (host, args) = unsafe { (host_of(host)?, argument(args, CHAIN_BYTES)?) };
        host.at(Phase::is_guess, |state| state.chain(&args))
    })
}

unsafe extern "C" fn lookup(
    host: *const gd_host,
    queue: gd_queue,
    min_n: u32,
    max_n: u32,
) -> gd_status {
    status(|| {
        // SAFETY: the drafter passes the host that it got.
        let host = unsafe { host_of(host)? };
        host.at(Phase::is_guess, |state| state.lookup(queue.id, min_n, max_n))
    })
}

unsafe extern "C" fn row(
    host: *const gd_host,
    queue: gd_queue,
    row: u32,
    out: *mut abi::gd_row,
) -> gd_status {
    status(|| {
        // SAFETY: the drafter passes the host that it got.
        let host = unsafe { host_of(host)? };
        host.at(Phase::is_step, |state| {
            state.check_queue(queue.id)?;
            let row = state.lent.row(row)?;
            let values = abi::gd_row {
                struct_size: 0,
                sequence: row.sequence,
                n_tokens: row.tokens.len() as u64,
                tokens: row.tokens.as_ptr(),
                draft_length: row.draft_length,
                reserved: 0,
            };
            state.is_unrecordable = true;
            // SAFETY: the drafter passes a struct that begins with its size.
            unsafe { fill(out, &values) }
        })
    })
}

unsafe extern "C" fn push(
    host: *const gd_host,
    queue: gd_queue,
    row: u32,
    tokens: *const u32,
    n_tokens: u32,
) -> gd_status {
    status(|| {
        // SAFETY: the drafter passes the host that it got.
        let host = unsafe { host_of(host)? };
        host.at(Phase::is_guess, |state| {
            state.is_unrecordable = true;
            state.check_queue(queue.id)?;
            if n_tokens > state.lent.row(row)?.draft_length {
                return Err(GD_INVALID);
            }
            // SAFETY: the drafter passes n_tokens tokens.
            let tokens = unsafe { items(tokens, n_tokens as usize)? };
            state.push(row, tokens)
        })
    })
}

unsafe extern "C" fn replay(
    host: *const gd_host,
    queue: gd_queue,
    layers: gd_layers,
    n_tokens: u32,
) -> gd_status {
    status(|| {
        // SAFETY: the drafter passes the host that it got.
        let host = unsafe { host_of(host)? };
        host.at(Phase::is_step, |state| state.replay(queue.id, layers.id, n_tokens))
    })
}

unsafe extern "C" fn score(
    host: *const gd_host,
    layers: gd_layers,
    out: *mut abi::gd_replay_score,
) -> gd_status {
    status(|| {
        // SAFETY: the drafter passes the host that it got.
        let host = unsafe { host_of(host)? };
        host.at(Phase::is_step, |state| {
            state.is_unrecordable = true;
            let scored = state.masks.at(state.masks.place(layers.id).ok_or(GD_INVALID)?);
            let (n_matched, n_compared) = (scored.n_matched, scored.n_compared);
            // SAFETY: the drafter passes a struct that begins with its size.
            unsafe { fill(out, &abi::gd_replay_score { struct_size: 0, n_matched, n_compared }) }
        })
    })
}

fn equal(n_given: u32, n_wanted: u32) -> Result<usize, gd_status> {
    if n_given == n_wanted { Ok(n_given as usize) } else { Err(GD_INVALID) }
}

/// Sizes of the argument structs in version 1.0, all required. Fields of later versions may be
/// missing.
const WINDOW_BYTES: usize = 24;
const OBSERVE_BYTES: usize = 48;
const CHAIN_BYTES: usize = 40;

/// Longer messages are cut. A message is a sentence or two.
const MAX_LOG_BYTES: usize = 4096;

static MODELS: abi::gd_host_models = abi::gd_host_models {
    struct_size: size_of::<abi::gd_host_models>(),
    describe: Some(describe),
    load: Some(load),
};
static VIEWS: abi::gd_host_views =
    abi::gd_host_views { struct_size: size_of::<abi::gd_host_views>(), window: Some(window) };
static OBSERVE: abi::gd_host_observe =
    abi::gd_host_observe { struct_size: size_of::<abi::gd_host_observe>(), observe: Some(observe) };
static LAYERS: abi::gd_host_layers = abi::gd_host_layers {
    struct_size: size_of::<abi::gd_host_layers>(),
    mask: Some(mask),
    change: Some(change),
};
static CHAIN: abi::gd_host_chain =
    abi::gd_host_chain { struct_size: size_of::<abi::gd_host_chain>(), chain: Some(chain) };
static TOKENS: abi::gd_host_tokens = abi::gd_host_tokens {
    struct_size: size_of::<abi::gd_host_tokens>(),
    lookup: Some(lookup),
    row: Some(row),
    push: Some(push),
};
static REPLAY: abi::gd_host_replay = abi::gd_host_replay {
    struct_size: size_of::<abi::gd_host_replay>(),
    replay: Some(replay),
    score: Some(score),
};
