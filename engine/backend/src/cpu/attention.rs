//! Paged attention over views, for any number of query rows.
//!
//! The cached tokens of a view are cut into *tiles* of 256: at fixed absolute positions in the
//! tail, in list order in the selected part. For one tile and one query row, a pass computes
//!
//! ```text
//! s = q Kᵀ    m = max s    p = exp((s - m) · scale)    l = Σ p    o = p V
//! ```
//!
//! This result is a [`SoftmaxState`] (m, l, o). It depends only on the row and the tile. States are merged
//! in tile order, and the output is o / l (the online softmax of FlashAttention, arXiv 2205.14135,
//! with a fixed partition). No bit depends on the thread that computes a state, on the other rows
//! of the pass, or on the order in which states are computed: this is the row invariance of
//! attention.
//!
//! All query heads of a KV head, and all rows of a verification or of a part of a prompt, are rows
//! of one pass over the tile: keys and values are read from memory once for all of them.
//!
//! A state also keeps the probabilities p of rows that observe ([`Kept`]), before they are rounded
//! to operands: a selection reads no key again.

use super::kept::{GroupSums, Kept, KeptUnit, Probabilities, TileOutput};
use super::kv::{GROUP, Group, Layout, TILE, TILE_GROUPS, copy_token};
use super::rows::store_scaled;
use super::simd::{Element, F32, Isa, LANES};
use crate::{KvView, Selected};
use std::marker::PhantomData;
use std::ops::Range;

/// Query rows (tokens × heads of a group) of one pass: enough to keep arithmetic busy in a prefill,
/// and few enough for scores and outputs to stay close to the first-level cache.
pub(super) const MAX_ROWS: usize = 48;
/// Most query tokens of a sequence for which attention spreads tiles over threads. Longer spans
/// have enough rows.
pub(super) const SPLIT_TOKENS: usize = 16;
/// Groups that are scored together: four independent streams of keys.
pub(super) const CHUNK: usize = 4;

/// One call of attention: shapes and pointers that all units share. Strides are in words.
#[derive(Clone, Copy)]
pub(super) struct Call {
    /// Queries as multipliers ([`Element::expands`]).
    pub(super) q: *const u32,
    pub(super) q_stride: usize,
    pub(super) out: *mut u32,
    pub(super) out_stride: usize,
    /// Whether `out` has f32 rows instead of operands.
    pub(super) out_is_f32: bool,
    pub(super) kv: *const u32,
    pub(super) layout: Layout,
    pub(super) layer: usize,
    pub(super) head_dim: usize,
    /// Query heads per KV head.
    pub(super) group_size: usize,
    pub(super) groups_per_block: usize,
    pub(super) scale: f32,
    pub(super) window: Option<u32>,
}

// SAFETY: units write different rows and heads of `out` and only read the rest.
unsafe impl Sync for Call {}

impl Call {
    /// Most query tokens of one pass.
    pub(super) fn tokens_per_pass(&self) -> usize {
        (MAX_ROWS / self.group_size).max(1)
    }

    /// The query of row `r` of a pass, as multipliers.
    ///
    /// # Safety
    ///
    /// The pointers must be valid for the shapes and for `rows`.
    #[inline(always)]
    unsafe fn query<I: Isa, E: Element>(&self, rows: &QueryRows<'_>, r: usize) -> *const u32 {
        let head = rows.kv_head * self.group_size + r % self.group_size;
        let row = rows.first_row + r / self.group_size;
        let at = row * self.q_stride + E::multiplier_words::<I>(head * self.head_dim);
        // SAFETY: the caller vouches for the row.
        I::opaque(unsafe { self.q.add(at) })
    }

