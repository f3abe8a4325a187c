//! The CUDA driver before a GPU is open: its release, its list of GPUs, its error messages.
//!
//! The driver is loaded at its first use, so a binary with this module also starts on a machine
//! without a driver.

use super::device::MemoryInfo;
use crate::{BackendError, Result};
use cudarc::driver::CudaContext;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use std::sync::OnceLock;

/// Properties of a GPU, known without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuInfo {
    /// Its number in the driver's list.
    pub ordinal: usize,
    /// Product name.
    pub name: String,
    /// Major and minor version.
    pub compute_capability: (i32, i32),
    /// Total memory in bytes.
    pub total_bytes: usize,
}

/// The driver of a process. A process can load only one driver, and keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    /// The machine's driver.
    #[cfg(feature = "cuda")]
    Machine,
    /// The emulated driver.
    #[cfg(feature = "emulate")]
    Emulated,
}

/// Chooses the driver of this process, before the first call. Fails if the other one is in use.
pub(super) fn claim(driver: Driver) -> Result<()> {
    static CLAIMED: OnceLock<Driver> = OnceLock::new();
    if *CLAIMED.get_or_init(|| driver) == driver {
        return Ok(());
    }
    unsupported("a process uses a GPU or the emulation of one, and this one uses the other already")
}

/// The GPUs of this machine: at least one.
///
/// # Errors
///
/// If there is no GPU, or no driver that these kernels run with. The message says which.
#[cfg(feature = "cuda")]
pub fn gpus() -> Result<Vec<GpuInfo>> {
    find_on_machine()?;
    shown(galley_kernels_cu::CUDA_RELEASE)
}

/// Loads the machine's driver.
#[cfg(feature = "cuda")]
pub(super) fn find_on_machine() -> Result<()> {
    claim(Driver::Machine)?;
    // SAFETY: it loads libraries by the driver's names, with the driver's own initialisers.
    if unsafe { sys::is_culib_present() } {
        return Ok(());
    }
    unsupported("no GPU: the NVIDIA driver's library (libcuda.so.1) is not on this machine")
}

/// The GPUs that the driver lists, at least one. Fails if the driver is too old for this build.
pub(super) fn shown(built_with: &str) -> Result<Vec<GpuInfo>> {
    check_driver(driver_version()?, built_with)?;
    let n_gpus = match CudaContext::device_count() {
        Ok(0) | Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => {
            return unsupported("no GPU: the NVIDIA driver is here and shows none");
        }
        count => count.map_err(failed("counting GPUs"))?,
    };
    (0..n_gpus).map(info).collect::<Result<_, _>>().map_err(failed("asking a GPU what it is"))
}

fn info(ordinal: i32) -> Result<GpuInfo, DriverError> {
    let device = result::device::get(ordinal)?;
    // SAFETY: the driver has just returned this device.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) };
    Ok(GpuInfo {
        ordinal: ordinal as usize,
        name: result::device::get_name(device)?,
        compute_capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        // SAFETY: as above.
        total_bytes: unsafe { result::device::total_mem(device) }?,
    })
}

/// The GPU with this ordinal. Fails if the kernels do not run on it.
pub(super) fn choose(gpus: &[GpuInfo], ordinal: usize) -> Result<GpuInfo> {
    let Some(gpu) = gpus.get(ordinal) else {
        let names: Vec<_> =
            gpus.iter().map(|gpu| format!("cuda:{} ({})", gpu.ordinal, gpu.name)).collect();
        return unsupported(format!(
            "there is no cuda:{ordinal}: this machine has {} GPU{}: {}",
            gpus.len(),
            if gpus.len() == 1 { "" } else { "s" },
            names.join(", ")
        ));
    };
    let (major, minor) = gpu.compute_capability;
    if major < 8 {
        return unsupported(format!(
            "cuda:{ordinal} ({}) has compute capability {major}.{minor}, and the kernels need 8.0 (A100) or newer: use \
             the CPU",
            gpu.name
        ));
    }
    Ok(gpu.clone())
}

