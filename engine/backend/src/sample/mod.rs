//! Sampling one token from one row of logits: Gumbel-max with counter-based noise.
//!
//! The token is `argmax(logits / T + noise)` over the candidates that top-k, top-p and min-p keep.
//! The noise of a token depends on the sequence's seed, the position and the token, and on nothing
//! else ([`philox`]). Sampling the same row for the same position therefore gives the same token,
//! at any time and in any batch. This makes verification an equality test.
//!
//! [`sample_token`] is a pure function of a row. Its steps, in order:
//!
//! 1. log-probabilities, from the model's own logits ([`logprob`]);
//! 2. bias, penalties and bans on the logits: the list in [`logit_processors`];
//! 3. temperature; 0 takes the largest logit and ends here;
//! 4. top-k, then top-p over the tokens that top-k keeps, then min-p: each a cutoff in one order
//!    ([`top_k_top_p`]);
//! 5. Gumbel-max ([`gumbel`]), or the decision on a draft token if the request asks for verification
//!    by rejection ([`reject`]).
//!
//! Ties go to the lower token id everywhere. **Odd logits:** NaN counts as -inf and +inf as the
//! largest finite number. A token at -inf is never sampled while another token is above -inf. If no
//! token is above -inf, the sampled token is 0.

mod gumbel;
mod logit_processors;
mod logprob;
mod params;
mod pending;
pub mod philox;
mod reject;
#[cfg(test)]
mod tests;
mod token_counts;
mod top_k_top_p;
mod vector_ops;

#[cfg(any(feature = "cuda", feature = "emulate"))]
pub(crate) use logit_processors::LogitProcessor;
pub use params::SamplingParams;
#[cfg(any(feature = "cuda", feature = "emulate"))]
pub(crate) use pending::PlaceholderNumbers;
pub use pending::{PendingTokens, SampledTokens};
pub use reject::{Proposal, Rejection};
#[cfg(any(feature = "cuda", feature = "emulate"))]
pub(crate) use token_counts::TokenCount;
pub use token_counts::TokenCounts;

use crate::InputToken;
use top_k_top_p::Cutoff;
use vector_ops::{CHUNK, argmax, temper};

/// The inputs of sampling one token, beside its logits.
#[derive(Clone, Copy, Debug)]
pub struct SampleRow<'a> {
    /// Index of the logit row. Several entries may share one: the first tokens of the `n` sequences
    /// of a request.
    pub logits_row: usize,
    /// The request's settings.
    pub sampling: &'a SamplingParams,
    /// The sequence's seed ([`philox::sequence_seed`]).
    pub seed: u64,
    /// Absolute position of the token to sample: with the seed, the key of its noise.
    pub position: u32,
    /// Tokens seen so far, for penalties; None when no penalty is set.
    pub seen: Option<&'a TokenCounts>,
    /// Output tokens after the tokens of `seen`, such as a draft under verification. Placeholders
    /// only if the row does not need their values ([`Self::needs_the_host`]).
    pub drafted: &'a [InputToken],
    /// Tokens that must not be sampled.
    pub banned: &'a [u32],
    /// Tokens that would end the sequence, if it has fewer than `min_tokens`; empty afterwards.
    pub early_ends: &'a [u32],
    /// Whether to report the log-probabilities that the request asks for; draft tokens need none.
    pub reports: bool,
    /// The role of the token in a verification by rejection; None samples as usual.
    pub rejection: Option<Rejection<'a>>,
}

impl SampleRow<'_> {
    /// Whether sampling needs the values of output tokens or returns a proposal. Such a row is for
    /// [`Sampling::sample`]; any other row may use [`AsyncSampling::sample_async`].
    ///
    /// [`Sampling::sample`]: crate::Sampling::sample
    /// [`AsyncSampling::sample_async`]: crate::AsyncSampling::sample_async
    pub fn needs_the_host(&self) -> bool {
        let proposes = self.rejection.is_some() && !self.sampling.is_greedy();
        proposes || self.processors().any(|processor| processor.reads_output())
    }
}

