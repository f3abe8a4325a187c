//! Measures the times of a model's forwards on the running device, for the planner.
//!
//! The KV pool is empty before the engine starts, so its blocks serve as the cache of the measured sequences: one block is
//! computed, and copied to all others, so that attention reads real memory.

use crate::batch::{BatchBuffers, BatchBuilder, Span};
use galley_backend::sample::{SampleRow, SamplingParams};
use galley_backend::{InputToken, KvView, LayerMask};
use galley_model::{LanguageModel, ModelIndex, Result};
use galley_planner::cost_table::{CostTable, MeasuredForward};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Rows of the forwards that measure everything but attention: around the tiles of the kernels.
const ROWS: [u32; 14] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128];
/// Rows of a sequence in the forwards that measure attention.
const ROWS_EACH: [u32; 6] = [1, 2, 3, 4, 6, 9];
/// Sequences of these forwards: enough for all threads of a small machine.
const N_LONG: usize = 4;
/// Their KV, in bytes for all of them: more than the caches of most processors hold.
const LONG_BYTES: usize = 96 << 20;
/// Most cached tokens of each of them.
const LONG_TOKENS: usize = 8192;
/// Forwards that check the table: sequences, rows of each, and the part of the long sequences' tokens that they attend to.
const CHECKS: [(u32, u32, u32); 3] = [(1, 1, 2), (2, 3, 2), (3, 2, 4)];
/// Times that each forward runs. The fastest one counts: other programs only add time.
const REPEATS: usize = 3;

/// The measured times of a model on a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Calibration {
    /// The table of times.
    pub costs: CostTable,
    /// Mean of |time by the table / measured time − 1| over forwards that the table was not made from.
    pub error: f64,
}

/// Measures forwards for about `limit`. None if the KV pool or the step is too small for sequences to measure, or if the
/// time was too short.
pub(crate) fn measure(
    model: &mut dyn LanguageModel,
    limit: Duration,
) -> Result<Option<Calibration>> {
    let Some(mut sequences) = Sequences::new(model)? else { return Ok(None) };
    let started = Instant::now();
    let mut measured = Vec::new();
    // The first forward allocates and fills caches.
    sequences.run(model, 1, 1, 0)?;
    let most = model.row_limits().max_rows.min(model.row_limits().max_logit_rows) as u32;
    let of_rows = ROWS.into_iter().map(|rows| (rows, 1, 0));
    let long = sequences.long_tokens as u32;
    let of_attention = ROWS_EACH.into_iter().map(|rows| (N_LONG as u32, rows, long));
    // The forwards of plain decoding come first, and large ones last: the time may end before them.
    let mut forwards: Vec<_> = of_rows.chain(of_attention).collect();
    forwards.sort_by_key(|&(n, rows, kv)| n * rows + u32::from(kv > 0));
    for (n_sequences, rows_each, kv_tokens_each) in forwards {
        if n_sequences * rows_each > most
            || n_sequences as usize > sequences.n_short(kv_tokens_each)
        {
            continue;
        }
        if started.elapsed() > limit {
            break;
        }
        let ns = sequences.fastest(model, n_sequences, rows_each, kv_tokens_each)?;
        measured.push(MeasuredForward { n_sequences, rows_each, kv_tokens_each, ns });
    }
    let Some(costs) = CostTable::fit(&measured, 0) else { return Ok(None) };
    let (mut error_sum, mut n_checks) = (0.0, 0);
    for (n_sequences, rows_each, kv_tokens) in
        CHECKS.map(|(n, rows, share)| (n, rows, long / share))
    {
        if n_sequences * rows_each <= most {
            let ns = sequences.fastest(model, n_sequences, rows_each, kv_tokens)?;
            let attention_ns = costs.attention_ns(rows_each, kv_tokens) * f64::from(n_sequences);
            let told = costs.rows_ns(n_sequences * rows_each) + attention_ns;
            error_sum += (told / ns - 1.0).abs();
            n_checks += 1;
        }
    }
    Ok(Some(Calibration { costs, error: error_sum / f64::from(n_checks.max(1)) }))
}

