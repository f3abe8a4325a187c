//! Selected ids on the device. A selection with a version stays there, so a draft uploads it once
//! and not with every token.
//!
//! All ids lie in one buffer, `gk_batch.selected` in the kernels. The least recently used selection
//! is evicted first.

use super::device::Device;
use super::memory::{Buffer, bytes_of};
use crate::{Result, SelectedIds};
use std::ptr::null;
use std::sync::Arc;

/// Maximum ids kept, unless a single batch has more: 256 MiB. A selection of 2048 tokens for each
/// of 8 KV heads in 32 layers has half a million ids.
const MAX_IDS: usize = 1 << 26;
/// Room for ids at the start.
const MIN_IDS: usize = 1 << 10;
/// A selection that no batch has used for this many batches is stale: a few rounds of drafts.
const STALE_AFTER: u64 = 64;
/// The offset of every selection is a multiple of this, in ids.
const STEP: usize = 4;

/// The selections that a device holds.
pub(super) struct Selections {
    buffer: Option<Buffer>,
    /// Ids that the buffer has room for.
    n_room: usize,
    max_ids: usize,
    /// The selections in the buffer, by offset.
    kept: Vec<CachedSelection>,
    /// Number of batches so far.
    now: u64,
}

/// A versioned selection on the device, or all unversioned selections of the latest batch together.
struct CachedSelection {
    version: u64,
    n_kv_heads: usize,
    n: usize,
    /// The largest id.
    last: Option<u32>,
    at: usize,
    /// Ids; `n_held` includes the padding.
    n_ids: usize,
    n_held: usize,
    used: u64,
}

impl Selections {
    pub(super) fn new() -> Self {
        Self { buffer: None, n_room: 0, max_ids: MAX_IDS, kept: Vec::new(), now: 0 }
    }

    /// An instance with room for `max_ids`, for tests.
    #[cfg(all(test, feature = "emulate"))]
    pub(super) fn with_max(max_ids: usize) -> Self {
        Self { max_ids, ..Self::new() }
    }

    /// Reads `n` ids from offset `at`.
    #[cfg(all(test, feature = "emulate"))]
    pub(super) fn read(&self, at: usize, n: usize) -> Vec<u32> {
        let buffer = self.buffer.as_ref().expect("something was placed");
        buffer.download(at * size_of::<u32>(), n).expect("the emulation reads")
    }

    /// The largest id of a selection on the device, or None if it is not there. Its ids were
    /// checked at the upload.
    pub(super) fn known(&self, selection: &SelectedIds<'_>) -> Option<Option<u32>> {
        self.find(selection).map(|at| self.kept[at].last)
    }

