//! Loads draft models beside the target.

use crate::draft_cache::DraftModel;
use crate::draft_settings::FindModel;
use galley_backend::{BackendError, KvShape};
use galley_drafter_host::{ModelFacts, ModelId, ModelLoader, ModelRefused};
use galley_model::config::ModelConfig;
use galley_model::tokenizer::Tokenizer;
use galley_model::weights::Checkpoint;
use galley_model::{LanguageModel, ModelError, ModelIndex};
use std::collections::HashMap;

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
        let path = (self.find)(source).map_err(|error| ModelRefused::Failed(error.to_string()))?;
        let checkpoint = Checkpoint::open(&path).map_err(failed)?;
        self.check_vocabulary(&checkpoint)?;
        let index = self.target.load_draft(&checkpoint).map_err(failed)?;
        let (draft, target) = (self.target.loaded(index), self.target.target());
        let draft_model = DraftModel {
            index,
            blocks_per_block: draft.kv_shape.n_blocks / target.kv_shape.n_blocks,
            n_pool_blocks: target.kv_shape.n_blocks,
            max_context: draft.config.max_context,
        };
        if draft.config.max_context < target.config.max_context {
            tracing::warn!(
                "draft model {} reads {} tokens and the target {}: it drafts for sequences that it can read",
                path.display(),
                draft.config.max_context,
                target.config.max_context
            );
        }
        tracing::info!(
            "draft model {} beside {:?}: {} MiB of weights",
            path.display(),
            target.config.family,
            draft.weight_bytes >> 20
        );
        Ok((draft_model, facts_of(&draft.config, &draft.kv_shape)))
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
        Ok((host_id(draft_model.index), facts))
    }
}

/// The model that the drafter host calls `id`. Both number the target 0 and draft models from 1.
pub(super) fn index_of(id: ModelId) -> ModelIndex {
    ModelIndex(id.0 as usize)
}

/// The drafter host's id of a model.
fn host_id(index: ModelIndex) -> ModelId {
    ModelId(index.0 as u32)
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
pub(super) fn facts_of(config: &ModelConfig, shape: &KvShape) -> ModelFacts {
    ModelFacts {
        n_layers: config.n_layers as u32,
        n_heads: config.n_heads as u32,
        n_kv_heads: config.n_kv_heads as u32,
        head_dim: config.head_dim as u32,
        hidden_size: config.hidden_size as u32,
        vocab_size: config.vocab_size as u32,
        block_size_tokens: shape.block_size as u32,
        max_context_tokens: config.max_context as u64,
        n_parameters: config.parameters() as u64,
    }
}