    /// The group that holds positions `logical · 16 ..` of a sequence.
    ///
    /// # Safety
    ///
    /// The block table must cover these positions, and its ids must be blocks of the pool.
    #[inline(always)]
    pub(super) unsafe fn group(&self, rows: &QueryRows<'_>, logical: usize) -> Group<*const u32> {
        let block = rows.block_table[logical / self.groups_per_block] as usize;
        let group = block * self.groups_per_block + logical % self.groups_per_block;
        // SAFETY: guaranteed by the caller.
        unsafe {
            Group {
                keys: self.kv.add(self.layout.keys_at(self.layer, rows.kv_head, group)),
                values: self.kv.add(self.layout.values_at(self.layer, rows.kv_head, group)),
            }
        }
    }
}

/// Query rows of one sequence and one KV head: `n_tokens` tokens × the heads of the group.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueryRows<'a> {
    /// Batch row of the first token.
    pub(super) first_row: usize,
    /// Position of the first token.
    pub(super) first_position: u32,
    pub(super) n_tokens: usize,
    pub(super) kv_head: usize,
    pub(super) block_table: &'a [u32],
    pub(super) view: KvView<'a>,
    /// The rows whose probabilities are kept in the states of tiles.
    pub(super) kept: Kept,
}

impl QueryRows<'_> {
    /// The largest number of tiles that the rows may attend to.
    pub(super) fn n_tiles(&self, call: &Call) -> usize {
        let last = self.first_position as usize + self.n_tokens - 1;
        self.n_selected_tiles(call) + last / TILE + 1 - self.first_tail_tile(call)
    }

    fn n_selected_tiles(&self, call: &Call) -> usize {
        match self.view.selected {
            Selected::None => 0,
            Selected::Blocks(blocks) => (blocks.n * call.groups_per_block).div_ceil(TILE_GROUPS),
            Selected::Tokens(tokens) => tokens.n.div_ceil(TILE),
        }
    }

    /// The tile that contains the earliest tail position that any row sees.
    pub(super) fn first_tail_tile(&self, call: &Call) -> usize {
        let outside = call.window.map_or(0, |w| (self.first_position + 1).saturating_sub(w));
        self.view.tail_start.max(outside) as usize / TILE
    }
}

/// The result of a pass for each row: `m` and `l` per row, `o` as `rows × padded_dim`.
pub(super) struct SoftmaxState<'a> {
    pub(super) m: &'a mut [f32],
    pub(super) l: &'a mut [f32],
    pub(super) o: &'a mut [f32],
    /// Probabilities relative to `m`: `kept rows × kept units of a tile`, in a state of one tile.
    pub(super) kept: &'a mut [f32],
}

impl<'a> SoftmaxState<'a> {
    /// Number of f32 values in the state of `n_rows` rows, without kept probabilities.
    pub(super) fn len(n_rows: usize, padded_dim: usize) -> usize {
        n_rows * (padded_dim + 2)
    }

    /// The state in `values`: [`Self::len`] of them, and then those that are kept.
    pub(super) fn over(values: &'a mut [f32], n_rows: usize, padded_dim: usize) -> Self {
        let (m, rest) = values.split_at_mut(n_rows);
        let (l, rest) = rest.split_at_mut(n_rows);
        let (o, kept) = rest.split_at_mut(n_rows * padded_dim);
        SoftmaxState { m, l, o, kept }
    }

    /// Resets the state to rows that have seen no token.
    pub(super) fn clear(&mut self) {
        self.m.fill(f32::NEG_INFINITY);
        self.l.fill(0.0);
        self.o.fill(0.0);
    }
}

/// Working memory of one thread.
pub(super) struct AttentionScratch {
    /// Scores, `MAX_ROWS × TILE`.
    scores: Vec<f32>,
    /// Probabilities as multipliers, also `MAX_ROWS × TILE`.
    probabilities: Vec<u32>,
    /// States of `MAX_ROWS` rows: `tile` of the current tile, `run` of all tiles so far.
    tile: Vec<f32>,
    run: Vec<f32>,
    /// A tile of gathered tokens, keys before values.
    gathered: Vec<u32>,
}

