//! Bias, penalties and bans: what a request changes about single logits.

use super::Row;

/// Whether [`adjust`] would change anything.
pub(super) fn is_needed(row: &Row<'_>) -> bool {
    !row.banned.is_empty()
        || !row.sampling.logit_bias.is_empty()
        || (row.seen.is_some() && row.sampling.has_penalties())
}

/// Bias first, then penalties, then bans (the order of vLLM). Token ids outside of the vocabulary
/// are passed over.
pub(super) fn adjust(logits: &mut [f32], row: &Row<'_>) {
    let sampling = row.sampling;
    for &(token, bias) in &sampling.logit_bias {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit += bias;
        }
    }
    if sampling.has_penalties() {
        for seen in row.seen.iter().flat_map(|seen| seen.iter()) {
            let Some(logit) = logits.get_mut(seen.token as usize) else { continue };
            // CTRL (arXiv 1909.05858), in the form of Hugging Face: a division would reward a
            // token with a negative logit.
            if *logit > 0.0 {
                *logit /= sampling.repetition_penalty;
            } else {
                *logit *= sampling.repetition_penalty;
            }
            if seen.n_in_output > 0 {
                *logit -= sampling.frequency_penalty * seen.n_in_output as f32;
                *logit -= sampling.presence_penalty;
            }
        }
    }
    for &token in row.banned {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}
