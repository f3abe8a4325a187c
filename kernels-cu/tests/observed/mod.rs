//! Sequences in a paged pool, observations of their last rows, and the expected results in float64 and by sorting.

use crate::paged::{Numbers, Pool, from_bf16, stride, to_bf16};
use galley_kernels_cu::bindings::*;
use galley_kernels_cu::emulated;
use std::ops::Range;
use std::ptr::{null, null_mut};

pub(crate) const LAYER: usize = 1;
const TILE: usize = GK_OBSERVED_TILE as usize;

/// An observation of the last rows of a sequence.
#[derive(Clone, Debug)]
pub(crate) struct SelectionCase {
    pub(crate) seq: usize,
    pub(crate) n_rows: usize,
    pub(crate) candidates: Range<usize>,
    pub(crate) is_blocks: bool,
    pub(crate) n_selected: usize,
    pub(crate) pool: u32,
    pub(crate) pool_width: usize,
}

impl SelectionCase {
    pub(crate) fn new(
        seq: usize,
        n_rows: usize,
        candidates: Range<usize>,
        n_selected: usize,
    ) -> Self {
        let (is_blocks, pool, pool_width) = (false, GK_POOL_NONE, 0);
        Self { seq, n_rows, candidates, is_blocks, n_selected, pool, pool_width }
    }
}

/// Entries that must stay unwritten behind the memory of each observation.
const GUARD: usize = 4;

/// The arrays of a batch that an observation reads.
struct Batch {
    seqs: Vec<gk_seq>,
    q: Vec<gk_bf16>,
    block_tables: Vec<u32>,
}

/// The arrays that an observation writes.
struct Memory {
    scores: Vec<f32>,
    stats: Vec<f32>,
    out: Vec<u32>,
}

/// For each KV head: the sums of the candidates, and the selected ids.
pub(crate) type Answer = Vec<(Vec<f32>, Vec<u32>)>;

/// Sequences with their keys in a pool. Memory that no sequence owns is NaN.
pub(crate) struct World {
    pub(crate) n_heads: usize,
    pub(crate) lens: Vec<usize>,
    pub(crate) tables: Vec<Vec<u32>>,
    /// Queries of each sequence, one row a position.
    pub(crate) queries: Vec<Vec<gk_bf16>>,
    pub(crate) pool: Pool,
}

impl World {
    pub(crate) fn new(
        numbers: &mut Numbers,
        (n_heads, n_kv_heads, head_dim): (usize, usize, usize),
        lens: &[usize],
    ) -> Self {
        let block_size = [16, 32, 48][numbers.below(3)];
        let n_each: Vec<_> = lens.iter().map(|len| len.div_ceil(block_size)).collect();
        let n_blocks = n_each.iter().sum::<usize>() + 3;
        let mut pool =
            Pool::new((3, n_kv_heads, head_dim), block_size, n_blocks, numbers.below(2) == 0);
        let mut blocks = numbers.shuffled(n_blocks).into_iter();
        let tables: Vec<Vec<_>> =
            n_each.iter().map(|&n| blocks.by_ref().take(n).collect()).collect();
        for (len, table) in lens.iter().zip(&tables) {
            for position in 0..*len {
                let slot =
                    table[position / block_size] as usize * block_size + position % block_size;
                for head in 0..n_kv_heads {
                    let at = pool.key_at(LAYER, head, slot);
                    pool.memory[at..at + head_dim].fill_with(|| to_bf16(numbers.normal()));
                }
            }
        }
        let queries = lens.iter().map(|len| {
            let normals = numbers.normals(len * n_heads * head_dim);
            normals.into_iter().map(to_bf16).collect()
        });
        let queries = queries.collect();
        Self { n_heads, lens: lens.to_vec(), tables, queries, pool }
    }

    pub(crate) fn scale(&self) -> f32 {
        1.3 / (self.pool.shape.head_dim as f32).sqrt()
    }

    pub(crate) fn key(&self, seq: usize, head: usize, position: usize) -> &[gk_bf16] {
        let size = self.pool.shape.block_size as usize;
        self.pool.key(
            LAYER,
            head,
            self.tables[seq][position / size] as usize * size + position % size,
        )
    }

