//! Device memory that frees itself, and plain values for transfers.

use super::device::{Device, Download};
use crate::{InputToken, Result};
use galley_kernels_cu::bindings::{
    gk_edit, gk_merge, gk_observation, gk_sample_row, gk_sampled, gk_seq, gk_unit,
};
use std::sync::Arc;

/// A range of device memory.
pub(super) struct Buffer {
    device: Arc<dyn Device>,
    address: u64,
    n_bytes: usize,
}

impl Buffer {
    /// Allocates zeroed bytes. `what` is their name in errors.
    pub(super) fn new(
        device: &Arc<dyn Device>,
        purpose: &'static str,
        n_bytes: usize,
    ) -> Result<Self> {
        let address = device.allocate(purpose, n_bytes)?;
        Ok(Self { device: Arc::clone(device), address, n_bytes })
    }

    /// Allocates a buffer that holds `values`.
    pub(super) fn of<T: Plain>(
        device: &Arc<dyn Device>,
        purpose: &'static str,
        values: &[T],
    ) -> Result<Self> {
        let buffer = Self::new(device, purpose, size_of_val(values))?;
        buffer.upload(0, bytes_of(values))?;
        Ok(buffer)
    }

    /// The device address of value `at`.
    pub(super) fn at<T>(&self, at: usize) -> *mut T {
        debug_assert!(at * size_of::<T>() <= self.n_bytes);
        std::ptr::with_exposed_provenance_mut((self.address as usize) + at * size_of::<T>())
    }

    /// The device address of an array that begins at byte `at`.
    pub(super) fn part<T>(&self, at: usize) -> *mut T {
        self.at::<u8>(at).cast()
    }

    /// The device that holds it.
    pub(super) fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// Its device address.
    pub(super) fn address(&self) -> u64 {
        self.address
    }

    /// Its size in bytes.
    pub(super) fn len(&self) -> usize {
        self.n_bytes
    }

    /// Writes `bytes`, starting at byte `at`.
    pub(super) fn upload(&self, at: usize, bytes: &[u8]) -> Result<()> {
        assert!(at + bytes.len() <= self.n_bytes, "an upload beyond the end");
        self.device.upload(self.address + at as u64, bytes)
    }

    /// Reads `n` values, starting at byte `at`, after all work enqueued before.
    pub(super) fn download<T: Plain>(&self, at: usize, n: usize) -> Result<Vec<T>> {
        assert!(at + n * size_of::<T>() <= self.n_bytes, "a download beyond the end");
        filled(n, |bytes| self.device.download(self.address + at as u64, bytes))
    }

    /// Starts to read `n` values, starting at value `at`, after all work enqueued before.
    pub(super) fn begin_download<T: Plain>(&self, at: usize, n: usize) -> Result<Download> {
        assert!((at + n) * size_of::<T>() <= self.n_bytes, "a download beyond the end");
        let from = self.address + (at * size_of::<T>()) as u64;
        self.device.begin_download(from, n * size_of::<T>())
    }

    /// Waits for a download that [`Buffer::begin_download`] started; returns its `n` values.
    pub(super) fn end_download<T: Plain>(&self, download: Download, n: usize) -> Result<Vec<T>> {
        filled(n, |bytes| self.device.end_download(download, bytes))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.device.free(self.address);
    }
}

/// A buffer that grows to the largest size asked for. Its contents do not survive growing.
pub(super) struct Growing {
    purpose: &'static str,
    buffer: Option<Buffer>,
}

impl Growing {
    /// An empty buffer, called `what` in errors.
    pub(super) fn new(purpose: &'static str) -> Self {
        Self { purpose, buffer: None }
    }

    /// The current device address; 0 before the first allocation.
    pub(super) fn address(&self) -> u64 {
        self.buffer.as_ref().map_or(0, Buffer::address)
    }

    /// Takes the buffer out, so that a test can keep it while a new one is allocated.
    #[cfg(test)]
    pub(super) fn take(&mut self) -> Option<Buffer> {
        self.buffer.take()
    }

