//! A suffix automaton of token sequences, with the counts of a bounded suffix tree.
//!
//! A state stands for the strings that occur at the same places. An edge appends a token, and the
//! link of a state leads to the longest suffix that occurs at more places (Blumer et al., "The
//! smallest automaton recognizing the subwords of a text", 1985). A token adds at most two states, and
//! takes constant time, amortised. Beside that, every state on the chain of links from the latest
//! [`MAX_MATCH`]` + 1` tokens counts an occurrence, so each token takes as many steps as its longest
//! suffixes have different counts: a few in text, and never more than the bound.

use super::edges::Edges;
use galley_drafter_host::{Matcher, SuffixMatch};

/// Longest match in tokens. Occurrences of strings of one token more are counted: of a match and the
/// token after it. Text of a hundred tokens that repeats is not predicted better by its earlier half.
pub(super) const MAX_MATCH: u32 = 64;

/// The state of the empty string.
pub(super) const ROOT: u32 = 0;

/// An automaton of one or several texts.
pub(super) struct SuffixAutomaton {
    states: Vec<State>,
    edges: Edges,
    /// The state of the open text.
    whole: u32,
    /// The state of the latest `MAX_MATCH + 1` tokens of the open text.
    window: u32,
    /// Length of the open text; 0 if none is open.
    n_open: u32,
    /// Tokens of all texts.
    n_tokens: u32,
}

#[derive(Clone, Copy)]
struct State {
    /// Length of the longest string.
    length: u32,
    link: u32,
    /// Occurrences.
    count: u32,
    /// The number of tokens up to the end of the latest occurrence.
    latest: u32,
    /// The token that has followed most often; the latest of several. Valid if there is an edge.
    best: u32,
    /// The first edge and one, or 0 if there is none.
    first_edge: u32,
}

impl SuffixAutomaton {
    /// An empty automaton with memory for `n_tokens` tokens.
    pub(super) fn with_capacity(n_tokens: usize) -> Self {
        let mut states = Vec::with_capacity(2 * n_tokens);
        states.push(State::new(0));
        SuffixAutomaton {
            states,
            edges: Edges::with_capacity(3 * n_tokens),
            whole: ROOT,
            window: ROOT,
            n_open: 0,
            n_tokens: 0,
        }
    }

    /// Makes memory for `n_tokens` tokens in all.
    pub(super) fn make_room(&mut self, n_tokens: usize) {
        self.states.reserve_exact((2 * n_tokens).saturating_sub(self.states.len()));
        self.edges.make_room(3 * n_tokens);
    }

    /// Bytes of an automaton with memory for `n_tokens` tokens.
    pub(super) fn bytes_of(n_tokens: usize) -> usize {
        2 * n_tokens * size_of::<State>() + Edges::bytes_of(3 * n_tokens)
    }

    pub(super) fn bytes(&self) -> usize {
        self.states.capacity() * size_of::<State>() + self.edges.bytes()
    }

    pub(super) fn n_tokens(&self) -> usize {
        self.n_tokens as usize
    }

