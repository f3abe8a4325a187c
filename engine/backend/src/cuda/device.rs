//! The interface of a device to the backend: memory, one stream of work, kernel launchers.

use crate::{BackendError, Result};
use galley_kernels_cu::bindings::{gk_kernels, gk_stream};
use std::any::Any;

/// One device. All work goes to one stream and runs in order.
pub(super) trait Device: Send + Sync {
    /// Name and memory, for display.
    fn description(&self) -> String;
    /// Names the architecture that kernels run on, such as `cuda-9.0`.
    fn architecture(&self) -> String;
    /// The kernel launchers.
    fn kernels(&self) -> &'static gk_kernels;
    /// The stream that launchers enqueue on. Makes the device current on this thread.
    fn stream(&self) -> Result<gk_stream>;
    /// Free and total memory at this moment.
    fn memory(&self) -> Result<MemoryInfo>;
    /// Allocates zeroed memory, called `what` in errors. Its device address is a multiple of 256.
    fn allocate(&self, purpose: &'static str, n_bytes: usize) -> Result<u64>;
    /// Frees memory from [`Device::allocate`], after the work enqueued so far.
    fn free(&self, address: u64);
    /// Copies to the device, in stream order; `bytes` may be reused on return.
    fn upload(&self, to: u64, bytes: &[u8]) -> Result<()>;
    /// Copies from the device, after all work enqueued before, and waits for the copy.
    fn download(&self, from: u64, out: &mut [u8]) -> Result<()>;
    /// Starts a copy from the device. It runs after the work enqueued before, beside the host.
    fn begin_download(&self, from: u64, n_bytes: usize) -> Result<Download>;
    /// Waits for a copy that [`Device::begin_download`] started, and for no later work. `out` has
    /// the size of the copy.
    fn end_download(&self, download: Download, out: &mut [u8]) -> Result<()>;
    /// Waits for all work enqueued so far.
    fn synchronize(&self) -> Result<()>;
    /// Records the work that follows instead of running it. Memory can neither be allocated nor
    /// copied until the recording ends.
    fn begin_capture(&self) -> Result<()>;
    /// Ends the recording from [`Device::begin_capture`], even if the recorded work failed.
    fn end_capture(&self) -> Result<CapturedGraph>;
    /// Enqueues recorded work.
    ///
    /// # Safety
    ///
    /// The buffers that the recorded work uses still exist.
    unsafe fn replay(&self, captured: &CapturedGraph) -> Result<()>;
}

/// Memory of a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemoryInfo {
    pub(super) free_bytes: usize,
    pub(super) total_bytes: usize,
}

impl MemoryInfo {
    /// Bytes that may still be allocated if `share` of all memory may be in use.
    pub(super) fn room_bytes(self, share: f64) -> usize {
        let kept = self.total_bytes as f64 * (1.0 - share);
        self.free_bytes.saturating_sub(kept as usize)
    }
}

/// A copy in progress, in the device's own representation.
pub(super) struct Download(pub(super) Box<dyn Any + Send>);

/// Work that can be enqueued again, in the device's own representation.
pub(super) struct CapturedGraph(pub(super) Box<dyn Any + Send>);

/// The error for a recording or a download that another device made.
pub(super) fn foreign(op: &'static str) -> impl Fn() -> BackendError {
    move || BackendError::Device { op, error: "it is of another device".into() }
}
