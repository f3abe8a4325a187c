//! Selects the cached tokens that rows attend to most. Selections stay on the device until every
//! layer has selected.

use super::device::Device;
use super::memory::{Growing, bytes_of};
use super::{CudaBackend, KvPool, Tensor, launch};
use crate::checks::{check_observation, expect};
use crate::shapes::check_queries;
use crate::{AttentionParams, BackendError, Batch, Observation, PoolScores, Result};
use galley_kernels_cu::bindings::{
    GK_KEPT_QUERIES, GK_OBSERVED_TILE, GK_POOL_AVERAGE, GK_POOL_MAX, GK_POOL_NONE, gk_observation,
    gk_observe,
};
use std::sync::Arc;

const OP: &str = "observe";
const TILE: usize = GK_OBSERVED_TILE as usize;
const KEPT_QUERIES: usize = GK_KEPT_QUERIES as usize;

/// The observations of a batch.
pub(super) struct Observing {
    calls: Growing,
    scores: Growing,
    stats: Growing,
    /// `n_layers` times the ids that all observations select in a layer.
    out: Growing,
    /// The observations on the device.
    sent: Vec<gk_observation>,
    sizes: Sizes,
    n_kv_heads: usize,
    /// Layers that have selected since the batch began.
    layers: Vec<usize>,
}

/// Sizes of the memory for observations, in values.
#[derive(Clone, Copy, Default)]
struct Sizes {
    scores: usize,
    stats: usize,
    /// Ids selected in a layer.
    ids: usize,
    max_positions: usize,
}

impl Observing {
    pub(super) fn new() -> Self {
        Self {
            calls: Growing::new("observations"),
            scores: Growing::new("scores of observations"),
            stats: Growing::new("statistics of observations"),
            out: Growing::new("selections"),
            sent: Vec::new(),
            sizes: Sizes::default(),
            n_kv_heads: 0,
            layers: Vec::new(),
        }
    }

    /// Forgets the observations and the layers that have selected.
    pub(super) fn clear(&mut self) {
        self.sent.clear();
        self.layers.clear();
    }

    /// Uploads the observations, unless an earlier layer has uploaded the same ones.
    fn send(
        &mut self,
        device: &Arc<dyn Device>,
        calls: Vec<gk_observation>,
        sizes: Sizes,
    ) -> Result<()> {
        if bytes_of(&self.sent) == bytes_of(&calls) {
            return Ok(());
        }
        if !self.layers.is_empty() {
            return Err(BackendError::Shape {
                op: OP,
                expected: "the same observations in every layer, or `finish_observing` between"
                    .into(),
                got: "others".into(),
            });
        }
        self.calls.holding(device, &calls)?;
        (self.sent, self.sizes) = (calls, sizes);
        Ok(())
    }
}