    /// Removes all text and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.states.truncate(1);
        self.states[0] = State::new(0);
        self.edges.clear();
        (self.whole, self.window, self.n_open, self.n_tokens) = (ROOT, ROOT, 0, 0);
    }

    /// Ends the open text: the next token begins another.
    pub(super) fn end_text(&mut self) {
        (self.whole, self.window, self.n_open) = (ROOT, ROOT, 0);
    }

    /// Appends a token to the open text.
    pub(super) fn push(&mut self, token: u32) {
        self.n_tokens += 1;
        self.whole = self.extend(token);
        // The window's state may have been split. The window before the token is in the state with
        // the shortest strings that are long enough.
        let before = self.shortened(self.window, self.n_open.min(MAX_MATCH + 1));
        self.n_open += 1;
        let after = self.edges.to(before, token).expect("the text with the token is there");
        self.window = self.shortened(after, self.n_open.min(MAX_MATCH + 1));
        self.count_occurrence();
        self.choose_best(before, token);
    }

    /// Adds the text with one more token, and returns its state.
    fn extend(&mut self, token: u32) -> u32 {
        // Another text may have gone on in the same way.
        if let Some(next) = self.edges.to(self.whole, token) {
            return self.split(self.whole, next, token);
        }
        let new = self.add_state(State::new(self.states[self.whole as usize].length + 1));
        let mut at = self.whole;
        let link = loop {
            if let Some(next) = self.edges.to(at, token) {
                break self.split(at, next, token);
            }
            self.add_edge(at, token, new);
            if at == ROOT {
                break ROOT;
            }
            at = self.states[at as usize].link;
        };
        self.states[new as usize].link = link;
        new
    }

    /// The state of the longest string of `from` with `token`. Its edge leads to `next`; where `next`
    /// also has longer strings, the shorter ones get a state of their own.
    fn split(&mut self, from: u32, next: u32, token: u32) -> u32 {
        let length = self.states[from as usize].length + 1;
        let old = self.states[next as usize];
        if old.length == length {
            return next;
        }
        let shorter = self.add_state(State { length, ..old });
        self.states[shorter as usize].first_edge = self.edges.copy(old.first_edge, shorter);
        self.states[next as usize].link = shorter;
        let mut at = from;
        while self.edges.to(at, token) == Some(next) {
            self.edges.redirect(at, token, shorter);
            if at == ROOT {
                break;
            }
            at = self.states[at as usize].link;
        }
        shorter
    }

    /// Counts an occurrence of every suffix of the window.
    fn count_occurrence(&mut self) {
        let mut at = self.window;
        while at != ROOT {
            let state = &mut self.states[at as usize];
            state.count += 1;
            state.latest = self.n_tokens;
            at = state.link;
        }
    }

    /// Records that `token` has followed every suffix of the window `before` it, now more often than
    /// before.
    fn choose_best(&mut self, before: u32, token: u32) {
        let mut at = before;
        loop {
            let State { best, link, .. } = self.states[at as usize];
            if best != token && self.count_of(at, token) >= self.count_of(at, best) {
                self.states[at as usize].best = token;
            }
            if at == ROOT {
                return;
            }
            at = link;
        }
    }

    /// How often the strings of a state have been followed by a token.
    fn count_of(&self, state: u32, token: u32) -> u32 {
        self.edges.to(state, token).map_or(0, |next| self.states[next as usize].count)
    }

    /// Occurrences of a state's strings that another token follows. At the end of the open text none
    /// does yet.
    fn n_followed(&self, state: u32) -> u32 {
        let State { count, latest, .. } = self.states[state as usize];
        count - u32::from(self.n_open > 0 && latest == self.n_tokens)
    }

    fn link(&self, state: u32) -> u32 {
        self.states[state as usize].link
    }

    /// The state of the last `length` tokens of a state's strings.
    pub(super) fn shortened(&self, mut state: u32, length: u32) -> u32 {
        while state != ROOT && self.states[self.link(state) as usize].length >= length {
            state = self.link(state);
        }
        state
    }

    /// The longest suffix of the open text that has occurred before, of at most `max_match` tokens.
    pub(super) fn longest(&self, max_match: u32) -> Place {
        let mut state = self.window;
        let mut length = self.n_open.min(MAX_MATCH + 1);
        if self.n_followed(state) == 0 && state != ROOT {
            // All strings of the state occur once, and those of its link more often.
            state = self.link(state);
            length = self.states[state as usize].length;
        }
        self.place(state, length, max_match)
    }

    /// The last `max_match` of a state's `length` tokens.
    pub(super) fn place(&self, state: u32, length: u32, max_match: u32) -> Place {
        let length = length.min(max_match).min(MAX_MATCH);
        Place { state: self.shortened(state, length), length }
    }

    /// The longest suffix of a place's tokens and `token` that occurs, of at most [`MAX_MATCH`]
    /// tokens.
    pub(super) fn follow(&self, Place { mut state, mut length }: Place, token: u32) -> Place {
        loop {
            if let Some(next) = self.edges.to(state, token) {
                return self.place(next, length + 1, MAX_MATCH);
            }
            if state == ROOT {
                return Place::default();
            }
            state = self.link(state);
            length = self.states[state as usize].length;
        }
    }

    /// The most frequent continuation of a match, of at most `most` tokens.
    pub(super) fn propose(
        &self,
        place: Place,
        matcher: &Matcher,
        most: usize,
        found: &mut SuffixMatch,
    ) {
        let Place { mut state, mut length } = place;
        if length < matcher.min_match.max(1) {
            return;
        }
        (found.match_tokens, found.count) = (length, self.n_followed(state));
        let limit = (matcher.tokens_per_match * f64::from(length)) as usize;
        let mut frequency = 1.0;
        while found.tokens.len() < limit.min(most) {
            while self.n_followed(state) == 0 || self.states[state as usize].first_edge == 0 {
                // The text ends here: a shorter suffix has gone on.
                state = self.link(state);
                length = self.states[state as usize].length;
                if length < matcher.min_match.max(1) {
                    return;
                }
            }
            let token = self.states[state as usize].best;
            let n_followed = f64::from(self.n_followed(state));
            frequency *= f64::from(self.count_of(state, token)) / n_followed;
            if frequency < matcher.min_frequency {
                return;
            }
            found.tokens.push(token);
            found.frequencies.push(frequency as f32);
            let next = self.edges.to(state, token).expect("the best token has an edge");
            Place { state, length } = self.place(next, length + 1, MAX_MATCH);
        }
    }

    fn add_state(&mut self, state: State) -> u32 {
        self.states.push(state);
        self.states.len() as u32 - 1
    }

    fn add_edge(&mut self, from: u32, token: u32, to: u32) {
        let first = self.states[from as usize].first_edge;
        if first == 0 {
            self.states[from as usize].best = token;
        }
        self.states[from as usize].first_edge = self.edges.add(from, token, to, first);
    }
}

impl State {
    fn new(length: u32) -> Self {
        State { length, link: ROOT, count: 0, latest: 0, best: 0, first_edge: 0 }
    }
}

/// A string in an automaton: a state, and the length of one of its strings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) state: u32,
    pub(super) length: u32,
}
