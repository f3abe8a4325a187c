//! Logit processors: bias, penalties and bans of single tokens.

use super::{SampleRow, SamplingParams};

/// Whether [`adjust`] would change anything.
pub(super) fn is_needed(row: &SampleRow<'_>) -> bool {
    !row.banned.is_empty()
        || !row.sampling.logit_bias.is_empty()
        || (row.seen.is_some() && row.sampling.has_penalties())
}

/// The changes of [`adjust`] to one logit: add `bias`, then penalise if seen, then ban.
#[cfg(any(feature = "cuda", feature = "emulate"))]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Edit {
    pub(crate) token: u32,
    pub(crate) bias: f32,
    pub(crate) is_seen: bool,
    pub(crate) n_in_output: u32,
    pub(crate) is_banned: bool,
}

/// The changes of [`adjust`] to a row of `n_vocab` logits, one entry per token. None if a token has
/// several biases, because the sum of floats depends on their order.
#[cfg(any(feature = "cuda", feature = "emulate"))]
pub(crate) fn edits(row: &SampleRow<'_>, n_vocab: usize) -> Option<Vec<Edit>> {
    let sampling = row.sampling;
    let seen = row.seen.filter(|_| sampling.has_penalties());
    let mut edits: Vec<Edit> = Vec::new();
    for seen in seen.into_iter().flat_map(|seen| seen.iter()) {
        let super::token_counts::TokenCount { token, n_in_output } = seen;
        edits.push(Edit { token, is_seen: true, n_in_output, ..Edit::default() });
    }
    let n_seen = edits.len();
    // A seen token has the index of its entry in `TokenCounts`. The remaining tokens are few, so a linear
    // search finds them.
    let edit = |edits: &mut Vec<Edit>, token: u32| {
        let at = seen.and_then(|seen| seen.place(token));
        let at = at.or_else(|| (n_seen..edits.len()).find(|&at| edits[at].token == token));
        at.unwrap_or_else(|| {
            edits.push(Edit { token, ..Edit::default() });
            edits.len() - 1
        })
    };
    let mut biased: Vec<u32> = sampling.logit_bias.iter().map(|&(token, _)| token).collect();
    biased.sort_unstable();
    if biased.windows(2).any(|pair| pair[0] == pair[1]) {
        return None;
    }
    for &(token, bias) in &sampling.logit_bias {
        let at = edit(&mut edits, token);
        edits[at].bias = bias;
    }
    for &token in row.drafted.iter().filter(|_| seen.is_some()) {
        let at = edit(&mut edits, token);
        edits[at].is_seen = true;
        edits[at].n_in_output += 1;
    }
    for &token in row.banned {
        let at = edit(&mut edits, token);
        edits[at].is_banned = true;
    }
    edits.retain(|edit| (edit.token as usize) < n_vocab);
    Some(edits)
}

/// Applies bias, then penalties, then bans (the order of vLLM). Skips token ids outside the vocabulary.
pub(super) fn adjust(logits: &mut [f32], row: &SampleRow<'_>) {
    let sampling = row.sampling;
    for &(token, bias) in &sampling.logit_bias {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit += bias;
        }
    }
    if let Some(seen) = row.seen.filter(|_| sampling.has_penalties()) {
        // A draft token is penalised once, for all its occurrences. So its logit is saved before
        // the pass over `seen`.
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

/// The penalised logit of a seen token that occurs `n_in_output` times in the output.
fn penalised(logit: f32, n_in_output: u32, sampling: &SamplingParams) -> f32 {
    // The penalty of CTRL (arXiv 1909.05858), in the form of Hugging Face: a division would reward
    // a token with a negative logit.
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

#[cfg(all(test, any(feature = "cuda", feature = "emulate")))]
mod tests {
    use super::super::TokenCounts;
    use super::*;

    /// Applies the edits as a device does.
    fn applied(logits: &[f32], row: &SampleRow<'_>) -> Option<Vec<f32>> {
        let mut logits = logits.to_vec();
        for edit in edits(row, logits.len())? {
            let logit = &mut logits[edit.token as usize];
            *logit += edit.bias;
            if edit.is_seen {
                *logit = penalised(*logit, edit.n_in_output, row.sampling);
            }
            if edit.is_banned {
                *logit = f32::NEG_INFINITY;
            }
        }
        Some(logits)
    }

    #[test]
    fn edits_do_what_adjusting_does() {
        let logits: Vec<f32> = (0..20).map(|i| 0.37 * (i * 7 % 20) as f32 - 3.0).collect();
        let mut seen = TokenCounts::of_prompt(&[3, 5, 3, 11, 99]);
        [5, 5, 7, 98].into_iter().for_each(|token| seen.push_output(token));
        let penalties = SamplingParams {
            repetition_penalty: 1.3,
            presence_penalty: 0.2,
            frequency_penalty: 0.7,
            logit_bias: vec![(3, 1.5), (8, -2.0), (40, 1.0)],
            ..SamplingParams::greedy()
        };
        let biased_twice = SamplingParams { logit_bias: vec![(3, 0.1), (3, 0.2)], ..penalties };
        let no_penalties = SamplingParams { repetition_penalty: 1.0, ..penalties.clone() };
        let no_penalties =
            SamplingParams { presence_penalty: 0.0, frequency_penalty: 0.0, ..no_penalties };
        for sampling in [&penalties, &no_penalties, &biased_twice] {
            for seen in [None, Some(&seen)] {
                for drafted in [&[][..], &[7, 2, 7, 3, 77]] {
                    for banned in [&[][..], &[2, 3, 19, 60]] {
                        let row = SampleRow {
                            logits_row: 0,
                            sampling,
                            seed: 0,
                            position: 0,
                            seen,
                            drafted,
                            banned,
                            reports: false,
                            rejection: None,
                        };
                        let mut expected = logits.clone();
                        adjust(&mut expected, &row);
                        let got = applied(&logits, &row);
                        let possible = !std::ptr::eq(sampling, &raw const biased_twice);
                        assert_eq!(got, possible.then_some(expected), "{row:?}");
                    }
                }
            }
        }
        // Negative control: one more occurrence changes the result.
        let base = SampleRow {
            logits_row: 0,
            sampling: &penalties,
            seed: 0,
            position: 0,
            seen: Some(&seen),
            drafted: &[7],
            banned: &[],
            reports: false,
            rejection: None,
        };
        assert_ne!(
            applied(&logits, &base),
            applied(&logits, &SampleRow { drafted: &[7, 7], ..base })
        );
    }
}
