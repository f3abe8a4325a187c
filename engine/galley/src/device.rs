//! `--device`: the device that the model runs on, and the reason for the choice.

use crate::args::ModelArgs;
use crate::console::note;
use anyhow::{Result, bail};
use galley_backend::Dtype;
use galley_backend::cpu::{CpuConfig, usable_cores};
use galley_model::Device;
use std::fmt;
use std::str::FromStr;

/// The values of `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceArg {
    /// The first GPU if this build can use one, else the CPU.
    Auto,
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
    /// The CUDA kernels emulated on the CPU: slow, for tests.
    Emulated,
}

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.strip_prefix("cuda:").and_then(|n| n.parse().ok());
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "emulated" => Ok(Self::Emulated),
            _ => match number(text) {
                Some(n) => Ok(Self::Cuda(n)),
                None => Err(format!("{text:?} is none of auto, cpu, cuda and cuda:N")),
            },
        }
    }
}

impl fmt::Display for DeviceArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
            Self::Emulated => f.write_str("emulated"),
        }
    }
}

/// A device, and the reason for it if `--device` is `auto`.
pub(crate) struct Choice {
    pub(crate) device: Device,
    pub(crate) reason: Option<String>,
}

/// Chooses the device for a model.
pub(crate) fn choose(args: &ModelArgs) -> Result<Choice> {
    let cpu = || {
        let n_cores = usable_cores();
        if let Some(n_threads) = args.threads.filter(|&n| n > n_cores) {
            note(format_args!(
                "note: --threads {n_threads}: {n_cores} of them work at once, on as many usable cores"
            ));
        }
        Ok(Device::Cpu(CpuConfig {
            n_threads: args.threads,
            instruction_set: args.instruction_set()?,
            dtype: args.dtype,
        }))
    };
    let named = |device| Choice { device, reason: None };
    match args.device {
        DeviceArg::Cpu => cpu().map(named),
        DeviceArg::Auto => Ok(match first_gpu(args) {
            Ok(gpu) => Choice { device: gpu, reason: Some("a GPU was found".into()) },
            Err(reason) => Choice { device: cpu()?, reason: Some(reason) },
        }),
        DeviceArg::Cuda(_) | DeviceArg::Emulated if args.dtype != Dtype::Bf16 => bail!(
            "--device {} computes in bf16: leave out --dtype {}, or take --device cpu",
            args.device,
            args.dtype
        ),
        DeviceArg::Cuda(n) => gpu(n, args).map(named),
        DeviceArg::Emulated => emulated(args).map(named),
    }
}

/// The flag that sets the number of threads, with its value if it is set.
pub(crate) fn threads_flag(args: &ModelArgs) -> String {
    args.threads.map_or("--threads".into(), |n| format!("--threads {n}"))
}

/// GPU 0, or the reason why it cannot be used.
#[cfg(feature = "cuda")]
fn first_gpu(args: &ModelArgs) -> Result<Device, String> {
    if args.dtype != Dtype::Bf16 {
        return Err(format!("--dtype {}: GPUs compute in bf16", args.dtype));
    }
    galley_backend::cuda::gpus().map_err(|error| error.to_string())?;
    gpu(0, args).map_err(|error| error.to_string())
}

#[cfg(not(feature = "cuda"))]
fn first_gpu(_: &ModelArgs) -> Result<Device, String> {
    Err("this build has no CUDA".into())
}

#[cfg(feature = "cuda")]
fn gpu(n: usize, args: &ModelArgs) -> Result<Device> {
    use galley_backend::cuda::{CudaConfig, CudaDevice};
    let memory_share = args.gpu_memory_utilization;
    Ok(Device::Cuda(CudaConfig { device: CudaDevice::Gpu(n), memory_share }))
}

#[cfg(not(feature = "cuda"))]
fn gpu(n: usize, _: &ModelArgs) -> Result<Device> {
    bail!(
        "--device cuda:{n}: this build has no CUDA. Build it with `cargo xtask cuda` (the compiler, once) and \
         `cargo build --release --package galley --features cuda`, or take --device cpu"
    )
}

#[cfg(feature = "emulate")]
fn emulated(args: &ModelArgs) -> Result<Device> {
    use galley_backend::cuda::{CudaConfig, CudaDevice};
    let memory_share = args.gpu_memory_utilization;
    Ok(Device::Cuda(CudaConfig { device: CudaDevice::Emulated, memory_share }))
}

#[cfg(not(feature = "emulate"))]
fn emulated(_: &ModelArgs) -> Result<Device> {
    bail!("--device emulated: it is for tests, in builds with `--features emulate`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for text in ["auto", "cpu", "cuda:0", "cuda:7", "emulated"] {
            assert_eq!(text.parse::<DeviceArg>().expect("a device").to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceArg::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:-1", "CPU"] {
            let error = text.parse::<DeviceArg>().expect_err("no device");
            assert!(error.contains("cuda:N"), "{error}");
        }
    }
}
