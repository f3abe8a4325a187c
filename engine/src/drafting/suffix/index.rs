//! The suffix index of one sequence: its own tokens, and its place in the outputs of other sequences.

use super::automaton::{MAX_MATCH, Place, SuffixAutomaton};
use super::memory::Generation;
use galley_drafter_host::{Matcher, SuffixMatch};

/// The suffix index of one sequence.
pub(crate) struct SuffixIndex {
    automaton: SuffixAutomaton,
    /// Tokens that the automaton has memory for. Where a sequence is longer, the index begins anew
    /// with the latest half of them whenever it is full.
    n_room: usize,
    /// Tokens of the sequence that the automaton has read.
    n_read: usize,
    cursors: [Cursor; 2],
}

/// The latest tokens of a sequence as a place in a generation of outputs.
#[derive(Clone, Copy, Default)]
struct Cursor {
    /// The generation and its length: a longer generation may have a longer match.
    version: (u64, usize),
    /// Tokens of the sequence that the place takes into account.
    n_read: usize,
    place: Place,
}

impl SuffixIndex {
    /// An empty index with memory for `n_room` tokens.
    pub(super) fn with_room(n_room: usize) -> Self {
        SuffixIndex {
            automaton: SuffixAutomaton::with_capacity(n_room),
            n_room,
            n_read: 0,
            cursors: [Cursor::default(); 2],
        }
    }

    /// Bytes of an index with memory for `n_room` tokens.
    pub(super) fn bytes_of(n_room: usize) -> usize {
        size_of::<Self>() + SuffixAutomaton::bytes_of(n_room)
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.automaton.bytes()
    }

    pub(super) fn n_room(&self) -> usize {
        self.n_room
    }

    /// Makes memory for `n_room` tokens, more than before.
    pub(super) fn make_room(&mut self, n_room: usize) {
        self.automaton.make_room(n_room);
        self.n_room = n_room;
    }

    /// Reads the tokens that are new since the last call.
    pub(super) fn read(&mut self, tokens: &[u32]) {
        // Of a text that does not fit, only the end would stay.
        let begin = self.n_read.max(tokens.len().saturating_sub(self.n_room));
        if begin > self.n_read {
            self.automaton.clear();
        }
        for at in begin..tokens.len() {
            if self.automaton.n_tokens() == self.n_room {
                self.automaton.clear();
                tokens[at - self.n_room / 2..at]
                    .iter()
                    .for_each(|&token| self.automaton.push(token));
            }
            self.automaton.push(tokens[at]);
        }
        self.n_read = tokens.len();
    }

    /// The most frequent continuation of the longest suffix that has occurred before in the
    /// sequence. `found` is empty before.
    pub(crate) fn propose(&self, matcher: &Matcher, most: usize, found: &mut SuffixMatch) {
        let place = self.automaton.longest(matcher.max_match);
        self.automaton.propose(place, matcher, most, found);
    }

    /// The same in generation number `number` of earlier outputs, for the sequence `tokens`.
    pub(super) fn propose_from(
        &mut self,
        (number, generation): (usize, &Generation),
        tokens: &[u32],
        (matcher, most): (&Matcher, usize),
        found: &mut SuffixMatch,
    ) {
        let place = self.cursors[number].catch_up(generation, tokens);
        let outputs = generation.automaton();
        let place = outputs.place(place.state, place.length, matcher.max_match);
        outputs.propose(place, matcher, most, found);
    }
}

impl Cursor {
    /// The longest suffix of `tokens` that occurs in the generation, of at most [`MAX_MATCH`] tokens.
    fn catch_up(&mut self, generation: &Generation, tokens: &[u32]) -> Place {
        let outputs = generation.automaton();
        let version = (generation.age(), outputs.n_tokens());
        let latest = tokens.len().saturating_sub(MAX_MATCH as usize);
        if self.version != version || self.n_read < latest {
            *self = Cursor { version, n_read: latest, place: Place::default() };
        }
        for &token in &tokens[self.n_read..] {
            self.place = outputs.follow(self.place, token);
        }
        self.n_read = tokens.len();
        self.place
    }
}
