//! The choice among drafters, draft lengths and KV budgets, and the context length from which one of them pays.

use super::round::{DraftMethod, Workload};

/// A drafter with one KV budget, and its acceptance.
#[derive(Clone, Debug, PartialEq)]
pub struct DraftOption {
    /// The drafter's name.
    pub drafter: String,
    /// How it drafts, with its KV budget.
    pub method: DraftMethod,
    /// The share of draft tokens that are accepted if all before them are; None if it is not known, and the option is
    /// never chosen.
    pub acceptance: Option<f64>,
}

/// A choice among options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strategy {
    /// Its place in the list of options.
    pub option: usize,
    /// Draft tokens a round.
    pub draft_length: u32,
    /// Expected tokens a second over plain decoding's; at most 1 if plain decoding is as fast.
    pub speedup: f64,
}

impl DraftOption {
    /// The KV budget in tokens; None if drafts attend to all tokens, or to none.
    pub fn kv_budget_tokens(&self) -> Option<u32> {
        match self.method {
            DraftMethod::Forward { kv_budget_tokens, .. } => kv_budget_tokens,
            DraftMethod::Lookup => None,
        }
    }
}

/// The option and draft length with the largest speedup, which may be below 1. None if no option has an acceptance. Of
/// equal ones the first is taken.
pub fn fastest_option(
    workload: &Workload,
    options: &[DraftOption],
    max_draft_length: u32,
) -> Option<Strategy> {
    let strategies = options.iter().enumerate().filter_map(|(option, of)| {
        let (draft_length, speedup) =
            workload.best_draft_length(&of.method, of.acceptance?, max_draft_length)?;
        Some(Strategy { option, draft_length, speedup })
    });
    strategies.reduce(|best, next| if next.speedup > best.speedup { next } else { best })
}

/// The shortest context, in tokens, at which drafting with the best option is faster than plain decoding; None if there is
/// none up to `longest_tokens`. Acceptances are taken as equal at all lengths.
pub fn critical_length(
    workload: &Workload,
    options: &[DraftOption],
    max_draft_length: u32,
    longest_tokens: usize,
) -> Option<usize> {
    let pays = |context_tokens: usize| {
        let workload = Workload { context_tokens, ..*workload };
        fastest_option(&workload, options, max_draft_length).is_some_and(|best| best.speedup > 1.0)
    };
    // A coarse search finds the first length of a grid that pays, since the speedup need not grow everywhere; a fine one
    // halves the step before it.
    let (mut below, mut above) = (0, 1);
    while !pays(above) {
        if above >= longest_tokens {
            return None;
        }
        below = above;
        above = (above + above.div_ceil(GRID_DIVISOR)).min(longest_tokens);
    }
    while above - below > 1 {
        let middle = below + (above - below) / 2;
        match pays(middle) {
            true => above = middle,
            false => below = middle,
        }
    }
    Some(above)
}

/// A grid step is this part of the length: fine enough for a drafter that pays over a tenth of a length only.
const GRID_DIVISOR: usize = 16;
