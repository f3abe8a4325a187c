//! The CUDA backend: kernels in `kernels-cu`, launched over device memory from here.
//!
//! | file | subject |
//! |---|---|
//! | [`device`] | the interface of a device: memory, a stream, launchers |
//! | `driver` | the CUDA driver: its release, its GPUs, its errors |
//! | `gpu`, `emulated` | a device over the CUDA driver; the same over the emulated driver |
//! | [`memory`] | buffers that free themselves |
//! | `pinned` | pinned memory for copies that run beside the host |
//! | [`matrix`] | weights and their upload, activations |
//! | [`pool`] | keys and values |
//! | [`batch`], [`angles`], [`units`] | the upload of a batch, its rotation, its attention work |
//! | [`selections`] | selected tokens, which stay on the device |
//! | [`ops`], [`observe`], [`sample`] | the operations |
//! | [`graphs`] | forwards that are recorded once and replayed |
//!
//! For tests, the emulation runs the same kernels slowly on the CPU, under an emulated driver.

mod angles;
mod batch;
mod device;
mod driver;
#[cfg(feature = "emulate")]
mod emulated;
mod gpu;
mod graphs;
mod logit_processors;
mod matrix;
mod memory;
mod observe;
mod ops;
mod pinned;
mod pool;
mod sample;
mod selections;
#[cfg(test)]
mod tests;
mod units;

use crate::{AttentionParams, BackendError, Formats, Result};
use angles::Angles;
use batch::AttentionMetadata;
use device::Device;
pub use driver::GpuInfo;
#[cfg(feature = "cuda")]
pub use driver::gpus;
use galley_kernels_cu::bindings::gk_stream;
use graphs::CudaGraphs;
pub use graphs::ForwardCounts;
pub use matrix::{Matrix, Tensor, Vector};
use memory::Growing;
use observe::Observing;
pub use pool::KvPool;
use sample::Sampler;
use std::ffi::CStr;
use std::sync::Arc;

/// The device that a [`CudaBackend`] computes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CudaDevice {
    /// The GPU with this ordinal.
    #[cfg(feature = "cuda")]
    Gpu(usize),
    /// The emulation of a device on the CPU, for tests.
    #[cfg(feature = "emulate")]
    Emulated,
}

/// Options of a [`CudaBackend`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CudaConfig {
    /// The device to compute on.
    pub device: CudaDevice,
    /// Share of the device's memory that all processes together may use once the KV pool is
    /// allocated. The rest is left for draft models and for working memory that grows.
    pub memory_share: f64,
    /// Formats of weights, operands and the KV cache: bf16.
    pub formats: Formats,
}

/// The combinations of formats that kernels have: quantised weights of a file are expanded to bf16.
const FORMATS: [Formats; 2] = [Formats::NATIVE, Formats::BF16];

impl CudaConfig {
    /// `device`, with a memory share of nine tenths.
    pub fn new(device: CudaDevice) -> Self {
        Self { device, memory_share: 0.9, formats: Formats::default() }
    }
}

crate::setters! {
    impl CudaConfig;
    /// Sets the share of the device's memory that all processes together may use once the KV pool
    /// is allocated.
    memory_share(share: f64) => memory_share = share;
    /// Sets the formats of weights, operands and the KV cache.
    formats(formats: Formats) => formats = formats;
}

/// A backend on a GPU.
pub struct CudaBackend {
    device: Arc<dyn Device>,
    memory_share: f64,
    metadata: AttentionMetadata,
    angles: Angles,
    /// Factor on attention scores in the current batch.
    scale: f32,
    /// Vocabulary size of the table that was last embedded from.
    n_tokens: usize,
    /// States of attention units that are merged.
    states: Growing,
    /// Normed rows for the output head, one tensor per width, because models take turns.
    head_rows: Vec<Tensor>,
    copies: Growing,
    observing: Observing,
    sampler: Sampler,
    graphs: CudaGraphs,
}

impl CudaBackend {
    /// Opens the device.
    ///
    /// # Errors
    ///
    /// If no kernel has the formats, if there is no such device, or if the kernels do not run on it.
    pub fn new(config: CudaConfig) -> Result<Self> {
        config.formats.expect_one_of(&FORMATS)?;
        let device: Arc<dyn Device> = match config.device {
            #[cfg(feature = "cuda")]
            CudaDevice::Gpu(ordinal) => gpu::open(ordinal)?,
            #[cfg(feature = "emulate")]
            CudaDevice::Emulated => emulated::open()?,
        };
        Ok(Self::on(device, config.memory_share))
    }

    fn on(device: Arc<dyn Device>, memory_share: f64) -> Self {
        Self {
            device,
            memory_share,
            metadata: AttentionMetadata::new(),
            angles: Angles::new(),
            scale: 0.0,
            n_tokens: 0,
            states: Growing::new("states of attention"),
            head_rows: Vec::new(),
            copies: Growing::new("copies of blocks"),
            observing: Observing::new(),
            sampler: Sampler::new(),
            graphs: CudaGraphs::default(),
        }
    }

    /// Waits for all work enqueued so far. Operations return before their work is done.
    ///
    /// # Errors
    ///
    /// If the work failed.
    pub fn synchronize(&self) -> Result<()> {
        self.device.synchronize()
    }
}

/// A launcher from the table of kernels.
type Launcher<C> = Option<unsafe extern "C" fn(*const C, gk_stream) -> i32>;

/// Enqueues a kernel.
///
/// `call` must hold device addresses that are valid for its shapes. Callers check the shapes first.
fn launch<C>(
    device: &Arc<dyn Device>,
    op: &'static str,
    launcher: Launcher<C>,
    call: &C,
) -> Result<()> {
    let failed = |error: String| Err(BackendError::Device { op, error });
    let Some(launcher) = launcher else { return failed("there is no such kernel".into()) };
    let stream = device.stream()?;
    // SAFETY: buffers are freed after the work enqueued before; callers have checked the shapes.
    let status = unsafe { launcher(call, stream) };
    if status == 0 {
        return Ok(());
    }
    let Some(error_name) = device.kernels().error_name else { return failed(status.to_string()) };
    // SAFETY: error names are null-terminated constants.
    let name = unsafe { CStr::from_ptr(error_name(status)) };
    failed(format!("{} ({status})", name.to_string_lossy()))
}

/// The window in the form that kernels take: 0 is no window.
fn window(params: AttentionParams) -> i32 {
    params.window.map_or(0, |window| i32::try_from(window).unwrap_or(i32::MAX))
}
