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

/// A draft model. Its blocks lie inside the target's blocks.
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
            // At least one block, so that running out of memory is reported by the allocation.
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

    fn finish_observing(&mut self, observations: &mut [Observation<'_>]) -> Result<()> {
        Ok(self.backend.finish_observing(observations)?)
    }

    fn sample(&mut self, rows: &[sample::SampleRow<'_>]) -> Result<Vec<sample::SampledToken>> {
        Ok(self.backend.sample(self.target.logits().0, rows)?)
    }

    fn sample_async(&mut self, rows: &[sample::SampleRow<'_>]) -> Result<Range<u32>> {
        Ok(self.backend.sample_async(self.target.logits().0, rows)?)
    }

    fn start_token_copy(&mut self) -> Result<()> {
        Ok(self.backend.start_token_copy()?)
    }

    fn wait_tokens(&mut self) -> Result<sample::SampledTokens> {
        Ok(self.backend.wait_tokens()?)
    }

    fn is_asynchronous(&self) -> bool {
        self.backend.is_asynchronous()
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
        let Some(kv_shape) = self.kv_shape.draft_layout(n_layers, n_heads, dim) else {
            let KvShape { n_layers: layers, n_kv_heads: heads, head_dim, .. } = self.kv_shape;
            let what = format!(
                "its KV cache ({n_layers} layers of {n_heads} heads of {dim}) does not fit into the target's \
                 blocks ({layers} of {heads} of {head_dim}): a draft model is smaller than its target"
            );
            return Err(ModelError::unsupported(checkpoint.path(), what));
        };
        let decoder = Decoder::load(&mut self.backend, checkpoint, &self.options, &mut |_, _| {})?;
        let pool = self.backend.alias_kv_pool(&self.pool, kv_shape)?;
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

    fn sample(
        &mut self,
        id: DraftModelId,
        rows: &[sample::SampleRow<'_>],
    ) -> Result<Vec<sample::SampledToken>> {
        Ok(self.backend.sample(self.drafts[id.0].decoder.logits().0, rows)?)
    }

    fn sample_async(
        &mut self,
        id: DraftModelId,
        rows: &[sample::SampleRow<'_>],
    ) -> Result<Range<u32>> {
        Ok(self.backend.sample_async(self.drafts[id.0].decoder.logits().0, rows)?)
    }
}

#[cfg(all(test, feature = "emulate"))]
mod tests {
    use super::*;
    use galley_backend::cuda::{CudaBackend, CudaConfig, CudaDevice};
    use galley_backend::{KvView, SeqSpan};
    use std::path::Path;

    const PROMPT: usize = 20;
    const LEN: usize = 44;

    fn checkpoint(name: &str) -> Checkpoint {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/models");
        Checkpoint::open(&models.join(name)).expect("a tiny model")
    }

    fn emulated() -> Llama<CudaBackend> {
        let backend = CudaBackend::new(CudaConfig::new(CudaDevice::Emulated)).expect("emulated");
        let options = LoadOptions { block_size: 16, n_blocks: 8, max_rows: 64, max_logit_rows: 64 };
        Llama::load(backend, &checkpoint("llama3"), Dtype::Bf16, options, &mut |_, _| {})
            .expect("a tiny model loads")
    }

    /// Calls `run` with a batch: the rows `first..end` of one sequence, each with logits.
    fn rows<T>(first: usize, end: usize, blocks: &[u32], run: impl FnOnce(&Batch<'_>) -> T) -> T {
        let positions: Vec<u32> = (first..end).map(|p| p as u32).collect();
        let tokens: Vec<u32> = positions.iter().map(|p| p * 5 % 60).collect();
        let logit_rows: Vec<u32> = (0..tokens.len() as u32).collect();
        let view = KvView::default();
        let n_rows = tokens.len();
        let seqs = [SeqSpan { first_row: 0, n_rows, block_table: blocks, writes_kv: true, view }];
        run(&Batch { tokens: &tokens, positions: &positions, seqs: &seqs, logit_rows: &logit_rows })
    }

    /// A target and a draft model alternate. Logits equal a single forward over all tokens.
    #[test]
    fn most_decodes_are_replayed() {
        let all = LayerMask::All;
        let mut whole = emulated();
        rows(0, LEN, &[0, 1, 2], |batch| {
            whole.target.forward(&mut whole.backend, &mut whole.pool, batch, &all, &mut [])
        })
        .expect("a prompt");
        let expected = whole.read_logits().expect("logits");
        let n_vocab = whole.target.config.vocab_size;

        let mut llama = emulated();
        let draft = DraftModels::load(&mut llama, &checkpoint("llama3")).expect("a draft model");
        for (first, end) in [(0, PROMPT)].into_iter().chain((PROMPT..LEN).map(|p| (p, p + 1))) {
            rows(first, end, &[3, 4, 5], |batch| {
                DraftModels::forward(&mut llama, draft, batch, &all)
            })
            .expect("a draft");
            rows(first, end, &[0, 1, 2], |batch| {
                LanguageModel::forward(&mut llama, batch, &all, &mut [])
            })
            .expect("a step");
            let logits = llama.read_logits().expect("logits");
            assert!(logits == expected[first * n_vocab..end * n_vocab], "{first}..{end}");
        }
        let counts = llama.backend.forward_counts();
        // Each model launches its prompt and its first decode, and records its second decode.
        assert_eq!((counts.launched, counts.graphs), (4, 2));
        assert_eq!(counts.replayed, 2 * (LEN - PROMPT - 2) as u64);
    }
}
