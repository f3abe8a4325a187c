//! Chooses the device of a model, and gives the reason.

use super::device_choice::DeviceChoice;
use super::error::OpenError;
use super::settings::Settings;
use galley_backend::Formats;
use galley_backend::cpu::CpuConfig;
use galley_model::Device;
use std::fmt;

/// A device, and the reason for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChosenDevice {
    /// The device.
    pub device: Device,
    /// The reason.
    pub reason: DeviceReason,
}

/// The reason for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceReason {
    /// The settings name it.
    Named,
    /// A GPU was found.
    GpuFound,
    /// It is the CPU, as GPUs compute in bf16 and not in these formats.
    Formats(Formats),
    /// It is the CPU, for this reason.
    NoGpu(String),
}

impl fmt::Display for DeviceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named => f.write_str("the settings name it"),
            Self::GpuFound => f.write_str("a GPU was found"),
            Self::Formats(formats) => write!(f, "{formats}: GPUs compute in bf16"),
            Self::NoGpu(reason) => f.write_str(reason),
        }
    }
}

impl Settings {
    /// Chooses the device.
    ///
    /// # Errors
    ///
    /// A device that this build does not have, or one that does not compute in the formats of the
    /// settings.
    pub fn choose_device(&self) -> Result<ChosenDevice, OpenError> {
        let cpu = CpuConfig::default()
            .n_threads(self.threads)
            .instruction_set(self.instruction_set)
            .formats(self.formats);
        let cpu = Device::Cpu(cpu);
        let chosen = |device, reason| Ok(ChosenDevice { device, reason });
        match self.device {
            DeviceChoice::Cpu => chosen(cpu, DeviceReason::Named),
            DeviceChoice::Auto => match self.first_gpu() {
                Ok(gpu) => chosen(gpu, DeviceReason::GpuFound),
                Err(reason) => chosen(cpu, reason),
            },
            device if !self.formats.suit_gpus() => {
                Err(OpenError::DeviceFormats { device, formats: self.formats })
            }
            DeviceChoice::Cuda(n) => chosen(self.gpu(n)?, DeviceReason::Named),
            DeviceChoice::Emulated => chosen(self.emulated()?, DeviceReason::Named),
        }
    }

    /// GPU 0, or the reason why it cannot be used.
    #[cfg(feature = "cuda")]
    fn first_gpu(&self) -> Result<Device, DeviceReason> {
        if !self.formats.suit_gpus() {
            return Err(DeviceReason::Formats(self.formats));
        }
        galley_backend::cuda::gpus().map_err(|error| DeviceReason::NoGpu(error.to_string()))?;
        self.gpu(0).map_err(|error| DeviceReason::NoGpu(error.to_string()))
    }

    #[cfg(not(feature = "cuda"))]
    fn first_gpu(&self) -> Result<Device, DeviceReason> {
        Err(DeviceReason::NoGpu("this build has no CUDA".into()))
    }

    #[cfg(feature = "cuda")]
    fn gpu(&self, n: usize) -> Result<Device, OpenError> {
        Ok(self.on(galley_backend::cuda::CudaDevice::Gpu(n)))
    }

    #[cfg(not(feature = "cuda"))]
    fn gpu(&self, n: usize) -> Result<Device, OpenError> {
        Err(OpenError::DeviceNotBuilt { device: DeviceChoice::Cuda(n) })
    }

    #[cfg(feature = "emulate")]
    fn emulated(&self) -> Result<Device, OpenError> {
        Ok(self.on(galley_backend::cuda::CudaDevice::Emulated))
    }

    #[cfg(not(feature = "emulate"))]
    fn emulated(&self) -> Result<Device, OpenError> {
        Err(OpenError::DeviceNotBuilt { device: DeviceChoice::Emulated })
    }

    /// A CUDA device with these settings.
    #[cfg(any(feature = "cuda", feature = "emulate"))]
    fn on(&self, device: galley_backend::cuda::CudaDevice) -> Device {
        let config = galley_backend::cuda::CudaConfig::new(device);
        Device::Cuda(config.memory_share(self.gpu_memory_utilization).formats(self.formats))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_that_gpus_lack_is_for_the_cpu() {
        let settings = Settings { formats: Formats::F32, ..Settings::default() };
        let chosen = settings.choose_device().expect("a CPU");
        assert!(matches!(chosen.device, Device::Cpu(CpuConfig { formats: Formats::F32, .. })));
        let gpu = Settings { device: DeviceChoice::Cuda(0), ..settings };
        assert!(matches!(gpu.choose_device(), Err(OpenError::DeviceFormats { .. })));
    }
}
