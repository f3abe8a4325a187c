//! A loaded model on some device, as the engine sees it.

use crate::Result;
use crate::config::ModelConfig;
use crate::weights::Checkpoint;
use galley_backend::sample::{self, Picks};
use galley_backend::{Batch, KvShape, LayerMask, Observation};
use std::ops::Range;

/// A model and its KV pool on one device. Object-safe, so that the engine does not name the device.
pub trait LanguageModel: Send {
    /// What the model is.
    fn config(&self) -> &ModelConfig;
    /// Geometry of the KV pool.
    fn kv_shape(&self) -> KvShape;
    /// Most rows that one forward may have.
    fn max_rows(&self) -> usize;
    /// Most rows of logits that one forward may leave.
    fn max_logit_rows(&self) -> usize;
    /// Device, instruction set and threads, for people.
    fn device(&self) -> String;
    /// Bytes of packed weights.
    fn weight_bytes(&self) -> usize;
    /// Runs the layers and leaves one row of logits per `batch.logit_rows`.
    ///
    /// Keys and values of every row are written to its slot before any row attends, so the rows of
    /// one sequence see each other causally. Observations select as the layers run; their `out` holds it after
    /// [`Self::finish_observing`].
    fn forward(
        &mut self,
        batch: &Batch<'_>,
        layers: &LayerMask<'_>,
        observations: &mut [Observation<'_>],
    ) -> Result<()>;
    /// Fills in what the last forward has selected for the same observations. Waits for it: who has more to ask of the
    /// device, such as picks, asks first.
    fn finish_observing(&mut self, observations: &mut [Observation<'_>]) -> Result<()>;
    /// Picks a token from each row of logits of the last forward.
    fn sample(&mut self, rows: &[sample::Row<'_>]) -> Result<Vec<sample::Pick>>;
    /// The same without waiting for the device: what stands for the picks in the tokens of forwards, of this model and
    /// of those beside it, until they are taken ([`Backend::sample_ahead`]).
    ///
    /// [`Backend::sample_ahead`]: galley_backend::Backend::sample_ahead
    fn sample_ahead(&mut self, rows: &[sample::Row<'_>]) -> Result<Range<u32>>;
    /// Has the picks made ahead since the last call, by this model and those beside it, brought to the host
    /// ([`Backend::send_picks`]).
    ///
    /// [`Backend::send_picks`]: galley_backend::Backend::send_picks
    fn send_picks(&mut self) -> Result<()>;
    /// Waits for the picks that were sent first and not taken yet; where none were, for all made ahead.
    fn take_picks(&mut self) -> Result<Picks>;
    /// Whether the device works on after a call has returned: then a step is asked for before the picks of the one
    /// before it are looked at.
    fn is_asynchronous(&self) -> bool;
    /// Logits of the last forward, `logit_rows × vocab_size`. Read before [`Self::sample`].
    fn read_logits(&self) -> Result<Vec<f32>>;
    /// Copies whole blocks, `(from, to)`.
    fn copy_blocks(&mut self, copies: &[(u32, u32)]) -> Result<()>;

    /// Models to draft with, beside this one on its device. None where there can be none.
    fn draft_models(&mut self) -> Option<&mut dyn DraftModels> {
        None
    }
}

/// Second models, to draft with. Their weights come on top; their KV lives in blocks of the target's pool, which
/// they share without ever sharing a block. All but `load` panic for an id that `load` did not give.
pub trait DraftModels {
    /// Loads one.
    fn load(&mut self, checkpoint: &Checkpoint) -> Result<DraftModelId>;
    /// What it is.
    fn config(&self, id: DraftModelId) -> &ModelConfig;
    /// Its blocks, a multiple of the pool's: block `i` of them lies in block `i % n_blocks` of the pool
    /// ([`KvShape::lodger`]).
    fn kv_shape(&self, id: DraftModelId) -> KvShape;
    /// Bytes of its packed weights.
    fn weight_bytes(&self, id: DraftModelId) -> usize;
    /// [`LanguageModel::forward`] of it, with as many rows; block tables name its own blocks.
    fn forward(
        &mut self,
        id: DraftModelId,
        batch: &Batch<'_>,
        layers: &LayerMask<'_>,
    ) -> Result<()>;
    /// Picks a token from each row of logits of its last forward.
    fn sample(&mut self, id: DraftModelId, rows: &[sample::Row<'_>]) -> Result<Vec<sample::Pick>>;
    /// [`LanguageModel::sample_ahead`] of it; [`LanguageModel::take_picks`] takes them.
    fn sample_ahead(&mut self, id: DraftModelId, rows: &[sample::Row<'_>]) -> Result<Range<u32>>;
}

/// A model that [`DraftModels::load`] gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DraftModelId(pub usize);

/// Sizes that are fixed when a model is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Tokens per KV block.
    pub block_size: usize,
    /// Blocks in the KV pool: fewer where the device says that it has no room for all ([`Backend::room_bytes`]).
    ///
    /// [`Backend::room_bytes`]: galley_backend::Backend::room_bytes
    pub n_blocks: usize,
    /// Most rows (tokens) in one forward.
    pub max_rows: usize,
    /// Most rows of logits in one forward.
    pub max_logit_rows: usize,
}
