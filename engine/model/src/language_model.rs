//! The engine's interface to a loaded model, on any device.

use crate::Result;
use crate::config::ModelConfig;
use crate::weights::Checkpoint;
use galley_backend::sample::{self, SampledTokens};
use galley_backend::{Batch, KvShape, LayerMask, Observation};
use std::ops::Range;

/// A model and its KV pool on one device. Object-safe, so that the engine knows no device type.
pub trait LanguageModel: Send {
    /// Configuration of the model.
    fn config(&self) -> &ModelConfig;
    /// Geometry of the KV pool.
    fn kv_shape(&self) -> KvShape;
    /// Most rows that one forward may have.
    fn max_rows(&self) -> usize;
    /// Most rows of logits that one forward may write.
    fn max_logit_rows(&self) -> usize;
    /// Description of device, instruction set and threads, for display.
    fn device(&self) -> String;
    /// Bytes of packed weights.
    fn weight_bytes(&self) -> usize;
    /// Runs the layers and computes one row of logits for each entry of `batch.logit_rows`.
    ///
    /// Keys and values of every row are written to its slot before any row attends, so the rows of
    /// one sequence see each other causally. Observations select tokens while the layers run. Their
    /// `out` is valid after [`Self::finish_observing`].
    fn forward(
        &mut self,
        batch: &Batch<'_>,
        layers: &LayerMask<'_>,
        observations: &mut [Observation<'_>],
    ) -> Result<()>;
    /// Writes the selections of the last forward to the `out` of the same observations. Waits for
    /// the device, so enqueue further work, such as sampling, before this call.
    fn finish_observing(&mut self, observations: &mut [Observation<'_>]) -> Result<()>;
    /// Samples a token for each entry of `rows`, from the logits of the last forward.
    fn sample(&mut self, rows: &[sample::SampleRow<'_>]) -> Result<Vec<sample::SampledToken>>;
    /// Samples asynchronously: returns a placeholder for each entry of `rows`. Batches of this
    /// model and of its draft models may hold a placeholder as a token until [`Self::wait_tokens`]
    /// returns the sampled tokens ([`Backend::sample_async`]).
    ///
    /// [`Backend::sample_async`]: galley_backend::Backend::sample_async
    fn sample_async(&mut self, rows: &[sample::SampleRow<'_>]) -> Result<Range<u32>>;
    /// Starts the copy to the host of all tokens that this model and its draft models have sampled
    /// asynchronously since the last call ([`Backend::start_token_copy`]).
    ///
    /// [`Backend::start_token_copy`]: galley_backend::Backend::start_token_copy
    fn start_token_copy(&mut self) -> Result<()>;
    /// Waits for the oldest copy that [`Self::start_token_copy`] started; without one, for all tokens
    /// sampled asynchronously. The placeholders of these tokens may be reused afterwards.
    fn wait_tokens(&mut self) -> Result<SampledTokens>;
    /// Whether the device works on after a call has returned. The engine then enqueues a step
    /// before it reads the sampled tokens of the previous step.
    fn is_asynchronous(&self) -> bool;
    /// Logits of the last forward, `logit_rows × vocab_size`. Call it before [`Self::sample`].
    fn read_logits(&self) -> Result<Vec<f32>>;
    /// Copies whole blocks. A pair is `(from, to)`.
    fn copy_blocks(&mut self, copies: &[(u32, u32)]) -> Result<()>;

    /// Draft models on the same device. `None` if the model supports none.
    fn draft_models(&mut self) -> Option<&mut dyn DraftModels> {
        None
    }
}

/// Draft models that share the target's KV pool. Their weights take memory of their own. Their KV
/// lies in blocks of the pool; no block holds KV of two models at the same time.
///
/// All methods but `load` panic for an id that `load` did not return.
pub trait DraftModels {
    /// Loads a draft model.
    fn load(&mut self, checkpoint: &Checkpoint) -> Result<DraftModelId>;
    /// Configuration of the draft model.
    fn config(&self, id: DraftModelId) -> &ModelConfig;
    /// Geometry of the draft model's blocks. Their number is a multiple of the pool's `n_blocks`,
    /// and block `i` lies in the pool's block `i % n_blocks` ([`KvShape::draft_layout`]).
    fn kv_shape(&self, id: DraftModelId) -> KvShape;
    /// Bytes of the draft model's packed weights.
    fn weight_bytes(&self, id: DraftModelId) -> usize;
    /// As [`LanguageModel::forward`], with the same limits of rows. Block tables hold the draft
    /// model's own block ids.
    fn forward(
        &mut self,
        id: DraftModelId,
        batch: &Batch<'_>,
        layers: &LayerMask<'_>,
    ) -> Result<()>;
    /// Samples a token for each entry of `rows`, from the logits of the draft model's last forward.
    fn sample(
        &mut self,
        id: DraftModelId,
        rows: &[sample::SampleRow<'_>],
    ) -> Result<Vec<sample::SampledToken>>;
    /// As [`LanguageModel::sample_async`]; [`LanguageModel::wait_tokens`] returns the tokens.
    fn sample_async(
        &mut self,
        id: DraftModelId,
        rows: &[sample::SampleRow<'_>],
    ) -> Result<Range<u32>>;
}

/// A draft model that [`DraftModels::load`] has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DraftModelId(pub usize);

/// Sizes that are fixed when a model is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Tokens per KV block.
    pub block_size: usize,
    /// Blocks in the KV pool: fewer if the device lacks the room ([`Backend::room_bytes`]).
    ///
    /// [`Backend::room_bytes`]: galley_backend::Backend::room_bytes
    pub n_blocks: usize,
    /// Most rows (tokens) in one forward.
    pub max_rows: usize,
    /// Most rows of logits in one forward.
    pub max_logit_rows: usize,
}
