//! Attention of a batch as units of work.

use crate::checks::check_view;
use crate::cpu::attention::{
    AttentionScratch, Call, MAX_ROWS, QueryRows, SPLIT_TOKENS, SoftmaxState,
};
use crate::cpu::buffer::DisjointPtr;
use crate::cpu::kept::Kept;
use crate::cpu::kv::{GROUP, TILE};
use crate::cpu::observe::{KeptStates, Observed, Observing};
use crate::cpu::{CpuBackend, KvPool, Tensor};
use crate::shapes::{RowKind, check_queries};
use crate::{AttentionParams, BackendError, Batch, KvShape, OperandFormat, Result};

impl CpuBackend {
    /// An attention call over `layer` of `pool` for the first `n_rows` rows of `q`, without an output.
    pub(in crate::cpu) fn call(
        &mut self,
        op: &'static str,
        q: &Tensor,
        n_rows: usize,
        pool: &KvPool,
        layer: usize,
        params: AttentionParams,
    ) -> Result<Call> {
        let KvShape { n_kv_heads, head_dim, block_size, .. } = pool.shape;
        let n_heads = check_queries(op, &q.shape, n_rows, (layer, &pool.shape))?;
        self.check_query_format(op, q)?;
        let k_words = q.shape.cols / self.formats.operands.per_word();
        let (queries, q_stride) = self.multipliers(q, n_rows, k_words);
        Ok(Call {
            q: queries,
            q_stride,
            out: std::ptr::null_mut(),
            out_stride: 0,
            out_is_f32: false,
            kv: pool.words.as_ptr(),
            layout: pool.layout,
            layer,
            head_dim,
            group_size: n_heads / n_kv_heads,
            groups_per_block: block_size / GROUP,
            scale: params.scale,
            window: params.window,
        })
    }

    /// The call for the attention of `batch`, with checked views and the output `out`.
    pub(in crate::cpu) fn attention_call(
        &mut self,
        q: &Tensor,
        pool: &KvPool,
        layer: usize,
        batch: &Batch<'_>,
        params: AttentionParams,
        out: &mut Tensor,
    ) -> Result<Call> {
        const OP: &str = "attention";
        let n_rows = batch.tokens.len();
        out.shape.expect(OP, RowKind::Operand, n_rows, q.shape.cols)?;
        let call = self.call(OP, q, n_rows, pool, layer, params)?;
        for seq in batch.seqs {
            check_view(OP, seq, batch, &pool.shape, layer)?;
        }
        Ok(Call {
            out_stride: out.stride,
            out: out.words.as_mut_ptr(),
            out_is_f32: out.format == OperandFormat::F32,
            ..call
        })
    }

    /// Fails unless `q` was allocated for queries.
    pub(super) fn check_query_format(&self, op: &'static str, q: &Tensor) -> Result<()> {
        if q.format == self.formats.operands {
            return Ok(());
        }
        let (expected, got) = (self.formats.operands.to_string(), q.format.to_string());
        Err(BackendError::Shape { op, expected: format!("queries in {expected}"), got })
    }

