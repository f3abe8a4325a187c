//! Logit processors: the list of changes to a row of logits before sampling, and its use on the
//! host.
//!
//! [`SampleRow::processors`] is the only place with the order. Every device applies this list:
//! [`LogitProcessor::apply`] on the host, `cuda/logit_processors.rs` by edits of the kernel. A new
//! processor is a variant, its place in the order, and an arm of each `match`.

use super::{SampleRow, SamplingParams, TokenCounts};
use crate::InputToken;

/// One change to the logits of a row. Skips token ids outside the vocabulary.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LogitProcessor<'a> {
    /// Adds to the logit of a token the bias of each of its entries.
    Bias(&'a [(u32, f32)]),
    /// Changes the logits of seen and drafted tokens by the penalties of `sampling`, once per
    /// token.
    Penalties {
        sampling: &'a SamplingParams,
        seen: &'a TokenCounts,
        /// Output tokens after the tokens of `seen`.
        drafted: &'a [InputToken],
    },
    /// Sets the logits of tokens that are never sampled to -inf.
    Bans(&'a [u32]),
    /// Sets the logits of the tokens that would end the sequence before `min_tokens` to -inf.
    MinTokens(&'a [u32]),
}

impl<'a> SampleRow<'a> {
    /// The processors that this row needs, in the order in which they apply.
    pub(crate) fn processors(&self) -> impl Iterator<Item = LogitProcessor<'a>> + use<'a> {
        let Self { sampling, drafted, banned, early_ends, .. } = *self;
        let has_bias = !sampling.logit_bias.is_empty();
        let seen = self.seen.filter(|_| sampling.has_penalties());
        // Bias before penalties, as in vLLM. Bans come last: no change raises a logit from -inf.
        [
            has_bias.then_some(LogitProcessor::Bias(&sampling.logit_bias)),
            seen.map(|seen| LogitProcessor::Penalties { sampling, seen, drafted }),
            (!banned.is_empty()).then_some(LogitProcessor::Bans(banned)),
            (!early_ends.is_empty()).then_some(LogitProcessor::MinTokens(early_ends)),
        ]
        .into_iter()
        .flatten()
    }
}

impl LogitProcessor<'_> {
    /// Whether the change depends on the values of output tokens, which the host must have read.
    pub(super) fn reads_output(&self) -> bool {
        match self {
            Self::Penalties { .. } => true,
            Self::Bias(_) | Self::Bans(_) | Self::MinTokens(_) => false,
        }
    }

    /// Changes `logits`, a row of the vocabulary's size.
    pub(crate) fn apply(&self, logits: &mut [f32]) {
        match *self {
            Self::Bias(biases) => {
                for &(token, bias) in biases {
                    change(logits, token, |logit| logit + bias);
                }
            }
            Self::Penalties { sampling, seen, drafted } => {
                penalise(logits, sampling, seen, drafted);
            }
            Self::Bans(tokens) | Self::MinTokens(tokens) => {
                for &token in tokens {
                    change(logits, token, |_| f32::NEG_INFINITY);
                }
            }
        }
    }
}

/// Replaces the logit of a token of the vocabulary.
fn change(logits: &mut [f32], token: u32, changed: impl FnOnce(f32) -> f32) {
    if let Some(logit) = logits.get_mut(token as usize) {
        *logit = changed(*logit);
    }
}

/// Penalises every token of `seen` and `drafted` once, for all its occurrences.
fn penalise(
    logits: &mut [f32],
    sampling: &SamplingParams,
    seen: &TokenCounts,
    drafted: &[InputToken],
) {
    // The pass over `seen` changes the logits of drafted tokens that are seen, so these logits are
    // saved first.
    let mut unpenalised: Vec<(u32, f32)> = Vec::with_capacity(drafted.len());
    for (i, &token) in drafted.iter().enumerate() {
        if let Some(id) = token.id()
            && let Some(&logit) = logits.get(id as usize)
            && !drafted[..i].contains(&token)
        {
            unpenalised.push((id, logit));
        }
    }
    for seen in seen.iter() {
        change(logits, seen.token, |logit| penalised(logit, seen.n_in_output, sampling));
    }
    for (token, logit) in unpenalised {
        let n_drafted = drafted.iter().filter(|other| other.id() == Some(token)).count() as u32;
        let n = seen.n_in_output(token) + n_drafted;
        logits[token as usize] = penalised(logit, n, sampling);
    }
}

/// The penalised logit of a seen token that occurs `n_in_output` times in the output.
fn penalised(logit: f32, n_in_output: u32, sampling: &SamplingParams) -> f32 {
    // The penalty of CTRL (arXiv 1909.05858), in the form of Hugging Face: a division would reward
    // a token with a negative logit. A branch on the sign would be mispredicted for half of the
    // tokens.
    let (divided, multiplied) =
        (logit / sampling.repetition_penalty, logit * sampling.repetition_penalty);
    let logit = std::hint::select_unpredictable(logit > 0.0, divided, multiplied);
    if n_in_output == 0 {
        return logit;
    }
    logit - sampling.frequency_penalty * n_in_output as f32 - sampling.presence_penalty
}