/// For example "NVIDIA H100 80GB HBM3 (cuda:0, 78.2 of 79.6 GiB free, driver 13.0)".
pub(super) fn describe(info: &GpuInfo, memory: Option<MemoryInfo>, driver: i32) -> String {
    let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
    let memory = match memory {
        Some(MemoryInfo { free_bytes, total_bytes }) => {
            format!("{:.1} of {:.1} GiB free", gib(free_bytes), gib(total_bytes))
        }
        None => format!("{:.1} GiB", gib(info.total_bytes)),
    };
    let (major, minor) = release(driver);
    format!("{} (cuda:{}, {memory}, driver {major}.{minor})", info.name, info.ordinal)
}

/// The newest CUDA release that the driver supports, as 13000 for 13.0.
pub(super) fn driver_version() -> Result<i32> {
    let mut version = 0;
    // SAFETY: the call writes one integer, and needs no device.
    let answer = unsafe { sys::cuDriverGetVersion(&mut version) };
    answer.result().map_err(failed("asking for the driver's version"))?;
    Ok(version)
}

fn release(version: i32) -> (i32, i32) {
    (version / 1000, version % 1000 / 10)
}

/// Fails if the driver is too old: it runs code built with its own major release of CUDA or an
/// older one.
fn check_driver(driver: i32, built_with: &str) -> Result<()> {
    let needed = built_with.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    let (major, minor) = release(driver);
    if major >= needed {
        return Ok(());
    }
    unsupported(format!(
        "the NVIDIA driver knows CUDA {major}.{minor}, and this build needs {needed}.0: install a newer driver, or build \
         with a toolkit of CUDA {major} (NVCC or CUDA_HOME name it)"
    ))
}

fn unsupported<T>(sentence: impl Into<String>) -> Result<T> {
    Err(BackendError::Unsupported(sentence.into()))
}

/// Converts a driver error of `op`, with the driver's name and text for it.
pub(super) fn failed(op: &'static str) -> impl Fn(DriverError) -> BackendError {
    move |error| {
        let text = |text: Result<&std::ffi::CStr, DriverError>| match text {
            Ok(text) => text.to_string_lossy().into_owned(),
            Err(_) => format!("error {}", error.0 as u32),
        };
        let error = format!("{} ({})", text(error.error_name()), text(error.error_string()));
        BackendError::Device { op, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "cuda")]
    use crate::cuda::gpu;

    fn gpu(ordinal: usize, compute_capability: (i32, i32)) -> GpuInfo {
        GpuInfo { ordinal, name: "A card".into(), compute_capability, total_bytes: 80 << 30 }
    }

    #[test]
    fn a_gpu_is_chosen_by_ordinal_and_refused_by_age() {
        let gpus = [gpu(0, (9, 0)), gpu(1, (7, 5))];
        assert_eq!(choose(&gpus, 0).expect("new enough"), gpus[0]);
        for (ordinal, part) in [(1, "compute capability 7.5"), (2, "2 GPUs: cuda:0 (A card)")] {
            let error = choose(&gpus, ordinal).expect_err("refused").to_string();
            assert!(error.contains(part) && error.contains(&format!("cuda:{ordinal}")), "{error}");
        }
    }

    #[test]
    fn a_driver_older_than_the_runtime_is_refused() {
        for (driver, built_with) in [(13000, "13.0"), (13000, "13.2"), (13010, "12.4")] {
            check_driver(driver, built_with).expect("a major release is compatible");
        }
        let error = check_driver(12080, "13.0").expect_err("older").to_string();
        assert!(error.contains("CUDA 12.8") && error.contains("13.0"), "{error}");
    }

    #[test]
    fn a_gpu_is_described() {
        let memory = MemoryInfo { free_bytes: 78 << 30, total_bytes: 80 << 30 };
        let text = describe(&gpu(0, (9, 0)), Some(memory), 13010);
        assert_eq!(text, "A card (cuda:0, 78.0 of 80.0 GiB free, driver 13.1)");
    }

    /// Without a GPU, `gpus` and `gpu::open` return the same error and do not panic.
    #[cfg(feature = "cuda")]
    #[test]
    fn asking_for_gpus_never_panics() {
        match gpus() {
            Ok(gpus) => assert!(!gpus.is_empty() && gpu::open(gpus.len()).is_err()),
            Err(error) => {
                let opened = gpu::open(0).err().expect("no GPU").to_string();
                assert!(opened == error.to_string() && opened.len() > 20, "{opened}");
            }
        }
    }
}
