//! Bias, penalties and bans: what a request changes about single logits.

use super::{Row, Sampling};

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
    if let Some(seen) = row.seen.filter(|_| sampling.has_penalties()) {
        // Drafted tokens are penalised for all of their occurrences at once, so their logits are
        // kept from the pass over what was seen.
        let mut drafted: Vec<(u32, f32)> = Vec::with_capacity(row.drafted.len());
        for (i, &token) in row.drafted.iter().enumerate() {
            if let Some(&logit) = logits.get(token as usize)
                && !row.drafted[..i].contains(&token)
            {
                drafted.push((token, logit));
            }
        }
        for seen in seen.iter() {
            if let Some(logit) = logits.get_mut(seen.token as usize) {
                *logit = penalised(*logit, seen.n_in_output, sampling);
            }
        }
        for (token, logit) in drafted {
            let n_drafted = row.drafted.iter().filter(|&&other| other == token).count() as u32;
            let n = seen.n_in_output(token) + n_drafted;
            logits[token as usize] = penalised(logit, n, sampling);
        }
    }
    for &token in row.banned {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// The logit of a token that was seen, `n_in_output` times in the output.
fn penalised(logit: f32, n_in_output: u32, sampling: &Sampling) -> f32 {
    // CTRL (arXiv 1909.05858), in the form of Hugging Face: a division would reward a token with a
    // negative logit.
    let logit = if logit > 0.0 {
        logit / sampling.repetition_penalty
    } else {
        logit * sampling.repetition_penalty
    };
    if n_in_output == 0 {
        return logit;
    }
    logit - sampling.frequency_penalty * n_in_output as f32 - sampling.presence_penalty
}
