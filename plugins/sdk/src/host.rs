//! Access to the host's tables. Fields beyond the `struct_size` that the host wrote are not read.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use galley_drafter_abi::{
    GD_EXT_LAYERS, GD_EXT_MODELS, GD_LOG_DEBUG, GD_LOG_ERROR, GD_LOG_INFO, GD_LOG_WARN, GD_OK,
    gd_host, gd_host_layers, gd_host_models, gd_model_info, gd_status, gd_str,
};

use crate::error::{Error, Result};
use crate::handles::{LayerMask, Layers, Model, ModelInfo};

/// Severity of a sentence in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For the author of the drafter.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is not as it should be.
    Warn,
    /// Explains a failing status. A returned [`Error`] is logged by itself.
    Error,
}

/// A copy of a struct that crosses the border: fields beyond the writer's `struct_size` are zero.
///
/// # Safety
///
/// `T` is a `gd_` struct that begins with `struct_size`, for which all zeros is a value. `from`
/// points to such a struct, and as many bytes as its `struct_size` says can be read.
pub(crate) unsafe fn read<T: Copy>(from: *const T) -> T {
    let mut copy = MaybeUninit::<T>::zeroed();
    // SAFETY: `from` begins with struct_size and has as many bytes; `copy` has room for size_of::<T>().
    unsafe {
        let n_bytes = from.cast::<usize>().read().min(size_of::<T>());
        copy.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(from.cast::<u8>(), n_bytes);
    }
    // SAFETY: all zeros is a value of T, and the host wrote the copied bytes as a T.
    unsafe { copy.assume_init() }
}

/// The host of one drafter.
#[derive(Clone, Copy)]
pub(crate) struct Host {
    pub(crate) raw: *const gd_host,
    table: gd_host,
}

impl Host {
    /// # Safety
    ///
    /// `raw` is a host as in `galley_drafter.h`, and outlives this value and every copy of it.
    pub(crate) unsafe fn new(raw: *const gd_host) -> Self {
        // SAFETY: gd_host begins with struct_size and is made of numbers, a pointer and optional functions.
        let table = unsafe { read(raw) };
        Self { raw, table }
    }

    pub(crate) fn log(self, level: Level, sentence: &str) {
        let level = match level {
            Level::Debug => GD_LOG_DEBUG,
            Level::Info => GD_LOG_INFO,
            Level::Warn => GD_LOG_WARN,
            Level::Error => GD_LOG_ERROR,
        };
        let Some(log) = self.table.log else { return };
        // SAFETY: `new` was promised a live host; the sentence lives until the call returns.
        unsafe { log(self.raw, level.cast_signed(), to_str(sentence)) }
    }

    pub(crate) fn rerecord(self) {
        let Some(rerecord) = self.table.rerecord else { return };
        // SAFETY: `new` was promised a live host.
        unsafe { rerecord(self.raw) }
    }

    /// The table of an extension.
    ///
    /// # Safety
    ///
    /// `id` ends with a NUL and is the id of `T`.
    pub(crate) unsafe fn table<T: Copy>(self, id: &'static [u8]) -> Result<T> {
        let table = match self.table.extension {
            // SAFETY: `new` was promised a live host; the id ends with a NUL.
            Some(extension) => unsafe { extension(self.raw, id.as_ptr().cast()) },
            None => std::ptr::null::<c_void>(),
        };
        if table.is_null() {
            let id = String::from_utf8_lossy(&id[..id.len() - 1]);
            return Err(Error::unsupported(format!("this host lacks {id}")));
        }
        // SAFETY: a table that the host gives under this id is a T and lives until destroy returns.
        Ok(unsafe { read(table.cast::<T>()) })
    }

    pub(crate) fn describe(self, model: Model) -> Result<ModelInfo> {
        // SAFETY: this id is that of gd_host_models.
        let models: gd_host_models = unsafe { self.table(GD_EXT_MODELS)? };
        // SAFETY: gd_model_info has numbers alone: all zeros is a value.
        let mut out: gd_model_info = unsafe { MaybeUninit::zeroed().assume_init() };
        out.struct_size = size_of::<gd_model_info>();
        let describe = models.describe.ok_or_else(|| missing("describe"))?;
        // SAFETY: `new` was promised a live host; `out` says how large it is.
        check("to describe a model", unsafe { describe(self.raw, model.0, &raw mut out) })?;
        Ok(ModelInfo {
            n_layers: out.n_layers,
            n_heads: out.n_heads,
            n_kv_heads: out.n_kv_heads,
            head_dim: out.head_dim,
            hidden_size: out.hidden_size,
            vocab_size: out.vocab_size,
            block_size_tokens: out.block_size_tokens,
            max_context_tokens: out.max_context_tokens,
            n_parameters: out.n_parameters,
        })
    }

    pub(crate) fn change(self, layers: Layers, mask: &LayerMask) -> Result<()> {
        // SAFETY: this id is that of gd_host_layers.
        let table: gd_host_layers = unsafe { self.table(GD_EXT_LAYERS)? };
        let change = table.change.ok_or_else(|| missing("change"))?;
        let (attention, mlp) = (mask.attention.as_ptr(), mask.mlp.as_ptr());
        // SAFETY: `new` was promised a live host; both lists have one entry for each layer.
        let status = unsafe { change(self.raw, layers.0, attention, mlp, mask.n_layers()) };
        check("to change a layer mask", status)
    }
}

/// The error for a function that the host's table does not have.
pub(crate) fn missing(function: &str) -> Error {
    Error::unsupported(format!("this host lacks the function {function}"))
}

/// Only zero is success here: a call that is not a guess has no "fine, but nothing".
pub(crate) fn check(action: &str, status: gd_status) -> Result<()> {
    if status == GD_OK { Ok(()) } else { Err(Error::refused(action, status)) }
}

pub(crate) fn to_str(text: &str) -> gd_str {
    gd_str { ptr: text.as_ptr().cast(), len: text.len() }
}
