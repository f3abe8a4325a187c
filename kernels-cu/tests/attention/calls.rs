//! Attention over a world with the emulated kernels: units, merges, the call.

use crate::world::{POISON, Rows, Values, World};
use galley_kernels_cu::bindings::{
    GK_PARTITION, gk_attention, gk_batch, gk_merge, gk_seq, gk_unit,
};
use std::ptr;

const PARTITION: usize = GK_PARTITION as usize;

/// The division of the work into units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) queries_per_unit: usize,
    /// Query rows of a unit: `queries_per_unit`, or fewer.
    pub(crate) step: usize,
    /// Units of one partition, merged afterwards; otherwise units that fold.
    pub(crate) split: bool,
}

impl Plan {
    pub(crate) const fn new(queries_per_unit: usize, split: bool) -> Self {
        Self { queries_per_unit, step: queries_per_unit, split }
    }
}

impl World {
    /// The outputs of all rows by the emulated kernels, in the order of `batch`.
    pub(crate) fn attend(&mut self, batch: &[Rows], plan: Plan) -> Vec<Vec<u16>> {
        let shape = self.shape;
        let (mut seqs, mut tables, mut selected) = (vec![], vec![], vec![]);
        let n_rows: usize = batch.iter().map(|rows| rows.n).sum();
        let mut q = Values::new(n_rows * shape.stride(), POISON);
        let mut row = 0;
        for rows in batch {
            let (kind, runs) = rows.runs();
            seqs.push(gk_seq {
                first_row: row as i32,
                n_rows: rows.n as i32,
                first_position: rows.first as i32,
                tail_start: rows.tail_start as i32,
                block_table: tables.len() as i32,
                selected_kind: kind as i32,
                n_selected: runs.first().map_or(0, Vec::len) as i32,
                selected_per_head: i32::from(runs.len() > 1),
                selected: selected.len() as i64,
            });
            // The batch gets the part of the block table that the rows reach.
            let n_blocks = (rows.first + rows.n).div_ceil(shape.block_size);
            tables.extend_from_slice(&self.tables[rows.sequence][..n_blocks]);
            selected.extend(runs.iter().flatten().copied());
            for i in 0..rows.n {
                let query = self.query(rows.sequence, rows.first + i);
                q.bits_mut()[row * shape.stride()..][..shape.stride()].copy_from_slice(query);
                row += 1;
            }
        }
        let (units, merges, n_states) = self.cut(batch, plan);
        let size = shape.n_kv_heads * plan.queries_per_unit * (shape.head_dim + 2);
        // Two bf16 of `Values` hold one f32 of a state. `Values` also aligns the states to 16 bytes.
        let mut states = Values::new(2 * n_states * size, POISON);
        let mut out = Values::new(n_rows * shape.stride(), POISON);
        let mut kv = self.kv;
        kv.base = self.pool.bits_mut().as_mut_ptr();
        let call = gk_attention {
            q: q.bits().as_ptr(),
            out: out.bits_mut().as_mut_ptr(),
            units: units.as_ptr(),
            merges: merges.as_ptr(),
            states: states.bits_mut().as_mut_ptr().cast(),
            batch: gk_batch {
                tokens: ptr::null(),
                positions: ptr::null(),
                slots: ptr::null(),
                seqs: seqs.as_ptr(),
                block_tables: tables.as_ptr(),
                selected: selected.as_ptr(),
                n_rows: n_rows as i32,
                n_seqs: seqs.len() as i32,
            },
            kv,
            q_stride: shape.stride() as i64,
            out_stride: shape.stride() as i64,
            n_heads: shape.n_heads as i32,
            n_units: units.len() as i32,
            n_merges: merges.len() as i32,
            queries_per_unit: plan.queries_per_unit as i32,
            scale: shape.scale(),
            window: self.window as i32,
        };
        assert_eq!(launch(&call), 0, "{shape:?} {plan:?}");
        out.bits()[..n_rows * shape.stride()]
            .chunks_exact(shape.stride())
            .map(<[u16]>::to_vec)
            .collect()
    }

    /// A valid call without units, for tests to spoil.
    pub(crate) fn empty_call(&mut self) -> gk_attention {
        let mut kv = self.kv;
        kv.base = self.pool.bits_mut().as_mut_ptr();
        gk_attention {
            q: ptr::dangling(),
            out: ptr::dangling_mut(),
            units: ptr::null(),
            merges: ptr::null(),
            states: ptr::null_mut(),
            batch: gk_batch {
                tokens: ptr::null(),
                positions: ptr::null(),
                slots: ptr::null(),
                seqs: ptr::dangling(),
                block_tables: ptr::dangling(),
                selected: ptr::null(),
                n_rows: 1,
                n_seqs: 1,
            },
            kv,
            q_stride: self.shape.stride() as i64,
            out_stride: self.shape.stride() as i64,
            n_heads: self.shape.n_heads as i32,
            n_units: 0,
            n_merges: 0,
            queries_per_unit: 16,
            scale: 1.0,
            window: 0,
        }
    }

    /// Units and merges. Each list in use ends with an empty entry, as a padded list does.
    fn cut(&self, batch: &[Rows], plan: Plan) -> (Vec<gk_unit>, Vec<gk_merge>, usize) {
        let group = self.shape.group();
        let (mut units, mut merges, mut n_states) = (vec![], vec![], 0);
        for (seq, rows) in batch.iter().enumerate() {
            for first in (0..rows.n * group).step_by(plan.step) {
                let n = plan.step.min(rows.n * group - first);
                let at = |query: usize| rows.first + query / group;
                let low =
                    if self.window == 0 { 0 } else { (at(first) + 1).saturating_sub(self.window) };
                let first_tail = low.max(rows.tail_start) / PARTITION;
                let n_selected = rows.selected_positions(&self.shape, 0).len();
                let n_partitions =
                    n_selected.div_ceil(PARTITION) + at(first + n - 1) / PARTITION + 1 - first_tail;
                let unit = gk_unit {
                    seq: seq as i32,
                    first_query: first as i32,
                    n_queries: n as i32,
                    partition: 0,
                    n_partitions: n_partitions as i32,
                    state: -1,
                };
                if !plan.split {
                    units.push(unit);
                    continue;
                }
                merges.push(gk_merge {
                    seq: unit.seq,
                    first_query: unit.first_query,
                    n_queries: unit.n_queries,
                    state: n_states,
                    n_states: unit.n_partitions,
                });
                for partition in 0..unit.n_partitions {
                    let state = n_states + partition;
                    units.push(gk_unit { partition, n_partitions: 1, state, ..unit });
                }
                n_states += unit.n_partitions;
            }
        }
        units.reverse(); // their order must not matter
        let nothing = gk_unit {
            seq: 0,
            first_query: 0,
            n_queries: 0,
            partition: 0,
            n_partitions: 0,
            state: -1,
        };
        units.push(nothing);
        if plan.split {
            merges.push(gk_merge { seq: 0, first_query: 0, n_queries: 0, state: 0, n_states: 0 });
        }
        (units, merges, n_states as usize)
    }
}

/// Calls the launcher and returns its result.
pub(crate) fn launch(call: &gk_attention) -> i32 {
    let attention = galley_kernels_cu::emulated().attention.expect("a table is complete");
    // SAFETY: the buffers of a call outlive it and have the sizes that it states, or the call has
    // no unit.
    unsafe { attention(call, ptr::null_mut()) }
}