impl AttentionScratch {
    pub(super) fn new(layout: &Layout, group_size: usize) -> Self {
        let rows = MAX_ROWS.max(group_size);
        let state = SoftmaxState::len(rows, layout.padded_dim);
        Self {
            scores: vec![0.0; rows * TILE],
            probabilities: vec![0; rows * TILE],
            tile: vec![0.0; state],
            run: vec![0.0; state],
            gathered: vec![0; TILE_GROUPS * (layout.group_key_words + layout.group_value_words)],
        }
    }

    /// The maxima and the sums of `n_rows` rows over all tiles, after [`merge_states`].
    pub(super) fn merged(&self, n_rows: usize) -> (&[f32], &[f32]) {
        self.run[..2 * n_rows].split_at(n_rows)
    }
}

/// Computes the attention of `rows` over all their tiles and writes the output.
///
/// # Safety
///
/// The pointers of `call` must be valid for its shapes and for `rows`, no other thread may write
/// the same rows and heads, and the CPU must have the instruction set.
#[inline(always)]
pub(super) unsafe fn attend<I: Isa, E: Element>(
    call: &Call,
    rows: &QueryRows<'_>,
    scratch: &mut AttentionScratch,
) {
    let n_rows = rows.n_tokens * call.group_size;
    let mut tile_values = std::mem::take(&mut scratch.tile);
    let mut run_values = std::mem::take(&mut scratch.run);
    let len = SoftmaxState::len(n_rows, call.layout.padded_dim);
    let mut run = SoftmaxState::over(&mut run_values[..len], n_rows, call.layout.padded_dim);
    run.clear();
    let n_tiles = rows.n_tiles(call);
    for tile in 0..n_tiles {
        let mut state = SoftmaxState::over(&mut tile_values[..len], n_rows, call.layout.padded_dim);
        // SAFETY: guaranteed by the caller.
        unsafe {
            tile_state::<I, E>(call, rows, (tile, n_tiles), scratch, &mut state);
            merge::<I>(&mut run, &state, call.layout.padded_dim, call.scale);
        }
    }
    // SAFETY: guaranteed by the caller.
    unsafe { finish::<I, E>(call, rows, &run) };
    scratch.tile = tile_values;
    scratch.run = run_values;
}

/// Merges the states that [`tile_state`] has left in `states`, in order, and writes the output.
/// [`AttentionScratch::merged`] returns the merged maxima and sums.
///
/// # Safety
///
/// As for [`attend`].
#[inline(always)]
pub(super) unsafe fn merge_states<I: Isa, E: Element>(
    call: &Call,
    rows: &QueryRows<'_>,
    states: &mut [f32],
    scratch: &mut AttentionScratch,
) {
    let n_rows = rows.n_tokens * call.group_size;
    let padded_dim = call.layout.padded_dim;
    let len = SoftmaxState::len(n_rows, padded_dim);
    let run_values = &mut scratch.run[..len];
    let mut run = SoftmaxState::over(run_values, n_rows, padded_dim);
    run.clear();
    for state in states.chunks_exact_mut(len + rows.kept.len()) {
        let state = SoftmaxState::over(state, n_rows, padded_dim);
        // SAFETY: guaranteed by the caller.
        unsafe { merge::<I>(&mut run, &state, padded_dim, call.scale) };
    }
    // SAFETY: guaranteed by the caller.
    unsafe { finish::<I, E>(call, rows, &run) };
}

