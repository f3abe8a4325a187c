//! Chooses the device of a model, and gives the reason.

use super::device_choice::{DeviceChoice, FORMATS_OF_GPUS};
use super::error::OpenError;
use super::settings::Settings;
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
    /// It is the CPU, as GPUs do not compute under a setting of the formats.
    Formats {
        /// The setting: `dtype` or `weights`.
        setting: &'static str,
        /// Its value.
        value: String,
    },
    /// It is the CPU, for this reason.
    NoGpu(String),
}

impl fmt::Display for DeviceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named => f.write_str("the settings name it"),
            Self::GpuFound => f.write_str("a GPU was found"),
            Self::Formats { setting, value } => write!(f, "{setting} {value}: {FORMATS_OF_GPUS}"),
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
        let lacking = self.formats.setting_without_gpus();
        match (self.device, lacking) {
            (DeviceChoice::Cpu, _) => chosen(cpu, DeviceReason::Named),
            (DeviceChoice::Auto, None) => match self.first_gpu() {
                Ok(gpu) => chosen(gpu, DeviceReason::GpuFound),
                Err(reason) => chosen(cpu, reason),
            },
            (DeviceChoice::Auto, Some((setting, value))) => {
                chosen(cpu, DeviceReason::Formats { setting, value })
            }
            (device, Some((setting, value))) => {
                Err(OpenError::DeviceFormats { device, setting, value })
            }
            (DeviceChoice::Cuda(n), None) => chosen(self.gpu(n)?, DeviceReason::Named),
            (DeviceChoice::Emulated, None) => chosen(self.emulated()?, DeviceReason::Named),
        }
    }

    /// GPU 0, or the reason why it cannot be used.
    #[cfg(feature = "cuda")]
    fn first_gpu(&self) -> Result<Device, DeviceReason> {
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
    use galley_backend::{Formats, OperandFormat, WeightFormat};

    fn chosen(device: DeviceChoice, formats: Formats) -> Result<ChosenDevice, OpenError> {
        Settings { device, formats, ..Settings::default() }.choose_device()
    }

    #[test]
    fn formats_that_gpus_lack_are_for_the_cpu() {
        let with = |weights| Formats::new(OperandFormat::Bf16, Some(weights)).expect("a pair");
        for (formats, lacking) in [
            (Formats::F32, "dtype f32"),
            (with(WeightFormat::Q8), "weights q8"),
            (with(WeightFormat::Q4), "weights q4"),
        ] {
            let auto = chosen(DeviceChoice::Auto, formats).expect("a CPU");
            assert!(matches!(auto.device, Device::Cpu(config) if config.formats == formats));
            let reason = auto.reason.to_string();
            assert_eq!(reason, format!("{lacking}: {FORMATS_OF_GPUS}"));
            let error = chosen(DeviceChoice::Cuda(0), formats).expect_err("a GPU").to_string();
            assert_eq!(error, format!("device cuda:0 has no {lacking}: {FORMATS_OF_GPUS}"));
        }
    }

    #[test]
    fn formats_of_gpus_leave_the_choice_to_the_device() {
        for formats in [Formats::NATIVE, Formats::BF16] {
            let auto = chosen(DeviceChoice::Auto, formats).expect("a device");
            assert!(!matches!(auto.reason, DeviceReason::Formats { .. }), "{:?}", auto.reason);
            let gpu = chosen(DeviceChoice::Cuda(0), formats);
            assert!(!matches!(gpu, Err(OpenError::DeviceFormats { .. })), "{gpu:?}");
        }
    }
}
