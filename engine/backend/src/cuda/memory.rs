//! Device memory that frees itself.

use super::device::Device;
use crate::Result;
use std::sync::Arc;

/// Some bytes of a device.
pub(super) struct Buffer {
    device: Arc<dyn Device>,
    address: u64,
    n_bytes: usize,
}

impl Buffer {
    /// Zeroed bytes; `what` names them in errors.
    pub(super) fn new(
        device: &Arc<dyn Device>,
        what: &'static str,
        n_bytes: usize,
    ) -> Result<Self> {
        let address = device.allocate(what, n_bytes)?;
        Ok(Self { device: Arc::clone(device), address, n_bytes })
    }

    /// Where it begins on the device.
    pub(super) fn address(&self) -> u64 {
        self.address
    }

    /// Its size in bytes.
    pub(super) fn len(&self) -> usize {
        self.n_bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.device.free(self.address, self.n_bytes);
    }
}
