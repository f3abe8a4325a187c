//! Probabilities that the state of a tile keeps, for rows that observe.
//!
//! When attention has computed a tile, p = exp((s - m) · scale) is known relative to the maximum of the
//! tile; the maximum and the sum of the whole row are known when all states are merged. So a state
//! keeps p, in f32: of every token, or summed over each group of 16 tokens where blocks are selected.

use super::kv::{GROUP, TILE, TILE_GROUPS};
use super::simd::{Isa, LANES};

/// The kept values of a row and tile fill whole vectors.
const _: () = assert!(TILE_GROUPS.is_multiple_of(LANES));

/// The unit of a kept value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum KeptUnit {
    /// The sum over a group of 16 tokens.
    #[default]
    Group,
    /// One token.
    Token,
}

impl KeptUnit {
    /// Tokens of a value.
    pub(super) fn tokens(self) -> usize {
        match self {
            KeptUnit::Group => GROUP,
            KeptUnit::Token => 1,
        }
    }

    /// Values of a row and tile.
    pub(super) fn per_tile(self) -> usize {
        TILE / self.tokens()
    }
}

/// Query rows of a pass whose probabilities are kept.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    /// First of these rows in the pass.
    pub(super) first: usize,
    /// Number of these rows.
    pub(super) n: usize,
    pub(super) unit: KeptUnit,
}

impl Kept {
    /// f32 values that the state of a tile keeps.
    pub(super) fn len(&self) -> usize {
        self.n * self.unit.per_tile()
    }

    /// The part of `values`, the kept values of a tile, for row `r` of the pass; None if the row is not
    /// kept. The values outside of groups `first..last` are zero, and those inside are to be filled.
    #[inline(always)]
    pub(super) fn of_row(
        &self,
        r: usize,
        (first, last): (usize, usize),
        values: &mut [f32],
    ) -> Option<*mut f32> {
        let at = r.checked_sub(self.first).filter(|at| *at < self.n)?;
        let per_tile = self.unit.per_tile();
        let values = &mut values[at * per_tile..][..per_tile];
        if (first, last) != (0, TILE_GROUPS) {
            values.fill(0.0);
        }
        Some(values.as_mut_ptr())
    }
}

/// Takes the probabilities of one row and tile, group after group.
pub(super) trait TileOutput<I: Isa> {
    /// Takes the probabilities of group `group` of the tile.
    ///
    /// # Safety
    ///
    /// There must be room for a tile, and the CPU must have the instruction set.
    unsafe fn put(&mut self, group: usize, p: I::F);
}

impl<I: Isa, A: TileOutput<I>, B: TileOutput<I>> TileOutput<I> for (A, B) {
    #[inline(always)]
    unsafe fn put(&mut self, group: usize, p: I::F) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            self.0.put(group, p);
            self.1.put(group, p);
        }
    }
}

/// Keeps the sum of every group.
pub(super) struct GroupSums(pub(super) *mut f32);

impl<I: Isa> TileOutput<I> for GroupSums {
    #[inline(always)]
    unsafe fn put(&mut self, group: usize, p: I::F) {
        // SAFETY: guaranteed by the caller.
        unsafe { *self.0.add(group) = I::reduce_add(p) }
    }
}

/// Keeps every probability.
pub(super) struct Probabilities(pub(super) *mut f32);

impl<I: Isa> TileOutput<I> for Probabilities {
    #[inline(always)]
    unsafe fn put(&mut self, group: usize, p: I::F) {
        // SAFETY: guaranteed by the caller.
        unsafe { I::store(self.0.add(group * GROUP), p) }
    }
}
