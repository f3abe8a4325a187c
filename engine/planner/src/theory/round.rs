//! The time of a round of drafting and verification against plain decoding, for one batch and context length.

use super::forward::{ForwardCosts, StepTime};
use crate::expected_tokens;

/// How a drafter drafts, as far as its time depends on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DraftMethod {
    /// A forward for each draft token: of the target, of some of its layers, or of another model.
    Forward {
        /// The model that drafts.
        costs: ForwardCosts,
        /// Cached tokens that a draft token attends to; None: all.
        kv_budget_tokens: Option<u32>,
        /// Passes over all keys of the target that choose the budget, in each round. 0 for a selection that no round
        /// renews, 1 for one that reads all keys a second time.
        key_passes: f64,
    },
    /// Tokens that are found in the text: no time.
    Lookup,
}

/// The sequences of a step, all of one length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workload {
    /// The target.
    pub target: ForwardCosts,
    /// Sequences that decode together.
    pub batch: usize,
    /// Cached tokens of each.
    pub context_tokens: usize,
    /// Time of a round beside its forwards, seconds; 0 in theory.
    pub round_overhead_s: f64,
}

/// The acceptance at which drafting takes as long as plain decoding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakEven {
    /// The acceptance, from 0 to 1. Drafting pays above it.
    pub acceptance: f64,
    /// Its draft length.
    pub draft_length: u32,
}

impl Workload {
    /// A step of plain decoding: T_T(B, S).
    pub fn plain(&self) -> StepTime {
        self.verification(0)
    }

    /// The verification of `draft_length` draft tokens a sequence: T_V(B, S, γ).
    pub fn verification(&self, draft_length: u32) -> StepTime {
        let rows = f64::from(draft_length) + 1.0;
        self.target.step(self.batch as f64, rows, self.context_tokens as f64)
    }

    /// One draft token for each sequence, seconds: T_D(B, K).
    pub fn draft_step_s(&self, method: &DraftMethod) -> f64 {
        match method {
            DraftMethod::Lookup => 0.0,
            DraftMethod::Forward { costs, kv_budget_tokens, .. } => {
                let context = self.context_tokens as f64;
                let budget = kv_budget_tokens.map_or(context, |tokens| context.min(tokens.into()));
                costs.step(self.batch as f64, 1.0, budget).total_s()
            }
        }
    }

    /// Choosing the KV of the drafts, seconds a round: T_select(B, S).
    pub fn selection_s(&self, method: &DraftMethod) -> f64 {
        match method {
            DraftMethod::Lookup => 0.0,
            DraftMethod::Forward { key_passes, .. } => {
                let pass_s = self.target.key_pass_s(self.batch as f64, self.context_tokens as f64);
                key_passes * pass_s
            }
        }
    }

    /// A whole round, seconds: γ·T_D + T_select + T_V + overhead.
    pub fn round_s(&self, method: &DraftMethod, draft_length: u32) -> f64 {
        f64::from(draft_length) * self.draft_step_s(method)
            + self.selection_s(method)
            + self.verification(draft_length).total_s()
            + self.round_overhead_s
    }

    /// Tokens a second by drafting over tokens a second by plain decoding: T_T·Ω / T_round.
    pub fn speedup(&self, method: &DraftMethod, draft_length: u32, acceptance: f64) -> f64 {
        let tokens = expected_tokens(draft_length, acceptance);
        self.plain().total_s() * tokens / self.round_s(method, draft_length)
    }

    /// The acceptance at which a draft length has a speedup of 1; None if no acceptance reaches it.
    pub fn break_even(&self, method: &DraftMethod, draft_length: u32) -> Option<f64> {
        let needed_tokens = self.round_s(method, draft_length) / self.plain().total_s();
        if needed_tokens <= 1.0 {
            return Some(0.0);
        }
        // The yield of a round grows with the acceptance, from 1 to `draft_length` + 1.
        if expected_tokens(draft_length, 1.0) < needed_tokens || needed_tokens.is_nan() {
            return None;
        }
        let (mut below, mut above) = (0.0, 1.0);
        for _ in 0..BISECTIONS {
            let middle = f64::midpoint(below, above);
            match expected_tokens(draft_length, middle) < needed_tokens {
                true => below = middle,
                false => above = middle,
            }
        }
        Some(above)
    }

    /// The lowest break-even acceptance over draft lengths from 1 to `max_draft_length`.
    pub fn lowest_break_even(
        &self,
        method: &DraftMethod,
        max_draft_length: u32,
    ) -> Option<BreakEven> {
        let of_length = |draft_length| {
            let acceptance = self.break_even(method, draft_length)?;
            Some(BreakEven { acceptance, draft_length })
        };
        (1..=max_draft_length)
            .filter_map(of_length)
            .min_by(|a, b| a.acceptance.total_cmp(&b.acceptance))
    }

    /// The draft length from 1 to `max_draft_length` with the largest speedup, and the speedup, which may be below 1.
    /// None without a length, or if no speedup is a number.
    pub fn best_draft_length(
        &self,
        method: &DraftMethod,
        acceptance: f64,
        max_draft_length: u32,
    ) -> Option<(u32, f64)> {
        (1..=max_draft_length)
            .map(|draft_length| (draft_length, self.speedup(method, draft_length, acceptance)))
            .filter(|(_, speedup)| !speedup.is_nan())
            .reduce(|best, next| if next.1 > best.1 { next } else { best })
    }
}

/// Halvings of the range of acceptances: to the precision of the numbers.
const BISECTIONS: usize = 60;