    /// A buffer of at least `n_bytes`, replaced if it is too small.
    pub(super) fn get(&mut self, device: &Arc<dyn Device>, n_bytes: usize) -> Result<&Buffer> {
        let kept = self.buffer.take().filter(|buffer| buffer.len() >= n_bytes);
        let buffer = match kept {
            Some(buffer) => buffer,
            None => Buffer::new(device, self.purpose, with_room(n_bytes))?,
        };
        Ok(self.buffer.insert(buffer))
    }

    /// The buffer, holding `values` from its start.
    pub(super) fn holding<T: Plain>(
        &mut self,
        device: &Arc<dyn Device>,
        values: &[T],
    ) -> Result<&Buffer> {
        let buffer = self.get(device, size_of_val(values))?;
        buffer.upload(0, bytes_of(values))?;
        Ok(buffer)
    }
}

/// Larger buffers grow in smaller steps: growing buffers share the memory that the KV pool left.
const LARGE_BYTES: usize = 64 << 20;

/// Bytes to allocate for `n_bytes`. The next power of two, so that a context that grows token by
/// token allocates rarely; above [`LARGE_BYTES`], at most a quarter more than `n_bytes`.
fn with_room(n_bytes: usize) -> usize {
    if n_bytes <= LARGE_BYTES {
        return n_bytes.next_power_of_two().max(4096);
    }
    n_bytes.next_multiple_of((n_bytes / 8).next_power_of_two())
}

/// Alignment of every array in a [`Blob`], in bytes: the widest access needs it.
const ALIGNMENT: usize = 16;

/// Arrays in one host allocation, one after another.
#[derive(Default)]
pub(super) struct Blob {
    pub(super) bytes: Vec<u8>,
}

impl Blob {
    /// Appends an array; returns its offset in bytes.
    pub(super) fn push<T: Plain>(&mut self, values: &[T]) -> usize {
        let at = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(at, 0);
        self.bytes.extend_from_slice(bytes_of(values));
        at
    }
}

/// Values that can be copied to and from the device as bytes.
///
/// # Safety
///
/// The type has no padding, and every bit pattern is a valid value.
pub(super) unsafe trait Plain: Copy {}

/// Marks types as [`Plain`].
macro_rules! plain {
    ($($name:ident),*) => {
        $(
            // SAFETY: integers and floats, with sizes and an order that leave no padding.
            unsafe impl Plain for $name {}
        )*
    };
}

plain!(u8, u16, u32, i32, f32, InputToken, gk_seq, gk_unit, gk_merge, gk_observation);
plain!(gk_sample_row, gk_edit, gk_sampled);

/// `n` plain values, read from the bytes that `fill` writes.
fn filled<T: Plain>(n: usize, fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Vec<T>> {
    // SAFETY: zero bits are a valid value of a plain type.
    let mut values = vec![unsafe { std::mem::zeroed::<T>() }; n];
    // SAFETY: every bit pattern is a valid value of a plain type.
    let bytes = unsafe {
        std::slice::from_raw_parts_mut(values.as_mut_ptr().cast::<u8>(), n * size_of::<T>())
    };
    fill(bytes)?;
    Ok(values)
}

/// The bytes of plain values.
pub(super) fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: plain values have no padding, so all their bytes are initialised.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growing_buffers_have_room_and_large_ones_little_of_it() {
        const MIB: usize = 1 << 20;
        let allocated = [0, 4097, 33 * MIB, 64 * MIB, 65 * MIB, 900 * MIB].map(with_room);
        assert_eq!(allocated, [4096, 8192, 64 * MIB, 64 * MIB, 80 * MIB, 1024 * MIB]);
        let mut sizes: Vec<_> = (1..4096).map(|n| with_room(n * MIB)).collect();
        assert!(sizes.iter().zip(1..).all(|(&size, n)| size >= n * MIB));
        sizes.dedup();
        assert!(sizes.len() < 64, "{sizes:?}");
    }
}
