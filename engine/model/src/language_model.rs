//! The engine's interface to a device with its models.

use crate::config::ModelConfig;
use crate::weights::Checkpoint;
use crate::{ModelError, Result};
use galley_backend::sample::{self, SampledTokens};
use galley_backend::{Batch, KvShape, LayerMask, Observation, Placeholders, setters};

/// A target and its draft models on one device, with one KV pool. Object-safe, so that the engine
/// knows no device type.
///
/// Each model has weights, activations and logits of its own. KV of draft models lies in blocks of
/// the target's pool; no block holds KV of two models at the same time. A method with a
/// [`ModelIndex`] panics if no model has this index.
pub trait LanguageModel: Send {
    /// The facts about a model.
    fn loaded(&self, model: ModelIndex) -> &LoadedModel;
    /// The facts about the target.
    fn target(&self) -> &LoadedModel {
        self.loaded(ModelIndex::TARGET)
    }
    /// The limits of one forward, the same for all models.
    fn row_limits(&self) -> RowLimits;
    /// Description of device, instruction set and threads, for display.
    fn device(&self) -> String;
    /// Whether the device works on after a call has returned. The engine then enqueues a step
    /// before it reads the sampled tokens of the previous step.
    fn is_asynchronous(&self) -> bool;
    /// Loads a draft model.
    ///
    /// # Errors
    ///
    /// If the device runs no draft model, if a file contradicts its configuration, or if the draft
    /// model does not fit into the target's blocks or into the device.
    fn load_draft(&mut self, checkpoint: &Checkpoint) -> Result<ModelIndex> {
        Err(ModelError::unsupported(checkpoint.path(), "this device runs no draft model"))
    }

    /// Runs the layers of `model` and computes one row of logits for each entry of
    /// `batch.logit_rows`. Block tables hold the model's own block ids.
    ///
    /// Keys and values of every row are written to its slot before any row attends, so the rows of
    /// one sequence see each other causally. Observations select tokens while the layers run. Their
    /// `out` is valid after [`Self::finish_observing`].
    fn forward(
        &mut self,
        model: ModelIndex,
        batch: &Batch<'_>,
        layers: &LayerMask<'_>,
        observations: &mut [Observation<'_>],
    ) -> Result<()>;
    /// Writes the selections of the last forward to the `out` of the same observations. Waits for
    /// the device, so enqueue further work, such as sampling, before this call.
    fn finish_observing(&mut self, observations: &mut [Observation<'_>]) -> Result<()>;
    /// Samples a token for each entry of `rows`, from the logits of the last forward of `model`.
    fn sample(
        &mut self,
        model: ModelIndex,
        rows: &[sample::SampleRow<'_>],
    ) -> Result<Vec<sample::SampledToken>>;
    /// Samples asynchronously: returns a placeholder for each entry of `rows`. Batches of all models
    /// may hold a placeholder as a token until [`Self::wait_tokens`] returns the sampled tokens
    /// ([`AsyncSampling::sample_async`]).
    ///
    /// [`AsyncSampling::sample_async`]: galley_backend::AsyncSampling::sample_async
    fn sample_async(
        &mut self,
        model: ModelIndex,
        rows: &[sample::SampleRow<'_>],
    ) -> Result<Placeholders>;
    /// Starts the copy to the host of all tokens that the models have sampled asynchronously since
    /// the last call ([`AsyncSampling::start_token_copy`]).
    ///
    /// [`AsyncSampling::start_token_copy`]: galley_backend::AsyncSampling::start_token_copy
    fn start_token_copy(&mut self) -> Result<()>;
    /// Waits for the oldest copy that [`Self::start_token_copy`] started; without one, for all tokens
    /// sampled asynchronously. The placeholders of these tokens may be reused afterwards.
    fn wait_tokens(&mut self) -> Result<SampledTokens>;
    /// Logits of the last forward of `model`, `logit_rows × vocab_size`. Call it before
    /// [`Self::sample`].
    fn read_logits(&self, model: ModelIndex) -> Result<Vec<f32>>;
    /// Copies whole blocks of the pool. A pair is `(from, to)`.
    fn copy_blocks(&mut self, copies: &[(u32, u32)]) -> Result<()>;
}

/// A model of a device: the target, or a draft model in the order of loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelIndex(pub usize);

impl ModelIndex {
    /// The target. Draft models have the indices 1, 2, and so on.
    pub const TARGET: Self = ModelIndex(0);
}

/// The facts about a loaded model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoadedModel {
    /// Configuration of the model.
    pub config: ModelConfig,
    /// Geometry of the model's KV. That of a draft model has a multiple of the target's `n_blocks`;
    /// its block `i` lies in the target's block `i % n_blocks` ([`KvShape::draft_layout`]).
    pub kv_shape: KvShape,
    /// Bytes of packed weights.
    pub weight_bytes: usize,
    /// Bytes of packed weights that a step reads: all but an embedding that is not the output head. Of
    /// such an embedding, a step reads a row for each token.
    pub step_weight_bytes: usize,
    /// Hash of configuration and weights ([`Checkpoint::content_hash`]); 0 for a model without files.
    pub content_hash: u64,
    /// Names the device's arithmetic. Devices with the same name compute the same bits.
    pub arithmetic: String,
}

impl LoadedModel {
    /// The facts that every implementation of [`LanguageModel`] knows. `weight_bytes` counts packed
    /// weights, of which a step reads all.
    pub fn new(config: ModelConfig, kv_shape: KvShape, weight_bytes: usize) -> Self {
        Self {
            config,
            kv_shape,
            weight_bytes,
            step_weight_bytes: weight_bytes,
            content_hash: 0,
            arithmetic: String::new(),
        }
    }
}

/// The limits of one forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RowLimits {
    /// Most rows (tokens).
    pub max_rows: usize,
    /// Most rows of logits.
    pub max_logit_rows: usize,
}

impl RowLimits {
    /// Limits of `max_rows` rows, and of `max_logit_rows` rows of logits.
    pub fn new(max_rows: usize, max_logit_rows: usize) -> Self {
        Self { max_rows, max_logit_rows }
    }
}

/// Sizes that are fixed when a model is loaded.
///
/// ```
/// use galley_model::LoadOptions;
/// let options = LoadOptions::new(16, 64).max_rows(256);
/// assert_eq!((options.block_size, options.n_blocks, options.max_rows), (16, 64, 256));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadOptions {
    /// Tokens per KV block.
    pub block_size: usize,
    /// Blocks in the KV pool: fewer if the device lacks the room ([`DeviceMemory::room_bytes`]).
    ///
    /// [`DeviceMemory::room_bytes`]: galley_backend::DeviceMemory::room_bytes
    pub n_blocks: usize,
    /// Most rows (tokens) in one forward.
    pub max_rows: usize,
    /// Most rows of logits in one forward.
    pub max_logit_rows: usize,
}

impl LoadOptions {
    /// A KV pool of `n_blocks` blocks of `block_size` tokens, and forwards of at most 512 rows and
    /// 64 rows of logits.
    pub fn new(block_size: usize, n_blocks: usize) -> Self {
        Self { block_size, n_blocks, max_rows: 512, max_logit_rows: 64 }
    }
}

setters! {
    impl LoadOptions;
    /// Sets the most rows (tokens) in one forward.
    max_rows(n_rows: usize) => max_rows = n_rows;
    /// Sets the most rows of logits in one forward.
    max_logit_rows(n_rows: usize) => max_logit_rows = n_rows;
}
