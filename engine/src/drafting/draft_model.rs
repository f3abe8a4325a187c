//! Draft models: loading them beside the target, and the KV cache that a draft model has of one
//! sequence.

use galley_backend::sample::SampledTokens;
use galley_backend::{BackendError, InputToken};
use galley_blocks::{BlockManager, BlockTable};
use galley_drafter_host::{ModelFacts, ModelId, ModelLoader, ModelRefused};
use galley_model::tokenizer::Tokenizer;
use galley_model::weights::Checkpoint;
use galley_model::{LanguageModel, LoadedModel, ModelError, ModelIndex};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Maps the name of a model, as a drafter's option gives it, to its files. The error is a sentence.
pub type FindModel = Arc<dyn Fn(&str) -> Result<PathBuf, String> + Send + Sync>;

/// The facts about a draft model that sequences need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DraftModel {
    pub(crate) index: ModelIndex,
    /// Blocks of the draft model that lie in one block of the pool.
    blocks_per_block: usize,
    /// Blocks of the pool.
    n_pool_blocks: usize,
    /// Longest context that the model reads, in tokens.
    max_context: usize,
}

/// The KV cache that a draft model has of one sequence: blocks of the pool, and the tokens cached
/// in them.
///
/// The blocks belong to a table without tokens, so they never join the prefix cache. Giving them up
/// costs only the time to compute their KV again.
#[derive(Debug)]
pub(crate) struct DraftCache {
    pub(crate) model: DraftModel,
    table: BlockTable,
    /// The draft model's own block ids, one for each `block_size` positions.
    ids: Vec<u32>,
    /// The cache holds the KV of the first `n_tokens` tokens of the sequence.
    n_tokens: usize,
    /// Draft tokens after them, cached as well. Their KV is valid as far as the draft was right.
    drafted: Vec<InputToken>,
}

impl DraftCache {
    pub(crate) fn new(model: DraftModel) -> Self {
        let table = BlockTable::new(0);
        DraftCache { model, table, ids: Vec::new(), n_tokens: 0, drafted: Vec::new() }
    }

    /// Blocks of the pool that the cache holds.
    pub(crate) fn n_blocks(&self) -> usize {
        self.table.ids().len()
    }

    /// The block table for the draft model's forward.
    pub(crate) fn block_table(&self) -> &[u32] {
        &self.ids
    }

    #[cfg(test)]
    pub(crate) fn table(&self) -> &BlockTable {
        &self.table
    }

    /// Whether the model can read `n_tokens` tokens.
    pub(crate) fn can_read(&self, n_tokens: usize) -> bool {
        n_tokens <= self.model.max_context
    }

    /// Blocks of the pool that the cache lacks to hold the KV of `n_tokens` tokens.
    pub(crate) fn blocks_needed(&self, n_tokens: usize, block_size: usize) -> usize {
        let n_blocks = n_tokens.div_ceil(block_size).div_ceil(self.model.blocks_per_block);
        n_blocks.saturating_sub(self.n_blocks())
    }

    /// Reserves the blocks that the cache lacks to hold the KV of `n_tokens` tokens. Enough blocks
    /// must be free.
    pub(crate) fn reserve(&mut self, n_tokens: usize, blocks: &mut BlockManager) {
        let size = blocks.block_size_tokens();
        let n_blocks = self.n_blocks() + self.blocks_needed(n_tokens, size);
        blocks.reserve(&mut self.table, n_blocks * size).expect("as many as needed are free");
        let (per_block, n_pool) = (self.model.blocks_per_block, self.model.n_pool_blocks);
        let held = self.table.ids();
        let n = held.len() * per_block;
        let place = |i: usize| (i % per_block * n_pool) as u32 + held[i / per_block];
        self.ids.extend((self.ids.len()..n).map(place));
    }

    /// Gives all blocks back.
    pub(crate) fn release(&mut self, blocks: &mut BlockManager) {
        let table = std::mem::replace(&mut self.table, BlockTable::new(0));
        blocks.release(table);
        self.ids.clear();
        self.drafted.clear();
        self.n_tokens = 0;
    }

    /// Index of the first of `tokens` to read. The last token is always read, again if need be,
    /// because its logits are needed.
    pub(crate) fn first_unread(&mut self, tokens: &[u32]) -> usize {
        let unread = self.drafted.iter().zip(&tokens[self.n_tokens..]);
        let right = unread.take_while(|(drafted, token)| drafted.id() == Some(**token));
        self.n_tokens += right.count();
        self.drafted.clear();
        self.n_tokens = self.n_tokens.min(tokens.len() - 1);
        self.n_tokens
    }

