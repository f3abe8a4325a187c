//! Pinned host memory for copies that run beside the host: a ring of upload buffers, and one buffer
//! per pending download.

use super::driver::failed;
use crate::Result;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, PinnedHostSlice, result, sys};
use parking_lot::Mutex;
use std::sync::Arc;

/// Pinned bytes, and an event that completes when the device no longer uses them.
struct Pinned {
    bytes: PinnedHostSlice<u8>,
    done: CudaEvent,
}

impl Pinned {
    fn new(context: &Arc<CudaContext>, n_bytes: usize, flags: u32) -> Result<Self> {
        // SAFETY: no byte is read before it is written: an upload fills the bytes that it sends, a
        // download the bytes that the host reads.
        let bytes = unsafe { context.alloc_pinned_with_flags(n_bytes, flags) };
        let bytes = bytes.map_err(failed("allocating pinned memory"))?;
        let done = context.new_event(None).map_err(failed("making an event"))?;
        Ok(Self { bytes, done })
    }

    /// Records the event `done`: it completes after the work enqueued so far.
    fn record(&self, stream: &CudaStream, op: &'static str) -> Result<()> {
        self.done.record(stream).map_err(|error| {
            // Without the event, only a wait for the stream makes the bytes reusable.
            let _ = stream.synchronize();
            failed(op)(error)
        })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // The device may still use the bytes. cudarc reports an error from an earlier `Drop` at the
        // next call, so a failed wait is tried again.
        if self.done.synchronize().is_err() {
            let _ = self.done.synchronize();
        }
    }
}

/// Upload buffers: enough to keep the bus busy while the host fills the next one. A copy of 4 MiB
/// takes 80 µs at 50 GB/s, ten times its start-up.
const N_UPLOADS: usize = 4;
const UPLOAD_BYTES: usize = 4 << 20;

/// Upload buffers that take turns: the host writes the next one while the device reads this one.
pub(super) struct Uploads {
    slots: Vec<Pinned>,
    next: usize,
}

impl Uploads {
    pub(super) fn new(context: &Arc<CudaContext>) -> Result<Self> {
        let slots = (0..N_UPLOADS)
            .map(|_| Pinned::new(context, UPLOAD_BYTES, sys::CU_MEMHOSTALLOC_WRITECOMBINED));
        Ok(Self { slots: slots.collect::<Result<_>>()?, next: 0 })
    }

    /// Copies to the device, in the order of a stream whose context is current.
    ///
    /// # Safety
    ///
    /// There is device memory for `bytes` at `to`.
    pub(super) unsafe fn copy(&mut self, stream: &CudaStream, to: u64, bytes: &[u8]) -> Result<()> {
        const OP: &str = "copying to the device";
        let mut to = to;
        for chunk in bytes.chunks(UPLOAD_BYTES) {
            let slot = &mut self.slots[self.next];
            self.next = (self.next + 1) % N_UPLOADS;
            slot.done.synchronize().map_err(failed(OP))?;
            let staged = &mut slot.bytes.as_mut_slice().map_err(failed(OP))?[..chunk.len()];
            staged.copy_from_slice(chunk);
            // SAFETY: the caller guarantees the memory at `to`. `staged` is not written again
            // before `done` completes.
            unsafe { result::memcpy_htod_async(to, staged, stream.cu_stream()) }
                .map_err(failed(OP))?;
            slot.record(stream, OP)?;
            to += chunk.len() as u64;
        }
        Ok(())
    }
}

/// Size of the smallest download buffer: most downloads are short.
const MIN_DOWNLOAD_BYTES: usize = 16 << 10;

/// Download buffers that no pending download uses.
#[derive(Default)]
pub(super) struct Downloads(Mutex<Vec<Pinned>>);

/// A pending download.
pub(super) struct Landing(Pinned);

impl Downloads {
    /// Starts a copy from the device, in the order of a stream whose context is current.
    ///
    /// # Safety
    ///
    /// There are `n_bytes` of device memory at `from`.
    pub(super) unsafe fn begin(
        &self,
        stream: &CudaStream,
        from: u64,
        n_bytes: usize,
    ) -> Result<Landing> {
        const OP: &str = "copying from the device";
        let mut free = self.0.lock();
        let pinned = match free.iter().position(|pinned| pinned.bytes.num_bytes() >= n_bytes) {
            Some(at) => free.swap_remove(at),
            None => {
                let n_bytes = n_bytes.next_power_of_two().max(MIN_DOWNLOAD_BYTES);
                // Not write-combined: the host reads this memory, and would wait for every word.
                Pinned::new(stream.context(), n_bytes, 0)?
            }
        };
        drop(free);
        let mut landing = Landing(pinned);
        let bytes = &mut landing.0.bytes.as_mut_slice().map_err(failed(OP))?[..n_bytes];
        if !bytes.is_empty() {
            // SAFETY: the caller guarantees the memory at `from`. The host does not touch `bytes`
            // before `done` completes.
            unsafe { result::memcpy_dtoh_async(bytes, from, stream.cu_stream()) }
                .map_err(failed(OP))?;
        }
        landing.0.record(stream, OP)?;
        Ok(landing)
    }

    /// Waits for a download, and copies its first `out.len()` bytes to `out`.
    pub(super) fn end(&self, landing: Landing, out: &mut [u8]) -> Result<()> {
        const OP: &str = "waiting for a copy from the device";
        let Landing(pinned) = landing;
        pinned.done.synchronize().map_err(failed(OP))?;
        out.copy_from_slice(&pinned.bytes.as_slice().map_err(failed(OP))?[..out.len()]);
        self.0.lock().push(pinned);
        Ok(())
    }
}