    /// Attends the rows of `batch` over `n_kv_heads` KV heads, and selects what `observed` asks for.
    /// Views, shapes and observations are checked.
    pub(in crate::cpu) fn attend_all(
        &mut self,
        call: &Call,
        batch: &Batch<'_>,
        n_kv_heads: usize,
        observed: &Observed<'_>,
    ) {
        let memory = &mut self.attention;
        let shape = (call.head_dim, call.group_size);
        let kept = memory.scratch.iter().position(|(kept, _)| *kept == shape);
        let at = kept.unwrap_or_else(|| {
            let new = || AttentionScratch::new(&call.layout, call.group_size);
            let of_threads = (0..self.threads.n_threads()).map(|_| new()).collect();
            memory.scratch.push((shape, of_threads));
            memory.scratch.len() - 1
        });
        let Passes { whole, split, n_states } = Passes::of(call, batch, n_kv_heads, observed);
        if memory.states.len() < n_states {
            memory.states.resize(n_states, 0.0);
        }
        // A unit is a run of tiles: short enough for threads to finish together, long enough to stream.
        let all_tiles: usize = split.iter().map(|pass| pass.n_tiles).sum();
        let run = (all_tiles / (self.threads.n_at_once() * 8)).clamp(1, 16);
        let units: Vec<(usize, usize)> = split
            .iter()
            .enumerate()
            .flat_map(|(i, pass)| (0..pass.n_tiles).step_by(run).map(move |tile| (i, tile)))
            .collect();
        let scratch = DisjointPtr::of(&mut memory.scratch[at].1);
        let states = DisjointPtr::of(&mut memory.states);
        let kernels = self.kernels;
        // Bound of a unit's work: the largest state of one tile, times the number of tiles of the
        // longest unit.
        let state_work = MAX_ROWS.max(call.group_size) * TILE * 2 * call.head_dim;
        let longest = whole.iter().map(|rows| rows.n_tiles(call)).max().unwrap_or(0);
        let unit_work = state_work * longest.max(if units.is_empty() { 0 } else { run });
        self.threads.for_each(whole.len() + units.len(), unit_work, |unit, thread| {
            // SAFETY: each thread has its own scratch; the caller has checked views and shapes;
            // units write disjoint rows, heads and states.
            unsafe {
                let scratch = &mut *scratch.ptr().add(thread);
                if let Some(rows) = whole.get(unit) {
                    return (kernels.attend)(call, rows, scratch);
                }
                let (i, first) = units[unit - whole.len()];
                let SplitPass { rows, first_state, state_len, n_tiles, .. } = &split[i];
                let end = (first + run).min(*n_tiles);
                for tile in first..end {
                    let at = states.ptr().add(first_state + tile * state_len);
                    let values = std::slice::from_raw_parts_mut(at, *state_len);
                    let n_rows = rows.n_tokens * call.group_size;
                    let mut state = SoftmaxState::over(values, n_rows, call.layout.padded_dim);
                    (kernels.tile_state)(call, rows, (tile, end), scratch, &mut state);
                }
            }
        });
        let observers = DisjointPtr::of(&mut self.observers);
        let per_unit = split.len().div_ceil(self.threads.n_at_once()).max(1);
        let unit_work = split.iter().map(SplitPass::n_floats).max().unwrap_or(0);
        self.threads.for_each(
            split.len().div_ceil(per_unit),
            per_unit * unit_work,
            |unit, thread| {
                for pass in split.iter().skip(unit * per_unit).take(per_unit) {
                    // SAFETY: as above.
                    unsafe {
                        let at = states.ptr().add(pass.first_state);
                        let values = std::slice::from_raw_parts_mut(at, pass.n_floats());
                        let scratch = &mut *scratch.ptr().add(thread);
                        (kernels.merge_states)(call, &pass.rows, values, scratch);
                        if let Some(observing) = pass.observing {
                            let observer = &mut *observers.ptr().add(thread);
                            let from = pass.kept_states(call, values, scratch);
                            observer.clear_sums(from.kept.unit, from.first_tile + pass.n_tiles);
                            (kernels.add_kept)(&from, &mut observer.sums);
                            observing.select(pass.rows.kv_head, observer);
                        }
                    }
                }
            },
        );
    }
}

/// The passes of a batch: rows of one sequence and one KV head each.
#[derive(Default)]
struct Passes<'a> {
    /// Passes that are one unit each. The longest come first, so that threads finish together.
    whole: Vec<QueryRows<'a>>,
    /// Passes whose tiles are spread over units.
    split: Vec<SplitPass<'a>>,
    /// f32 values of all states of split passes.
    n_states: usize,
}

/// A pass whose tiles have a state each, which are merged when all are computed.
struct SplitPass<'a> {
    rows: QueryRows<'a>,
    /// Index of the first state in the memory for states.
    first_state: usize,
    /// f32 values of one state.
    state_len: usize,
    n_tiles: usize,
    /// The observation whose rows the states keep.
    observing: Option<&'a Observing<'a>>,
}

impl SplitPass<'_> {
    /// f32 values of all states.
    fn n_floats(&self) -> usize {
        self.state_len * self.n_tiles
    }

    /// The pass's states, which `scratch` has just merged.
    fn kept_states<'s>(
        &self,
        call: &Call,
        states: &'s [f32],
        scratch: &'s AttentionScratch,
    ) -> KeptStates<'s> {
        KeptStates {
            states,
            padded_dim: call.layout.padded_dim,
            first_tile: self.rows.first_tail_tile(call),
            kept: self.rows.kept,
            merged: scratch.merged(self.rows.n_tokens * call.group_size),
            scale: call.scale,
        }
    }
}

impl<'a> Passes<'a> {
    fn of(call: &Call, batch: &Batch<'a>, n_kv_heads: usize, observed: &Observed<'a>) -> Self {
        let mut passes = Passes::default();
        let per_pass = call.tokens_per_pass();
        for (at, seq) in batch.seqs.iter().enumerate() {
            for first in (0..seq.n_rows).step_by(per_pass) {
                let observed = observed.by(call, at, first..first + per_pass);
                for kv_head in 0..n_kv_heads {
                    let rows = QueryRows {
                        first_row: seq.first_row + first,
                        first_position: batch.positions[seq.first_row + first],
                        n_tokens: per_pass.min(seq.n_rows - first),
                        kv_head,
                        block_table: seq.block_table,
                        view: seq.view,
                        kept: observed.map_or_else(Kept::default, |(_, kept)| kept),
                    };
                    if seq.n_rows > SPLIT_TOKENS {
                        passes.whole.push(rows);
                        continue;
                    }
                    let n_rows = rows.n_tokens * call.group_size;
                    let state_len =
                        SoftmaxState::len(n_rows, call.layout.padded_dim) + rows.kept.len();
                    let (first_state, n_tiles) = (passes.n_states, rows.n_tiles(call));
                    let observing = observed.map(|(observing, _)| observing);
                    let pass = SplitPass { rows, first_state, state_len, n_tiles, observing };
                    passes.n_states += pass.n_floats();
                    passes.split.push(pass);
                }
            }
        }
        passes.whole.sort_by_key(|rows| std::cmp::Reverse(rows.first_position));
        passes
    }
}
