//! The emulation as a device: its memory is ordinary memory, and its work is done when a launcher returns.

use super::device::{Device, Download, Memory, Recording, foreign};
use crate::{BackendError, Result};
use galley_kernels_cu::bindings::{gk_kernels, gk_stream};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::sync::atomic::{AtomicBool, Ordering};

/// Every allocation begins at a multiple of this, as on a GPU.
const ALIGNMENT: usize = 256;

/// The CPU as a device for kernels.
#[derive(Debug, Default)]
pub(super) struct Emulated {
    is_recording: AtomicBool,
}

impl Emulated {
    /// Refuses what a GPU could not record.
    fn not_while_recording(&self, op: &'static str) -> Result<()> {
        if self.is_recording.load(Ordering::Relaxed) {
            let error = "it cannot be recorded: do it before or after".into();
            return Err(BackendError::Device { op, error });
        }
        Ok(())
    }
}

impl Device for Emulated {
    fn description(&self) -> String {
        "emulated on the CPU".into()
    }

    fn kernels(&self) -> &'static gk_kernels {
        galley_kernels_cu::emulated()
    }

    fn stream(&self) -> Result<gk_stream> {
        Ok(std::ptr::null_mut())
    }

    fn memory(&self) -> Result<Memory> {
        // What an allocation cannot have, the allocator says.
        Ok(Memory { free_bytes: usize::MAX, total_bytes: usize::MAX })
    }

    fn allocate(&self, what: &'static str, n_bytes: usize) -> Result<u64> {
        self.not_while_recording("allocating memory")?;
        let failed = || BackendError::OutOfMemory { what, needed_bytes: n_bytes as u128 };
        let layout = layout(n_bytes).ok_or_else(failed)?;
        // SAFETY: the layout is not empty.
        let address = unsafe { alloc_zeroed(layout) };
        if address.is_null() { Err(failed()) } else { Ok(address.expose_provenance() as u64) }
    }

    fn free(&self, address: u64, n_bytes: usize) {
        if let Some(layout) = layout(n_bytes) {
            // SAFETY: `allocate` gave this address for as many bytes.
            unsafe { dealloc(std::ptr::with_exposed_provenance_mut(address as usize), layout) }
        }
    }

    fn upload(&self, to: u64, bytes: &[u8]) -> Result<()> {
        self.not_while_recording("copying to the device")?;
        let to = std::ptr::with_exposed_provenance_mut::<u8>(to as usize);
        // SAFETY: the caller's buffer holds as many bytes, and no work is under way.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    fn download(&self, from: u64, out: &mut [u8]) -> Result<()> {
        self.not_while_recording("copying from the device")?;
        let from = std::ptr::with_exposed_provenance::<u8>(from as usize);
        // SAFETY: as for uploads.
        unsafe { from.copy_to_nonoverlapping(out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    fn begin_download(&self, from: u64, n_bytes: usize) -> Result<Download> {
        let mut bytes = vec![0_u8; n_bytes];
        self.download(from, &mut bytes)?;
        Ok(Download(Box::new(bytes)))
    }

    fn end_download(&self, download: Download, out: &mut [u8]) -> Result<()> {
        let bytes: &Vec<u8> = download.0.downcast_ref().ok_or_else(foreign("a download"))?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn begin_recording(&self) -> Result<()> {
        galley_kernels_cu::record().map_err(failed("beginning a recording"))?;
        self.is_recording.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn end_recording(&self) -> Result<Recording> {
        self.is_recording.store(false, Ordering::Relaxed);
        let launches = galley_kernels_cu::Recording::end().map_err(failed("ending a recording"))?;
        Ok(Recording(Box::new(launches)))
    }

    unsafe fn replay(&self, recording: &Recording) -> Result<()> {
        const OP: &str = "replaying a recording";
        let launches: &galley_kernels_cu::Recording =
            recording.0.downcast_ref().ok_or_else(foreign(OP))?;
        // SAFETY: the caller answers for the buffers; launchers have checked shapes when they recorded.
        unsafe { launches.replay() }.map_err(failed(OP))
    }
}

fn failed(op: &'static str) -> impl Fn(i32) -> BackendError {
    move |code| BackendError::Device { op, error: code.to_string() }
}

fn layout(n_bytes: usize) -> Option<Layout> {
    Layout::from_size_align(n_bytes.max(1), ALIGNMENT).ok()
}
