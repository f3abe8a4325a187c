//! `out = x Wᵀ` for any number of rows, one panel of outputs at a time.
//!
//! A tile is some rows of `x` by one panel: its accumulators stay in registers while k runs from
//! first to last. Every output therefore accumulates over k in one order, whatever the number of
//! rows: this is the row invariance of the linear layers.
//!
//! Cost: a tile of R rows makes 2·R products per word of k from 2 loads of weights and R
//! broadcasts. With one row that reads weights as fast as memory gives them; with
//! [`Isa::GEMM_ROWS`] rows arithmetic is the limit.

use super::matrix::PANEL;
use super::simd::{Element, Isa, LANES};

/// Where a tile's results go.
#[derive(Clone, Copy)]
pub(super) enum Sink {
    /// f32 rows: `out = x Wᵀ + bias`; bias is padded to whole panels, or null.
    Store { out: *mut f32, bias: *const f32 },
    /// f32 rows: `out += x Wᵀ`.
    Add { out: *mut f32 },
    /// Operand rows: `out = silu(gate) · up`.
    SiluMul { out: *mut u32 },
}

/// One product; strides in words.
#[derive(Clone, Copy)]
pub(super) struct Gemm {
    pub(super) x: *const u32,
    pub(super) x_stride: usize,
    pub(super) n_rows: usize,
    pub(super) weights: *const u32,
    pub(super) k_words: usize,
    pub(super) out_stride: usize,
    pub(super) sink: Sink,
}

// SAFETY: units write different panels of `out` and only read the rest.
unsafe impl Sync for Gemm {}

/// Multiplies all rows by the panels `panels`.
///
/// # Safety
///
/// The pointers of `g` must be valid for its shapes (output rows padded to whole panels), no other
/// thread may write the same panels, and the CPU must have the instruction set.
#[inline(always)]
pub(super) unsafe fn multiply_panels<I: Isa, E: Element>(g: &Gemm, panels: std::ops::Range<usize>) {
    for panel in panels {
        let mut row = 0;
        while row < g.n_rows {
            let n = (g.n_rows - row).min(I::GEMM_ROWS);
            // SAFETY: passed on to the caller.
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
}

#[inline(always)]
unsafe fn tile<I: Isa, E: Element, const R: usize>(g: &Gemm, panel: usize, row: usize) {
    if R > I::GEMM_ROWS {
        return;
    }
    // SAFETY: `row + R <= n_rows` and `panel` is a panel of the weights, so every pointer below
    // stays inside what the caller vouches for.
    unsafe {
        let mut w = g.weights.add(panel * PANEL * g.k_words);
        let x: [*const u32; R] = std::array::from_fn(|r| g.x.add((row + r) * g.x_stride));
        let mut acc = [[I::splat(0.0); 2]; R];
        for k in 0..g.k_words {
            // One panel row ahead by a few hundred cycles: the hardware's own prefetcher stops at
            // page borders and needs a while to start on a new panel.
            I::prefetch(w.wrapping_add(PREFETCH_WORDS).cast());
            I::prefetch(w.wrapping_add(PREFETCH_WORDS + LANES).cast());
            let w0 = I::load_words(w);
            let w1 = I::load_words(w.add(LANES));
            w = w.add(PANEL);
            for r in 0..R {
                let x = I::splat_word(*x[r].add(k));
                acc[r][0] = E::dot::<I>(acc[r][0], w0, x);
                acc[r][1] = E::dot::<I>(acc[r][1], w1, x);
            }
        }
        for (r, [first, second]) in acc.into_iter().enumerate() {
            let at = (row + r) * g.out_stride;
            match g.sink {
                Sink::Store { out, bias } => {
                    let out = out.add(at + panel * PANEL);
                    let (mut first, mut second) = (first, second);
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
                Sink::SiluMul { out } => {
                    E::store::<I>(out.add(at), panel * LANES, I::mul(silu::<I>(first), second));
                }
            }
        }
    }
}

/// How far ahead of the products weights are asked for, in words: 8 KiB.
const PREFETCH_WORDS: usize = 2048;

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