    /// Uploads the batch's selections that are not on the device. Returns the offset of each.
    pub(super) fn place(
        &mut self,
        device: &Arc<dyn Device>,
        selections: &[SelectedIds<'_>],
    ) -> Result<Vec<usize>> {
        self.now += 1;
        if self.buffer.is_none() {
            self.clear(MIN_IDS, device)?;
        }
        // The kept unversioned selections belong to the previous batch. The unversioned ones of
        // this batch are uploaded together.
        self.kept.retain(|kept| kept.version != 0);
        let mut loose: Vec<u32> = Vec::new();
        let mut places = vec![0; selections.len()];
        for (place, selection) in places.iter_mut().zip(selections) {
            if selection.version == 0 {
                *place = loose.len();
                loose.extend_from_slice(selection.ids);
            }
        }
        let together = SelectedIds { ids: &loose, n: loose.len(), n_kv_heads: 0, version: 0 };
        let versioned = selections.iter().filter(|selection| selection.version != 0);
        let all: Vec<SelectedIds<'_>> = versioned.copied().chain([together]).collect();
        // Marks selections on the device as used first, so that they are not evicted for the rest.
        for selection in &all {
            if let Some(at) = self.find(selection) {
                self.kept[at].used = self.now;
            }
        }
        if !self.place_all(device, &all)? {
            // The gaps between kept selections are too small: clears the buffer and places all
            // selections in a row.
            self.clear(all.iter().map(|selection| held(selection.ids.len())).sum(), device)?;
            self.place_all(device, &all)?;
        }
        for (place, selection) in places.iter_mut().zip(selections) {
            let at = self.kept.iter().position(|kept| kept.is(selection));
            *place += at.map_or(0, |at| self.kept[at].at);
        }
        Ok(places)
    }

    /// The device address of the buffer as a number; 0 before the first batch.
    pub(super) fn address(&self) -> u64 {
        self.buffer.as_ref().map_or(0, Buffer::address)
    }

    /// The device address of the ids; null before the first batch.
    pub(super) fn ids(&self) -> *const u32 {
        self.buffer.as_ref().map_or(null(), |buffer| buffer.at::<u32>(0).cast_const())
    }

    /// Places all selections of a batch. Returns false if they do not fit.
    fn place_all(&mut self, device: &Arc<dyn Device>, all: &[SelectedIds<'_>]) -> Result<bool> {
        for selection in all {
            if selection.ids.is_empty() || self.find(selection).is_some() {
                continue;
            }
            let n_held = held(selection.ids.len());
            let (index, at) = loop {
                if let Some(gap) = self.gap(n_held) {
                    break gap;
                }
                if self.evict(self.now.saturating_sub(STALE_AFTER)) {
                    continue;
                }
                if self.n_room < self.max_ids {
                    let needed: usize = all.iter().map(|all| held(all.ids.len())).sum();
                    let n_room = (2 * self.n_room).max(needed.next_power_of_two());
                    self.clear(n_room.min(self.max_ids).max(needed), device)?;
                    return self.place_all(device, all);
                }
                if !self.evict(self.now) {
                    return Ok(false);
                }
            };
            if let Some(buffer) = &self.buffer {
                buffer.upload(at * size_of::<u32>(), bytes_of(selection.ids))?;
            }
            self.kept.insert(index, CachedSelection::new(selection, at, n_held, self.now));
        }
        Ok(true)
    }

    /// The first gap with room for `n` ids: the number of selections before it, and its offset.
    fn gap(&self, n: usize) -> Option<(usize, usize)> {
        let begins = std::iter::once(0).chain(self.kept.iter().map(|kept| kept.at + kept.n_held));
        let ends = self.kept.iter().map(|kept| kept.at).chain([self.n_room]);
        let mut gaps = begins.zip(ends).enumerate();
        gaps.find(|(_, (begin, end))| begin + n <= *end).map(|(index, (begin, _))| (index, begin))
    }

    /// Evicts the least recently used selection, if its last use was before `batch`. Returns false
    /// if there is none.
    fn evict(&mut self, batch: u64) -> bool {
        let kept = self.kept.iter().enumerate().filter(|(_, kept)| kept.used < batch);
        let Some((index, _)) = kept.min_by_key(|(_, kept)| kept.used) else { return false };
        self.kept.remove(index);
        true
    }

    /// Drops all selections, and makes room for at least `n_ids`.
    fn clear(&mut self, n_ids: usize, device: &Arc<dyn Device>) -> Result<()> {
        self.kept.clear();
        if self.n_room < n_ids || self.buffer.is_none() {
            (self.buffer, self.n_room) = (None, 0);
            let n_ids = n_ids.max(MIN_IDS);
            let buffer = Buffer::new(device, "selected tokens", n_ids * size_of::<u32>())?;
            (self.buffer, self.n_room) = (Some(buffer), n_ids);
        }
        Ok(())
    }

    fn find(&self, selection: &SelectedIds<'_>) -> Option<usize> {
        let is_there = |kept: &CachedSelection| kept.version != 0 && kept.is(selection);
        self.kept.iter().position(is_there)
    }
}

impl CachedSelection {
    fn new(selection: &SelectedIds<'_>, at: usize, n_held: usize, used: u64) -> Self {
        let &SelectedIds { ids, n, n_kv_heads, version } = selection;
        let last = ids.chunks(n.max(1)).filter_map(|run| run.last()).max().copied();
        Self { version, n_kv_heads, n, last, at, n_ids: ids.len(), n_held, used }
    }

    /// Whether this is the entry for `selection`. All selections of version 0 share one entry.
    fn is(&self, selection: &SelectedIds<'_>) -> bool {
        let shape = (selection.n_kv_heads, selection.n, selection.ids.len());
        self.version == selection.version
            && (self.version == 0 || (self.n_kv_heads, self.n, self.n_ids) == shape)
    }
}

fn held(n_ids: usize) -> usize {
    n_ids.next_multiple_of(STEP)
}
