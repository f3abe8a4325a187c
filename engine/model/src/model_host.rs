//! A target and the draft models beside it, on one device.

use crate::decoder::Decoder;
use crate::language_model::{LanguageModel, LoadOptions, LoadedModel, ModelIndex, RowLimits};
use crate::weights::Checkpoint;
use crate::{ModelError, Result};
use galley_backend::{
    Backend, Batch, DeviceMemory, KvShape, LayerMask, Observation, Placeholders, sample,
};

/// A device with its models, which share one KV pool.
pub(crate) struct ModelHost<B: Backend> {
    backend: B,
    options: LoadOptions,
    /// By [`ModelIndex`]: the target, then its draft models.
    models: Vec<HostedModel<B>>,
}

/// A model of the device. Blocks of a draft model lie inside the target's blocks.
struct HostedModel<B: DeviceMemory> {
    loaded: LoadedModel,
    decoder: Decoder<B>,
    pool: B::KvPool,
}

impl<B: Backend> ModelHost<B> {
    /// Packs the weights of the target in `checkpoint`, tensor by tensor; `progress(done, total)`
    /// counts layers.
    pub(crate) fn load(
        mut backend: B,
        checkpoint: &Checkpoint,
        options: LoadOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let decoder = Decoder::load(&mut backend, checkpoint, &options, progress)?;
        let mut kv_shape = KvShape {
            n_layers: decoder.config.n_layers,
            n_kv_heads: decoder.config.n_kv_heads,
            head_dim: decoder.config.head_dim,
            block_size: options.block_size,
            n_blocks: options.n_blocks,
            format: backend.formats().kv,
        };
        if let Some(room) = backend.room_bytes()? {
            let per_block = kv_shape.bytes_per_token() * kv_shape.block_size;
            // At least one block, so that running out of memory is reported by the allocation.
            kv_shape.n_blocks = kv_shape.n_blocks.min((room / per_block).max(1));
        }
        let pool = backend.kv_pool(kv_shape)?;
        let mut host = Self { backend, options, models: Vec::with_capacity(1) };
        host.add(checkpoint, decoder, pool, kv_shape);
        Ok(host)
    }

    /// Adds a model whose weights and pool are on the device.
    fn add(
        &mut self,
        checkpoint: &Checkpoint,
        decoder: Decoder<B>,
        pool: B::KvPool,
        kv_shape: KvShape,
    ) -> ModelIndex {
        let weight_bytes = decoder.weight_bytes(&self.backend);
        let loaded = LoadedModel {
            step_weight_bytes: decoder.step_weight_bytes(&self.backend),
            content_hash: checkpoint.content_hash(),
            arithmetic: self.backend.arithmetic(checkpoint.has_blocks()),
            ..LoadedModel::new(decoder.config.clone(), kv_shape, weight_bytes)
        };
        self.models.push(HostedModel { loaded, decoder, pool });
        ModelIndex(self.models.len() - 1)
    }

    fn model(&self, index: ModelIndex) -> &HostedModel<B> {
        &self.models[index.0]
    }
}

impl<B: Backend> LanguageModel for ModelHost<B> {
    fn loaded(&self, model: ModelIndex) -> &LoadedModel {
        &self.model(model).loaded
    }

    fn row_limits(&self) -> RowLimits {
        let LoadOptions { max_rows, max_logit_rows, .. } = self.options;
        RowLimits::new(max_rows, max_logit_rows)
    }

    fn device(&self) -> String {
        self.backend.description()
    }

    fn is_asynchronous(&self) -> bool {
        self.backend.is_asynchronous()
    }

    fn load_draft(&mut self, checkpoint: &Checkpoint) -> Result<ModelIndex> {
        let config = checkpoint.config();
        let (n_layers, n_heads, dim) = (config.n_layers, config.n_kv_heads, config.head_dim);
        let target = self.target().kv_shape;
        let Some(kv_shape) = target.draft_layout(n_layers, n_heads, dim) else {
            let KvShape { n_layers: layers, n_kv_heads: heads, head_dim, .. } = target;
            let what = format!(
                "its KV cache ({n_layers} layers of {n_heads} heads of {dim}) does not fit into the target's \
                 blocks ({layers} of {heads} of {head_dim}): a draft model is smaller than its target"
            );
            return Err(ModelError::unsupported(checkpoint.path(), what));
        };
        let decoder = Decoder::load(&mut self.backend, checkpoint, &self.options, &mut |_, _| {})?;
        let pool = &self.models[ModelIndex::TARGET.0].pool;
        let pool = self.backend.alias_kv_pool(pool, kv_shape)?;
        Ok(self.add(checkpoint, decoder, pool, kv_shape))
    }

