//! Rotary embedding, and storing keys and values in the pool.

use super::kv::{GROUP, Group, Layout, store_token};
use super::rows::{norm_head, rotate_head, to_operand};
use super::simd::{Element, Isa};
use crate::Rope;

/// Largest head dimension that the kernels' scratch holds.
pub(super) const MAX_HEAD_DIM: usize = 512;

/// Cosines and sines of a batch's positions, the same for every layer of a forward.
#[derive(Debug, Default)]
pub(super) struct Angles {
    positions: Vec<u32>,
    inv_freq: Vec<f32>,
    scale: f32,
    /// `positions × half` cosines, then as many sines.
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Angles {
    /// Computes the angles of `positions`, unless they are already there.
    pub(super) fn prepare(&mut self, rope: &Rope, positions: &[u32]) {
        if self.positions == positions
            && self.inv_freq == rope.inv_freq
            && self.scale == rope.attention_scale
        {
            return;
        }
        self.positions.clear();
        self.positions.extend_from_slice(positions);
        self.inv_freq.clone_from(&rope.inv_freq);
        self.scale = rope.attention_scale;
        self.cos.clear();
        self.sin.clear();
        for &position in positions {
            for &frequency in &rope.inv_freq {
                // In f32 like the reference implementation: models are trained with its rounding.
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                self.cos.push(cos * rope.attention_scale);
                self.sin.push(sin * rope.attention_scale);
            }
        }
    }

    fn row(&self, row: usize) -> (&[f32], &[f32]) {
        let half = self.inv_freq.len();
        (&self.cos[row * half..][..half], &self.sin[row * half..][..half])
    }
}

/// One call: turns rows `[q heads | k heads | v heads]` into rotated queries and stored keys and
/// values.
pub(super) struct RopeStore<'a> {
    /// f32 rows.
    pub(super) qkv: *const f32,
    pub(super) qkv_stride: usize,
    /// Operand rows.
    pub(super) q: *mut u32,
    pub(super) q_stride: usize,
    pub(super) n_heads: usize,
    pub(super) head_dim: usize,
    pub(super) angles: &'a Angles,
    /// Weights of the query and key norms, and their epsilon.
    pub(super) qk_norm: Option<(&'a [f32], &'a [f32], f32)>,
    /// Slot of each row; None if the slot holds the row's key and value already.
    pub(super) slots: &'a [Option<usize>],
    pub(super) kv: *mut u32,
    pub(super) layout: Layout,
    pub(super) layer: usize,
}

// SAFETY: units write the queries and slots of different rows.
unsafe impl Sync for RopeStore<'_> {}

/// Rotates and stores the rows `rows`.
///
/// # Safety
///
/// The pointers must be valid for the shapes, no other thread may handle the same rows or rows
/// with the same slots, and the CPU must have the instruction set.
#[inline(always)]
pub(super) unsafe fn rope_and_store<I: Isa, E: Element>(
    call: &RopeStore<'_>,
    rows: std::ops::Range<usize>,
) {
    let dim = call.head_dim;
    let n_kv_heads = call.layout.n_kv_heads;
    let mut scratch = [0.0_f32; MAX_HEAD_DIM];
    for row in rows {
        let (cos, sin) = call.angles.row(row);
        // SAFETY: the row lies in the tensor.
        let values = unsafe {
            let len = (call.n_heads + 2 * n_kv_heads) * dim;
            std::slice::from_raw_parts(call.qkv.add(row * call.qkv_stride), len)
        };
        let mut rotated = |head: usize, norm: Option<(&[f32], f32)>| {
            let out = &mut scratch[..dim];
            out.copy_from_slice(&values[head * dim..][..dim]);
            if let Some((weight, eps)) = norm {
                // SAFETY: guaranteed by the caller.
                unsafe { norm_head::<I>(out, weight, eps) };
            }
            rotate_head(out, cos, sin);
            scratch
        };
        for head in 0..call.n_heads {
            let out = rotated(head, call.qk_norm.map(|(q, _, eps)| (q, eps)));
            // SAFETY: the head lies in the row of queries.
            unsafe {
                let at = call.q.add(row * call.q_stride + head * dim / E::PER_WORD);
                to_operand::<I, E>(&out[..dim], at);
            }
        }
        let Some(slot) = call.slots[row] else { continue };
        for head in 0..n_kv_heads {
            let key = rotated(call.n_heads + head, call.qk_norm.map(|(_, k, eps)| (k, eps)));
            let value = &values[(call.n_heads + n_kv_heads + head) * dim..][..dim];
            // SAFETY: the slot lies in the pool, and this row alone writes it.
            unsafe {
                let (layer, at) = (call.layer, slot / GROUP);
                let group = Group {
                    keys: call.kv.add(call.layout.keys_at(layer, head, at)),
                    values: call.kv.add(call.layout.values_at(layer, head, at)),
                };
                store_token::<E>(group, &call.layout, slot % GROUP, &key[..dim], value);
            }
        }
    }
}
