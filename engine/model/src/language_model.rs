//! A loaded model on some device, as the engine sees it.

use crate::config::ModelConfig;
use crate::Result;
use galley_backend::{Batch, KvShape, LayerMask, sample};

/// A model and its KV pool on one device. Object-safe, so that the engine does not name the device.
pub trait LanguageModel: Send {
    /// What the model is.
    fn config(&self) -> &ModelConfig;
    /// Geometry of the KV pool.
    fn kv_shape(&self) -> KvShape;
    /// Most rows that one forward may have.
    fn max_rows(&self) -> usize;
    /// Device, instruction set and threads, for people.
    fn device(&self) -> String;
    /// Bytes of packed weights.
    fn weight_bytes(&self) -> usize;
    /// Runs the layers and leaves one row of logits per `batch.logit_rows`.
    ///
    /// Keys and values of every row are written to its slot before any row attends, so the rows of
    /// one sequence see each other causally.
    fn forward(&mut self, batch: &Batch<'_>, layers: &LayerMask<'_>) -> Result<()>;
    /// Picks a token from each row of logits of the last forward.
    fn sample(&mut self, rows: &[sample::Row<'_>]) -> Result<Vec<sample::Pick>>;
    /// Logits of the last forward, `logit_rows × vocab_size`. Read before [`Self::sample`].
    fn read_logits(&self) -> Result<Vec<f32>>;
    /// Copies whole blocks, `(from, to)`.
    fn copy_blocks(&mut self, copies: &[(u32, u32)]) -> Result<()>;
}
