//! The sampler inputs of a sequence.

use super::RequestState;
use galley_backend::InputToken;
use galley_backend::sample::philox::sequence_seed;
use galley_backend::sample::{SampleRow, TokenCounts};
use std::sync::Arc;

/// The settings, the seed and the token counts with which the tokens of one sequence are sampled.
#[derive(Clone, Debug)]
pub(crate) struct SequenceSampler {
    request: Arc<RequestState>,
    seed: u64,
    /// Counts of tokens, if penalties need them.
    seen: Option<TokenCounts>,
}

impl SequenceSampler {
    /// The sampler inputs of sequence `index` of a request.
    pub(super) fn new(request: Arc<RequestState>, index: u32, seen: Option<TokenCounts>) -> Self {
        SequenceSampler { seed: sequence_seed(request.seed, index), request, seen }
    }

    /// The sampler inputs of sequence `index` of the same request, before any output.
    pub(super) fn fork(&self, index: u32) -> Self {
        Self::new(Arc::clone(&self.request), index, self.seen.clone())
    }

    /// Sampler input for the token at `position`, from the logit row `logits_row`. `drafted` are the
    /// draft tokens before it.
    pub(crate) fn row<'a>(
        &'a self,
        logits_row: usize,
        position: usize,
        drafted: &'a [InputToken],
    ) -> SampleRow<'a> {
        SampleRow {
            logits_row,
            sampling: &self.request.sampling,
            seed: self.seed,
            position: position as u32,
            seen: self.seen.as_ref(),
            drafted,
            banned: &self.request.stop.banned,
            early_ends: self.request.stop.early_ends(position - self.request.n_prompt),
            reports: true,
            rejection: None,
        }
    }

    /// Sampler input for the first token of sequence `index` of the same request.
    pub(crate) fn fork_row(&self, logits_row: usize, index: u32) -> SampleRow<'_> {
        let seed = sequence_seed(self.request.seed, index);
        SampleRow { seed, ..self.row(logits_row, self.request.n_prompt, &[]) }
    }

    /// Whether sampling counts the tokens before.
    pub(crate) fn has_penalties(&self) -> bool {
        self.seen.is_some()
    }

    /// Counts a token of the output.
    pub(super) fn count(&mut self, token: u32) {
        if let Some(seen) = &mut self.seen {
            seen.push_output(token);
        }
    }
}