/// Merges `state` into `run`, row by row. A row that saw no token of the tile keeps its bits.
///
/// # Safety
///
/// `padded_dim` must be the one of both states, and the CPU must have the instruction set.
#[inline(always)]
pub(super) unsafe fn merge<I: Isa>(
    run: &mut SoftmaxState<'_>,
    state: &SoftmaxState<'_>,
    padded_dim: usize,
    scale: f32,
) {
    for r in 0..run.m.len() {
        if state.m[r] == f32::NEG_INFINITY {
            continue;
        }
        // SAFETY: the slices hold whole vectors; the caller vouches for the instruction set.
        unsafe {
            let m = run.m[r].max(state.m[r]);
            let mut factors = [0.0; LANES];
            factors[0] = (run.m[r] - m) * scale;
            factors[1] = (state.m[r] - m) * scale;
            let e = I::exp_nonpositive(I::load(factors.as_ptr()));
            I::store(factors.as_mut_ptr(), e);
            let [old, new, ..] = factors;
            run.m[r] = m;
            run.l[r] = run.l[r] * old + state.l[r] * new;
            let (old, new) = (I::splat(old), I::splat(new));
            let (to, from) =
                (run.o[r * padded_dim..].as_mut_ptr(), state.o[r * padded_dim..].as_ptr());
            for d in (0..padded_dim).step_by(LANES) {
                let kept = I::mul(I::load(to.add(d)), old);
                I::store(to.add(d), I::fma(I::load(from.add(d)), new, kept));
            }
        }
    }
}

/// Writes `o / l` of every row to the output.
#[inline(always)]
unsafe fn finish<I: Isa, E: Element>(call: &Call, rows: &QueryRows<'_>, run: &SoftmaxState<'_>) {
    let padded_dim = call.layout.padded_dim;
    for t in 0..rows.n_tokens {
        for g in 0..call.group_size {
            let r = t * call.group_size + g;
            let head = rows.kv_head * call.group_size + g;
            // SAFETY: the caller vouches for the row and head; values after the last whole vector
            // below head_dim are stored one by one.
            unsafe {
                let out = call.out.add((rows.first_row + t) * call.out_stride);
                let inverse = 1.0 / run.l[r];
                let o = &run.o[r * padded_dim..][..call.head_dim];
                let at = head * call.head_dim;
                match call.out_is_f32 {
                    true => store_scaled::<I, F32>(o, inverse, out, at),
                    false => store_scaled::<I, E>(o, inverse, out, at),
                }
            }
        }
    }
}

/// The groups of one tile, and the positions of its tokens.
pub(super) struct Tile<'a> {
    pub(super) groups: [Group<*const u32>; TILE_GROUPS],
    pub(super) n_groups: usize,
    /// Groups of the next tile, to be prefetched; null if there is no next tile.
    pub(super) next: [Group<*const u32>; TILE_GROUPS],
    /// Positions of the tile's tokens in the sequence.
    positions: TilePositions<'a>,
}

#[derive(Clone, Copy)]
enum TilePositions<'a> {
    /// Consecutive positions.
    Tail { first_position: usize, tail_start: usize },
    /// Whole blocks of `block_size` tokens; `skipped` selected tokens lie in the tiles before.
    Blocks { blocks: &'a [u32], block_size: usize, skipped: usize },
    /// Selected positions, in list order.
    Tokens(&'a [u32]),
}

impl Tile<'_> {
    /// The range `lo..hi` of the tile's tokens that a row at position `p` sees.
    pub(super) fn visible(&self, p: usize, window: Option<u32>) -> (usize, usize) {
        let earliest = window.map_or(0, |w| (p + 1).saturating_sub(w as usize));
        let n = self.n_groups * GROUP;
        match self.positions {
            TilePositions::Tail { first_position, tail_start } => {
                let lo = earliest.max(tail_start).saturating_sub(first_position).min(n);
                let hi = (p + 1).saturating_sub(first_position).min(n);
                (lo, hi.max(lo))
            }
            TilePositions::Blocks { blocks, block_size, skipped } => {
                // Index in the list of the first selected token that is not before `earliest`.
                let whole = blocks.partition_point(|&b| (b as usize + 1) * block_size <= earliest);
                let inside = blocks
                    .get(whole)
                    .map_or(0, |&b| earliest.saturating_sub(b as usize * block_size));
                let lo = (whole * block_size + inside).saturating_sub(skipped).min(n);
                (lo, n)
            }
            TilePositions::Tokens(positions) => {
                let lo = positions.partition_point(|&at| (at as usize) < earliest);
                (lo, positions.len())
            }
        }
    }
}