    /// Makes all observations in one call, with the last `rows[seq]` rows of each sequence; `change` may spoil it.
    pub(crate) fn ask_as(
        &mut self,
        rows: &[usize],
        selection_cases: &[SelectionCase],
        window: usize,
        change: &dyn Fn(&mut gk_observation, &mut gk_observe),
    ) -> Result<Vec<Answer>, i32> {
        let batch = self.last_rows(rows);
        let (mut observations, mut memory) = self.observations(rows, selection_cases);
        let longest = selection_cases.iter().map(|q| self.lens[q.seq]).max().unwrap_or(1);
        let mut call = gk_observe {
            q: batch.q.as_ptr(),
            observations: null(),
            host_observations: null(),
            scores: memory.scores.as_mut_ptr(),
            stats: memory.stats.as_mut_ptr(),
            out: memory.out.as_mut_ptr(),
            batch: gk_batch {
                tokens: null(),
                positions: null(),
                slots: null(),
                seqs: batch.seqs.as_ptr(),
                block_tables: batch.block_tables.as_ptr(),
                selected: null(),
                n_rows: rows.iter().sum::<usize>() as i32,
                n_seqs: batch.seqs.len() as i32,
            },
            kv: self.pool.of_layer(LAYER),
            q_stride: stride(self.width()) as i64,
            n_heads: self.n_heads as i32,
            n_observations: observations.len() as i32,
            max_positions: longest as i32,
            scale: self.scale(),
            window: window as i32,
        };
        change(&mut observations[0], &mut call);
        call.observations = observations.as_ptr();
        call.host_observations = observations.as_ptr();
        // SAFETY: the buffers are as long as the header says, or the call is refused.
        let error = unsafe { emulated().observe.unwrap()(&call, null_mut()) };
        if error != 0 {
            return Err(error);
        }
        let asked = selection_cases.iter().zip(&observations);
        Ok(asked.map(|(case, observation)| self.answer(case, observation, &memory)).collect())
    }

    /// The values of a row of queries.
    fn width(&self) -> usize {
        self.n_heads * self.pool.shape.head_dim as usize
    }

    /// A batch with the last `rows[seq]` rows of each sequence.
    fn last_rows(&self, rows: &[usize]) -> Batch {
        let width = self.width();
        let mut batch = Batch { seqs: vec![], q: vec![], block_tables: vec![7; 5] };
        for (seq, &n) in rows.iter().enumerate() {
            let first = self.lens[seq] - n;
            batch.seqs.push(gk_seq {
                first_row: (batch.q.len() / stride(width)) as i32,
                n_rows: n as i32,
                first_position: first as i32,
                tail_start: first as i32, // views do not matter
                block_table: batch.block_tables.len() as i32,
                selected_kind: GK_SELECTED_NONE as i32,
                n_selected: 0,
                selected_per_head: 0,
                selected: 0,
            });
            batch.block_tables.extend(&self.tables[seq]);
            for row in self.queries[seq][first * width..].chunks(width) {
                batch.q.extend(row);
                batch.q.resize(batch.q.len().next_multiple_of(stride(width)), 0);
            }
        }
        batch
    }

    /// The observations of the call, and their memory. [`GUARD`] entries follow the memory of each observation.
    fn observations(
        &self,
        rows: &[usize],
        selection_cases: &[SelectionCase],
    ) -> (Vec<gk_observation>, Memory) {
        let n_kv_heads = self.pool.shape.n_kv_heads as usize;
        let (mut n_scores, mut n_stats, mut n_out) = (GUARD, GUARD, GUARD);
        let observations = selection_cases.iter().map(|case| {
            let (n_queries, n_planes, n_tiles) = self.sizes(case);
            let (scores, stats, out) = (n_scores, n_stats, n_out);
            n_scores += n_kv_heads * n_planes * n_tiles * TILE + GUARD;
            n_stats += n_kv_heads * n_queries * (n_tiles + 1) * 2 + GUARD;
            n_out += n_kv_heads * case.n_selected + GUARD;
            gk_observation {
                seq: case.seq as i32,
                first_row: (rows[case.seq] - case.n_rows) as i32,
                n_rows: case.n_rows as i32,
                first_candidate: case.candidates.start as i32,
                n_candidates: case.candidates.len() as i32,
                granularity: if case.is_blocks { self.pool.shape.block_size } else { 1 },
                n_selected: case.n_selected as i32,
                pool: case.pool as i32,
                pool_width: case.pool_width as i32,
                reserved: 0,
                scores: scores as i64,
                stats: stats as i64,
                out: out as i64,
            }
        });
        let observations = observations.collect();
        let (scores, stats) = (vec![f32::NAN; n_scores], vec![f32::NAN; n_stats]);
        (observations, Memory { scores, stats, out: vec![u32::MAX; n_out] })
    }

    /// Numbers of query rows, of planes of scores for each KV head, and of tiles.
    fn sizes(&self, case: &SelectionCase) -> (usize, usize, usize) {
        let n_queries = case.n_rows * self.n_heads / self.pool.shape.n_kv_heads as usize;
        let n_planes = if n_queries <= GK_KEPT_QUERIES as usize { n_queries + 1 } else { 2 };
        (n_queries, n_planes, (self.lens[case.seq] - 1) / TILE + 1)
    }

