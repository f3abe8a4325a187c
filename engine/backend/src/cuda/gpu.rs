//! An open GPU, through the CUDA driver.

use super::device::{CapturedGraph, Device, Download, MemoryInfo, foreign};
use super::driver::{GpuInfo, choose, describe, driver_version, failed, shown};
use super::pinned::{Downloads, Uploads};
use crate::{BackendError, Result};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;
use cudarc::driver::{CudaContext, CudaGraph, CudaStream};
use galley_kernels_cu::bindings::{gk_kernels, gk_stream};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Opens the GPU with this ordinal.
#[cfg(feature = "cuda")]
pub(super) fn open(ordinal: usize) -> Result<Arc<dyn Device>> {
    super::driver::find_on_machine()?;
    open_with("cuda", galley_kernels_cu::cuda, galley_kernels_cu::CUDA_RELEASE, ordinal)
}

/// Opens the GPU with this ordinal, for kernels that were built with the CUDA release `built_with`.
/// `kind` tells GPUs from their emulation.
pub(super) fn open_with(
    kind: &'static str,
    kernels: fn() -> &'static gk_kernels,
    built_with: &str,
    ordinal: usize,
) -> Result<Arc<dyn Device>> {
    let info = choose(&shown(built_with)?, ordinal)?;
    let context = CudaContext::new(ordinal).map_err(failed("opening a GPU"))?;
    // SAFETY: all work is in one stream, so its order suffices. Events would break recordings.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().map_err(failed("making a stream"))?;
    let uploads = Mutex::new(Uploads::new(&context)?);
    let driver = driver_version()?;
    Ok(Arc::new(Gpu {
        kind,
        info,
        kernels,
        driver,
        context,
        stream,
        uploads,
        downloads: Downloads::default(),
        is_capturing: AtomicBool::new(false),
        to_free: Mutex::default(),
    }))
}

/// An open GPU.
struct Gpu {
    kind: &'static str,
    info: GpuInfo,
    kernels: fn() -> &'static gk_kernels,
    driver: i32,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    uploads: Mutex<Uploads>,
    downloads: Downloads,
    is_capturing: AtomicBool,
    /// Memory dropped during a recording. Freeing it before the end would break the recording.
    to_free: Mutex<Vec<u64>>,
}

impl Gpu {
    /// Makes the context current on this thread, as launchers expect. Returns the stream.
    fn bound(&self, op: &'static str) -> Result<sys::CUstream> {
        self.context.bind_to_thread().map_err(failed(op))?;
        Ok(self.stream.cu_stream())
    }

    /// Fails during a recording: at its replay, the address may belong to another buffer.
    fn not_while_capturing(&self, op: &'static str) -> Result<()> {
        if self.is_capturing.load(Ordering::Relaxed) {
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

    fn architecture(&self) -> String {
        let (major, minor) = self.info.compute_capability;
        format!("{}-{major}.{minor}", self.kind)
    }

    fn kernels(&self) -> &'static gk_kernels {
        (self.kernels)()
    }

    fn stream(&self) -> Result<gk_stream> {
        // Binds the context first: without one, the runtime would use that of the first GPU.
        Ok(self.bound("launching a kernel")?.cast())
    }

    fn memory(&self) -> Result<MemoryInfo> {
        let (free_bytes, total_bytes) =
            self.context.mem_get_info().map_err(failed("asking for free memory"))?;
        Ok(MemoryInfo { free_bytes, total_bytes })
    }

    fn allocate(&self, purpose: &'static str, n_bytes: usize) -> Result<u64> {
        const OP: &str = "allocating memory";
        self.not_while_capturing(OP)?;
        let stream = self.bound(OP)?;
        // SAFETY: the context is current. The driver aligns to 256 bytes, and refuses size 0.
        let address = match unsafe { result::malloc_sync(n_bytes.max(1)) } {
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                return Err(BackendError::OutOfMemory { purpose, needed_bytes: n_bytes as u128 });
            }
            address => address.map_err(failed(OP))?,
        };
        // SAFETY: the memory has this size, and its readers come later in the same stream.
        if let Err(error) = unsafe { result::memset_d8_async(address, 0, n_bytes.max(1), stream) } {
            self.free(address);
            return Err(failed("zeroing memory")(error));
        }
        Ok(address)
    }

    fn free(&self, address: u64) {
        const OP: &str = "freeing memory";
        let mut to_free = self.to_free.lock();
        if self.is_capturing.load(Ordering::Relaxed) {
            return to_free.push(address);
        }
        drop(to_free);
        // cudarc reports an error from an earlier `Drop` at the next call, so a failed call is
        // tried again. If the device itself fails, the next operation returns the error.
        if let Ok(stream) = self.bound(OP).or_else(|_| self.bound(OP)) {
            // SAFETY: the stream lives as long as `self`.
            let _ = unsafe { result::stream::synchronize(stream) };
            // SAFETY: `allocate` returned this address, and no enqueued work uses it any more.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn upload(&self, to: u64, bytes: &[u8]) -> Result<()> {
        const OP: &str = "copying to the device";
        self.not_while_capturing(OP)?;
        self.bound(OP)?;
        // SAFETY: the caller's buffer has room for all of `bytes`.
        unsafe { self.uploads.lock().copy(&self.stream, to, bytes) }
    }

    fn download(&self, from: u64, out: &mut [u8]) -> Result<()> {
        const OP: &str = "copying from the device";
        self.not_while_capturing(OP)?;
        let stream = self.bound(OP)?;
        if !out.is_empty() {
            // SAFETY: the caller's buffer has as many bytes; `out` is borrowed until the copy ends.
            unsafe { result::memcpy_dtoh_async(out, from, stream) }.map_err(failed(OP))?;
        }
        self.stream.synchronize().map_err(failed(OP))
    }

    fn begin_download(&self, from: u64, n_bytes: usize) -> Result<Download> {
        const OP: &str = "copying from the device";
        self.not_while_capturing(OP)?;
        self.bound(OP)?;
        // SAFETY: the caller's buffer holds `n_bytes`.
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

    fn begin_capture(&self) -> Result<()> {
        // The capture is thread-local: another thread may allocate meanwhile.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.stream.begin_capture(mode).map_err(failed("beginning a recording"))?;
        self.is_capturing.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn end_capture(&self) -> Result<CapturedGraph> {
        const OP: &str = "ending a recording";
        // cudarc reports an error from an earlier `Drop` at the next call. It is consumed here, so
        // that `end_capture` always runs.
        let _ = self.bound(OP);
        let graph = self.stream.end_capture(sys::CUgraphInstantiate_flags(0));
        let mut to_free = self.to_free.lock();
        self.is_capturing.store(false, Ordering::Relaxed);
        let freed = std::mem::take(&mut *to_free);
        drop(to_free);
        freed.into_iter().for_each(|address| self.free(address));
        let graph = graph.map_err(failed(OP))?;
        let nothing = || BackendError::Device { op: OP, error: "nothing was recorded".into() };
        let graph = graph.ok_or_else(nothing)?;
        graph.upload().map_err(failed(OP))?;
        Ok(CapturedGraph(Box::new(Graph(graph))))
    }

    unsafe fn replay(&self, captured: &CapturedGraph) -> Result<()> {
        const OP: &str = "replaying a recording";
        let Graph(graph) = captured.0.downcast_ref().ok_or_else(foreign(OP))?;
        graph.launch().map_err(failed(OP))
    }
}

struct Graph(CudaGraph);

// SAFETY: any thread may use a graph, one thread at a time. `CapturedGraph` is not `Sync`, so no two
// threads use it at once.
unsafe impl Send for Graph {}
