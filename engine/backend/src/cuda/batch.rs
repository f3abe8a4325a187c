//! A batch on the device: one blob of small arrays, uploaded once per forward.
//!
//! Offsets in the blob depend only on the row, sequence and logit-row counts and on rounded unit
//! and block counts, so a recorded forward stays valid for the next step.

use super::device::Device;
use super::memory::{Blob, Buffer, Growing};
use super::pool::{KvPool, PoolId};
use super::selections::Selections;
use super::units::{self, AttentionGeometry, Class, SeqExtent, rounded};
use crate::checks::{check_known, check_rows, check_selected, expect, for_each_slot};
use crate::{AttentionParams, BackendError, Batch, KvShape, Result, Selected, SeqSpan};
use galley_kernels_cu::bindings::{
    GK_SELECTED_BLOCKS, GK_SELECTED_NONE, GK_SELECTED_TOKENS, gk_batch, gk_merge, gk_seq, gk_unit,
};
use std::sync::Arc;

/// Entries of the block tables are rounded up to a multiple of at least this: 1 KiB.
const TABLES_STEP: usize = 256;

/// The batch that `begin` prepared.
pub(super) struct AttentionMetadata {
    pub(super) blob: Growing,
    host: Blob,
    pub(super) selections: Selections,
    sections: Sections,
    /// Identity of the prepared batch; None before the first.
    batch_key: Option<BatchKey>,
    pub(super) launches: Vec<Launch>,
    /// Floats in the attention states of the launch with the most states.
    pub(super) states_len: usize,
    n_rows: usize,
    n_seqs: usize,
    n_logit_rows: usize,
}

/// All properties of a batch that launch arguments depend on. Kernels read the rest from the blob.
#[derive(Clone, PartialEq)]
pub(super) struct BatchShape {
    pub(super) n_rows: usize,
    n_seqs: usize,
    n_logit_rows: usize,
    sections: Sections,
    launches: Vec<Launch>,
    heads: AttentionGeometry,
    pool: PoolId,
}

/// Identity of a batch, compared without reading its contents.
#[derive(Clone, Copy, PartialEq)]
struct BatchKey {
    /// Addresses and lengths of tokens, positions, sequences and logit rows.
    slices: [(usize, usize); 4],
    heads: AttentionGeometry,
    pool: PoolId,
}

/// Offsets of arrays in the blob, in bytes.
#[derive(Clone, Copy, Default, PartialEq)]
struct Sections {
    tokens: usize,
    positions: usize,
    slots: usize,
    seqs: usize,
    logit_rows: usize,
    block_tables: usize,
}

/// One attention launch.
#[derive(Clone, PartialEq)]
pub(super) struct Launch {
    pub(super) queries_per_unit: usize,
    pub(super) n_units: usize,
    pub(super) n_merges: usize,
    units: usize,
    merges: usize,
}

impl AttentionMetadata {
    pub(super) fn new() -> Self {
        Self {
            blob: Growing::new("a batch"),
            host: Blob::default(),
            selections: Selections::new(),
            sections: Sections::default(),
            batch_key: None,
            launches: Vec::new(),
            states_len: 0,
            n_rows: 0,
            n_seqs: 0,
            n_logit_rows: 0,
        }
    }

    /// Checks a batch and uploads it.
    pub(super) fn take(
        &mut self,
        device: &Arc<dyn Device>,
        batch: &Batch<'_>,
        pool: &KvPool,
        n_heads: usize,
        params: AttentionParams,
    ) -> Result<()> {
        // If anything below fails, no batch is prepared.
        self.batch_key = None;
        let shape = &pool.shape;
        let heads = heads(pool, n_heads, params)?;
        let mut slots = Vec::with_capacity(batch.tokens.len());
        for_each_slot(batch, shape, |slot| slots.push(slot.map_or(-1, |slot| slot as i32)))?;
        let last = batch.tokens.len();
        if let Some(row) = batch.logit_rows.iter().find(|&&row| row as usize >= last) {
            let expected = format!("logit rows below {last}");
            return Err(BackendError::Shape { op: "batch", expected, got: row.to_string() });
        }
        for seq in batch.seqs {
            self.check(seq, batch, shape)?;
        }
        let selected: Vec<_> = batch.seqs.iter().filter_map(selection).map(|(_, s)| s).collect();
        let selected = self.selections.place(device, &selected)?;
        let (seqs, mut block_tables) = sequences(batch, shape, &selected);
        let spans: Vec<SeqExtent> = batch.seqs.iter().map(|seq| span(seq, batch, shape)).collect();
        let host = &mut self.host;
        host.bytes.clear();
        let mut sections = Sections {
            tokens: host.push(batch.tokens),
            positions: host.push(batch.positions),
            slots: host.push(&slots),
            seqs: host.push(&seqs),
            logit_rows: host.push(batch.logit_rows),
            ..Sections::default()
        };
        let mut classes = units::classes(&spans, &heads);
        let states_len = |class: &Class| class.n_states * heads.state_len(class.queries_per_unit);
        self.states_len = classes.iter().map(states_len).max().unwrap_or(0);
        classes.iter_mut().for_each(Class::pad);
        let launch = |class: Class| Launch {
            queries_per_unit: class.queries_per_unit,
            n_units: class.units.len(),
            n_merges: class.merges.len(),
            units: host.push(&class.units),
            merges: host.push(&class.merges),
        };
        self.launches = classes.into_iter().map(launch).collect();
        block_tables.resize(rounded(block_tables.len(), TABLES_STEP), 0);
        sections.block_tables = host.push(&block_tables);
        self.sections = sections;
        self.blob.get(device, host.bytes.len())?.upload(0, &host.bytes)?;
        self.n_rows = batch.tokens.len();
        self.n_seqs = batch.seqs.len();
        self.n_logit_rows = batch.logit_rows.len();
        self.batch_key = Some(BatchKey::new(batch, pool, heads));
        Ok(())
    }

