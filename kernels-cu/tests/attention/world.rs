//! Sequences in a paged pool full of poison, and the tokens that their rows attend to.

use galley_kernels_cu::bindings::{
    GK_SELECTED_BLOCKS, GK_SELECTED_NONE, GK_SELECTED_TOKENS, gk_kv,
};
use std::ptr;

const K_STEP: usize = galley_kernels_cu::bindings::GK_K_STEP as usize;
/// A bf16 NaN: any result that includes it is NaN.
pub(crate) const POISON: u16 = 0x7fc0;

/// The shape of the attention of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) block_size: usize,
    /// Blocks in the place of one target block, for a draft model that shares the pool; otherwise 1.
    pub(crate) draft_layouts: usize,
}

impl Shape {
    pub(crate) const fn new(n_heads: usize, n_kv_heads: usize, head_dim: usize) -> Self {
        Self { n_heads, n_kv_heads, head_dim, block_size: 16, draft_layouts: 1 }
    }

    pub(crate) fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    pub(crate) fn stride(&self) -> usize {
        (self.n_heads * self.head_dim).next_multiple_of(K_STEP)
    }

    pub(crate) fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

const N_LAYERS: usize = 2;
const LAYER: usize = 1;

/// Selected ids: none, one run for all layers and heads, or one run for each.
#[derive(Clone, Debug)]
pub(crate) enum Selected {
    None,
    Blocks(Vec<Vec<u32>>),
    Tokens(Vec<Vec<u32>>),
}

/// Consecutive rows of a sequence, and their view.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    pub(crate) sequence: usize,
    pub(crate) first: usize,
    pub(crate) n: usize,
    pub(crate) tail_start: usize,
    pub(crate) selected: Selected,
}

impl Rows {
    pub(crate) fn full(sequence: usize, first: usize, n: usize) -> Self {
        Self { sequence, first, n, tail_start: 0, selected: Selected::None }
    }

    pub(crate) fn runs(&self) -> (u32, &[Vec<u32>]) {
        match &self.selected {
            Selected::None => (GK_SELECTED_NONE, &[]),
            Selected::Blocks(runs) => (GK_SELECTED_BLOCKS, runs),
            Selected::Tokens(runs) => (GK_SELECTED_TOKENS, runs),
        }
    }

    /// Positions selected for a KV head of `LAYER`.
    pub(crate) fn selected_positions(&self, shape: &Shape, kv_head: usize) -> Vec<usize> {
        let (kind, runs) = self.runs();
        let run = if runs.len() > 1 { LAYER * shape.n_kv_heads + kv_head } else { 0 };
        let ids = runs.get(run).map_or(&[][..], Vec::as_slice).iter().map(|&id| id as usize);
        let size = if kind == GK_SELECTED_BLOCKS { shape.block_size } else { 1 };
        ids.flat_map(|id| id * size..(id + 1) * size).collect()
    }
}

/// The distribution of keys and values.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Data {
    Plain,
    /// Before position `below`, seven of eight tokens have large values and, half a period later,
    /// an opposite: the same key and negated values. An output keeps only the rounding errors of
    /// their sums, so that another order of summation shows.
    Cancelling {
        below: usize,
    },
}

/// The period of the large values, in tokens.
pub(crate) const PERIOD: usize = 192;

/// Reproducible random numbers.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) as usize * n) >> 32
    }

    /// A bf16 of about unit variance, by its bits.
    fn value(&mut self) -> u16 {
        let sum: usize = (0..4).map(|_| self.below(4096)).sum();
        let value = (sum as f32 / 4096.0 - 2.0) * 1.7;
        (value.to_bits() >> 16) as u16
    }
}

pub(crate) fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// bf16 values, aligned to 16 bytes.
pub(crate) struct Values(Vec<u128>);

impl Values {
    pub(crate) fn new(n: usize, fill: u16) -> Self {
        let eight = (0..8).fold(0, |all, _| all << 16 | u128::from(fill));
        Self(vec![eight; n.div_ceil(8)])
    }

    pub(crate) fn bits(&self) -> &[u16] {
        // SAFETY: each element holds eight values, and any bits are valid values.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * 8) }
    }

    pub(crate) fn bits_mut(&mut self) -> &mut [u16] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * 8) }
    }
}

