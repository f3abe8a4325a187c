//! The emulated device with counters of uploads and waits.

use super::*;
use crate::cuda::device::{CapturedGraph, Download, MemoryInfo};
use crate::cuda::emulated;
use galley_kernels_cu::bindings::gk_kernels;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A device with counters.
pub(super) struct Counting {
    device: Arc<dyn Device>,
    n_downloads: AtomicUsize,
    n_synchronized: AtomicUsize,
    uploaded_bytes: AtomicUsize,
    /// How many of the next copies to the host fail before they begin.
    pub(super) n_failing: AtomicUsize,
}

impl Counting {
    /// A backend on a counting device, and the device.
    pub(super) fn backend() -> (CudaBackend, Arc<Counting>) {
        let counting = Arc::new(Counting {
            device: emulated::open().expect("the emulation"),
            n_downloads: AtomicUsize::new(0),
            n_synchronized: AtomicUsize::new(0),
            uploaded_bytes: AtomicUsize::new(0),
            n_failing: AtomicUsize::new(0),
        });
        let device: Arc<dyn Device> = counting.clone();
        (CudaBackend::on(device, 0.9), counting)
    }

    /// How often the host has waited for the device since the last call.
    pub(super) fn take_waits(&self) -> usize {
        self.n_downloads.swap(0, Relaxed) + self.n_synchronized.swap(0, Relaxed)
    }

    /// Bytes uploaded since the last call.
    pub(super) fn take_uploaded(&self) -> usize {
        self.uploaded_bytes.swap(0, Relaxed)
    }
}

impl Device for Counting {
    fn description(&self) -> String {
        self.device.description()
    }
    fn architecture(&self) -> String {
        self.device.architecture()
    }
    fn kernels(&self) -> &'static gk_kernels {
        self.device.kernels()
    }
    fn stream(&self) -> Result<gk_stream> {
        self.device.stream()
    }
    fn memory(&self) -> Result<MemoryInfo> {
        self.device.memory()
    }
    fn allocate(&self, purpose: &'static str, n_bytes: usize) -> Result<u64> {
        self.device.allocate(purpose, n_bytes)
    }
    fn free(&self, address: u64) {
        self.device.free(address);
    }
    fn upload(&self, to: u64, bytes: &[u8]) -> Result<()> {
        self.uploaded_bytes.fetch_add(bytes.len(), Relaxed);
        self.device.upload(to, bytes)
    }
    fn download(&self, from: u64, out: &mut [u8]) -> Result<()> {
        self.n_downloads.fetch_add(1, Relaxed);
        self.device.download(from, out)
    }
    fn begin_download(&self, from: u64, n_bytes: usize) -> Result<Download> {
        let less = |n: usize| n.checked_sub(1);
        if self.n_failing.fetch_update(Relaxed, Relaxed, less).is_ok() {
            let (op, error) = ("copying from the device", "it was told to fail".into());
            return Err(BackendError::Device { op, error });
        }
        self.device.begin_download(from, n_bytes)
    }
    fn end_download(&self, download: Download, out: &mut [u8]) -> Result<()> {
        self.n_downloads.fetch_add(1, Relaxed);
        self.device.end_download(download, out)
    }
    fn synchronize(&self) -> Result<()> {
        self.n_synchronized.fetch_add(1, Relaxed);
        self.device.synchronize()
    }
    fn begin_capture(&self) -> Result<()> {
        self.device.begin_capture()
    }
    fn end_capture(&self) -> Result<CapturedGraph> {
        self.device.end_capture()
    }
    unsafe fn replay(&self, captured: &CapturedGraph) -> Result<()> {
        // SAFETY: the caller upholds the contract of `replay`.
        unsafe { self.device.replay(captured) }
    }
}