/// Finds tile `tile` of `rows`, and the tile after it if that is before `end`. Copies selected tokens
/// to `gathered`, which has room for the groups of a tile if the view selects tokens.
///
/// # Safety
///
/// The pointers of `call` must be valid for its shapes and for `rows`.
#[inline(always)]
pub(super) unsafe fn find_tile<'a, E: Element>(
    call: &Call,
    rows: &QueryRows<'a>,
    (tile, end): (usize, usize),
    gathered: &mut [u32],
) -> Tile<'a> {
    let layout = &call.layout;
    // SAFETY: block tables name blocks of the pool.
    let group_of = |logical: usize| unsafe { call.group(rows, logical) };
    let n_selected = rows.n_selected_tiles(call);
    let mut groups = [Group { keys: std::ptr::null(), values: std::ptr::null() }; TILE_GROUPS];
    let mut next = groups;
    if tile >= n_selected {
        let continues = tile + 1 < end;
        let tile = rows.first_tail_tile(call) + tile - n_selected;
        let last = rows.first_position as usize + rows.n_tokens - 1;
        let first = tile * TILE_GROUPS;
        let n_groups = (last / GROUP + 1 - first).min(TILE_GROUPS);
        for (i, group) in groups.iter_mut().enumerate().take(n_groups) {
            *group = group_of(first + i);
        }
        let n_next = match continues {
            true => (last / GROUP + 1 - first - n_groups).min(TILE_GROUPS),
            false => 0,
        };
        for (i, group) in next.iter_mut().enumerate().take(n_next) {
            *group = group_of(first + TILE_GROUPS + i);
        }
        let tail_start = rows.view.tail_start as usize;
        let positions = TilePositions::Tail { first_position: tile * TILE, tail_start };
        return Tile { groups, n_groups, next, positions };
    }
    match rows.view.selected {
        Selected::None => unreachable!("a view without a selection has no selected tiles"),
        Selected::Blocks(blocks) => {
            let blocks = blocks.of(call.layer, rows.kv_head);
            let per_block = call.groups_per_block;
            let first = tile * TILE_GROUPS;
            let n_groups = (blocks.len() * per_block - first).min(TILE_GROUPS);
            for (i, group) in groups.iter_mut().enumerate().take(n_groups) {
                let at = first + i;
                *group = group_of(blocks[at / per_block] as usize * per_block + at % per_block);
            }
            let block_size = per_block * GROUP;
            let positions = TilePositions::Blocks { blocks, block_size, skipped: tile * TILE };
            Tile { groups, n_groups, next, positions }
        }
        Selected::Tokens(tokens) => {
            let all = tokens.of(call.layer, rows.kv_head);
            let chosen = &all[tile * TILE..all.len().min((tile + 1) * TILE)];
            let n_groups = chosen.len().div_ceil(GROUP);
            let (keys, values) = gathered.split_at_mut(TILE_GROUPS * layout.group_key_words);
            let (keys, values) = (keys.as_mut_ptr(), values.as_mut_ptr());
            for (i, &at) in chosen.iter().enumerate() {
                let (at, to) = (at as usize, i / GROUP);
                // SAFETY: the scratch holds a whole tile of groups.
                unsafe {
                    let to = Group {
                        keys: keys.add(to * layout.group_key_words),
                        values: values.add(to * layout.group_value_words),
                    };
                    copy_token::<E>(group_of(at / GROUP), at % GROUP, to, i % GROUP, layout);
                    groups[i / GROUP] = Group { keys: to.keys, values: to.values };
                }
            }
            Tile { groups, n_groups, next, positions: TilePositions::Tokens(chosen) }
        }
    }
}

