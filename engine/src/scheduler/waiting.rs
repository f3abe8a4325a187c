//! The waiting sequences. Sequences with a reader that does not read are paused: they wait, and other sequences go on.

use super::queue::Queue;
use crate::sequence::{Sequence, SequenceKey};
use std::collections::BTreeMap;

/// All sequences without blocks that are not draining, for the first time or after a preemption.
///
/// Sequences that share a queue of events lie together, so that a queue that is not read costs the
/// same for one sequence as for many.
#[derive(Default)]
pub(super) struct Waiting {
    /// Sequences of requests with a handle of their own. They are never paused.
    own: Queue,
    /// Sequences of requests that share a queue of events, by that queue. None of these is empty.
    shared: BTreeMap<usize, Queue>,
}

impl Waiting {
    pub(super) fn insert(&mut self, sequence: Sequence) {
        match sequence.request.queue() {
            None => self.own.insert(sequence),
            Some(queue) => self.shared.entry(queue).or_default().insert(sequence),
        }
    }

    /// The first sequence that is not paused.
    pub(super) fn first(&self) -> Option<SequenceKey> {
        let firsts = self.queues().filter_map(Queue::first);
        firsts.filter(|first| !first.request.is_unread()).map(|first| first.key).min()
    }

    pub(super) fn get(&self, key: SequenceKey) -> Option<&Sequence> {
        self.queues().find_map(|queue| queue.get(key))
    }

    pub(super) fn get_mut(&mut self, key: SequenceKey) -> Option<&mut Sequence> {
        self.queues_mut().find_map(|queue| queue.get_mut(key))
    }

    pub(super) fn remove(&mut self, key: SequenceKey) -> Option<Sequence> {
        let removed = self.queues_mut().find_map(|queue| queue.remove(key));
        self.shared.retain(|_, queue| !queue.is_empty());
        removed
    }

    /// Removes and returns all sequences of a request.
    pub(super) fn take_request(&mut self, priority: i32, request: u64) -> Vec<Sequence> {
        let taken = self.queues_mut().flat_map(|queue| queue.take_request(priority, request));
        let taken = taken.collect();
        self.shared.retain(|_, queue| !queue.is_empty());
        taken
    }

    /// Removes and returns all sequences.
    pub(super) fn take_all(&mut self) -> Vec<Sequence> {
        let taken = self.queues_mut().flat_map(Queue::take_all).collect();
        self.shared.clear();
        taken
    }

    /// Sequences that wait for admission, and paused ones.
    pub(super) fn len(&self) -> (usize, usize) {
        let n_paused = self.paused().map(Queue::len).sum();
        let n_all: usize = self.queues().map(Queue::len).sum();
        (n_all - n_paused, n_paused)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.shared.is_empty()
    }

    /// Whether every sequence is paused.
    pub(super) fn is_paused(&self) -> bool {
        self.own.is_empty() && self.paused().count() == self.shared.len()
    }

    fn paused(&self) -> impl Iterator<Item = &Queue> {
        self.shared
            .values()
            .filter(|queue| queue.first().is_some_and(|first| first.request.is_unread()))
    }

    fn queues(&self) -> impl Iterator<Item = &Queue> {
        std::iter::once(&self.own).chain(self.shared.values())
    }

    fn queues_mut(&mut self) -> impl Iterator<Item = &mut Queue> {
        std::iter::once(&mut self.own).chain(self.shared.values_mut())
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = SequenceKey> {
        self.queues().flat_map(Queue::keys)
    }

    /// Insertions, look-ups and removals of sequences with a handle of their own, since the start.
    #[cfg(test)]
    pub(super) fn n_touched(&self) -> u64 {
        self.own.n_touched.get()
    }
}