/// Sequences over the blocks of an empty pool.
struct Sequences {
    buffers: BatchBuffers,
    /// The block tables of the long sequences.
    tables: Vec<Vec<u32>>,
    /// A block for each short sequence.
    blocks: Vec<[u32; 1]>,
    long_tokens: usize,
    sampling: SamplingParams,
}

impl Sequences {
    /// Fills the blocks with KV. None if the pool is too small.
    fn new(model: &mut dyn LanguageModel) -> Result<Option<Self>> {
        let shape = model.target().kv_shape;
        let size = shape.block_size;
        let wanted = (LONG_BYTES / shape.bytes_per_token().max(1) / N_LONG).min(LONG_TOKENS);
        // Each long sequence has one block more, for its rows.
        let n_each = wanted.div_ceil(size).min((shape.n_blocks / N_LONG).saturating_sub(1));
        let most_context = model.target().config.max_context;
        let long_tokens = (n_each * size).min(most_context.saturating_sub(size));
        if long_tokens < 4 * size {
            return Ok(None);
        }
        let n_each = long_tokens.div_ceil(size) as u32 + 1;
        let tables: Vec<Vec<u32>> =
            (0..N_LONG as u32).map(|at| (at * n_each..(at + 1) * n_each).collect()).collect();
        let mut sequences = Sequences {
            buffers: BatchBuffers::default(),
            tables,
            blocks: (0..shape.n_blocks.min(ROWS[ROWS.len() - 1] as usize) as u32)
                .map(|id| [id])
                .collect(),
            long_tokens,
            sampling: SamplingParams::default().temperature(0.0),
        };
        let n_rows = size.min(model.row_limits().max_logit_rows) as u32;
        sequences.run(model, 1, n_rows, 0)?;
        let copies: Vec<(u32, u32)> = (1..n_each * N_LONG as u32).map(|id| (0, id)).collect();
        model.copy_blocks(&copies)?;
        Ok(Some(sequences))
    }

    /// Sequences that there are with so many cached tokens.
    fn n_short(&self, kv_tokens: u32) -> usize {
        if kv_tokens == 0 { self.blocks.len() } else { self.tables.len() }
    }

    /// The time of the fastest of some equal forwards, in ns.
    fn fastest(
        &mut self,
        model: &mut dyn LanguageModel,
        n_sequences: u32,
        rows_each: u32,
        kv_tokens: u32,
    ) -> Result<f64> {
        let mut ns = f64::INFINITY;
        for _ in 0..REPEATS {
            ns = ns.min(self.run(model, n_sequences, rows_each, kv_tokens)?);
        }
        Ok(ns)
    }

    /// Runs one forward, samples a token for each row, and returns the time in ns.
    fn run(
        &mut self,
        model: &mut dyn LanguageModel,
        n_sequences: u32,
        rows_each: u32,
        kv_tokens: u32,
    ) -> Result<f64> {
        let Sequences { buffers, tables, blocks, sampling, .. } = self;
        let mut batch = BatchBuilder::new(buffers, n_sequences as usize);
        let vocab_size = model.target().config.vocab_size as u32;
        for at in 0..n_sequences as usize {
            let block_table: &[u32] = if kv_tokens == 0 { &blocks[at] } else { &tables[at] };
            let position = kv_tokens as usize;
            let view = KvView::default();
            let span = Span { position, block_table, writes_kv: true, view };
            let token = |row: u32| InputToken::known((at as u32 * 7 + row) % vocab_size);
            batch.add(span, (0..rows_each).map(token));
            batch.want_logits(rows_each as usize);
        }
        let n_rows = batch.n_rows();
        let rows: Vec<SampleRow<'_>> = (0..n_rows)
            .map(|logits_row| SampleRow {
                logits_row,
                sampling,
                seed: 0,
                position: kv_tokens,
                seen: None,
                drafted: &[],
                banned: &[],
                early_ends: &[],
                reports: false,
                rejection: None,
            })
            .collect();
        let started = Instant::now();
        model.forward(ModelIndex::TARGET, &batch.batch(), &LayerMask::All, &mut [])?;
        model.sample(ModelIndex::TARGET, &rows)?;
        Ok(started.elapsed().as_nanos() as f64)
    }
}
