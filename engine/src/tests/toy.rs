//! A toy model: its logits are a hash of all that it reads through the block table. One wrong
//! block, one slot not copied, or one row too few changes everything after it.

use galley_backend::sample::philox::philox4x32_10;
use galley_backend::sample::{
    PendingTokens, SampleRow, SampledToken, SampledTokens, Scratch, sample_token,
};
use galley_backend::{
    BackendError, Batch, KvFormat, KvShape, LayerMask, Observation, Placeholders,
};
use galley_model::config::{Family, ModelConfig, RopeScaling};
use galley_model::end_tokens::{EndSource, EndTokens};
use galley_model::{LanguageModel, LoadedModel, ModelIndex, Result, RowLimits};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

pub(super) const VOCAB: usize = 40;
pub(super) const EOS: u32 = 39;

/// Block size of toys with draft models.
pub(super) const BLOCK_SIZE: usize = 4;

/// Most blocks of a draft model that lie in one block.
const MOST_PER_BLOCK: usize = 2;

/// Content of a slot: the KV of a token depends on all tokens before it. A draft model has the
/// target's logits, and KV that means nothing to other models.
type Slot = u64;

pub(super) struct Toy {
    loaded: LoadedModel,
    limits: RowLimits,
    slots: Vec<Slot>,
    logits: Vec<f32>,
    scratch: Scratch,
    pending: PendingTokens,
    /// The device is asynchronous: the engine is to run a step ahead of it.
    pub(super) is_asynchronous: bool,
    /// A log of calls: `f`orward, `s`ample, sample `a`synchronously, wait for `t`okens.
    pub(super) calls: Arc<Mutex<String>>,
    /// Every placeholder is read as the first token of the batch: the negative control.
    pub(super) mixes_placeholders: bool,
    /// Copies of blocks are skipped: the negative control.
    pub(super) ignores_copies: bool,
    /// What the KV of draft models is mixed with. Another value makes other models of them.
    pub(super) key: Arc<AtomicU64>,
    /// Rows of draft models so far.
    pub(super) n_draft_rows: Arc<AtomicU64>,
    /// Rows, and logit rows, that the device takes less than it says: the negative control.
    pub(super) takes_less: (usize, usize),
    /// The number of forwards that succeed, and the failure after them.
    pub(super) breaks: Option<(usize, Break)>,
    n_forwards: usize,
}

/// How a device fails.
#[derive(Clone, Copy, Debug)]
pub(super) enum Break {
    Error,
    /// One failure, and none after it.
    Once,
    Panic,
}

impl Toy {
    pub(super) fn new(n_blocks: usize, block_size: usize, max_rows: usize) -> Self {
        let mut end_tokens = EndTokens::default();
        end_tokens.add(EOS, EndSource::Config);
        let config = ModelConfig {
            family: Family::Llama,
            n_layers: 1,
            hidden_size: 1,
            n_heads: 1,
            n_kv_heads: 1,
            head_dim: 1,
            intermediate_size: 1,
            vocab_size: VOCAB,
            max_context: 1 << 20,
            rms_norm_eps: 1e-5,
            rope_theta: 1e4,
            rope_scaling: RopeScaling::None,
            rope_freq_factors: None,
            sliding_window: None,
            qkv_bias: false,
            qk_norm: false,
            tie_embeddings: true,
            end_tokens,
        };
        let kv_shape = KvShape {
            n_layers: 1,
            n_kv_heads: 1,
            head_dim: 1,
            block_size,
            n_blocks,
            format: KvFormat::F32,
        };
        Toy {
            loaded: LoadedModel::new(config, kv_shape, 0),
            limits: RowLimits::new(max_rows, max_rows),
            slots: vec![0; n_blocks * block_size * MOST_PER_BLOCK],
            logits: Vec::new(),
            scratch: Scratch::default(),
            pending: PendingTokens::default(),
            is_asynchronous: false,
            calls: Arc::default(),
            mixes_placeholders: false,
            ignores_copies: false,
            key: Arc::new(AtomicU64::new(1)),
            n_draft_rows: Arc::default(),
            takes_less: (0, 0),
            breaks: None,
            n_forwards: 0,
        }
    }

