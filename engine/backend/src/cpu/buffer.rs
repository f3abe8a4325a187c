//! Memory for activations, keys and values: zeroed, aligned, in huge pages.

use super::arena::WeightMemory;
use crate::{BackendError, Result};
use memmap2::{MmapMut, MmapRaw};
use std::marker::PhantomData;
use std::sync::Arc;

/// A fixed run of 32-bit words, zeroed by the operating system when first touched.
#[derive(Debug)]
pub(super) struct WordBuffer {
    map: Option<Arc<MmapRaw>>,
    len: usize,
}

impl WordBuffer {
    /// Allocates `len` zero words. An error contains the given name of the data.
    pub(super) fn zeroed(purpose: &'static str, len: usize) -> Result<Self> {
        if len == 0 {
            return Ok(Self { map: None, len });
        }
        let needed_bytes = len as u128 * 4;
        let refuse = || BackendError::OutOfMemory { purpose, needed_bytes };
        let bytes = usize::try_from(needed_bytes).map_err(|_| refuse())?;
        let map = MmapMut::map_anon(bytes).map_err(|_| refuse())?;
        // Every decode step streams through this memory, and 4 KiB pages would cause constant TLB
        // misses. A system without huge pages ignores the advice.
        #[cfg(target_os = "linux")]
        if bytes >= 2 << 20 {
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Self { map: Some(Arc::new(MmapRaw::from(map))), len })
    }

    /// A second owner of the same words. The owners must not write words while another owner reads
    /// them.
    pub(super) fn share(&self) -> Self {
        Self { map: self.map.clone(), len: self.len }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn as_ptr(&self) -> *const u32 {
        self.map.as_ref().map_or(std::ptr::dangling(), |m| m.as_ptr().cast())
    }

    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "a mutable pointer needs a mutable borrow of the words"
    )]
    pub(super) fn as_mut_ptr(&mut self) -> *mut u32 {
        self.map.as_ref().map_or(std::ptr::dangling_mut(), |m| m.as_mut_ptr().cast())
    }
}

/// A pointer that several threads write through, each to its own elements.
pub(super) struct DisjointPtr<'a, T> {
    at: *mut T,
    borrowed: PhantomData<&'a mut T>,
}

impl<T> Clone for DisjointPtr<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for DisjointPtr<'_, T> {}

// SAFETY: handing out the pointer is safe; each write through it states why there is no data race.
unsafe impl<T: Send> Send for DisjointPtr<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for DisjointPtr<'_, T> {}

impl<'a, T> DisjointPtr<'a, T> {
    pub(super) fn new(words: &'a mut WordBuffer) -> Self {
        Self { at: words.as_mut_ptr().cast(), borrowed: PhantomData }
    }

    pub(super) fn of_bytes(memory: &'a mut WeightMemory) -> Self {
        Self { at: memory.as_mut_ptr().cast(), borrowed: PhantomData }
    }

    pub(super) fn of(slice: &'a mut [T]) -> Self {
        Self { at: slice.as_mut_ptr(), borrowed: PhantomData }
    }

    pub(super) fn ptr(self) -> *mut T {
        self.at
    }
}
