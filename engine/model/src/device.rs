//! The device of a model, and loading onto it.

use crate::Result;
use crate::language_model::{LanguageModel, LoadOptions};
use crate::model_host::ModelHost;
use crate::weights::Checkpoint;
use galley_backend::cpu::{CpuBackend, CpuConfig};
#[cfg(any(feature = "cuda", feature = "emulate"))]
use galley_backend::cuda::{CudaBackend, CudaConfig};

/// A device for a model. The CUDA variants need a feature of this crate.
#[derive(Clone, Copy, Debug)]
pub enum Device {
    /// The CPU.
    Cpu(CpuConfig),
    /// A GPU, or the emulation of one.
    #[cfg(any(feature = "cuda", feature = "emulate"))]
    Cuda(CudaConfig),
}

impl From<CpuConfig> for Device {
    fn from(config: CpuConfig) -> Self {
        Device::Cpu(config)
    }
}

#[cfg(any(feature = "cuda", feature = "emulate"))]
impl From<CudaConfig> for Device {
    fn from(config: CudaConfig) -> Self {
        Device::Cuda(config)
    }
}

/// Loads `checkpoint` onto a device. `progress(done, total)` counts layers as they are packed.
///
/// # Errors
///
/// If the device is absent or too small, or if a file contradicts its configuration.
pub fn load(
    checkpoint: &Checkpoint,
    device: impl Into<Device>,
    options: LoadOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Box<dyn LanguageModel>> {
    let device = device.into();
    Ok(match device {
        Device::Cpu(config) => {
            let backend = CpuBackend::new(config)?;
            Box::new(ModelHost::load(backend, checkpoint, options, progress)?)
        }
        #[cfg(any(feature = "cuda", feature = "emulate"))]
        Device::Cuda(config) => {
            let backend = CudaBackend::new(config)?;
            Box::new(ModelHost::load(backend, checkpoint, options, progress)?)
        }
    })
}
