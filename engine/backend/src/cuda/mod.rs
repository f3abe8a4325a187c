//! The CUDA backend: kernels in `kernels-cu`, launched over device memory from here.
//!
//! | file | subject |
//! |---|---|
//! | [`device`] | what a device offers: memory, a stream, launchers; a GPU ([`gpu`]) or the emulation ([`emulated`]) |
//! | [`memory`] | buffers that free themselves |
//!
//! The emulation runs the same kernels on the CPU, slowly: it is for tests.

mod device;
#[cfg(feature = "emulate")]
mod emulated;
#[cfg(feature = "cuda")]
mod gpu;
mod memory;

#[cfg(feature = "cuda")]
pub use gpu::{GpuInfo, gpus};

use crate::{Dtype, Result};
use device::Device;
use std::sync::Arc;

/// Where a [`CudaBackend`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CudaDevice {
    /// The GPU of this ordinal.
    #[cfg(feature = "cuda")]
    Gpu(usize),
    /// The emulation of a device on the CPU, for tests.
    #[cfg(feature = "emulate")]
    Emulated,
}

/// How to set up a [`CudaBackend`].
#[derive(Clone, Copy, Debug)]
pub struct CudaConfig {
    /// Where it computes.
    pub device: CudaDevice,
    /// How much of the device's memory may be taken, by everybody together, once the KV pool is there: what is left
    /// is for draft models, and for working memory that grows.
    pub memory_share: f64,
}

impl CudaConfig {
    /// `device`, with nine tenths of its memory.
    pub fn new(device: CudaDevice) -> Self {
        Self { device, memory_share: 0.9 }
    }
}

/// A backend on a GPU: weights, matrix operands and the KV cache in bf16.
pub struct CudaBackend {
    device: Arc<dyn Device>,
    memory_share: f64,
}

impl CudaBackend {
    /// Opens the device.
    ///
    /// # Errors
    ///
    /// Where there is no such device, or none that these kernels run on.
    pub fn new(config: CudaConfig) -> Result<Self> {
        let device: Arc<dyn Device> = match config.device {
            #[cfg(feature = "cuda")]
            CudaDevice::Gpu(ordinal) => gpu::open(ordinal)?,
            #[cfg(feature = "emulate")]
            CudaDevice::Emulated => Arc::new(emulated::Emulated::default()),
        };
        Ok(Self { device, memory_share: config.memory_share })
    }

    /// The format of weights, matrix operands and the KV cache.
    pub fn dtype(&self) -> Dtype {
        Dtype::Bf16
    }
}
