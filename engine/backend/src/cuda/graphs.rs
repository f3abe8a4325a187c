//! Forwards that are recorded once, as CUDA graphs, and replayed.
//!
//! A forward of a small model has some 270 launches of 2.5 µs each: the host takes longer to launch
//! them than the device to run them. Most steps make the launches of an earlier step with the same
//! arguments, because values that differ lie in the batch's blob. `docs/kernels.md` lists the
//! arguments that are compared before a replay.

use super::CudaBackend;
use super::batch::BatchShape;
use super::device::CapturedGraph;
use crate::checks::check_tokens;
use crate::{Batch, GraphKey, LayerMask, Result, WeightsId};

/// Maximum recordings kept; the least recently used one is dropped first. A shrinking batch has two
/// shapes per size (draft and verification). A graph of 270 launches takes some hundred KB.
pub(super) const MAX_KEPT: usize = 64;
/// Rows of the largest forward that is recorded. With more rows, the device takes longer than the
/// host, and prompts seldom have the same shape again.
const MAX_ROWS: usize = 256;

/// Recordings, and counts of forwards.
#[derive(Default)]
pub(super) struct CudaGraphs {
    /// Recordings, the least recently used first.
    kept: Vec<(CacheKey, CachedGraph)>,
    /// Shapes seen once, the oldest first: a shape that never returns is not recorded.
    seen: Vec<CacheKey>,
    /// The error of the first recording that failed. No forward is recorded after it.
    pub(super) given_up: Option<String>,
    counts: ForwardCounts,
    /// A deliberate bug for a test: the key ignores the addresses of buffers.
    #[cfg(test)]
    pub(super) ignores_buffers: bool,
}

/// Counts of forwards, by the way they ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardCounts {
    /// Launched kernel by kernel.
    pub launched: u64,
    /// Recorded, then replayed.
    pub graphs: u64,
    /// Replayed from an earlier recording.
    pub replayed: u64,
}

/// Everything that decides the launches of a forward and their arguments.
#[derive(Clone, PartialEq)]
struct CacheKey {
    model: WeightsId,
    layers: OwnedLayerMask,
    batch: BatchShape,
    rope: usize,
    scale: u32,
    /// Addresses of working memory that may be replaced.
    buffers: Vec<u64>,
}

/// An owned [`LayerMask`].
#[derive(Clone, PartialEq)]
enum OwnedLayerMask {
    All,
    Only { attention: Vec<bool>, mlp: Vec<bool> },
}

struct CachedGraph {
    captured: CapturedGraph,
    /// Vocabulary size of the table that the forward embeds from.
    n_tokens: usize,
}

impl CudaGraphs {
    /// Whether this key was seen recently. Remembers a new key, and forgets a known one.
    fn seen_before(&mut self, key: &CacheKey) -> bool {
        if let Some(at) = self.seen.iter().position(|seen| seen == key) {
            self.seen.remove(at);
            return true;
        }
        if self.seen.len() == MAX_KEPT {
            self.seen.remove(0);
        }
        self.seen.push(key.clone());
        false
    }

    fn keep(&mut self, key: CacheKey, kept: CachedGraph) -> &CachedGraph {
        if self.kept.len() == MAX_KEPT {
            self.kept.remove(0);
        }
        self.kept.push((key, kept));
        &self.kept[self.kept.len() - 1].1
    }

    /// The recording for this key, which becomes the most recently used.
    fn find(&mut self, key: &CacheKey) -> Option<&CachedGraph> {
        let at = self.kept.iter().position(|(kept, _)| kept == key)?;
        self.kept[at..].rotate_left(1);
        self.kept.last().map(|(_, kept)| kept)
    }
}

impl CudaBackend {
    /// Counts of forwards so far.
    pub fn forward_counts(&self) -> ForwardCounts {
        self.graphs.counts
    }

    /// [`DecoderOps::run_forward`](crate::DecoderOps::run_forward).
    pub(super) fn launch_or_replay(
        &mut self,
        forward: &GraphKey<'_>,
        batch: &Batch<'_>,
        work: &mut dyn FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        self.metadata.expect("run_forward", batch)?;
        let key = self.key(forward).filter(|key| (1..=MAX_ROWS).contains(&key.batch.n_rows));
        let Some(key) = key else { return self.launch_all(work) };
        if let Some(kept) = self.graphs.find(&key) {
            check_tokens(batch.tokens, kept.n_tokens, |sampled| self.sampler.is_live(sampled))?;
            // SAFETY: the key holds the addresses of all working memory. A `WeightsId` stands for one
            // set of weights and activations, and is not used after they are freed.
            unsafe { self.device.replay(&kept.captured) }?;
            self.graphs.counts.replayed += 1;
            return Ok(());
        }
        if self.graphs.given_up.is_some() || !self.graphs.seen_before(&key) {
            return self.launch_all(work);
        }
        match self.record(work) {
            Ok(kept) => {
                let kept = self.graphs.keep(key, kept);
                // SAFETY: the work was recorded just now, so its buffers exist.
                unsafe { self.device.replay(&kept.captured) }?;
                self.graphs.counts.graphs += 1;
                Ok(())
            }
            Err(error) => {
                self.graphs.given_up = Some(error.to_string());
                self.launch_all(work)
            }
        }
    }

    fn launch_all(&mut self, work: &mut dyn FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.angles.forget();
        self.graphs.counts.launched += 1;
        work(self)
    }

    fn record(&mut self, work: &mut dyn FnMut(&mut Self) -> Result<()>) -> Result<CachedGraph> {
        self.angles.forget();
        self.n_tokens = usize::MAX;
        self.device.begin_capture()?;
        let worked = work(self);
        // Ends the recording even if `work` failed.
        let captured = self.device.end_capture();
        self.angles.forget();
        worked?;
        Ok(CachedGraph { captured: captured?, n_tokens: self.n_tokens })
    }

    /// The key of a forward of the prepared batch; None if there is no batch.
    fn key(&self, forward: &GraphKey<'_>) -> Option<CacheKey> {
        let batch = self.metadata.shape()?;
        let (rope, angles) = self.angles.identity();
        let working = [
            self.metadata.blob.address(),
            self.metadata.selections.address(),
            angles,
            self.states.address(),
        ];
        let head_rows = self.head_rows.iter().map(|rows| rows.buffer.address());
        let pending = self.sampler.pending_place();
        let buffers: Vec<u64> = working.into_iter().chain(pending).chain(head_rows).collect();
        #[cfg(test)]
        let buffers = if self.graphs.ignores_buffers { Vec::new() } else { buffers };
        let layers = match forward.layers {
            LayerMask::All => OwnedLayerMask::All,
            LayerMask::Only { attention, mlp } => {
                OwnedLayerMask::Only { attention: attention.to_vec(), mlp: mlp.to_vec() }
            }
        };
        let scale = self.scale.to_bits();
        Some(CacheKey { model: forward.model, layers, batch, rope, scale, buffers })
    }
}
