//! Picks made ahead where they are known at once: a device that nobody has to wait for.

use crate::{TOKEN_OF_PICK, pick_of};
use std::ops::Range;

/// Picks that have not been taken.
#[derive(Debug, Default)]
pub struct Ahead(Vec<u32>);

impl Ahead {
    /// Adds picked tokens. Returns what stands for them in a batch.
    pub fn push(&mut self, tokens: impl IntoIterator<Item = u32>) -> Range<u32> {
        let first = self.0.len();
        self.0.extend(tokens);
        names(first, self.0.len() - first)
    }

    /// How many there are.
    pub fn n_picks(&self) -> usize {
        self.0.len()
    }

    /// Tokens of a batch with each pick in its place; one that there is not stays what it is.
    pub fn resolve(&self, tokens: &[u32]) -> Vec<u32> {
        let resolve = |&token| pick_of(token).and_then(|at| self.0.get(at)).map_or(token, |&t| t);
        tokens.iter().map(resolve).collect()
    }

    /// Takes all of them.
    pub fn take(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.0)
    }
}

/// What stands for picks `first..first + n`.
pub(crate) fn names(first: usize, n: usize) -> Range<u32> {
    TOKEN_OF_PICK + first as u32..TOKEN_OF_PICK + (first + n) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_picks_until_they_are_taken() {
        let mut ahead = Ahead::default();
        let first = ahead.push([7, 8]);
        let second = ahead.push([9]);
        let names: Vec<u32> = first.chain(second).chain([5]).collect();
        assert_eq!(ahead.resolve(&names), [7, 8, 9, 5]);
        assert_eq!(ahead.take(), [7, 8, 9]);
        assert_eq!(ahead.resolve(&names), names, "nothing stands for a pick that was taken");
        assert_eq!(ahead.push([4]), names[0]..names[1]);
    }
}
