//! `out = x Wᵀ` for any number of rows, one panel of outputs at a time.
//!
//! A tile is some rows of `x` by one panel. Its accumulators stay in registers while k runs from
//! first to last. So every output accumulates over k in one order, whatever the number of rows:
//! this is the row invariance of the linear layers.
//!
//! This file has the tiles of panels of floats; those of quantised panels are in [`super::blocks`].
//!
//! Cost: a tile of R rows makes 2·R products per word of k from 2 loads of weights and R
//! broadcasts. With one row, the tile reads weights as fast as memory delivers them; with
//! [`Isa::GEMM_ROWS`] rows, arithmetic is the limit. If the register file is too small for that
//! many rows beside a whole panel, a tile computes the halves of the panel one after the other.

use super::blocks::{MOST_ROWS, RowBlock, STRIP, StripProduct, strip_bytes, tile_rows};
use super::matrix::{Matrix, PANEL, PanelFormat};
use super::simd::{Element, F32, Isa, LANES};
use crate::BlockFormat;

/// Destination of a tile's results.
#[derive(Clone, Copy)]
pub(super) enum Sink {
    /// f32 rows: `out = x Wᵀ + bias`; bias is padded to whole panels, or null.
    Store { out: *mut f32, bias: *const f32 },
    /// f32 rows: `out += x Wᵀ`.
    Add { out: *mut f32 },
    /// Rows of operands, or of f32: `out = silu(gate) · up`.
    SiluMul { out: *mut u32, is_f32: bool },
}

/// One product. Strides are in words.
#[derive(Clone, Copy)]
pub(super) struct Gemm<'a> {
    pub(super) w: &'a Matrix,
    /// Multipliers ([`Element::expands`]), if `w` has panels of floats.
    pub(super) x: *const u32,
    pub(super) x_stride: usize,
    /// Rows as signed bytes, in the order of [`row_tile`], if `w` has quantised panels.
    pub(super) row_blocks: *const RowBlock,
    /// Most rows of a tile of quantised panels.
    pub(super) strip_rows: usize,
    pub(super) multiply_strip: unsafe fn(&StripProduct),
    pub(super) n_rows: usize,
    pub(super) out_stride: usize,
    pub(super) sink: Sink,
}

/// A tile of rows as signed bytes. Tiles lie one after the other; in a tile, block b of its row r lies at
/// `b · n_rows + r`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowTile {
    /// The first row.
    pub(super) first: usize,
    /// Rows with the padding to a size that kernels have.
    pub(super) n_rows: usize,
}

/// The tile of row `row` in a product of `n_rows` rows.
pub(super) fn row_tile(row: usize, n_rows: usize, strip_rows: usize) -> RowTile {
    let first = row / strip_rows * strip_rows;
    RowTile { first, n_rows: tile_rows((n_rows - first).min(strip_rows)).min(strip_rows) }
}

// SAFETY: units write different panels of `out` and only read the rest.
unsafe impl Sync for Gemm<'_> {}

/// Multiplies all rows by the panels `panels`.
///
/// # Safety
///
/// The pointers of `g` must be valid for its shapes (output rows padded to whole panels), no other
/// thread may write the same panels, and the CPU must have the instruction set.
#[inline(always)]
pub(super) unsafe fn multiply_panels<I: Isa, E: Element>(
    g: &Gemm<'_>,
    panels: std::ops::Range<usize>,
) {
    for panel in panels {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match g.w.panels[panel].format {
                PanelFormat::Words => multiply_words::<I, E>(g, panel),
                PanelFormat::Strips(formats) => multiply_strips::<I, E>(g, panel, formats),
            }
        }
    }
}