impl CudaBackend {
    /// [`DecoderOps::observe`](crate::DecoderOps::observe).
    pub(super) fn observe_layer(
        &mut self,
        q: &Tensor,
        pool: &KvPool,
        layer: usize,
        batch: &Batch<'_>,
        params: AttentionParams,
        observations: &[Observation<'_>],
    ) -> Result<()> {
        let shape = &pool.shape;
        let n_heads = check_queries(OP, &q.shape, batch.tokens.len(), (layer, shape))?;
        self.metadata.expect_heads(OP, batch, pool, n_heads, params)?;
        for observation in observations {
            check_observation(observation, batch, shape, layer)?;
        }
        let (calls, sizes) = calls(observations, batch, n_heads, shape.n_kv_heads);
        let Self { device, observing, metadata, .. } = self;
        observing.send(device, calls, sizes)?;
        observing.n_kv_heads = shape.n_kv_heads;
        let floats = |n: usize| n * size_of::<f32>();
        let ids = size_of::<u32>() * sizes.ids;
        let call = gk_observe {
            q: q.buffer.at(0),
            observations: observing.calls.get(device, size_of_val(&observing.sent[..]))?.at(0),
            host_observations: observing.sent.as_ptr(),
            scores: observing.scores.get(device, floats(sizes.scores))?.at(0),
            stats: observing.stats.get(device, floats(sizes.stats))?.at(0),
            out: observing.out.get(device, ids * shape.n_layers)?.at(layer * sizes.ids),
            batch: metadata.gk_batch(device)?,
            kv: pool.kv(layer),
            q_stride: q.stride as i64,
            n_heads: n_heads as i32,
            n_observations: observations.len() as i32,
            max_positions: sizes.max_positions as i32,
            scale: params.scale,
            window: super::window(params),
        };
        launch(device, OP, device.kernels().observe, &call)?;
        observing.layers.push(layer);
        Ok(())
    }

    /// [`DecoderOps::finish_observing`](crate::DecoderOps::finish_observing).
    pub(super) fn fetch_observed(&mut self, observations: &mut [Observation<'_>]) -> Result<()> {
        let Self { device, observing, .. } = self;
        let layers = std::mem::take(&mut observing.layers);
        let Some(last) = layers.iter().max() else { return Ok(()) };
        let n_layer = observing.sizes.ids;
        let lens: Vec<usize> =
            observations.iter().map(|o| observing.n_kv_heads * o.n_selected).collect();
        expect(OP, "ids of a layer", n_layer, lens.iter().sum())?;
        let n_ids = (last + 1) * n_layer;
        let out = observing.out.get(device, n_ids * size_of::<u32>())?;
        let ids: Vec<u32> = out.download(0, n_ids)?;
        for layer in layers {
            let mut at = layer * n_layer;
            for (observation, n) in observations.iter_mut().zip(&lens) {
                observation.out[layer * n..][..*n].copy_from_slice(&ids[at..at + n]);
                at += n;
            }
        }
        observing.clear();
        Ok(())
    }
}

/// The observations in the form that kernels read, and the memory that they need.
fn calls(
    observations: &[Observation<'_>],
    batch: &Batch<'_>,
    n_heads: usize,
    n_kv_heads: usize,
) -> (Vec<gk_observation>, Sizes) {
    let mut sizes = Sizes::default();
    let call = |observation: &Observation<'_>| {
        let Observation { seq, rows, candidates, granularity, n_selected, pool, .. } = observation;
        let (pool, pool_width) = match *pool {
            PoolScores::None => (GK_POOL_NONE, 1),
            PoolScores::Average(width) => (GK_POOL_AVERAGE, width),
            PoolScores::Max(width) => (GK_POOL_MAX, width),
        };
        let call = gk_observation {
            seq: *seq as i32,
            first_row: rows.start as i32,
            n_rows: rows.len() as i32,
            first_candidate: candidates.start as i32,
            n_candidates: candidates.len() as i32,
            granularity: *granularity as i32,
            n_selected: *n_selected as i32,
            pool: pool as i32,
            pool_width: pool_width as i32,
            reserved: 0,
            scores: sizes.scores as i64,
            stats: sizes.stats as i64,
            out: sizes.ids as i64,
        };
        let last_row = batch.seqs[*seq].first_row + rows.end - 1;
        let n_positions = batch.positions[last_row] as usize + 1;
        // Sizes as in `galley_kernels.h`. Each is a multiple of the alignment of its offsets.
        let n_tiles = n_positions.div_ceil(TILE);
        let n_queries = rows.len() * n_heads / n_kv_heads;
        let n_kept = if n_queries <= KEPT_QUERIES { n_queries + 1 } else { 2 };
        sizes.scores += n_kv_heads * n_kept * n_tiles * TILE;
        sizes.stats += n_kv_heads * n_queries * (n_tiles + 1) * 2;
        sizes.ids += n_kv_heads * n_selected;
        sizes.max_positions = sizes.max_positions.max(n_positions);
        call
    };
    let calls = observations.iter().map(call).collect();
    (calls, sizes)
}
