//! Numbers, bf16 and a paged pool of keys and values for tests of kernels. "Device memory" is ordinary memory here.

#![allow(dead_code, reason = "no test uses all of it")]

use galley_kernels_cu::bindings::{GK_K_STEP, gk_bf16, gk_kv};

/// A seeded generator of numbers (splitmix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Approximately normal, with a variance of one.
    pub(crate) fn normal(&mut self) -> f32 {
        let sum: f64 = (0..12).map(|_| (self.bits() >> 11) as f64 / (1_u64 << 53) as f64).sum();
        (sum - 6.0) as f32
    }

    pub(crate) fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal()).collect()
    }

    /// The numbers 0 to n - 1 in random order.
    pub(crate) fn shuffled(&mut self, n: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            all.swap(i, self.below(i + 1));
        }
        all
    }
}

pub(crate) const NAN: gk_bf16 = 0x7fc0;

pub(crate) fn to_bf16(x: f32) -> gk_bf16 {
    let bits = x.to_bits();
    assert!(!x.is_nan());
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as gk_bf16
}

pub(crate) fn from_bf16(x: gk_bf16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// The stride of operand rows of `n` values.
pub(crate) fn stride(n: usize) -> usize {
    n.next_multiple_of(GK_K_STEP as usize)
}

/// Keys and values of a model, in arenas that may belong to a larger model. Unwritten memory is NaN.
pub(crate) struct Pool {
    pub(crate) memory: Vec<gk_bf16>,
    pub(crate) shape: gk_kv,
}

impl Pool {
    /// A pool of `n_blocks`. With `aliased`, it shares a target's pool: three blocks lie in one target block's place.
    pub(crate) fn new(
        (n_layers, n_kv_heads, head_dim): (usize, usize, usize),
        block_size: usize,
        n_blocks: usize,
        aliased: bool,
    ) -> Self {
        let arena_blocks = if aliased { n_blocks.div_ceil(3) } else { n_blocks };
        let block_stride = block_size * head_dim + if aliased { 64 } else { 0 };
        let values_at = arena_blocks * block_stride;
        let n_arenas = n_layers * n_kv_heads * n_blocks.div_ceil(arena_blocks);
        let memory = vec![NAN; n_arenas * 2 * values_at];
        let shape = gk_kv {
            base: std::ptr::null_mut(),
            arena_stride: 2 * values_at as i64,
            values_at: values_at as i64,
            block_stride: block_stride as i64,
            arena_blocks: arena_blocks as i32,
            n_layers: n_layers as i32,
            n_kv_heads: n_kv_heads as i32,
            head_dim: head_dim as i32,
            block_size: block_size as i32,
            layer: 0,
        };
        Self { memory, shape }
    }

    /// The pool, for a call about `layer`.
    pub(crate) fn of_layer(&mut self, layer: usize) -> gk_kv {
        gk_kv { base: self.memory.as_mut_ptr(), layer: layer as i32, ..self.shape }
    }

    /// Index in `memory` of the key of a slot, by the formula of the header.
    pub(crate) fn key_at(&self, layer: usize, kv_head: usize, slot: usize) -> usize {
        let kv = &self.shape;
        let (block, slot) = (slot / kv.block_size as usize, slot % kv.block_size as usize);
        let (n_heads, arena_blocks) = (kv.n_kv_heads as usize, kv.arena_blocks as usize);
        let arena =
            layer * n_heads + kv_head + block / arena_blocks * kv.n_layers as usize * n_heads;
        arena * kv.arena_stride as usize
            + block % arena_blocks * kv.block_stride as usize
            + slot * kv.head_dim as usize
    }

    pub(crate) fn key(&self, layer: usize, kv_head: usize, slot: usize) -> &[gk_bf16] {
        &self.memory[self.key_at(layer, kv_head, slot)..][..self.shape.head_dim as usize]
    }

    pub(crate) fn value(&self, layer: usize, kv_head: usize, slot: usize) -> &[gk_bf16] {
        let at = self.key_at(layer, kv_head, slot) + self.shape.values_at as usize;
        &self.memory[at..][..self.shape.head_dim as usize]
    }
}