    /// The answer to one observation. Fails if the call has written to its guards.
    fn answer(
        &self,
        case: &SelectionCase,
        observation: &gk_observation,
        memory: &Memory,
    ) -> Answer {
        let n_kv_heads = self.pool.shape.n_kv_heads as usize;
        let (n_queries, n_planes, n_tiles) = self.sizes(case);
        let of_head = |head: usize| {
            let sums = observation.scores as usize + head * n_planes * n_tiles * TILE;
            let ids = observation.out as usize + head * case.n_selected;
            (
                memory.scores[sums..][case.candidates.clone()].to_vec(),
                memory.out[ids..][..case.n_selected].to_vec(),
            )
        };
        let end = observation.out as usize + n_kv_heads * case.n_selected;
        assert_eq!(memory.out[end..][..GUARD], [u32::MAX; GUARD]);
        let end = observation.scores as usize + n_kv_heads * n_planes * n_tiles * TILE;
        assert!(memory.scores[end..][..GUARD].iter().all(|x| x.is_nan()));
        let end = observation.stats as usize + n_kv_heads * n_queries * (n_tiles + 1) * 2;
        assert!(memory.stats[end..][..GUARD].iter().all(|x| x.is_nan()));
        (0..n_kv_heads).map(of_head).collect()
    }

    pub(crate) fn ask(
        &mut self,
        rows: &[usize],
        selection_cases: &[SelectionCase],
        window: usize,
    ) -> Vec<Answer> {
        self.ask_as(rows, selection_cases, window, &|_, _| {}).unwrap()
    }

    /// The sums of the candidates of a KV head in float64.
    pub(crate) fn sums(
        &self,
        selection_case: &SelectionCase,
        window: usize,
        kv_head: usize,
    ) -> Vec<f64> {
        let (dim, group) =
            (self.pool.shape.head_dim as usize, self.n_heads / self.pool.shape.n_kv_heads as usize);
        let len = self.lens[selection_case.seq];
        let mut sums = vec![0.0; len];
        for position in len - selection_case.n_rows..len {
            let first = if window > 0 { (position + 1).saturating_sub(window) } else { 0 };
            for head in kv_head * group..(kv_head + 1) * group {
                let q = &self.queries[selection_case.seq][(position * self.n_heads + head) * dim..]
                    [..dim];
                let score = |at: usize| {
                    let products = q.iter().zip(self.key(selection_case.seq, kv_head, at));
                    let dot: f64 = products
                        .map(|(&q, &k)| f64::from(from_bf16(q)) * f64::from(from_bf16(k)))
                        .sum();
                    dot * f64::from(self.scale())
                };
                let scores: Vec<f64> = (first..=position).map(score).collect();
                let max = scores.iter().copied().fold(f64::MIN, f64::max);
                let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                for (sum, s) in sums[first..].iter_mut().zip(&scores) {
                    *sum += (s - max).exp() / total;
                }
            }
        }
        sums[selection_case.candidates.clone()].to_vec()
    }

    pub(crate) fn block_size(&self) -> usize {
        self.pool.shape.block_size as usize
    }
}

pub(crate) fn are_close(got: &[f32], expected: &[f64]) -> bool {
    let near = |(&got, &x): (&f32, &f64)| (f64::from(got) - x).abs() <= x * 1e-4;
    got.len() == expected.len() && got.iter().zip(expected).all(near)
}

/// The ids that sorting selects.
pub(crate) fn highest(sums: &[f32], selection_case: &SelectionCase, block_size: usize) -> Vec<u32> {
    let params = selection_case.pool_width / 2;
    let near = |i: usize| &sums[i.saturating_sub(params)..(i + params + 1).min(sums.len())];
    let scores: Vec<f32> = match selection_case.pool {
        _ if selection_case.is_blocks => {
            sums.chunks(block_size).map(|block| block.iter().sum()).collect()
        }
        GK_POOL_AVERAGE => (0..sums.len())
            .map(|i| near(i).iter().sum::<f32>() / selection_case.pool_width as f32)
            .collect(),
        GK_POOL_MAX => {
            (0..sums.len()).map(|i| near(i).iter().copied().fold(0.0, f32::max)).collect()
        }
        _ => sums.to_vec(),
    };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    let first =
        selection_case.candidates.start / if selection_case.is_blocks { block_size } else { 1 };
    let mut ids: Vec<u32> =
        order[..selection_case.n_selected].iter().map(|i| (first + i) as u32).collect();
    ids.sort_unstable();
    ids
}