/// Sequences with known keys, values and queries at all positions, in a pool full of poison.
pub(crate) struct World {
    pub(crate) shape: Shape,
    pub(crate) window: usize,
    pub(crate) pool: Values,
    pub(crate) kv: gk_kv,
    /// The block table of each sequence. `queries` has a run of `stride` values for each position.
    pub(crate) tables: Vec<Vec<u32>>,
    pub(crate) queries: Vec<Vec<u16>>,
}

impl World {
    pub(crate) fn new(shape: Shape, lengths: &[usize], window: usize, data: Data) -> Self {
        let mut random = Random::new(lengths.len() as u64 + window as u64);
        let Shape { n_kv_heads, head_dim, block_size, draft_layouts, .. } = shape;
        let blocks_of = |length: &usize| length.div_ceil(block_size);
        let arena_blocks =
            (lengths.iter().map(blocks_of).sum::<usize>() + 3).div_ceil(draft_layouts);
        let block_stride = block_size * head_dim;
        // Each arena is followed by unused room, as the arenas of a shared pool may be.
        let values_at = arena_blocks * block_stride + 64;
        let arena_stride = 2 * values_at;
        let n_arenas = N_LAYERS * n_kv_heads * draft_layouts;
        let mut pool = Values::new(n_arenas * arena_stride, POISON);
        let kv = gk_kv {
            base: ptr::null_mut(),
            arena_stride: arena_stride as i64,
            values_at: values_at as i64,
            block_stride: block_stride as i64,
            arena_blocks: arena_blocks as i32,
            n_layers: N_LAYERS as i32,
            n_kv_heads: n_kv_heads as i32,
            head_dim: head_dim as i32,
            block_size: block_size as i32,
            layer: LAYER as i32,
        };
        let mut free: Vec<u32> = (0..(arena_blocks * draft_layouts) as u32).collect();
        let mut world =
            Self { shape, window, pool: Values::new(0, 0), kv, tables: vec![], queries: vec![] };
        for length in lengths {
            let n_blocks = blocks_of(length);
            let table: Vec<_> =
                (0..n_blocks).map(|_| free.swap_remove(random.below(free.len()))).collect();
            world.tables.push(table);
            let sequence = world.tables.len() - 1;
            let below = if let Data::Cancelling { below } = data { below } else { 0 };
            for position in 0..*length {
                let large = position < below && position % 8 != 0;
                for kv_head in 0..n_kv_heads {
                    let key = world.key_at(sequence, kv_head, position);
                    for (at, flip) in [(key, 0), (key + values_at, 0x8000)] {
                        let to = at..at + head_dim;
                        if large && position % PERIOD >= PERIOD / 2 {
                            let before = world.key_at(sequence, kv_head, position - PERIOD / 2);
                            pool.bits_mut()
                                .copy_within(before + at - key..before + at - key + head_dim, at);
                            pool.bits_mut()[to].iter_mut().for_each(|bits| *bits ^= flip);
                            continue;
                        }
                        // Multiplied by 2^16, through the exponent.
                        let more = if large && flip != 0 { 16 << 7 } else { 0 };
                        pool.bits_mut()[to].fill_with(|| random.value() + more);
                    }
                }
            }
            // An operand row is zero beyond its columns.
            let mut queries = vec![0; length * shape.stride()];
            for row in queries.chunks_exact_mut(shape.stride()) {
                row[..shape.n_heads * head_dim].fill_with(|| random.value());
            }
            world.queries.push(queries);
        }
        world.pool = pool;
        world
    }

    pub(crate) fn key_at(&self, sequence: usize, kv_head: usize, position: usize) -> usize {
        let Shape { n_kv_heads, head_dim, block_size, .. } = self.shape;
        let arena_blocks = self.kv.arena_blocks as usize;
        let block = self.tables[sequence][position / block_size] as usize;
        let arena = (block / arena_blocks * N_LAYERS + LAYER) * n_kv_heads + kv_head;
        arena * self.kv.arena_stride as usize
            + (block % arena_blocks * block_size + position % block_size) * head_dim
    }

    pub(crate) fn query(&self, sequence: usize, position: usize) -> &[u16] {
        &self.queries[sequence][position * self.shape.stride()..][..self.shape.stride()]
    }
}
