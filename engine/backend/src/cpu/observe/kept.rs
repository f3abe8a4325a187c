//! Probabilities that states of tiles keep, and their sums over rows.
//!
//! For an observing row and a tile, p = exp((s - m) · scale) is known when attention has computed the
//! tile, but only the states of all tiles give the maximum m and the sum l of the row. So a state
//! keeps p, in f32: of every token, or summed over each group of 16 tokens where blocks are selected.
//! When the states are merged, the kept values of tile t are weighted by exp((mₜ - m) · scale) / l and
//! added to the sums, row after row.
//!
//! Attention keeps probabilities of a few rows as it goes ([`super::super::attention`]).
//! [`sum_probabilities`] computes the same values on its own, for more rows. Both use the same
//! functions on the same tiles, so both give the same bits.

use super::ObserveScratch;
use crate::cpu::attention::{
    CHUNK, Call, QueryRows, Sink, SoftmaxState, TILE, TILE_GROUPS, find_tile, merge, score_rows,
    soften,
};
use crate::cpu::kv::{GROUP, Group};
use crate::cpu::simd::{Element, Isa, LANES};
use std::ops::Range;

/// The kept values of a row and tile fill whole vectors.
const _: () = assert!(TILE_GROUPS.is_multiple_of(LANES));

/// The unit of a kept value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cpu) enum KeptUnit {
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
pub(in crate::cpu) struct Kept {
    /// First of these rows in the pass.
    pub(super) first: usize,
    /// Number of these rows.
    pub(super) n: usize,
    pub(in crate::cpu) unit: KeptUnit,
}

impl Kept {
    /// f32 values that the state of a tile keeps.
    pub(in crate::cpu) fn len(&self) -> usize {
        self.n * self.unit.per_tile()
    }