/// Computes the state of tile `tile` for all rows, and prefetches the keys of the next tile if that
/// is before `end`.
///
/// # Safety
///
/// As for [`attend`].
#[inline(always)]
pub(super) unsafe fn tile_state<I: Isa, E: Element>(
    call: &Call,
    rows: &QueryRows<'_>,
    (tile, end): (usize, usize),
    scratch: &mut AttentionScratch,
    state: &mut SoftmaxState<'_>,
) {
    let layout = &call.layout;
    let n_rows = rows.n_tokens * call.group_size;
    // SAFETY: guaranteed by the caller.
    let here = unsafe { find_tile::<E>(call, rows, (tile, end), &mut scratch.gathered) };
    let visible =
        |r: usize| here.visible(rows.first_position as usize + r / call.group_size, call.window);
    // Rows are in position order, so the range that they see only moves forward.
    let first = visible(0).0 / GROUP;
    let last = visible(n_rows - 1).1.div_ceil(GROUP).max(first);
    let scores = scratch.scores.as_mut_ptr();
    let mut chunk = first / CHUNK * CHUNK;
    while chunk < last {
        // Past the end, the last group fills the chunk; its scores there are never read.
        let groups: [Group<*const u32>; CHUNK] =
            std::array::from_fn(|i| here.groups[(chunk + i).min(here.n_groups - 1)]);
        let mut r = 0;
        while r < n_rows {
            let n = (n_rows - r).min(I::ATTENTION_ROWS);
            // SAFETY: rows r..r+n and the chunk lie inside queries, keys and scores.
            unsafe {
                let out = scores.add(r * TILE + chunk * GROUP);
                score_rows::<I, E>(call, rows, r..r + n, groups, (out, TILE));
            }
            r += n;
        }
        chunk += CHUNK;
    }
    let probabilities = scratch.probabilities.as_mut_ptr();
    for r in 0..n_rows {
        // SAFETY: row r lies inside scores and probabilities; a kept row has room in the state.
        (state.m[r], state.l[r]) = unsafe {
            let out = probabilities.add(E::multiplier_words::<I>(r * TILE));
            let mut out = Multipliers::<E>(out, PhantomData);
            let (scores, seen, groups) = (scores.add(r * TILE), visible(r), (first, last));
            match (rows.kept.of_row(r, groups, state.kept), rows.kept.unit) {
                (None, _) => soften::<I, _>(scores, seen, groups, call.scale, &mut out),
                (Some(kept), KeptUnit::Group) => {
                    soften::<I, _>(scores, seen, groups, call.scale, &mut (out, GroupSums(kept)))
                }
                (Some(kept), KeptUnit::Token) => soften::<I, _>(
                    scores,
                    seen,
                    groups,
                    call.scale,
                    &mut (out, Probabilities(kept)),
                ),
            }
        };
    }
    let mut r = 0;
    while r < n_rows {
        let n = (n_rows - r).min(I::ATTENTION_ROWS);
        let o = state.o[r * layout.padded_dim..].as_mut_ptr();
        // SAFETY: rows r..r+n lie inside probabilities and outputs, and the groups are of this tile.
        unsafe {
            let p = probabilities.add(E::multiplier_words::<I>(r * TILE)).cast_const();
            match n {
                1 => weigh::<I, E, 1>(p, &here, (first, last), layout, o),
                2 => weigh::<I, E, 2>(p, &here, (first, last), layout, o),
                3 => weigh::<I, E, 3>(p, &here, (first, last), layout, o),
                4 => weigh::<I, E, 4>(p, &here, (first, last), layout, o),
                5 => weigh::<I, E, 5>(p, &here, (first, last), layout, o),
                _ => weigh::<I, E, 6>(p, &here, (first, last), layout, o),
            }
        }
        r += n;
    }
}

