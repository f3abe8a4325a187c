//! The emulation as a device: a GPU with its driver and its kernels on the CPU.

use super::device::Device;
use super::driver::{Driver, claim};
use super::gpu;
use crate::{BackendError, Result};
use std::sync::{Arc, OnceLock};

/// The CUDA release that the emulated driver reports.
const RELEASE: &str = "13.0";

/// Opens the emulated GPU.
pub(super) fn open() -> Result<Arc<dyn Device>> {
    claim(Driver::Emulated)?;
    static LOADED: OnceLock<Result<libloading::Library, String>> = OnceLock::new();
    // SAFETY: the library is part of this project, and runs no code when it is loaded.
    let load = || unsafe { libloading::Library::new(galley_kernels_cu::EMULATED_DRIVER) };
    let loaded = LOADED.get_or_init(|| load().map_err(|error| error.to_string()));
    if let Err(error) = loaded {
        return Err(BackendError::Unsupported(format!("the emulated driver: {error}")));
    }
    gpu::open_with("emulated", galley_kernels_cu::emulated, RELEASE, 0)
}
