//! Outputs of ended sequences, indexed for later sequences with the same salt.
//!
//! The outputs of a salt are in one or two generations. A full generation takes no more output, and
//! leaves when the next one is full. Where the outputs of all salts need more than their bytes, the
//! oldest generation leaves first. An automaton forgets nothing by itself: hence generations.

use super::automaton::SuffixAutomaton;
use std::collections::{BTreeMap, HashMap};

/// The outputs of all salts.
#[derive(Default)]
pub(super) struct Memory {
    outputs: HashMap<u64, Outputs>,
    /// The salt of every generation, by the generation's age.
    by_age: BTreeMap<u64, u64>,
    next_age: u64,
    n_bytes: usize,
    limit_bytes: usize,
    /// Tokens of a full generation: two of them are within the limit. 0 if that is too little.
    most_tokens: usize,
}

/// The outputs of one salt.
struct Outputs {
    young: Generation,
    old: Option<Generation>,
}

/// Outputs in the order of their ends.
pub(super) struct Generation {
    /// Identifies the generation: older ones have lower numbers.
    age: u64,
    n_room: usize,
    automaton: SuffixAutomaton,
}

impl Memory {
    /// An empty memory of at most `limit_bytes`.
    pub(super) fn new(limit_bytes: usize) -> Self {
        let mut most_tokens = 0;
        let mut n = MIN_TOKENS;
        while n <= MAX_TOKENS && 2 * Generation::bytes_of(n) <= limit_bytes {
            (most_tokens, n) = (n, 2 * n);
        }
        Memory {
            outputs: HashMap::new(),
            by_age: BTreeMap::new(),
            next_age: 0,
            n_bytes: 0,
            limit_bytes,
            most_tokens,
        }
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// The generations of a salt, the youngest first.
    pub(super) fn generations(&self, salt: u64) -> impl Iterator<Item = &Generation> {
        let outputs = self.outputs.get(&salt);
        outputs.into_iter().flat_map(|outputs| std::iter::once(&outputs.young).chain(&outputs.old))
    }

    /// Keeps the end of an output, as far as half a generation has room for it.
    pub(super) fn remember(&mut self, salt: u64, output: &[u32]) {
        let output = &output[output.len().saturating_sub(self.most_tokens / 2)..];
        if output.is_empty() {
            return;
        }
        let n_young = self.outputs.get(&salt).map(|outputs| outputs.young.automaton.n_tokens());
        let n_needed = n_young.unwrap_or(0) + output.len();
        match n_young {
            Some(_) if n_needed <= self.most_tokens => self.make_room(salt, n_needed),
            _ => self.begin_generation(salt, output.len()),
        }
        if let Some(Outputs { young, .. }) = self.outputs.get_mut(&salt) {
            let bytes = young.bytes();
            output.iter().for_each(|&token| young.automaton.push(token));
            young.automaton.end_text();
            self.n_bytes = self.n_bytes - bytes + young.bytes();
        }
    }

    /// Begins a generation with room for `n_tokens` tokens. The present one becomes the old one.
    fn begin_generation(&mut self, salt: u64, n_tokens: usize) {
        let n_room = n_tokens.next_power_of_two().max(MIN_TOKENS);
        if let Some(old) = self.outputs.get_mut(&salt).and_then(|outputs| outputs.old.take()) {
            self.by_age.remove(&old.age);
            self.n_bytes -= old.bytes();
        }
        self.free(Generation::bytes_of(n_room), None);
        let age = self.next_age;
        self.next_age += 1;
        self.by_age.insert(age, salt);
        let young = Generation { age, n_room, automaton: SuffixAutomaton::with_capacity(n_room) };
        self.n_bytes += young.bytes();
        let old = self.outputs.remove(&salt).map(|outputs| outputs.young);
        self.outputs.insert(salt, Outputs { young, old });
    }

    /// Makes room for `n_tokens` tokens in the young generation of a salt.
    fn make_room(&mut self, salt: u64, n_tokens: usize) {
        let Some(Outputs { young, .. }) = self.outputs.get(&salt) else { return };
        let (age, bytes) = (young.age, young.bytes());
        if n_tokens <= young.n_room {
            return;
        }
        let n_room = n_tokens.next_power_of_two();
        self.free(Generation::bytes_of(n_room) - bytes, Some(age));
        if let Some(Outputs { young, .. }) = self.outputs.get_mut(&salt) {
            young.automaton.make_room(n_room);
            young.n_room = n_room;
            self.n_bytes += young.bytes() - bytes;
        }
    }

    /// Drops the oldest generations, but for the one of age `kept`, until `n_bytes` more are free.
    fn free(&mut self, n_bytes: usize, kept: Option<u64>) {
        while self.n_bytes + n_bytes > self.limit_bytes {
            let mut by_age = self.by_age.iter().filter(|(age, _)| Some(**age) != kept);
            let Some((&age, &salt)) = by_age.next() else { return };
            self.by_age.remove(&age);
            let Some(mut outputs) = self.outputs.remove(&salt) else { continue };
            let dropped = match outputs.old.take() {
                Some(old) => {
                    self.outputs.insert(salt, outputs);
                    old
                }
                None => outputs.young,
            };
            debug_assert_eq!(dropped.age, age, "the old generation of a salt is older");
            self.n_bytes -= dropped.bytes();
        }
    }
}

impl Generation {
    fn bytes_of(n_tokens: usize) -> usize {
        // The entry in both tables.
        2 * size_of::<Outputs>() + SuffixAutomaton::bytes_of(n_tokens)
    }

    fn bytes(&self) -> usize {
        2 * size_of::<Outputs>() + self.automaton.bytes()
    }

    pub(super) fn age(&self) -> u64 {
        self.age
    }

    pub(super) fn automaton(&self) -> &SuffixAutomaton {
        &self.automaton
    }
}

/// Tokens of the smallest generation. Room grows by doubling.
const MIN_TOKENS: usize = 256;

/// Tokens of the largest generation: states and edges are numbered with 32 bits.
const MAX_TOKENS: usize = 1 << 24;
