//! Memory for packed weights: few large mappings, in huge pages.
//!
//! Every decode step streams through all weights. A mapping for each matrix would leave small matrices, and
//! the edges of large ones, in 4 KiB pages.

use crate::{BackendError, Result};
use memmap2::{MmapMut, MmapRaw};
use std::sync::Arc;

/// Size of a huge page.
const HUGE_PAGE: usize = 2 << 20;

/// Alignment of a matrix: a cache line.
const ALIGNMENT: usize = 64;

/// Bytes of a mapping if nothing is known of the weights to come.
const DEFAULT_BYTES: usize = 64 << 20;

/// Hands out memory from mappings that begin at a huge page. A mapping is given back when its last matrix is
/// dropped and the arena has begun another mapping.
#[derive(Debug, Default)]
pub(super) struct WeightArena {
    current: Option<Mapping>,
    /// Bytes of weights that are expected beyond the current mapping.
    expected_bytes: usize,
}

#[derive(Debug)]
struct Mapping {
    map: Arc<MmapRaw>,
    /// Offset of the first free byte.
    free: usize,
}

/// Zeroed bytes of an arena, aligned to a cache line.
#[derive(Debug)]
pub(super) struct WeightMemory {
    map: Option<Arc<MmapRaw>>,
    offset: usize,
    len: usize,
}

impl WeightArena {
    /// Says that so many bytes of weights are about to be allocated, so that one mapping has them all.
    pub(super) fn expect(&mut self, bytes: usize) {
        self.current = None;
        self.expected_bytes = bytes;
    }

    /// Allocates `len` zero bytes.
    pub(super) fn allocate(&mut self, len: usize) -> Result<WeightMemory> {
        if len == 0 {
            return Ok(WeightMemory { map: None, offset: 0, len });
        }
        let fits = |mapping: &Mapping| mapping.map.len() - mapping.free >= len;
        if !self.current.as_ref().is_some_and(fits) {
            self.current = Some(self.new_mapping(len)?);
        }
        let mapping = self.current.as_mut().expect("there is a mapping now");
        let offset = mapping.free;
        let end = (offset + len).next_multiple_of(ALIGNMENT);
        mapping.free = end.min(mapping.map.len());
        self.expected_bytes = self.expected_bytes.saturating_sub(end - offset);
        Ok(WeightMemory { map: Some(Arc::clone(&mapping.map)), offset, len })
    }

    /// A mapping with room for `len` bytes, and for all expected bytes if the system grants them.
    fn new_mapping(&self, len: usize) -> Result<Mapping> {
        let expected = if self.expected_bytes == 0 { DEFAULT_BYTES } else { self.expected_bytes };
        let wanted = len.max(expected);
        map(wanted).or_else(|_| map(len)).map_err(|()| BackendError::OutOfMemory {
            purpose: "weights",
            needed_bytes: len as u128,
        })
    }
}

/// Maps `len` bytes from a huge page on.
fn map(len: usize) -> Result<Mapping, ()> {
    let bytes = len.checked_add(2 * HUGE_PAGE).ok_or(())?;
    let map = MmapMut::map_anon(bytes).map_err(|_| ())?;
    // A system without huge pages ignores the advice.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    let free = map.as_ptr().align_offset(HUGE_PAGE);
    Ok(Mapping { map: Arc::new(MmapRaw::from(map)), free })
}

impl WeightMemory {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn as_ptr(&self) -> *const u8 {
        let start = |map: &Arc<MmapRaw>| map.as_ptr().wrapping_add(self.offset);
        self.map.as_ref().map_or(std::ptr::dangling(), start)
    }

    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "a mutable pointer needs a mutable borrow of the bytes"
    )]
    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        let start = |map: &Arc<MmapRaw>| map.as_mut_ptr().wrapping_add(self.offset);
        self.map.as_ref().map_or(std::ptr::dangling_mut(), start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_weights_share_a_mapping_of_huge_pages() {
        let mut arena = WeightArena::default();
        arena.expect(100 << 20);
        let all: Vec<_> =
            (0..100).map(|i| arena.allocate((1 << 20) - i).expect("memory")).collect();
        assert_eq!(all[0].as_ptr().align_offset(HUGE_PAGE), 0);
        for pair in all.windows(2) {
            assert_eq!(pair[1].as_ptr().align_offset(ALIGNMENT), 0);
            let gap = pair[1].as_ptr() as usize - (pair[0].as_ptr() as usize + pair[0].len());
            assert!(gap < ALIGNMENT, "{gap} bytes between neighbours");
        }
    }

    #[test]
    fn more_than_the_expected_gets_a_mapping_too_and_impossible_sizes_are_refused() {
        let mut arena = WeightArena::default();
        arena.expect(1 << 20);
        let (first, second) = (arena.allocate(60 << 20), arena.allocate(60 << 20));
        let (first, mut second) = (first.expect("memory"), second.expect("memory"));
        drop(first);
        // SAFETY: the memory has these bytes, and nothing else refers to them.
        unsafe { second.as_mut_ptr().add(second.len() - 1).write(1) };
        assert!(arena.allocate(usize::MAX - 5).is_err());
        assert_eq!(arena.allocate(0).expect("nothing").len(), 0);
    }
}