    /// Replaces placeholders among the draft tokens that the model has read.
    pub(super) fn resolve(&mut self, sampled: &SampledTokens) {
        sampled.resolve(&mut self.drafted);
    }

    /// Records that the KV of the first `n_tokens` tokens of the sequence, and of `drafted` after
    /// them, has been written.
    pub(crate) fn has_read(&mut self, n_tokens: usize, drafted: &[InputToken]) {
        self.n_tokens = n_tokens;
        self.drafted.clear();
        self.drafted.extend_from_slice(drafted);
    }
}

/// The draft models of an engine, loaded while its drafters are activated.
pub(super) struct DraftModelLoader<'a> {
    target: &'a mut dyn LanguageModel,
    tokenizer: Option<&'a Tokenizer>,
    find: &'a FindModel,
    /// By name, so that two drafters with one model share its weights.
    loaded: HashMap<String, (DraftModel, ModelFacts)>,
    /// Models that the drafter being activated has asked for.
    asked: Vec<DraftModel>,
}

impl<'a> DraftModelLoader<'a> {
    pub(super) fn new(
        target: &'a mut dyn LanguageModel,
        tokenizer: Option<&'a Tokenizer>,
        find: &'a FindModel,
    ) -> Self {
        DraftModelLoader { target, tokenizer, find, loaded: HashMap::new(), asked: Vec::new() }
    }

    /// The models that have been asked for since the last call.
    pub(super) fn take_asked(&mut self) -> Vec<DraftModel> {
        std::mem::take(&mut self.asked)
    }

    fn load_new(&mut self, source: &str) -> Result<(DraftModel, ModelFacts), ModelRefused> {
        let path = (self.find)(source).map_err(ModelRefused::Failed)?;
        let checkpoint = Checkpoint::open(&path).map_err(failed)?;
        self.check_vocabulary(&checkpoint)?;
        let index = self.target.load_draft(&checkpoint).map_err(failed)?;
        let (target, own) = (self.target.target(), self.target.loaded(index));
        let n_pool_blocks = target.kv_shape.n_blocks;
        let draft_model = DraftModel {
            index,
            blocks_per_block: own.kv_shape.n_blocks / n_pool_blocks,
            n_pool_blocks,
            max_context: own.config.max_context,
        };
        if own.config.max_context < target.config.max_context {
            tracing::warn!(
                "draft model {} reads {} tokens and the target {}: it drafts for sequences that it can read",
                path.display(),
                own.config.max_context,
                target.config.max_context
            );
        }
        tracing::info!(
            "draft model {} beside {:?}: {} MiB of weights",
            path.display(),
            target.config.family,
            own.weight_bytes >> 20
        );
        Ok((draft_model, facts_of(own)))
    }

    /// Checks that every token id means the same to both models, because a draft token is an id.
    fn check_vocabulary(&self, checkpoint: &Checkpoint) -> Result<(), ModelRefused> {
        let Some(wanted) = self.tokenizer else {
            let (own, wanted) =
                (checkpoint.config().vocab_size, self.target.target().config.vocab_size);
            let why = format!("it has {own} tokens, the target {wanted}");
            return if own == wanted { Ok(()) } else { Err(ModelRefused::Unsupported(why)) };
        };
        let own = Tokenizer::open(checkpoint.path(), checkpoint.gguf()).map_err(failed)?;
        if own.fingerprint() == wanted.fingerprint() {
            return Ok(());
        }
        let n = own.vocab_size().max(wanted.vocab_size()) as u32;
        let differs = |&id: &u32| own.token_bytes(id) != wanted.token_bytes(id);
        let first = (0..n).find(differs).unwrap_or_default();
        let write = |bytes: Option<&[u8]>| match bytes {
            None => "nothing".to_owned(),
            Some(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        };
        Err(ModelRefused::Unsupported(format!(
            "{} has another tokenizer than the target: token {first} is {} there and {} here. A draft model \
             has the target's own vocabulary: take one of the same family",
            checkpoint.path().display(),
            write(own.token_bytes(first)),
            write(wanted.token_bytes(first))
        )))
    }
}

impl ModelLoader for DraftModelLoader<'_> {
    fn load(&mut self, source: &str) -> Result<(ModelId, ModelFacts), ModelRefused> {
        let (draft_model, facts) = match self.loaded.get(source) {
            Some(known) => *known,
            None => self.load_new(source)?,
        };
        self.loaded.insert(source.to_owned(), (draft_model, facts));
        if !self.asked.contains(&draft_model) {
            self.asked.push(draft_model);
        }
        Ok((draft_model.host_id(), facts))
    }
}