/// Multiplies all rows by a quantised panel.
#[inline(always)]
unsafe fn multiply_strips<I: Isa, E: Element>(
    g: &Gemm<'_>,
    panel: usize,
    formats: [BlockFormat; 2],
) {
    let n_blocks = g.w.n_blocks();
    let first_bytes = strip_bytes(formats[0], n_blocks);
    let mut row = 0;
    while row < g.n_rows {
        let tile = row_tile(row, g.n_rows, g.strip_rows);
        let mut out = [0.0_f32; MOST_ROWS * PANEL];
        // SAFETY: the panel has two strips, and the tile has rows of as many blocks.
        unsafe {
            for (i, format) in formats.into_iter().enumerate() {
                (g.multiply_strip)(&StripProduct {
                    format,
                    n_blocks,
                    strip: g.w.panel(panel).add(i * first_bytes),
                    rows: g.row_blocks.add(tile.first * n_blocks),
                    n_rows: tile.n_rows,
                    out: out.as_mut_ptr().add(i * STRIP),
                });
            }
            for (r, values) in out.as_chunks::<PANEL>().0.iter().enumerate() {
                if r < tile.n_rows && row + r < g.n_rows {
                    let at = values.as_ptr();
                    finish::<I, E>(g, panel, row + r, [I::load(at), I::load(at.add(LANES))]);
                }
            }
        }
        row += g.strip_rows;
    }
}

/// Multiplies all rows by a panel of floats.
#[inline(always)]
unsafe fn multiply_words<I: Isa, E: Element>(g: &Gemm<'_>, panel: usize) {
    let most = word_tile_rows::<I>(g.n_rows);
    let mut row = 0;
    while row < g.n_rows {
        let n = (g.n_rows - row).min(most);
        // SAFETY: guaranteed by the caller.
        unsafe {
            match n {
                1 => tile::<I, E, 1>(g, panel, row),
                2 => tile::<I, E, 2>(g, panel, row),
                3 => tile::<I, E, 3>(g, panel, row),
                4 => tile::<I, E, 4>(g, panel, row),
                5 => tile::<I, E, 5>(g, panel, row),
                6 => tile::<I, E, 6>(g, panel, row),
                7 => tile::<I, E, 7>(g, panel, row),
                8 => tile::<I, E, 8>(g, panel, row),
                9 => tile::<I, E, 9>(g, panel, row),
                10 => tile::<I, E, 10>(g, panel, row),
                11 => tile::<I, E, 11>(g, panel, row),
                _ => tile::<I, E, 12>(g, panel, row),
            }
        }
        row += n;
    }
}

/// Most rows of a tile in a product of `n_rows` rows. An expanding instruction set uses tiles of
/// about equal size, since a small last tile would wait for the latency of its products.
fn word_tile_rows<I: Isa>(n_rows: usize) -> usize {
    match I::EXPANDS {
        true => n_rows.div_ceil(n_rows.div_ceil(I::GEMM_ROWS).max(1)),
        false => I::GEMM_ROWS,
    }
}

/// The prefetches of a pass over the words of k. The hardware's own prefetcher stops at page
/// borders and starts slowly on a new panel.
#[derive(Clone, Copy)]
struct Prefetch {
    at: *const u8,
    /// Bytes per word of k.
    step: usize,
}

impl Prefetch {
    /// The prefetches of pass `pass` of `n_passes` over a panel. A single pass prefetches its own
    /// weights a few hundred cycles ahead. Of several passes, each prefetches its share of the next
    /// panel, so that memory works while they compute. If the panels would not fit the cache, or if
    /// products are so fast that memory is always busy, each pass prefetches its own weights.
    fn new<I: Isa>(g: &Gemm<'_>, panel: usize, (pass, n_passes): (usize, usize)) -> Self {
        let this = g.w.panel(panel);
        let k_words = g.w.k_words();
        let bytes = PANEL * k_words * 4;
        if n_passes == 1 || !I::EXPANDS || bytes > MOST_AHEAD {
            return Self { at: this.wrapping_add(BYTES_AHEAD + pass % 2 * LINE), step: PANEL * 4 };
        }
        let step = (PANEL * 4).div_ceil(n_passes);
        Self { at: this.wrapping_add(bytes + pass * step * k_words), step }
    }
}

/// Distance of a pass's prefetches from its own products, in bytes.
const BYTES_AHEAD: usize = 8 << 10;
/// Largest panel that is prefetched one panel ahead: three such panels fit a second-level cache.
const MOST_AHEAD: usize = 128 << 10;
/// Bytes of one prefetch.
const LINE: usize = 64;