/// Scores of up to `I::ATTENTION_ROWS` rows against four groups. `out` is the first score and the
/// stride from one row of scores to the next.
///
/// # Safety
///
/// The pointers must be valid for the rows and groups, and the CPU must have the instruction set.
#[inline(always)]
pub(super) unsafe fn score_rows<I: Isa, E: Element>(
    call: &Call,
    rows: &QueryRows<'_>,
    which: Range<usize>,
    groups: [Group<*const u32>; CHUNK],
    out: (*mut f32, usize),
) {
    // SAFETY: guaranteed by the caller.
    let q = |i: usize| unsafe { call.query::<I, E>(rows, which.start + i) };
    let layout = &call.layout;
    // SAFETY: guaranteed by the caller.
    unsafe {
        match which.len() {
            1 => score::<I, E, 1>([q(0)], groups, layout, out),
            2 => score::<I, E, 2>(std::array::from_fn(q), groups, layout, out),
            3 => score::<I, E, 3>(std::array::from_fn(q), groups, layout, out),
            4 => score::<I, E, 4>(std::array::from_fn(q), groups, layout, out),
            5 => score::<I, E, 5>(std::array::from_fn(q), groups, layout, out),
            _ => score::<I, E, 6>(std::array::from_fn(q), groups, layout, out),
        }
    }
}

/// Vectors of accumulators per row in a tile of R rows: a power of two, so that it divides a chunk.
const fn vectors<I: Isa>(n_rows: usize) -> usize {
    match I::ACCUMULATORS / n_rows {
        0 | 1 => 1,
        2 | 3 => 2,
        _ => 4,
    }
}

/// Scores of R rows against four groups, as many groups at a time as registers hold.
#[inline(always)]
unsafe fn score<I: Isa, E: Element, const R: usize>(
    q: [*const u32; R],
    groups: [Group<*const u32>; CHUNK],
    layout: &Layout,
    (out, stride): (*mut f32, usize),
) {
    if R > I::ATTENTION_ROWS {
        return;
    }
    let n = const { vectors::<I>(R) };
    for first in (0..CHUNK).step_by(n) {
        let out = (out.wrapping_add(first * GROUP), stride);
        // SAFETY: guaranteed by the caller.
        unsafe {
            match n {
                1 => score_groups::<I, E, R, 1>(q, [groups[first]], layout, out),
                2 => score_groups::<I, E, R, 2>(q, [groups[first], groups[first + 1]], layout, out),
                _ => score_groups::<I, E, R, CHUNK>(q, groups, layout, out),
            }
        }
    }
}

/// Scores of R rows against N groups.
#[inline(always)]
unsafe fn score_groups<I: Isa, E: Element, const R: usize, const N: usize>(
    q: [*const u32; R],
    groups: [Group<*const u32>; N],
    layout: &Layout,
    (out, stride): (*mut f32, usize),
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut acc = [[I::splat(0.0); N]; R];
        for k in 0..layout.key_words {
            // The values of the same tokens are needed as soon as the scores are known: prefetch them.
            for group in groups {
                I::prefetch(group.values.wrapping_add(k * GROUP).cast());
            }
            E::dots::<I, R, N>(&mut acc, groups.map(|group| group.keys.add(k * GROUP)), q, k);
        }
        for (r, acc) in acc.into_iter().enumerate() {
            for (i, acc) in acc.into_iter().enumerate() {
                I::store(out.add(r * stride + i * GROUP), acc);
            }
        }
    }
}

/// Stores probabilities as multipliers.
struct Multipliers<E>(*mut u32, PhantomData<E>);

impl<I: Isa, E: Element> TileOutput<I> for Multipliers<E> {
    #[inline(always)]
    unsafe fn put(&mut self, group: usize, p: I::F) {
        // SAFETY: guaranteed by the caller.
        unsafe { E::store_multipliers::<I>(self.0, group * GROUP, p) }
    }
}