impl DraftModel {
    /// The model's id in the drafter host, which numbers models like the device.
    pub(crate) fn host_id(&self) -> ModelId {
        ModelId(self.index.0 as u32)
    }
}

fn failed(error: ModelError) -> ModelRefused {
    match error {
        ModelError::Backend(BackendError::OutOfMemory { .. }) => {
            ModelRefused::NoMemory(error.to_string())
        }
        ModelError::Unsupported { .. } => ModelRefused::Unsupported(error.to_string()),
        _ => ModelRefused::Failed(error.to_string()),
    }
}

/// The facts about a model that the host gives to drafters.
pub(super) fn facts_of(model: &LoadedModel) -> ModelFacts {
    let config = &model.config;
    ModelFacts {
        n_layers: config.n_layers as u32,
        n_heads: config.n_heads as u32,
        n_kv_heads: config.n_kv_heads as u32,
        head_dim: config.head_dim as u32,
        hidden_size: config.hidden_size as u32,
        vocab_size: config.vocab_size as u32,
        block_size_tokens: model.kv_shape.block_size as u32,
        max_context_tokens: config.max_context as u64,
        n_parameters: config.parameters() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use galley_backend::sample::PendingTokens;

    fn cache(blocks_per_block: usize) -> DraftCache {
        DraftCache::new(DraftModel {
            index: ModelIndex(1),
            blocks_per_block,
            n_pool_blocks: 10,
            max_context: 100,
        })
    }

    #[test]
    fn several_of_its_blocks_lie_in_one_of_the_pool() {
        let mut blocks = BlockManager::new(10, 4, true);
        let mut cache = cache(3);
        assert_eq!(cache.blocks_needed(13, 4), 2);
        cache.reserve(13, &mut blocks);
        let [a, b] = *cache.table.ids() else { panic!("two blocks of the pool") };
        assert_eq!(cache.block_table(), [a, a + 10, a + 20, b, b + 10, b + 20]);
        assert_eq!((cache.blocks_needed(24, 4), cache.blocks_needed(25, 4)), (0, 1));
        cache.reserve(25, &mut blocks);
        assert_eq!((cache.n_blocks(), blocks.n_used()), (3, 3));
        blocks.check(&[&cache.table]).unwrap();
        cache.release(&mut blocks);
        assert_eq!((cache.n_blocks(), cache.block_table().len(), blocks.n_used()), (0, 0, 0));
        blocks.check(&[]).unwrap();
    }

    #[test]
    fn what_was_guessed_right_need_not_be_read_again() {
        let mut cache = cache(1);
        assert_eq!(cache.first_unread(&[5, 6, 7]), 0);
        // The model read all three, drafted 1, 2, 3 and read the first two of these.
        let drafted = [1, 2].map(InputToken::known);
        cache.has_read(3, &drafted);
        assert_eq!(cache.first_unread(&[5, 6, 7, 1, 9]), 4);
        cache.has_read(5, &drafted);
        assert_eq!(cache.first_unread(&[5, 6, 7, 1, 9, 1, 2, 3, 4]), 7);
        // The draft tokens are placeholders: until they are resolved, none counts as right.
        let mut sampled = PendingTokens::default();
        let ahead: Vec<_> = sampled.push(&[1, 2]).map(InputToken::pending).collect();
        cache.has_read(5, &ahead);
        assert_eq!(cache.first_unread(&[5, 6, 7, 1, 9, 1, 2, 3]), 5);
        cache.has_read(5, &ahead);
        cache.resolve(&sampled.take());
        assert_eq!(cache.first_unread(&[5, 6, 7, 1, 9, 1, 2, 3]), 7);
        // The model has read every token; the last is read again, for its logits.
        cache.has_read(9, &[InputToken::known(8)]);
        assert_eq!(cache.first_unread(&[5, 6, 7, 1, 9, 1, 2, 3, 4, 8]), 9);
    }
}
