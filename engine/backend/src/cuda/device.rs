//! What a device offers to the backend: memory, one stream of work, and the kernels' launchers.

use crate::{BackendError, Result};
use galley_kernels_cu::bindings::{gk_kernels, gk_stream};
use std::any::Any;

/// One device. All work goes to one stream, in order.
pub(super) trait Device: Send + Sync {
    /// Name and memory, for people.
    fn description(&self) -> String;
    /// The launchers.
    fn kernels(&self) -> &'static gk_kernels;
    /// The stream that launchers enqueue on, once the device is the current one of this thread.
    fn stream(&self) -> Result<gk_stream>;
    /// What is free at this moment.
    fn memory(&self) -> Result<Memory>;
    /// Zeroed memory at a multiple of 256 bytes: its device address. `what` names it in errors.
    fn allocate(&self, what: &'static str, n_bytes: usize) -> Result<u64>;
    /// Gives back what [`Device::allocate`] gave, after the work enqueued so far.
    fn free(&self, address: u64);
    /// Copies to the device, in stream order; `bytes` may be reused on return.
    fn upload(&self, to: u64, bytes: &[u8]) -> Result<()>;
    /// Copies from the device, after all work enqueued before.
    fn download(&self, from: u64, out: &mut [u8]) -> Result<()>;
    /// Begins to copy from the device, after all work enqueued before and beside the host.
    fn begin_download(&self, from: u64, n_bytes: usize) -> Result<Download>;
    /// Waits for what [`Device::begin_download`] began, of as many bytes, and for nothing after it.
    fn end_download(&self, download: Download, out: &mut [u8]) -> Result<()>;
    /// Waits for all work enqueued so far.
    fn synchronize(&self) -> Result<()>;
    /// Records the work that follows instead of doing it. Memory can neither be allocated nor copied meanwhile.
    fn begin_recording(&self) -> Result<()>;
    /// Ends what [`Device::begin_recording`] began, whatever has become of it.
    fn end_recording(&self) -> Result<Recording>;
    /// Enqueues recorded work.
    ///
    /// # Safety
    ///
    /// The buffers that it names are still there.
    unsafe fn replay(&self, recording: &Recording) -> Result<()>;
}

/// Memory of a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) free_bytes: usize,
    pub(super) total_bytes: usize,
}

impl Memory {
    /// What may be taken where `share` of all memory may be in use.
    pub(super) fn room_bytes(self, share: f64) -> usize {
        let kept = self.total_bytes as f64 * (1.0 - share);
        self.free_bytes.saturating_sub(kept as usize)
    }
}

/// A copy on its way: where it is, the device knows.
pub(super) struct Download(pub(super) Box<dyn Any + Send>);

/// Work that can be enqueued again: what it is, the device knows.
pub(super) struct Recording(pub(super) Box<dyn Any + Send>);

/// The error of a recording or a download that this device has not made.
pub(super) fn foreign(op: &'static str) -> impl Fn() -> BackendError {
    move || BackendError::Device { op, error: "it is of another device".into() }
}