/// A sampled token.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledToken {
    /// The token.
    pub token: u32,
    /// Log-probability of the token under the model's own logits (before penalties, bias and
    /// temperature), if the request asks for it and the row reports it.
    pub logprob: Option<f32>,
    /// The most likely tokens and their log-probabilities, most likely first.
    pub top: Vec<(u32, f32)>,
    /// The distribution that the token was drawn from; set for [`Rejection::Draft`] unless the
    /// request is greedy.
    pub proposal: Option<Box<Proposal>>,
}

impl SampledToken {
    /// A token without log-probabilities or a proposal.
    pub fn of(token: u32) -> Self {
        SampledToken { token, logprob: None, top: Vec::new(), proposal: None }
    }
}

/// Working memory of [`sample_token`], one per thread. Keeps no state between calls.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The row divided by the temperature, padded with -inf to whole chunks.
    work: Vec<f32>,
    /// The largest value of every chunk of `work`.
    chunk_max: Vec<f32>,
    keep: top_k_top_p::CutoffScratch,
    /// The target's distribution, for a verification by rejection.
    target: reject::Distribution,
}

impl Scratch {
    /// Fills `work` with `row / temperature`, with NaN and infinities replaced, and fills
    /// `chunk_max`. Returns the largest value.
    fn load(&mut self, row: &[f32], inv_temperature: f32) -> f32 {
        let n_chunks = row.len().div_ceil(CHUNK);
        self.work.resize(n_chunks * CHUNK, 0.0);
        self.chunk_max.resize(n_chunks, 0.0);
        temper(row, inv_temperature, &mut self.work, &mut self.chunk_max)
    }
}

/// Samples a token from `logits`, the logit row `row.logits_row`. Does not change the logits.
pub fn sample_token(logits: &[f32], row: &SampleRow<'_>, scratch: &mut Scratch) -> SampledToken {
    let sampling = row.sampling;
    let n_top = sampling.logprobs.filter(|_| row.reports);
    let report = n_top.map(|n_top| logprob::report(logits, n_top as usize, scratch));
    let (token, proposal) = sample_row(logits, row, scratch);
    let (logprob, top) = match report {
        None => (None, Vec::new()),
        Some(report) => (Some(report.of(logits, token)), report.top),
    };
    SampledToken { token, logprob, top, proposal }
}

fn sample_row(
    logits: &[f32],
    row: &SampleRow<'_>,
    scratch: &mut Scratch,
) -> (u32, Option<Box<Proposal>>) {
    let sampling = row.sampling;
    let mut adjusted = std::mem::take(&mut scratch.keep.adjusted);
    let mut processors = row.processors().peekable();
    let logits = if processors.peek().is_some() {
        adjusted.clear();
        adjusted.extend_from_slice(logits);
        processors.for_each(|processor| processor.apply(&mut adjusted));
        &adjusted
    } else {
        logits
    };
    let sampled = if sampling.is_greedy() {
        (argmax(logits), None)
    } else {
        let n = logits.len();
        let max = scratch.load(logits, 1.0 / sampling.temperature);
        let cutoff = Cutoff::of(sampling, n, max, scratch);
        match row.rejection {
            None => {
                let Scratch { work, chunk_max, .. } = &*scratch;
                (gumbel::run(work, chunk_max, cutoff, row.seed, row.position), None)
            }
            Some(Rejection::Draft) => {
                let proposal = reject::draft(n, row, max, cutoff, scratch);
                (proposal.token(), Some(Box::new(proposal)))
            }
            Some(Rejection::Verify(proposal)) => {
                (reject::verify(n, row, proposal, max, cutoff, scratch), None)
            }
        }
    };
    scratch.keep.adjusted = adjusted;
    sampled
}
