//! A target and the draft models beside it, on one device.

use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::language_model::{DraftModelId, DraftModels, LanguageModel, LoadOptions};
use crate::weights::Checkpoint;
use crate::{ModelError, Result};
use galley_backend::{Backend, Batch, Dtype, KvShape, LayerMask, Observation, sample};
use std::ops::Range;

/// Models of the Llama family that share a device and its KV pool.
pub(crate) struct Llama<B: Backend> {
    backend: B,
    target: Decoder<B>,
    pool: B::KvPool,
    kv_shape: KvShape,
    options: LoadOptions,
    drafts: Vec<Draft<B>>,
}

/// A second model. Its blocks lie inside those of the target.
struct Draft<B: Backend> {
    decoder: Decoder<B>,
    pool: B::KvPool,
    kv_shape: KvShape,
}

impl<B: Backend> Llama<B> {
    /// Packs the weights of `checkpoint`, tensor by tensor; `progress(done, total)` counts layers.
    pub(crate) fn load(
        mut backend: B,
        checkpoint: &Checkpoint,
        dtype: Dtype,
        options: LoadOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let target = Decoder::load(&mut backend, checkpoint, &options, progress)?;
        let mut kv_shape = KvShape {
            n_layers: target.config.n_layers,
            n_kv_heads: target.config.n_kv_heads,
            head_dim: target.config.head_dim,
            block_size: options.block_size,
            n_blocks: options.n_blocks,
            dtype,
        };
        if let Some(room) = backend.room_bytes()? {
            let per_block = kv_shape.bytes_per_token() * kv_shape.block_size;
            // A pool of one block at least: what is wrong with it, its allocation says.
            kv_shape.n_blocks = kv_shape.n_blocks.min((room / per_block).max(1));
        }
        let pool = backend.kv_pool(kv_shape)?;
        Ok(Self { backend, target, pool, kv_shape, options, drafts: Vec::new() })
    }

    fn draft(&self, id: DraftModelId) -> &Draft<B> {
        &self.drafts[id.0]
    }
}

impl<B: Backend> LanguageModel for Llama<B> {
    fn config(&self) -> &ModelConfig {
        &self.target.config
    }

    fn kv_shape(&self) -> KvShape {
        self.kv_shape
    }

    fn max_rows(&self) -> usize {
        self.options.max_rows
    }

    fn max_logit_rows(&self) -> usize {
        self.options.max_logit_rows
    }

    fn device(&self) -> String {
        self.backend.description()
    }

    fn weight_bytes(&self) -> usize {
        self.target.weight_bytes(&self.backend)
    }

    fn forward(
        &mut self,
        batch: &Batch<'_>,
        mask: &LayerMask<'_>,
        observations: &mut [Observation<'_>],
    ) -> Result<()> {
        self.target.forward(&mut self.backend, &mut self.pool, batch, mask, observations)
    }

    fn sample(&mut self, rows: &[sample::Row<'_>]) -> Result<Vec<sample::Pick>> {
        Ok(self.backend.sample(self.target.logits().0, rows)?)
    }

    fn sample_ahead(&mut self, rows: &[sample::Row<'_>]) -> Result<Range<u32>> {
        Ok(self.backend.sample_ahead(self.target.logits().0, rows)?)
    }

    fn take_picks(&mut self) -> Result<Vec<u32>> {
        Ok(self.backend.take_picks()?)
    }

    fn read_logits(&self) -> Result<Vec<f32>> {
        let (logits, n_rows) = self.target.logits();
        Ok(self.backend.read_f32(logits, n_rows)?)
    }

    fn copy_blocks(&mut self, copies: &[(u32, u32)]) -> Result<()> {
        Ok(self.backend.copy_blocks(&mut self.pool, copies)?)
    }

    fn draft_models(&mut self) -> Option<&mut dyn DraftModels> {
        Some(self)
    }
}

impl<B: Backend> DraftModels for Llama<B> {
    fn load(&mut self, checkpoint: &Checkpoint) -> Result<DraftModelId> {
        let config = checkpoint.config();
        let (n_layers, n_heads, dim) = (config.n_layers, config.n_kv_heads, config.head_dim);
        let Some(kv_shape) = self.kv_shape.lodger(n_layers, n_heads, dim) else {
            let KvShape { n_layers: layers, n_kv_heads: heads, head_dim, .. } = self.kv_shape;
            let what = format!(
                "its KV cache ({n_layers} layers of {n_heads} heads of {dim}) does not fit into the target's \
                 blocks ({layers} of {heads} of {head_dim}): a draft model is smaller than its target"
            );
            return Err(ModelError::unsupported(checkpoint.path(), what));
        };
        let decoder = Decoder::load(&mut self.backend, checkpoint, &self.options, &mut |_, _| {})?;
        let pool = self.backend.lodge(&self.pool, kv_shape)?;
        self.drafts.push(Draft { decoder, pool, kv_shape });
        Ok(DraftModelId(self.drafts.len() - 1))
    }

    fn config(&self, id: DraftModelId) -> &ModelConfig {
        &self.draft(id).decoder.config
    }

    fn kv_shape(&self, id: DraftModelId) -> KvShape {
        self.draft(id).kv_shape
    }

    fn weight_bytes(&self, id: DraftModelId) -> usize {
        self.draft(id).decoder.weight_bytes(&self.backend)
    }

    fn forward(
        &mut self,
        id: DraftModelId,
        batch: &Batch<'_>,
        layers: &LayerMask<'_>,
    ) -> Result<()> {
        let Draft { decoder, pool, .. } = &mut self.drafts[id.0];
        decoder.forward(&mut self.backend, pool, batch, layers, &mut [])
    }

    fn sample(&mut self, id: DraftModelId, rows: &[sample::Row<'_>]) -> Result<Vec<sample::Pick>> {
        Ok(self.backend.sample(self.drafts[id.0].decoder.logits().0, rows)?)
    }

    fn sample_ahead(&mut self, id: DraftModelId, rows: &[sample::Row<'_>]) -> Result<Range<u32>> {
        Ok(self.backend.sample_ahead(self.drafts[id.0].decoder.logits().0, rows)?)
    }
}