    /// Checks a sequence. A selection on the device was checked at its upload; only its end, which
    /// must come before the tail, is checked again.
    fn check(&self, seq: &SeqSpan<'_>, batch: &Batch<'_>, shape: &KvShape) -> Result<()> {
        const OP: &str = "batch";
        check_rows(OP, seq, batch, shape)?;
        let Some((_, ids)) = selection(seq) else { return Ok(()) };
        if let Some(last) = self.selections.known(&ids) {
            return check_known(OP, seq, shape, last);
        }
        // Ids shared by all layers are checked once, ids per layer and head layer by layer.
        let mut layers = 0..if ids.n_kv_heads > 0 { shape.n_layers } else { 1 };
        layers.try_for_each(|layer| check_selected(OP, seq, shape, layer))
    }

    /// Fails unless `batch` is the prepared batch.
    pub(super) fn expect(&self, op: &'static str, batch: &Batch<'_>) -> Result<()> {
        match &self.batch_key {
            Some(batch_key) if batch_key.slices == slices(batch) => Ok(()),
            _ => Err(BackendError::Shape {
                op,
                expected: "the batch that was taken in by `begin`".into(),
                got: "another".into(),
            }),
        }
    }

    /// Fails unless `batch` is the prepared batch, over `pool`.
    pub(super) fn expect_over(
        &self,
        op: &'static str,
        batch: &Batch<'_>,
        pool: &KvPool,
    ) -> Result<()> {
        self.expect(op, batch)?;
        match &self.batch_key {
            Some(batch_key) if batch_key.pool == pool.id() => Ok(()),
            _ => Err(BackendError::Shape {
                op,
                expected: "the pool that `begin` was given".into(),
                got: format!("another, of {:?}", pool.shape),
            }),
        }
    }

    /// Fails unless `batch` is the prepared batch, over `pool`, with these heads and this reach.
    pub(super) fn expect_heads(
        &self,
        op: &'static str,
        batch: &Batch<'_>,
        pool: &KvPool,
        n_heads: usize,
        params: AttentionParams,
    ) -> Result<()> {
        self.expect_over(op, batch, pool)?;
        let heads = heads(pool, n_heads, params)?;
        match &self.batch_key {
            Some(batch_key) if batch_key.heads == heads => Ok(()),
            batch_key => Err(BackendError::Shape {
                op,
                expected: format!("the heads of `begin`: {:?}", batch_key.map(|made| made.heads)),
                got: format!("{heads:?}"),
            }),
        }
    }

    /// The shape of the prepared batch; None if there is none.
    pub(super) fn shape(&self) -> Option<BatchShape> {
        let batch_key = self.batch_key?;
        Some(BatchShape {
            n_rows: self.n_rows,
            n_seqs: self.n_seqs,
            n_logit_rows: self.n_logit_rows,
            sections: self.sections,
            launches: self.launches.clone(),
            heads: batch_key.heads,
            pool: batch_key.pool,
        })
    }

    /// The batch in the form that kernels read.
    pub(super) fn gk_batch(&mut self, device: &Arc<dyn Device>) -> Result<gk_batch> {
        let (n_rows, n_seqs) = (self.n_rows as i32, self.n_seqs as i32);
        let at = self.sections;
        let selected = self.selections.ids();
        let blob = self.buffer(device)?;
        Ok(gk_batch {
            tokens: blob.part(at.tokens),
            positions: blob.part(at.positions),
            slots: blob.part(at.slots),
            seqs: blob.part(at.seqs),
            block_tables: blob.part(at.block_tables),
            selected,
            n_rows,
            n_seqs,
        })
    }