    /// The part of `values`, the kept values of a tile, for row `r` of the pass; None if the row is not
    /// kept. The values outside of groups `first..last` are zero, and those inside are to be filled.
    #[inline(always)]
    pub(in crate::cpu) fn of_row(
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

/// Keeps the sum of every group.
pub(in crate::cpu) struct GroupSums(pub(in crate::cpu) *mut f32);

impl<I: Isa> Sink<I> for GroupSums {
    #[inline(always)]
    unsafe fn put(&mut self, group: usize, p: I::F) {
        // SAFETY: guaranteed by the caller.
        unsafe { *self.0.add(group) = I::reduce_add(p) }
    }
}

/// Keeps every probability.
pub(in crate::cpu) struct Probabilities(pub(in crate::cpu) *mut f32);

impl<I: Isa> Sink<I> for Probabilities {
    #[inline(always)]
    unsafe fn put(&mut self, group: usize, p: I::F) {
        // SAFETY: guaranteed by the caller.
        unsafe { I::store(self.0.add(group * GROUP), p) }
    }
}

/// The states of consecutive tiles, and the merged state of their rows.
pub(in crate::cpu) struct KeptStates<'a> {
    /// State after state, each with the values that it keeps.
    pub(in crate::cpu) states: &'a [f32],
    pub(in crate::cpu) padded_dim: usize,
    /// The first tile, counted in the sequence.
    pub(in crate::cpu) first_tile: usize,
    pub(in crate::cpu) kept: Kept,
    /// Maximum and sum per row over all tiles.
    pub(in crate::cpu) merged: (&'a [f32], &'a [f32]),
    pub(in crate::cpu) scale: f32,
}

/// Adds the probabilities that `states` keep to `sums`, which have one value for each unit from the
/// first token of the sequence on.
///
/// # Safety
///
/// The CPU must have the instruction set.
#[inline(always)]
pub(in crate::cpu) unsafe fn add_kept<I: Isa>(from: &KeptStates<'_>, sums: &mut [f32]) {
    let KeptStates { states, padded_dim, first_tile, kept, merged: (m, l), scale } = *from;
    let per_tile = kept.unit.per_tile();
    let without_kept = SoftmaxState::len(m.len(), padded_dim);
    let state_len = without_kept + kept.len();
    let sums = &mut sums[first_tile * per_tile..];
    for i in 0..kept.n {
        let row = kept.first + i;
        let inverse = 1.0 / l[row];
        let tiles = states.chunks(LANES * state_len).zip(sums.chunks_mut(LANES * per_tile));
        for (states, sums) in tiles {
            // A state begins with the maxima of its rows.
            let mut weights = [f32::NEG_INFINITY; LANES];
            for (weight, state) in weights.iter_mut().zip(states.chunks_exact(state_len)) {
                *weight = (state[row] - m[row]) * scale;
            }
            // SAFETY: loads and stores cover whole vectors of slices; the caller vouches for the
            // instruction set.
            unsafe {
                let e = I::exp_nonpositive(I::load(weights.as_ptr()));
                I::store(weights.as_mut_ptr(), I::mul(e, I::splat(inverse)));
                let tiles = states.chunks_exact(state_len).zip(sums.chunks_exact_mut(per_tile));
                for (weight, (state, sums)) in weights.into_iter().zip(tiles) {
                    let values = &state[without_kept + i * per_tile..][..per_tile];
                    let vectors = values.chunks_exact(LANES).zip(sums.chunks_exact_mut(LANES));
                    for (values, sums) in vectors {
                        let sum = I::load(sums.as_ptr());
                        let sum = I::fma(I::load(values.as_ptr()), I::splat(weight), sum);
                        I::store(sums.as_mut_ptr(), sum);
                    }
                }
            }
        }
    }
}

/// Sums the probabilities that `rows` give to each unit of `rows.kept`, over rows and heads, into
/// `scratch.sums`. The rows see the whole cache. Reads keys once for a handful of query rows, and no
/// values.
///
/// # Safety
///
/// The pointers of `call` must be valid for its shapes and for `rows`, and the CPU must have the
/// instruction set.
#[inline(always)]
pub(in crate::cpu) unsafe fn sum_probabilities<I: Isa, E: Element>(
    call: &Call,
    rows: &QueryRows<'_>,
    scratch: &mut ObserveScratch,
) {
    let (n_rows, n_tiles) = (rows.n_tokens * call.group_size, rows.n_tiles(call));
    let first_tile = rows.first_tail_tile(call);
    scratch.clear_sums(rows.kept.unit, first_tile + n_tiles);
    let ObserveScratch { scores, states, sums, .. } = scratch;
    scores.resize(I::ATTENTION_ROWS * TILE, 0.0);
    for first in (0..n_rows).step_by(I::ATTENTION_ROWS) {
        let n = (n_rows - first).min(I::ATTENTION_ROWS);
        let kept = Kept { first: 0, n, ..rows.kept };
        let run_len = SoftmaxState::len(n, 0);
        let state_len = run_len + kept.len();
        states.resize(run_len + n_tiles * state_len, 0.0);
        let (run, states) = states.split_at_mut(run_len);
        let mut run = SoftmaxState::over(run, n, 0);
        run.clear();
        for (tile, values) in states.chunks_exact_mut(state_len).enumerate() {
            let mut state = SoftmaxState::over(values, n, 0);
            // SAFETY: guaranteed by the caller; the scores have room for n rows of a tile.
            unsafe {
                let (tile, scores) = ((tile, n_tiles), scores.as_mut_ptr());
                observe_tile::<I, E>(call, rows, first..first + n, tile, kept, scores, &mut state);
                merge::<I>(&mut run, &state, 0, call.scale);
            }
        }
        let merged = (&*run.m, &*run.l);
        let scale = call.scale;
        let from = KeptStates { states, padded_dim: 0, first_tile, kept, merged, scale };
        // SAFETY: the caller vouches for the instruction set.
        unsafe { add_kept::<I>(&from, sums) };
    }
}

/// Computes the state of tile `tile` for the rows `which` of `rows`, without an output: `kept` are
/// all these rows. Prefetches the keys of the next tile if that is before `end`.
#[inline(always)]
unsafe fn observe_tile<I: Isa, E: Element>(
    call: &Call,
    rows: &QueryRows<'_>,
    which: Range<usize>,
    tile: (usize, usize),
    kept: Kept,
    scores: *mut f32,
    state: &mut SoftmaxState<'_>,
) {
    // SAFETY: guaranteed by the caller; without a selection, nothing is gathered.
    let here = unsafe { find_tile::<E>(call, rows, tile, &mut []) };
    let visible =
        |r: usize| here.visible(rows.first_position as usize + r / call.group_size, call.window);
    let first = visible(which.start).0 / GROUP;
    let last = visible(which.end - 1).1.div_ceil(GROUP).max(first);
    // Past the end, the last group fills the chunk; its scores there are never read.
    let keys = |i: usize| here.groups[i.min(here.n_groups - 1)].keys;
    let keys_ahead = |i: usize| match i.checked_sub(TILE_GROUPS) {
        Some(i) if !here.next[i].keys.is_null() => here.next[i].keys,
        _ => keys(i),
    };
    for chunk in (first / CHUNK * CHUNK..last).step_by(CHUNK) {
        // Scoring prefetches the memory at `values`. Here these are the next keys, since no values
        // are read.
        let groups = std::array::from_fn(|i| Group {
            keys: keys(chunk + i),
            values: keys_ahead(chunk + CHUNK + i),
        });
        // SAFETY: rows and chunk lie inside queries, keys and scores.
        unsafe {
            let out = (scores.add(chunk * GROUP), TILE);
            score_rows::<I, E>(call, rows, which.clone(), groups, out);
        }
    }
    for (i, r) in which.enumerate() {
        let (seen, groups) = (visible(r), (first, last));
        let Some(out) = kept.of_row(i, groups, state.kept) else { continue };
        // SAFETY: row i lies inside the scores, and the state has room for a tile.
        (state.m[i], state.l[i]) = unsafe {
            let scores = scores.add(i * TILE);
            match kept.unit {
                KeptUnit::Group => {
                    soften::<I, _>(scores, seen, groups, call.scale, &mut GroupSums(out))
                }
                KeptUnit::Token => {
                    soften::<I, _>(scores, seen, groups, call.scale, &mut Probabilities(out))
                }
            }
        };
    }
}
