//! A GPU, through the CUDA driver, which is loaded when it is first asked for: a binary with this in it starts anywhere.

use super::device::{Device, Download, Memory, Recording, foreign};
use super::pinned::{Downloads, Uploads};
use crate::{BackendError, Result};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use cudarc::driver::{CudaContext, CudaGraph, CudaStream};
use galley_kernels_cu::bindings::{gk_kernels, gk_stream};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is known of a GPU without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuInfo {
    /// Its number among those that the driver shows.
    pub ordinal: usize,
    /// The name its maker gave it.
    pub name: String,
    /// Major and minor.
    pub compute_capability: (i32, i32),
    /// All of its memory.
    pub total_bytes: usize,
}

/// The GPUs of this machine: at least one.
///
/// # Errors
///
/// Where there is none, or no driver that these kernels run with: a sentence that says which.
pub fn gpus() -> Result<Vec<GpuInfo>> {
    // SAFETY: it loads libraries by the driver's names, whose initialisers are the driver's own.
    if !unsafe { sys::is_culib_present() } {
        return unsupported(
            "no GPU: the NVIDIA driver's library (libcuda.so.1) is not on this machine",
        );
    }
    let driver = driver_version()?;
    check_driver(driver, galley_kernels_cu::CUDA_RELEASE)?;
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
    // SAFETY: the driver has just given this device.
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

/// Opens the GPU of this ordinal.
pub(super) fn open(ordinal: usize) -> Result<Arc<dyn Device>> {
    let info = choose(&gpus()?, ordinal)?;
    let context = CudaContext::new(ordinal).map_err(failed("opening a GPU"))?;
    // SAFETY: all work goes to one stream, whose order is all the order there is; events would break recordings.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().map_err(failed("making a stream"))?;
    let uploads = Mutex::new(Uploads::new(&context)?);
    let driver = driver_version()?;
    Ok(Arc::new(Gpu {
        info,
        driver,
        context,
        stream,
        uploads,
        downloads: Downloads::default(),
        is_recording: AtomicBool::new(false),
    }))
}

/// The GPU of this ordinal, if kernels run on it.
fn choose(gpus: &[GpuInfo], ordinal: usize) -> Result<GpuInfo> {
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

/// An open GPU.
struct Gpu {
    info: GpuInfo,
    driver: i32,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    uploads: Mutex<Uploads>,
    downloads: Downloads,
    is_recording: AtomicBool,
}

impl Gpu {
    /// The stream, with the context current on this thread, as the driver and launchers expect.
    fn bound(&self, op: &'static str) -> Result<sys::CUstream> {
        self.context.bind_to_thread().map_err(failed(op))?;
        Ok(self.stream.cu_stream())
    }

    /// A recording would keep the address of memory that is somebody else's by the time it is replayed.
    fn not_while_recording(&self, op: &'static str) -> Result<()> {
        if self.is_recording.load(Ordering::Relaxed) {
            let error = "it cannot be recorded: do it before or after".into();
            return Err(BackendError::Device { op, error });
        }
        Ok(())
    }
}

impl Device for Gpu {
    fn description(&self) -> String {
        describe(&self.info, self.memory().ok(), self.driver)
    }

    fn kernels(&self) -> &'static gk_kernels {
        galley_kernels_cu::cuda()
    }

    fn stream(&self) -> Result<gk_stream> {
        // Not left to the launch: without a context the runtime would take that of the first GPU.
        Ok(self.bound("launching a kernel")?.cast())
    }

    fn memory(&self) -> Result<Memory> {
        let (free_bytes, total_bytes) =
            self.context.mem_get_info().map_err(failed("asking for free memory"))?;
        Ok(Memory { free_bytes, total_bytes })
    }

    fn allocate(&self, what: &'static str, n_bytes: usize) -> Result<u64> {
        const OP: &str = "allocating memory";
        self.not_while_recording(OP)?;
        let stream = self.bound(OP)?;
        // SAFETY: the context is current. The driver aligns to 256 bytes at least, and refuses to give none.
        let address = match unsafe { result::malloc_sync(n_bytes.max(1)) } {
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                return Err(BackendError::OutOfMemory { what, needed_bytes: n_bytes as u128 });
            }
            address => address.map_err(failed(OP))?,
        };
        // SAFETY: the memory is of this size, and what reads it comes later in the same stream.
        if let Err(error) = unsafe { result::memset_d8_async(address, 0, n_bytes.max(1), stream) } {
            self.free(address, n_bytes);
            return Err(failed("zeroing memory")(error));
        }
        Ok(address)
    }

    fn free(&self, address: u64, _: usize) {
        const OP: &str = "freeing memory";
        // The first call may only hand on what failed in somebody's drop: no reason to keep the memory. A device that
        // fails here fails at the next call, which has somebody to tell.
        if let Ok(stream) = self.bound(OP).or_else(|_| self.bound(OP)) {
            // SAFETY: the stream lives as long as `self`.
            let _ = unsafe { result::stream::synchronize(stream) };
            // SAFETY: `allocate` gave this address, and no work is left that uses it.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn upload(&self, to: u64, bytes: &[u8]) -> Result<()> {
        const OP: &str = "copying to the device";
        self.not_while_recording(OP)?;
        self.bound(OP)?;
        // SAFETY: the caller's buffer holds as many bytes.
        unsafe { self.uploads.lock().copy(&self.stream, to, bytes) }
    }

    fn download(&self, from: u64, out: &mut [u8]) -> Result<()> {
        const OP: &str = "copying from the device";
        self.not_while_recording(OP)?;
        let stream = self.bound(OP)?;
        if !out.is_empty() {
            // SAFETY: the caller's buffer holds as many bytes, and `out` is borrowed until the copy has been waited for.
            unsafe { result::memcpy_dtoh_async(out, from, stream) }.map_err(failed(OP))?;
        }
        self.stream.synchronize().map_err(failed(OP))
    }

    fn begin_download(&self, from: u64, n_bytes: usize) -> Result<Download> {
        const OP: &str = "copying from the device";
        self.not_while_recording(OP)?;
        self.bound(OP)?;
        // SAFETY: the caller's buffer holds as many bytes.
        let landing = unsafe { self.downloads.begin(&self.stream, from, n_bytes) }?;
        Ok(Download(Box::new(landing)))
    }

    fn end_download(&self, download: Download, out: &mut [u8]) -> Result<()> {
        let landing = download.0.downcast().map_err(|_| foreign("taking a copy")())?;
        self.downloads.end(*landing, out)
    }

    fn synchronize(&self) -> Result<()> {
        self.stream.synchronize().map_err(failed("waiting for the device"))
    }

    fn begin_recording(&self) -> Result<()> {
        // Of this thread: another may allocate meanwhile.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.stream.begin_capture(mode).map_err(failed("beginning a recording"))?;
        self.is_recording.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn end_recording(&self) -> Result<Recording> {
        const OP: &str = "ending a recording";
        self.is_recording.store(false, Ordering::Relaxed);
        let graph =
            self.stream.end_capture(sys::CUgraphInstantiate_flags(0)).map_err(failed(OP))?;
        let nothing = || BackendError::Device { op: OP, error: "nothing was recorded".into() };
        let graph = graph.ok_or_else(nothing)?;
        graph.upload().map_err(failed(OP))?;
        Ok(Recording(Box::new(Graph(graph))))
    }

    unsafe fn replay(&self, recording: &Recording) -> Result<()> {
        const OP: &str = "replaying a recording";
        let Graph(graph) = recording.0.downcast_ref().ok_or_else(foreign(OP))?;
        graph.launch().map_err(failed(OP))
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // The device may still be reading pinned memory.
        let _ = self.stream.synchronize();
    }
}

struct Graph(CudaGraph);

// SAFETY: a graph may be used on any thread, by one at a time; a `Recording` is not `Sync`, so it is.
unsafe impl Send for Graph {}

/// "NVIDIA H100 80GB HBM3 (cuda:0, 78.2 of 79.6 GiB free, driver 13.0)"
fn describe(info: &GpuInfo, memory: Option<Memory>, driver: i32) -> String {
    let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
    let memory = match memory {
        Some(Memory { free_bytes, total_bytes }) => {
            format!("{:.1} of {:.1} GiB free", gib(free_bytes), gib(total_bytes))
        }
        None => format!("{:.1} GiB", gib(info.total_bytes)),
    };
    let (major, minor) = release(driver);
    format!("{} (cuda:{}, {memory}, driver {major}.{minor})", info.name, info.ordinal)
}

/// The newest CUDA that the driver knows, as 13000 for 13.0.
fn driver_version() -> Result<i32> {
    let mut version = 0;
    // SAFETY: it writes one integer, and needs no device.
    let answer = unsafe { sys::cuDriverGetVersion(&mut version) };
    answer.result().map_err(failed("asking for the driver's version"))?;
    Ok(version)
}

fn release(version: i32) -> (i32, i32) {
    (version / 1000, version % 1000 / 10)
}

/// A driver runs what was built with a CUDA of its own major release, or an older one.
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

/// A driver's error, by name and text.
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
        let memory = Memory { free_bytes: 78 << 30, total_bytes: 80 << 30 };
        let text = describe(&gpu(0, (9, 0)), Some(memory), 13010);
        assert_eq!(text, "A card (cuda:0, 78.0 of 80.0 GiB free, driver 13.1)");
    }

    /// Where there is a GPU it opens; where there is none, everybody hears why, and nobody panics.
    #[test]
    fn asking_for_gpus_never_panics() {
        match gpus() {
            Ok(gpus) => assert!(!gpus.is_empty() && open(gpus.len()).is_err()),
            Err(error) => {
                let opened = open(0).err().expect("no GPU").to_string();
                assert!(opened == error.to_string() && opened.len() > 20, "{opened}");
            }
        }
    }
}