    /// The device address of the batch's logit rows.
    pub(super) fn logit_rows(&mut self, device: &Arc<dyn Device>) -> Result<*const u32> {
        let at = self.sections.logit_rows;
        Ok(self.buffer(device)?.part(at))
    }

    /// Device addresses of the units and merges of a launch.
    pub(super) fn work(
        &mut self,
        device: &Arc<dyn Device>,
        launch: usize,
    ) -> Result<(*const gk_unit, *const gk_merge)> {
        let Launch { units, merges, .. } = self.launches[launch];
        let blob = self.buffer(device)?;
        Ok((blob.part(units), blob.part(merges)))
    }

    /// The blob on the device, as large as the prepared batch.
    fn buffer(&mut self, device: &Arc<dyn Device>) -> Result<&Buffer> {
        self.blob.get(device, self.host.bytes.len())
    }
}

impl BatchKey {
    fn new(batch: &Batch<'_>, pool: &KvPool, heads: AttentionGeometry) -> Self {
        Self { slices: slices(batch), heads, pool: pool.id() }
    }
}

fn slices(batch: &Batch<'_>) -> [(usize, usize); 4] {
    fn of<T>(slice: &[T]) -> (usize, usize) {
        (slice.as_ptr().addr(), slice.len())
    }
    [of(batch.tokens), of(batch.positions), of(batch.seqs), of(batch.logit_rows)]
}

fn heads(pool: &KvPool, n_heads: usize, params: AttentionParams) -> Result<AttentionGeometry> {
    let shape = &pool.shape;
    expect("batch", "heads in whole groups", 0, n_heads % shape.n_kv_heads)?;
    if params.window == Some(0) {
        let expected = "a window of at least 1".into();
        return Err(BackendError::Shape { op: "batch", expected, got: "0".into() });
    }
    Ok(AttentionGeometry {
        n_kv_heads: shape.n_kv_heads,
        group_size: n_heads / shape.n_kv_heads,
        head_dim: shape.head_dim,
        max_queries: pool.max_queries,
        window: params.window,
    })
}

/// The kind and the ids of a sequence's selection, if it has one.
fn selection<'a>(seq: &SeqSpan<'a>) -> Option<(u32, crate::SelectedIds<'a>)> {
    match seq.view.selected {
        Selected::None => None,
        Selected::Blocks(ids) => Some((GK_SELECTED_BLOCKS, ids)),
        Selected::Tokens(ids) => Some((GK_SELECTED_TOKENS, ids)),
    }
}

/// Sequences and their block tables. `selected` holds the offset of the ids of each sequence that
/// has a selection.
fn sequences(batch: &Batch<'_>, shape: &KvShape, selected: &[usize]) -> (Vec<gk_seq>, Vec<u32>) {
    let (mut seqs, mut block_tables) = (Vec::new(), Vec::new());
    let mut selected = selected.iter();
    for seq in batch.seqs {
        let positions = &batch.positions[seq.first_row..][..seq.n_rows];
        let chosen = selection(seq);
        seqs.push(gk_seq {
            first_row: seq.first_row as i32,
            n_rows: seq.n_rows as i32,
            first_position: positions.first().map_or(0, |&p| p as i32),
            tail_start: seq.view.tail_start as i32,
            block_table: block_tables.len() as i32,
            selected_kind: chosen.map_or(GK_SELECTED_NONE, |(kind, _)| kind) as i32,
            n_selected: chosen.map_or(0, |(_, ids)| ids.n as i32),
            selected_per_head: chosen.map_or(0, |(_, ids)| (ids.n_kv_heads > 0).into()),
            selected: chosen.and_then(|_| selected.next()).map_or(0, |&at| at as i64),
        });
        let n_logical = positions.last().map_or(0, |&p| p as usize / shape.block_size + 1);
        block_tables.extend_from_slice(&seq.block_table[..n_logical]);
    }
    (seqs, block_tables)
}

fn span(seq: &SeqSpan<'_>, batch: &Batch<'_>, shape: &KvShape) -> SeqExtent {
    let per_id =
        if matches!(seq.view.selected, Selected::Blocks(_)) { shape.block_size } else { 1 };
    SeqExtent {
        n_rows: seq.n_rows,
        first_position: batch.positions.get(seq.first_row).map_or(0, |&p| p as usize),
        tail_start: seq.view.tail_start as usize,
        n_selected: selection(seq).map_or(0, |(_, ids)| ids.n * per_id),
    }
}