    fn forward(
        &mut self,
        model: ModelIndex,
        batch: &Batch<'_>,
        layers: &LayerMask<'_>,
        observations: &mut [Observation<'_>],
    ) -> Result<()> {
        let HostedModel { decoder, pool, .. } = &mut self.models[model.0];
        decoder.forward(&mut self.backend, pool, batch, layers, observations)
    }

    fn finish_observing(&mut self, observations: &mut [Observation<'_>]) -> Result<()> {
        Ok(self.backend.finish_observing(observations)?)
    }

    fn sample(
        &mut self,
        model: ModelIndex,
        rows: &[sample::SampleRow<'_>],
    ) -> Result<Vec<sample::SampledToken>> {
        let (logits, _) = self.models[model.0].decoder.logits();
        Ok(self.backend.sample(logits, rows)?)
    }

    fn sample_async(
        &mut self,
        model: ModelIndex,
        rows: &[sample::SampleRow<'_>],
    ) -> Result<Placeholders> {
        let (logits, _) = self.models[model.0].decoder.logits();
        Ok(self.backend.sample_async(logits, rows)?)
    }

    fn start_token_copy(&mut self) -> Result<()> {
        Ok(self.backend.start_token_copy()?)
    }

    fn wait_tokens(&mut self) -> Result<sample::SampledTokens> {
        Ok(self.backend.wait_tokens()?)
    }

    fn read_logits(&self, model: ModelIndex) -> Result<Vec<f32>> {
        let (logits, n_rows) = self.model(model).decoder.logits();
        Ok(self.backend.read_f32(logits, n_rows)?)
    }

    fn copy_blocks(&mut self, copies: &[(u32, u32)]) -> Result<()> {
        let target = &mut self.models[ModelIndex::TARGET.0];
        Ok(self.backend.copy_blocks(&mut target.pool, copies)?)
    }
}

#[cfg(all(test, feature = "emulate"))]
mod tests {
    use super::*;
    use galley_backend::cuda::{CudaBackend, CudaConfig, CudaDevice};
    use galley_backend::{InputToken, KvView, SeqSpan};
    use std::path::Path;

    const PROMPT: usize = 20;
    const LEN: usize = 44;

    fn checkpoint(name: &str) -> Checkpoint {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/models");
        Checkpoint::open(&models.join(name)).expect("a tiny model")
    }

    fn emulated() -> ModelHost<CudaBackend> {
        let backend = CudaBackend::new(CudaConfig::new(CudaDevice::Emulated)).expect("emulated");
        let options = LoadOptions { block_size: 16, n_blocks: 8, max_rows: 64, max_logit_rows: 64 };
        ModelHost::load(backend, &checkpoint("llama3"), options, &mut |_, _| {})
            .expect("a tiny model loads")
    }

    /// Calls `run` with a batch: the rows `first..end` of one sequence, each with logits.
    fn rows<T>(first: usize, end: usize, blocks: &[u32], run: impl FnOnce(&Batch<'_>) -> T) -> T {
        let positions: Vec<u32> = (first..end).map(|p| p as u32).collect();
        let tokens: Vec<_> = positions.iter().map(|p| InputToken::known(p * 5 % 60)).collect();
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
        rows(0, LEN, &[0, 1, 2], |batch| whole.forward(ModelIndex::TARGET, batch, &all, &mut []))
            .expect("a prompt");
        let expected = whole.read_logits(ModelIndex::TARGET).expect("logits");
        let n_vocab = whole.target().config.vocab_size;

        let mut host = emulated();
        let draft = host.load_draft(&checkpoint("llama3")).expect("a draft model");
        for (first, end) in [(0, PROMPT)].into_iter().chain((PROMPT..LEN).map(|p| (p, p + 1))) {
            rows(first, end, &[3, 4, 5], |batch| host.forward(draft, batch, &all, &mut []))
                .expect("a draft");
            rows(first, end, &[0, 1, 2], |batch| {
                host.forward(ModelIndex::TARGET, batch, &all, &mut [])
            })
            .expect("a step");
            let logits = host.read_logits(ModelIndex::TARGET).expect("logits");
            assert!(logits == expected[first * n_vocab..end * n_vocab], "{first}..{end}");
        }
        let counts = host.backend.forward_counts();
        // Each model launches its prompt and its first decode, and records its second decode.
        assert_eq!((counts.launched, counts.graphs), (4, 2));
        assert_eq!(counts.replayed, 2 * (LEN - PROMPT - 2) as u64);
    }
}
