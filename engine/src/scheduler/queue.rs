//! A queue of sequences that hold no blocks, in order. It can be very long.

use crate::sequence::{Sequence, SequenceKey};
use std::collections::BTreeMap;

/// Sequences without blocks, in the order of service.
///
/// The queue gives access to the first sequence, to one sequence by its key, to the sequences of
/// one request, and to all sequences only by emptying it. So no step and no cancellation takes
/// longer because many sequences wait.
#[derive(Default)]
pub(super) struct Queue {
    sequences: BTreeMap<SequenceKey, Sequence>,
    /// Insertions, look-ups and removals of sequences since the start. Tests compare them with the
    /// queue's length.
    #[cfg(test)]
    pub(super) n_touched: std::cell::Cell<u64>,
}

impl Queue {
    pub(super) fn insert(&mut self, sequence: Sequence) {
        self.touch(1);
        self.sequences.insert(sequence.key, sequence);
    }

    pub(super) fn first(&self) -> Option<&Sequence> {
        self.touch(1);
        self.sequences.first_key_value().map(|(_, sequence)| sequence)
    }

    pub(super) fn get(&self, key: SequenceKey) -> Option<&Sequence> {
        self.touch(1);
        self.sequences.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: SequenceKey) -> Option<&mut Sequence> {
        self.touch(1);
        self.sequences.get_mut(&key)
    }

    pub(super) fn remove(&mut self, key: SequenceKey) -> Option<Sequence> {
        self.touch(1);
        self.sequences.remove(&key)
    }

    /// Removes and returns all sequences of a request.
    pub(super) fn take_request(&mut self, priority: i32, request: u64) -> Vec<Sequence> {
        let range =
            SequenceKey::first_of(priority, request)..=SequenceKey::last_of(priority, request);
        let taken: Vec<_> = self.sequences.extract_if(range, |_, _| true).map(|(_, s)| s).collect();
        self.touch(1 + taken.len());
        taken
    }

    /// Removes and returns all sequences.
    pub(super) fn take_all(&mut self) -> Vec<Sequence> {
        self.touch(self.sequences.len());
        std::mem::take(&mut self.sequences).into_values().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.sequences.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = SequenceKey> {
        self.sequences.keys().copied()
    }

    #[cfg(test)]
    fn touch(&self, n: usize) {
        self.n_touched.set(self.n_touched.get() + n as u64);
    }

    #[cfg(not(test))]
    fn touch(&self, _: usize) {}
}
