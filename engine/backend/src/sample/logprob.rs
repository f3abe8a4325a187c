//! Log-probabilities under the model's own logits.

use super::Scratch;
use super::top_k_top_p::{by_likelihood, most_likely};
use super::vector_ops::{mass, total_weight};

/// Log-probabilities of the tokens of one row.
pub(super) struct Report {
    /// `ln(sum(exp(logits)))`.
    log_total: f64,
    /// The most likely tokens, most likely first.
    pub(super) top: Vec<(u32, f32)>,
}

impl Report {
    /// The log-probability of `token`.
    pub(super) fn of(&self, logits: &[f32], token: u32) -> f32 {
        let logit = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        if logit > f32::NEG_INFINITY {
            (f64::from(logit.min(f32::MAX)) - self.log_total) as f32
        } else {
            f32::NEG_INFINITY // also for NaN
        }
    }
}

/// Computes the log-softmax of a row and its `n_top` most likely tokens.
pub(super) fn report(logits: &[f32], n_top: usize, scratch: &mut Scratch) -> Report {
    let max = scratch.load(logits, 1.0);
    let total = total_weight(&scratch.work, &scratch.chunk_max, max);
    let log_total = f64::from(max) + mass(total).ln();
    let mut report = Report { log_total, top: Vec::new() };
    if n_top > 0 {
        let Scratch { work, chunk_max, keep, .. } = scratch;
        let (maxima, gathered) = keep.for_most_likely();
        most_likely(work, chunk_max, n_top, maxima, gathered);
        gathered.sort_unstable_by(by_likelihood);
        report.top = gathered.iter().map(|&(_, t)| (t, report.of(logits, t))).collect();
    }
    report
}
