//! Handles: numbers that a drafter holds and that the host checks at every call.

use std::sync::atomic::{AtomicU32, Ordering};

/// The type of object that a handle refers to. No kind is zero, so no handle is zero; a zero handle
/// means the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandleKind {
    Model = 0x4d,
    View = 0x56,
    Mask = 0x4c,
    Matcher = 0x53,
    Queue = 0x51,
}

/// The objects behind the handles of one kind. A handle consists of its kind, a generation and a
/// place.
pub(crate) struct Arena<T> {
    kind: HandleKind,
    generation: u32,
    entries: Vec<(u32, T)>,
}

impl<T> Arena<T> {
    pub(crate) fn new(kind: HandleKind) -> Self {
        Arena { kind, generation: next_generation(), entries: Vec::new() }
    }

    /// None if the arena is full.
    pub(crate) fn insert(&mut self, value: T) -> Option<u64> {
        let place = u32::try_from(self.entries.len()).ok().filter(|&n| n < MAX_ENTRIES)?;
        self.entries.push((self.generation, value));
        Some(handle(self.kind, self.generation, place))
    }

    /// The place behind a handle, if the handle is of this kind and still valid.
    pub(crate) fn place(&self, id: u64) -> Option<u32> {
        let place = (id & PLACE_MASK) as u32;
        let (generation, _) = self.entries.get(place as usize)?;
        (handle(self.kind, *generation, place) == id).then_some(place)
    }

    pub(crate) fn at(&self, place: u32) -> &T {
        &self.entries[place as usize].1
    }

    pub(crate) fn at_mut(&mut self, place: u32) -> &mut T {
        &mut self.entries[place as usize].1
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(_, value)| value)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Makes every handle except the first `n_kept` stale, permanently.
    pub(crate) fn truncate(&mut self, n_kept: usize) {
        self.entries.truncate(n_kept);
        self.generation = next_generation();
    }
}

/// A queue handle: it holds a serial number instead of a generation and a place.
pub(crate) fn queue(serial: u64) -> u64 {
    (HandleKind::Queue as u64) << 56 | (serial & ((1 << 56) - 1))
}

fn handle(kind: HandleKind, generation: u32, place: u32) -> u64 {
    (kind as u64) << 56 | u64::from(generation) << 24 | u64::from(place)
}

/// Generations are unique in the process, so that a handle of one drafter is stale in another
/// drafter.
fn next_generation() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The lower 24 bits of a handle are its place.
const PLACE_MASK: u64 = (1 << 24) - 1;

/// Each view, mask and matcher costs the engine memory, so a runaway drafter is stopped here.
const MAX_ENTRIES: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_forged_and_foreign_handles_are_refused() {
        let (mut views, mut masks) = (Arena::new(HandleKind::View), Arena::new(HandleKind::Mask));
        let kept = views.insert("kept").expect("room");
        let void = views.insert("void").expect("room");
        let mask = masks.insert("mask").expect("room");
        assert_eq!((views.place(kept), views.place(void)), (Some(0), Some(1)));
        for forged in [0, 1, u64::MAX, mask, kept + 2, kept ^ 1 << 24, kept ^ 1 << 60] {
            assert_eq!(views.place(forged), None, "{forged:x}");
        }
        views.truncate(1);
        let new = views.insert("new").expect("room");
        assert_eq!((views.place(kept), views.place(void)), (Some(0), None));
        assert_eq!(views.place(new), Some(1));
    }
}
