//! Sums of probabilities over rows.
//!
//! When the states of a row are merged, its maximum m and its sum l are known. Then the values that the
//! state of tile t keeps are weighted by exp((mₜ - m) · scale) / l and added to the sums, row after row
//! ([`add_kept`]).
//!
//! Attention keeps the values of a few rows as it goes. [`sum_probabilities`] computes the same values
//! for any number of rows, by the same functions on the same tiles: both give the same bits.

use super::ObserveScratch;
use crate::cpu::attention::{
    CHUNK, Call, QueryRows, SoftmaxState, find_tile, merge, score_rows, soften,
};
use crate::cpu::kept::{GroupSums, Kept, KeptUnit, Probabilities};
use crate::cpu::kv::{GROUP, Group, TILE, TILE_GROUPS};
use crate::cpu::simd::{Element, Isa, LANES};
use std::ops::Range;

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