/// Turns the scores `lo..hi` of one row into probabilities relative to their maximum. `out` takes
/// them, and zeros for the rest of groups `first..last`. Returns the maximum and the sum.
///
/// # Safety
///
/// `scores` must be valid for a whole tile, `out` must have room for it, and the CPU must have the
/// instruction set.
#[inline(always)]
pub(super) unsafe fn soften<I: Isa, S: TileOutput<I>>(
    scores: *mut f32,
    (lo, hi): (usize, usize),
    (first, last): (usize, usize),
    scale: f32,
    out: &mut S,
) -> (f32, f32) {
    // SAFETY: guaranteed by the caller; the row holds a whole tile.
    unsafe {
        let (from, to) = if lo < hi { (lo / GROUP, hi.div_ceil(GROUP)) } else { (first, first) };
        for i in (from * GROUP..lo).chain(hi..to * GROUP) {
            *scores.add(i) = f32::NEG_INFINITY;
        }
        let mut max = I::splat(f32::NEG_INFINITY);
        for group in from..to {
            max = I::max(max, I::load(scores.add(group * GROUP)));
        }
        let m = I::reduce_max(max);
        let (max, factor) = (I::splat(m), I::splat(scale));
        let mut sum = I::splat(0.0);
        for group in from..to {
            let s = I::load(scores.add(group * GROUP));
            let p = I::exp_nonpositive(I::mul(I::sub(s, max), factor));
            sum = I::add(sum, p);
            out.put(group, p);
        }
        for group in (first..from).chain(to..last) {
            out.put(group, I::splat(0.0));
        }
        (m, I::reduce_add(sum))
    }
}

/// `o = p V` of R rows over the groups `first..last` of the tile.
#[inline(always)]
unsafe fn weigh<I: Isa, E: Element, const R: usize>(
    p: *const u32,
    tile: &Tile<'_>,
    groups: (usize, usize),
    layout: &Layout,
    o: *mut f32,
) {
    if R > I::ATTENTION_ROWS {
        return;
    }
    let mut d = 0;
    while d < layout.padded_dim {
        let left = (layout.padded_dim - d) / LANES;
        // The largest power of two that fits the registers and the remaining dimensions.
        let n = const { vectors::<I>(R) }.min(1 << left.ilog2());
        // SAFETY: vectors from dimension d on lie within the remaining dimensions; the caller
        // guarantees the rest.
        unsafe {
            match n {
                1 => weigh_dims::<I, E, R, 1>(p, tile, groups, layout, d, o),
                2 => weigh_dims::<I, E, R, 2>(p, tile, groups, layout, d, o),
                _ => weigh_dims::<I, E, R, 4>(p, tile, groups, layout, d, o),
            }
        }
        d += LANES * n;
    }
}

#[inline(always)]
unsafe fn weigh_dims<I: Isa, E: Element, const R: usize, const N: usize>(
    p: *const u32,
    tile: &Tile<'_>,
    (first, last): (usize, usize),
    layout: &Layout,
    d: usize,
    o: *mut f32,
) {
    if N > 1 && R * N > I::ACCUMULATORS {
        return;
    }
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut acc = [[I::splat(0.0); N]; R];
        let p: [*const u32; R] =
            std::array::from_fn(|r| I::opaque(p.add(r * E::multiplier_words::<I>(TILE))));
        for group in first..last {
            let mut v = tile.groups[group].values.add(d);
            // Prefetch the next tile's keys in memory order, as many lines as this tile has lines
            // of values. On the last tile, prefetch this tile's keys, which are cached.
            let line = (d / (N * LANES) * TILE_GROUPS + group) * (GROUP / E::PER_WORD) * N;
            let (wanted, line) = (line / layout.key_words, line % layout.key_words);
            let mut next = match tile.next.get(wanted) {
                Some(next) if !next.keys.is_null() => next.keys,
                _ => tile.groups[group].keys,
            }
            .wrapping_add(line * GROUP);
            let first_pair = group * (GROUP / E::PER_WORD);
            for pair in first_pair..first_pair + GROUP / E::PER_WORD {
                for n in 0..N {
                    // One line of keys per vector of values.
                    I::prefetch(next.wrapping_add(n * GROUP).cast());
                }
                next = next.wrapping_add(N * GROUP);
                E::dots::<I, R, N>(&mut acc, std::array::from_fn(|n| v.add(n * LANES)), p, pair);
                v = v.add(layout.padded_dim);
            }
        }
        for (r, acc) in acc.into_iter().enumerate() {
            for (n, acc) in acc.into_iter().enumerate() {
                I::store(o.add(r * layout.padded_dim + d + n * LANES), acc);
            }
        }
    }
}
