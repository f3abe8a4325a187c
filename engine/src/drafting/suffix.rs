//! Suffix indexes: where the latest tokens of a sequence have occurred before, and the tokens that
//! followed (G. Oliaro et al., "SuffixDecoding", arXiv 2411.04975).
//!
//! The index of a sequence is built when a drafter with a matcher first drafts for the sequence, and
//! stays until the sequence ends: it survives preemptions and changes of the plan. It holds tokens
//! that are known, never draft tokens, so nothing is rolled back. Bytes are bounded for each sequence
//! and for all: an index that may not grow covers the latest tokens alone.

mod automaton;
mod edges;
mod index;
mod memory;
#[cfg(test)]
mod tests;

use crate::draft_settings::{SUFFIX_BYTES_A_TOKEN, SUFFIX_BYTES_OF_A_SEQUENCE};
use crate::sequence::DraftingSequence;
use galley_drafter_host::{Matcher, SuffixMatch};
use index::SuffixIndex;
use memory::Memory;
use std::collections::HashMap;

/// The suffix indexes of all sequences of an engine, and the outputs of ended ones.
#[derive(Default)]
pub(crate) struct SuffixStore {
    indexes: HashMap<u64, SuffixIndex>,
    memory: Memory,
    /// Bytes of all indexes.
    n_bytes: usize,
    peak_bytes: usize,
    /// Limit on the bytes of indexes.
    index_limit: usize,
    /// The same with the outputs of ended sequences.
    limit_bytes: usize,
    /// The result of the latest search in earlier outputs, reused.
    other: SuffixMatch,
}

/// A sequence whose index is searched.
#[derive(Clone, Copy)]
pub(crate) struct SuffixRow<'a> {
    /// The sequence's id.
    pub(crate) sequence: u64,
    /// The salt of its request: outputs of other salts are not searched.
    pub(crate) salt: u64,
    /// Prompt and output so far.
    pub(crate) tokens: &'a [u32],
}

impl<'a> SuffixRow<'a> {
    pub(super) fn of(sequence: &DraftingSequence<'a>) -> Self {
        let DraftingSequence { id, tokens, table, .. } = sequence;
        SuffixRow { sequence: *id, salt: table.kind().salt(), tokens }
    }
}

impl SuffixStore {
    /// An empty store. A quarter of `limit_bytes` is for the outputs of ended sequences.
    pub(super) fn new(limit_bytes: usize) -> Self {
        SuffixStore {
            indexes: HashMap::new(),
            memory: Memory::new(limit_bytes / 4),
            n_bytes: 0,
            peak_bytes: 0,
            index_limit: limit_bytes - limit_bytes / 4,
            limit_bytes,
            other: SuffixMatch::default(),
        }
    }

    /// Bytes of the indexes of sequences.
    pub(super) fn index_bytes(&self) -> usize {
        self.n_bytes
    }

    /// Most bytes of indexes at once since [`Self::forget_peak`].
    pub(super) fn index_bytes_peak(&self) -> usize {
        self.peak_bytes
    }

    pub(super) fn forget_peak(&mut self) {
        self.peak_bytes = self.n_bytes;
    }

    /// Limit on the bytes of indexes and outputs.
    pub(super) fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// Bytes of the outputs of ended sequences.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory.n_bytes()
    }

    /// Brings the index of a sequence up to date, and returns it; None where there is no memory for
    /// it. Takes constant time for each new token, amortised.
    pub(crate) fn index(&mut self, row: SuffixRow<'_>) -> Option<&mut SuffixIndex> {
        let known = self.indexes.get(&row.sequence);
        let (n_room, bytes) = known.map_or((0, 0), |index| (index.n_room(), index.bytes()));
        if n_room < row.tokens.len() && n_room < MAX_TOKENS {
            self.make_room(row, n_room, bytes);
        }
        let index = self.indexes.get_mut(&row.sequence)?;
        let bytes = index.bytes();
        index.read(row.tokens);
        self.n_bytes = self.n_bytes - bytes + index.bytes();
        self.peak_bytes = self.peak_bytes.max(self.n_bytes);
        Some(index)
    }

    /// Gives the index of a sequence, which has `bytes` and room for `n_room` tokens, room for all
    /// its tokens, or for as many as the limit allows.
    fn make_room(&mut self, row: SuffixRow<'_>, n_room: usize, bytes: usize) {
        let n_free = self.index_limit.saturating_sub(self.n_bytes - bytes);
        let wanted = row.tokens.len().next_power_of_two().clamp(MIN_TOKENS, MAX_TOKENS);
        let halves = std::iter::successors(Some(wanted), |n| Some(n / 2));
        let mut sizes = halves.take_while(|&n| n >= MIN_TOKENS && n > n_room);
        let Some(n_room) = sizes.find(|&n| SuffixIndex::bytes_of(n) <= n_free) else { return };
        let index = self.indexes.entry(row.sequence);
        let index = index
            .and_modify(|index| index.make_room(n_room))
            .or_insert_with(|| SuffixIndex::with_room(n_room));
        self.n_bytes = self.n_bytes - bytes + index.bytes();
    }

    /// Searches the tokens of a sequence, and earlier outputs if the matcher says so, for a draft of
    /// at most `most` tokens. `found` is empty before.
    pub(crate) fn search(
        &mut self,
        row: SuffixRow<'_>,
        matcher: &Matcher,
        most: usize,
        found: &mut SuffixMatch,
    ) {
        if self.index(row).is_none() {
            return;
        }
        let Self { indexes, memory, other, .. } = self;
        let Some(index) = indexes.get_mut(&row.sequence) else { return };
        index.propose(matcher, most, found);
        if !matcher.uses_memory {
            return;
        }
        for generation in memory.generations(row.salt).enumerate() {
            other.clear();
            index.propose_from(generation, row.tokens, (matcher, most), other);
            if other.expected_tokens() > found.expected_tokens() {
                std::mem::swap(other, found);
            }
        }
    }

    /// Drops the index of a sequence that has ended.
    pub(super) fn end(&mut self, sequence: u64) {
        if let Some(index) = self.indexes.remove(&sequence) {
            self.n_bytes -= index.bytes();
        }
    }

    /// Keeps the output of a sequence that has ended, for sequences with the same salt.
    pub(super) fn remember(&mut self, salt: u64, output: &[u32]) {
        self.memory.remember(salt, output);
    }
}

/// Tokens of the smallest index: 64 KiB.
const MIN_TOKENS: usize = 512;

/// Tokens of the largest index.
const MAX_TOKENS: usize = SUFFIX_BYTES_OF_A_SEQUENCE / SUFFIX_BYTES_A_TOKEN;
