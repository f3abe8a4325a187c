//! The edges of a suffix automaton, in one table for all states.

/// Edges between states, each with a token. A state has at most one edge with a token.
#[derive(Default)]
pub(super) struct Edges {
    edges: Vec<Edge>,
    /// A hash table with open addressing: the index of an edge and one, or 0 where a slot is free.
    /// Its length is a power of two.
    slots: Vec<u32>,
}

/// An edge of one state, in the list of this state.
#[derive(Clone, Copy)]
struct Edge {
    from: u32,
    token: u32,
    to: u32,
    /// The next edge of the same state and one, or 0.
    next: u32,
}

impl Edges {
    /// An empty table with room for `n_edges` edges.
    pub(super) fn with_capacity(n_edges: usize) -> Self {
        Edges { edges: Vec::with_capacity(n_edges), slots: vec![0; n_slots(n_edges)] }
    }

    /// Bytes of a table with room for `n_edges` edges.
    pub(super) fn bytes_of(n_edges: usize) -> usize {
        n_edges * size_of::<Edge>() + n_slots(n_edges) * size_of::<u32>()
    }

    pub(super) fn bytes(&self) -> usize {
        self.edges.capacity() * size_of::<Edge>() + self.slots.len() * size_of::<u32>()
    }

    /// Makes room for `n_edges` edges in all.
    pub(super) fn make_room(&mut self, n_edges: usize) {
        self.edges.reserve_exact(n_edges.saturating_sub(self.edges.len()));
        if n_slots(n_edges) > self.slots.len() {
            self.rehash(n_slots(n_edges));
        }
    }

    /// Removes all edges and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.edges.clear();
        self.slots.fill(0);
    }

    /// The state that the edge of `from` with `token` leads to.
    pub(super) fn to(&self, from: u32, token: u32) -> Option<u32> {
        let edge = self.slots[self.slot(from, token)];
        (edge > 0).then(|| self.edges[edge as usize - 1].to)
    }

    /// Adds the edge of `from` with `token`, which is not there yet. `first` is the first edge of
    /// `from` and one, or 0; returns the new first one.
    pub(super) fn add(&mut self, from: u32, token: u32, to: u32, first: u32) -> u32 {
        if self.edges.len() * 4 >= self.slots.len() * 3 {
            self.rehash(2 * self.slots.len());
        }
        let slot = self.slot(from, token);
        debug_assert_eq!(self.slots[slot], 0, "an edge is added once");
        self.edges.push(Edge { from, token, to, next: first });
        self.slots[slot] = self.edges.len() as u32;
        self.slots[slot]
    }

    /// Leads the edge of `from` with `token` to another state.
    pub(super) fn redirect(&mut self, from: u32, token: u32, to: u32) {
        let edge = self.slots[self.slot(from, token)];
        self.edges[edge as usize - 1].to = to;
    }

    /// Adds the edges of the list that begins at `first` to the state `to`, which has none. Returns
    /// its first edge and one.
    pub(super) fn copy(&mut self, first: u32, to: u32) -> u32 {
        let (mut at, mut copied) = (first, 0);
        while at > 0 {
            let Edge { token, to: target, next, .. } = self.edges[at as usize - 1];
            copied = self.add(to, token, target, copied);
            at = next;
        }
        copied
    }

    /// The slot of an edge, or the free slot where it would be.
    fn slot(&self, from: u32, token: u32) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash(from, token) as usize & mask;
        loop {
            let edge = self.slots[slot];
            if edge == 0 {
                return slot;
            }
            let Edge { from: other, token: other_token, .. } = self.edges[edge as usize - 1];
            if (other, other_token) == (from, token) {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    fn rehash(&mut self, n_slots: usize) {
        self.slots.clear();
        self.slots.reserve_exact(n_slots);
        self.slots.resize(n_slots, 0);
        for at in 0..self.edges.len() {
            let Edge { from, token, .. } = self.edges[at];
            let slot = self.slot(from, token);
            self.slots[slot] = at as u32 + 1;
        }
    }
}

/// Slots for `n_edges` edges: more than a third of a table stays free, so that a search ends soon.
fn n_slots(n_edges: usize) -> usize {
    (n_edges * 3 / 2).next_power_of_two().max(4)
}

/// Mixes both numbers into the lower bits: multiplications by odd constants, and shifts (after
/// MurmurHash3).
fn hash(from: u32, token: u32) -> u64 {
    let both = u64::from(from) << 32 | u64::from(token);
    let mixed = (both ^ both >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ mixed >> 33
}