    fn note(&self, call: char) {
        self.calls.lock().unwrap().push(call);
    }

    fn sample_rows(&mut self, rows: &[SampleRow<'_>]) -> Result<Vec<SampledToken>> {
        let logits = |row: &SampleRow<'_>| &self.logits[row.logits_row * VOCAB..][..VOCAB];
        Ok(rows.iter().map(|row| sample_token(logits(row), row, &mut self.scratch)).collect())
    }

    pub(super) fn asynchronous(mut self, is_asynchronous: bool) -> Self {
        self.is_asynchronous = is_asynchronous;
        self
    }

    pub(super) fn with_logit_rows(mut self, max_logit_rows: usize) -> Self {
        self.limits.max_logit_rows = max_logit_rows;
        self
    }

    pub(super) fn with_shape(mut self, n_blocks: usize, block_size: usize) -> Self {
        let kv_shape = &mut self.loaded.kv_shape;
        (kv_shape.n_blocks, kv_shape.block_size) = (n_blocks, block_size);
        self
    }

    /// What a model's KV is mixed with: nothing for the target.
    fn key_of(&self, ModelIndex(model): ModelIndex) -> Slot {
        self.key.load(Relaxed).wrapping_mul(model as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    /// Corrupts the slots that a forward over `batch` writes, and the logits.
    pub(super) fn spoil(&mut self, batch: &Batch<'_>) {
        for seq in batch.seqs {
            for row in seq.first_row..seq.first_row + seq.n_rows {
                let p = batch.positions[row] as usize;
                let slot = slot_of(&self.loaded.kv_shape, seq.block_table, p);
                self.slots[slot] ^= 0x5555;
            }
        }
        self.logits.iter_mut().for_each(|logit| *logit = -*logit);
    }

    pub(super) fn with_context(mut self, max_context: usize) -> Self {
        self.loaded.config.max_context = max_context;
        self
    }
}

/// Place of position `p` of a sequence with these blocks.
fn slot_of(shape: &KvShape, block_table: &[u32], p: usize) -> usize {
    let KvShape { block_size, n_blocks, .. } = *shape;
    let id = block_table[p / block_size] as usize;
    let (part, block) = (id / n_blocks, id % n_blocks);
    (block * MOST_PER_BLOCK + part) * block_size + p % block_size
}

fn mix(a: u64, b: u64) -> u64 {
    let [x, y, _, _] =
        philox4x32_10([a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32], [7, 7]);
    u64::from(x) << 32 | u64::from(y)
}

/// The slot of `token` at `position` after attention over the slots `before`. Its logits follow
/// from it.
fn attend(before: impl Iterator<Item = Slot>, token: u32, position: usize) -> Slot {
    // Cheap, and sensitive to order.
    let read = before
        .fold(17u64, |sum, slot| sum.rotate_left(5).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ slot);
    mix(read, u64::from(token) << 32 | position as u64)
}

fn logits_of(slot: Slot) -> impl Iterator<Item = f32> {
    (0..VOCAB as u64)
        .map(move |token| (mix(slot, token) >> 40) as f32 / f32::from(1u16 << 13) / 400.0)
}

/// The toy model without a cache: the slots of its tokens, from which the next logits follow.
#[derive(Default)]
pub(super) struct Uncached(Vec<Slot>);

impl Uncached {
    pub(super) fn push(&mut self, token: u32) {
        let slot = attend(self.0.iter().copied(), token, self.0.len());
        self.0.push(slot);
    }

    pub(super) fn logits(&self) -> Vec<f32> {
        logits_of(self.0[self.0.len() - 1]).collect()
    }
}

impl LanguageModel for Toy {
    fn loaded(&self, _: ModelIndex) -> &LoadedModel {
        &self.loaded
    }

    fn row_limits(&self) -> RowLimits {
        self.limits
    }

    fn device(&self) -> String {
        "toy".into()
    }

    fn forward(
        &mut self,
        model: ModelIndex,
        batch: &Batch<'_>,
        _: &LayerMask<'_>,
        _: &mut [Observation<'_>],
    ) -> Result<()> {
        self.note('f');
        self.n_forwards += 1;
        match self.breaks {
            Some((n, how @ (Break::Error | Break::Once)))
                if self.n_forwards == n + 1
                    || self.n_forwards > n && matches!(how, Break::Error) =>
            {
                let error = "the toy device is broken".into();
                return Err(BackendError::Device { op: "a forward", error }.into());
            }
            Some((n, Break::Panic)) if self.n_forwards > n => panic!("the toy device is broken"),
            _ => {}
        }
        let n_rows = batch.tokens.len();
        let (less_rows, less_logit_rows) = self.takes_less;
        assert!(n_rows > 0 && n_rows <= self.limits.max_rows - less_rows, "{n_rows} rows");
        assert_eq!(batch.positions.len(), n_rows);
        let n_logit_rows = batch.logit_rows.len();
        assert!(
            n_logit_rows <= self.limits.max_logit_rows - less_logit_rows,
            "{n_logit_rows} of logits"
        );
        let (shape, key) = (self.loaded.kv_shape, self.key_of(model));
        if model != ModelIndex::TARGET {
            self.n_draft_rows.fetch_add(n_rows as u64, Relaxed);
        }
        let mut written = HashSet::new();
        let mut next_row = 0;
        let mut of_row = vec![0; n_rows];
        let mut tokens = self.pending.resolve(batch.tokens);
        if self.mixes_placeholders {
            let first = tokens[0];
            let read = tokens.iter_mut().zip(batch.tokens);
            let pending = read.filter(|(_, token)| token.placeholder().is_some());
            pending.for_each(|(token, _)| *token = first);
        }
        let ids = tokens.iter().map(|token| token.id().expect("each placeholder has a token"));
        let tokens: Vec<u32> = ids.collect();
        for seq in batch.seqs {
            assert_eq!(seq.first_row, next_row);
            next_row += seq.n_rows;
            let slot = |p: usize| slot_of(&shape, seq.block_table, p);
            for (row, slot_of_row) in
                of_row.iter_mut().enumerate().take(next_row).skip(seq.first_row)
            {
                let position = batch.positions[row] as usize;
                assert_eq!(position, batch.positions[seq.first_row] as usize + row - seq.first_row);
                assert!(written.insert(slot(position)), "two rows write to one slot");
                let before = (0..position).map(|p| self.slots[slot(p)] ^ key);
                *slot_of_row = attend(before, tokens[row], position);
                self.slots[slot(position)] = *slot_of_row ^ key;
            }
        }
        assert_eq!(next_row, n_rows);
        self.logits.clear();
        for &row in batch.logit_rows {
            self.logits.extend(logits_of(of_row[row as usize]));
        }
        Ok(())
    }

    fn finish_observing(&mut self, _: &mut [Observation<'_>]) -> Result<()> {
        Ok(())
    }

    fn sample(&mut self, _: ModelIndex, rows: &[SampleRow<'_>]) -> Result<Vec<SampledToken>> {
        self.note('s');
        self.sample_rows(rows)
    }

    fn sample_async(&mut self, _: ModelIndex, rows: &[SampleRow<'_>]) -> Result<Placeholders> {
        self.note('a');
        let tokens: Vec<u32> =
            self.sample_rows(rows)?.iter().map(|sampled| sampled.token).collect();
        Ok(self.pending.push(&tokens))
    }

    fn start_token_copy(&mut self) -> Result<()> {
        self.pending.send();
        Ok(())
    }

    fn wait_tokens(&mut self) -> Result<SampledTokens> {
        self.note('t');
        Ok(self.pending.take())
    }

    fn is_asynchronous(&self) -> bool {
        self.is_asynchronous
    }

    fn read_logits(&self, _: ModelIndex) -> Result<Vec<f32>> {
        Ok(self.logits.clone())
    }

    fn copy_blocks(&mut self, copies: &[(u32, u32)]) -> Result<()> {
        if !self.ignores_copies {
            let size = self.loaded.kv_shape.block_size * MOST_PER_BLOCK;
            for &(from, to) in copies {
                let from = from as usize * size;
                self.slots.copy_within(from..from + size, to as usize * size);
            }
        }
        Ok(())
    }
}
