//! The set of free block ids; it gives the lowest id first.
//!
//! A list would be shorter, but it returns blocks in the order in which they were freed, and after
//! an hour the blocks of a sequence lie all over the memory. Taking the lowest free id keeps the
//! used blocks dense at the start of the pool and gives a prompt consecutive blocks, which stream
//! faster.
//!
//! The set has one bit an id, and for every 64 words one word that marks the non-zero words:
//!
//! ```text
//!   levels[1]          1                0               1            one bit a word below
//!   levels[0]   0011..0000       0000..0000      0000..0100          one bit an id
//!                 ids 0..64        64..128         128..192
//! ```
//!
//! Every operation takes at most one step a level: 4 levels cover 16 million blocks, 6 cover all of
//! `u32`.

/// Bits in a word.
const WORD: usize = 64;

/// A set of ids below a fixed bound.
#[derive(Debug)]
pub(crate) struct FreeSet {
    levels: Vec<Vec<u64>>,
    len: usize,
}

impl FreeSet {
    /// The set of all ids below `n`.
    pub(crate) fn full(n: usize) -> Self {
        let mut levels = Vec::new();
        let mut n_bits = n;
        loop {
            let mut words = vec![u64::MAX; n_bits / WORD];
            if !n_bits.is_multiple_of(WORD) {
                words.push((1 << (n_bits % WORD)) - 1);
            }
            n_bits = words.len();
            levels.push(words);
            if n_bits <= 1 {
                return FreeSet { levels, len: n };
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn contains(&self, id: u32) -> bool {
        let (word, bit) = split(id as usize);
        self.levels[0].get(word).is_some_and(|w| w & bit != 0)
    }

    /// The lowest id in the set.
    pub(crate) fn first(&self) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let top_down = self.levels.iter().rev();
        let id = top_down.fold(0, |at, level| at * WORD + level[at].trailing_zeros() as usize);
        Some(u32::try_from(id).expect("ids are below the bound, which fits"))
    }

    /// Adds an id that is not in the set.
    pub(crate) fn insert(&mut self, id: u32) {
        debug_assert!(!self.contains(id), "block {id} is already free");
        self.len += 1;
        let mut at = id as usize;
        for level in &mut self.levels {
            let (word, bit) = split(at);
            let was_empty = level[word] == 0;
            level[word] |= bit;
            if !was_empty {
                break;
            }
            at = word;
        }
    }

    /// Removes an id that is in the set.
    pub(crate) fn remove(&mut self, id: u32) {
        debug_assert!(self.contains(id), "block {id} is not free");
        self.len -= 1;
        let mut at = id as usize;
        for level in &mut self.levels {
            let (word, bit) = split(at);
            level[word] &= !bit;
            if level[word] != 0 {
                break;
            }
            at = word;
        }
    }
}

/// The word that holds a bit, and the bit's mask.
fn split(at: usize) -> (usize, u64) {
    (at / WORD, 1 << (at % WORD))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn bounds_around_the_word_size() {
        for n in [0, 1, 63, 64, 65, 4095, 4096, 4097, 300_000] {
            let mut set = FreeSet::full(n);
            assert_eq!(set.len(), n);
            assert!(!set.contains(u32::try_from(n).unwrap()));
            for want in 0..u32::try_from(n).unwrap() {
                assert_eq!(set.first(), Some(want));
                set.remove(want);
            }
            assert_eq!((set.first(), set.len()), (None, 0));
        }
    }

    #[test]
    fn agrees_with_a_btree_set() {
        let n = 5000_u32;
        let mut set = FreeSet::full(n as usize);
        let mut want: BTreeSet<u32> = (0..n).collect();
        let mut random = 1_u32;
        for step in 0..40_000_u32 {
            random = random.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            // Alternate between draining and filling, so that whole words become empty and fill
            // again.
            let id = (random >> 8) % n;
            if (step / 8000).is_multiple_of(2) {
                if want.remove(&id) {
                    set.remove(id);
                }
            } else if want.insert(id) {
                set.insert(id);
            }
            assert_eq!(set.contains(id), want.contains(&id));
            assert_eq!((set.first(), set.len()), (want.first().copied(), want.len()));
        }
    }
}