/// R rows by one panel.
#[inline(always)]
unsafe fn tile<I: Isa, E: Element, const R: usize>(g: &Gemm<'_>, panel: usize, row: usize) {
    if R > I::GEMM_ROWS {
        return;
    }
    // SAFETY: `row + R <= n_rows` and `panel` is a panel of the weights, so every pointer below
    // stays inside the memory that the caller vouches for.
    unsafe {
        let w = g.w.panel(panel).cast::<u32>();
        let x: [*const u32; R] =
            std::array::from_fn(|r| I::opaque(g.x.add((row + r) * g.x_stride)));
        let most = word_tile_rows::<I>(g.n_rows);
        let (tile, n_tiles) = (row / most, g.n_rows.div_ceil(most));
        let acc: [[I::F; 2]; R] = if 2 * R <= I::ACCUMULATORS {
            dots::<I, E, R, 2>(g, w, x, Prefetch::new::<I>(g, panel, (tile, n_tiles)))
        } else {
            let ahead = |half| Prefetch::new::<I>(g, panel, (2 * tile + half, 2 * n_tiles));
            let first = dots::<I, E, R, 1>(g, w, x, ahead(0));
            let second = dots::<I, E, R, 1>(g, w.add(LANES), x, ahead(1));
            std::array::from_fn(|r| [first[r][0], second[r][0]])
        };
        for (r, sums) in acc.into_iter().enumerate() {
            finish::<I, E>(g, panel, row + r, sums);
        }
    }
}

/// Writes the sums of a row and a panel to their destination.
#[inline(always)]
unsafe fn finish<I: Isa, E: Element>(g: &Gemm<'_>, panel: usize, row: usize, sums: [I::F; 2]) {
    let [mut first, mut second] = sums;
    let at = row * g.out_stride;
    // SAFETY: the caller vouches for the destination, whose rows are padded to whole panels.
    unsafe {
        match g.sink {
            Sink::Store { out, bias } => {
                let out = out.add(at + panel * PANEL);
                if !bias.is_null() {
                    first = I::add(first, I::load(bias.add(panel * PANEL)));
                    second = I::add(second, I::load(bias.add(panel * PANEL + LANES)));
                }
                I::store(out, first);
                I::store(out.add(LANES), second);
            }
            Sink::Add { out } => {
                let out = out.add(at + panel * PANEL);
                I::store(out, I::add(I::load(out), first));
                I::store(out.add(LANES), I::add(I::load(out.add(LANES)), second));
            }
            Sink::SiluMul { out, is_f32 } => {
                let gated = I::mul(silu::<I>(first), second);
                match is_f32 {
                    true => F32::store::<I>(out.add(at), panel * LANES, gated),
                    false => E::store::<I>(out.add(at), panel * LANES, gated),
                }
            }
        }
    }
}

/// R rows by N vectors of outputs, from the first word of k to the last.
#[inline(always)]
unsafe fn dots<I: Isa, E: Element, const R: usize, const N: usize>(
    g: &Gemm<'_>,
    mut w: *const u32,
    x: [*const u32; R],
    mut ahead: Prefetch,
) -> [[I::F; N]; R] {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut acc = [[I::splat(0.0); N]; R];
        for k in 0..g.w.k_words() {
            for n in 0..N {
                I::prefetch(ahead.at.wrapping_add(n * LINE));
            }
            ahead.at = ahead.at.wrapping_add(ahead.step);
            E::dots::<I, R, N>(&mut acc, std::array::from_fn(|n| w.add(n * LANES)), x, k);
            w = w.add(PANEL);
        }
        acc
    }
}

/// `x / (1 + e^-x)`, by way of `e^-|x|`, which cannot overflow.
#[inline(always)]
unsafe fn silu<I: Isa>(x: I::F) -> I::F {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let zero = I::splat(0.0);
        let one = I::splat(1.0);
        let negative_abs = I::sub(zero, I::max(x, I::sub(zero, x)));
        let e = I::exp_nonpositive(negative_abs);
        // x >= 0: x / (1 + e); x < 0: x e / (1 + e). min(x, 0) e + max(x, 0) covers both.
        let positive = I::max(x, zero);
        let negative = I::sub(zero, I::max(I::sub(zero, x), zero));
        I::div(I::fma(negative, e, positive), I::add(one, e))
    }
}
