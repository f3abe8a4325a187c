//! Selected ids on the device: those with a version stay there, so that a draft sends them once and not with every
//! token.
//!
//! They lie in one buffer, which kernels know as `gk_batch.selected`. What is looked up least recently makes room.

use super::device::Device;
use super::memory::{Buffer, bytes_of};
use crate::{Result, Selection};
use std::ptr::null;
use std::sync::Arc;

/// Ids that are kept, at most, unless a batch alone has more: 256 MiB. A selection of 2048 tokens for each of 8 KV heads
/// in 32 layers has half a million.
const MAX_IDS: usize = 1 << 26;
/// Ids there is room for from the start.
const MIN_IDS: usize = 1 << 10;
/// Batches after which a selection that none of them had is taken to be given up: a few rounds of drafts.
const STALE_AFTER: u64 = 64;
/// Every run of ids begins at a multiple of this.
const STEP: usize = 4;

/// The selections that a device holds.
pub(super) struct Selections {
    buffer: Option<Buffer>,
    /// Ids that the buffer has room for.
    n_room: usize,
    max_ids: usize,
    /// What lies there, in order.
    kept: Vec<Kept>,
    /// Batches so far.
    now: u64,
}

/// A selection on the device, or those without a version of the latest batch.
struct Kept {
    version: u64,
    n_kv_heads: usize,
    n: usize,
    /// The largest id.
    last: Option<u32>,
    at: usize,
    /// Its ids, and those that it is padded with.
    n_ids: usize,
    n_held: usize,
    used: u64,
}

impl Selections {
    pub(super) fn new() -> Self {
        Self { buffer: None, n_room: 0, max_ids: MAX_IDS, kept: Vec::new(), now: 0 }
    }

    /// A smaller one, for tests.
    #[cfg(all(test, feature = "emulate"))]
    pub(super) fn with_max(max_ids: usize) -> Self {
        Self { max_ids, ..Self::new() }
    }

    /// The ids at a place.
    #[cfg(all(test, feature = "emulate"))]
    pub(super) fn read(&self, at: usize, n: usize) -> Vec<u32> {
        let buffer = self.buffer.as_ref().expect("something was placed");
        buffer.download(at * size_of::<u32>(), n).expect("the emulation reads")
    }

    /// The largest id of a selection that is there, and so was looked at when it came.
    pub(super) fn known(&self, selection: &Selection<'_>) -> Option<Option<u32>> {
        self.find(selection).map(|at| self.kept[at].last)
    }

    /// Sends those selections of a batch that are not there: where each begins.
    pub(super) fn place(
        &mut self,
        device: &Arc<dyn Device>,
        selections: &[Selection<'_>],
    ) -> Result<Vec<usize>> {
        self.now += 1;
        if self.buffer.is_none() {
            self.clear(MIN_IDS, device)?;
        }
        // Selections without a version were those of the batch before; these are sent together.
        self.kept.retain(|kept| kept.version != 0);
        let mut loose: Vec<u32> = Vec::new();
        let mut places = vec![0; selections.len()];
        for (place, selection) in places.iter_mut().zip(selections) {
            if selection.version == 0 {
                *place = loose.len();
                loose.extend_from_slice(selection.ids);
            }
        }
        let together = Selection { ids: &loose, n: loose.len(), n_kv_heads: 0, version: 0 };
        let versioned = selections.iter().filter(|selection| selection.version != 0);
        let all: Vec<Selection<'_>> = versioned.copied().chain([together]).collect();
        // Those that are there must not make room for the others.
        for selection in &all {
            if let Some(at) = self.find(selection) {
                self.kept[at].used = self.now;
            }
        }
        if !self.place_all(device, &all)? {
            // What lies between others is too small: all anew, one after another.
            self.clear(all.iter().map(|selection| held(selection.ids.len())).sum(), device)?;
            self.place_all(device, &all)?;
        }
        for (place, selection) in places.iter_mut().zip(selections) {
            let at = self.kept.iter().position(|kept| kept.is(selection));
            *place += at.map_or(0, |at| self.kept[at].at);
        }
        Ok(places)
    }

    /// The device address of ids; 0 before there are any.
    pub(super) fn address(&self) -> u64 {
        self.buffer.as_ref().map_or(0, Buffer::address)
    }

    /// Where ids are; null before there are any.
    pub(super) fn ids(&self) -> *const u32 {
        self.buffer.as_ref().map_or(null(), |buffer| buffer.at::<u32>(0).cast_const())
    }

    /// Whether there was room for all.
    fn place_all(&mut self, device: &Arc<dyn Device>, all: &[Selection<'_>]) -> Result<bool> {
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
            self.kept.insert(index, Kept::new(selection, at, n_held, self.now));
        }
        Ok(true)
    }

    /// The first place that is free for so many ids, and how many selections lie before it.
    fn gap(&self, n: usize) -> Option<(usize, usize)> {
        let begins = std::iter::once(0).chain(self.kept.iter().map(|kept| kept.at + kept.n_held));
        let ends = self.kept.iter().map(|kept| kept.at).chain([self.n_room]);
        let mut gaps = begins.zip(ends).enumerate();
        gaps.find(|(_, (begin, end))| begin + n <= *end).map(|(index, (begin, _))| (index, begin))
    }

    /// Lets go of the selection that was not looked up for the longest time, if that was before `batch`.
    fn evict(&mut self, batch: u64) -> bool {
        let kept = self.kept.iter().enumerate().filter(|(_, kept)| kept.used < batch);
        let Some((index, _)) = kept.min_by_key(|(_, kept)| kept.used) else { return false };
        self.kept.remove(index);
        true
    }

    /// Lets go of all of them, and makes room for `n_ids` at least.
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

    fn find(&self, selection: &Selection<'_>) -> Option<usize> {
        let is_there = |kept: &Kept| kept.version != 0 && kept.is(selection);
        self.kept.iter().position(is_there)
    }
}

impl Kept {
    fn new(selection: &Selection<'_>, at: usize, n_held: usize, used: u64) -> Self {
        let &Selection { ids, n, n_kv_heads, version } = selection;
        let last = ids.chunks(n.max(1)).filter_map(|run| run.last()).max().copied();
        Self { version, n_kv_heads, n, last, at, n_ids: ids.len(), n_held, used }
    }

    /// Whether this is the selection, or where it lies if it has no version.
    fn is(&self, selection: &Selection<'_>) -> bool {
        let shape = (selection.n_kv_heads, selection.n, selection.ids.len());
        self.version == selection.version
            && (self.version == 0 || (self.n_kv_heads, self.n, self.n_ids) == shape)
    }
}

fn held(n_ids: usize) -> usize {
    n_ids.next_multiple_of(STEP)
}
