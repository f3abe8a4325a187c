//! The drafts that each sequence could get, with their survival.

use super::{AutoPlanner, LookupRule};
use crate::drafting::DraftStrategy;
use crate::drafting::suffix::{SuffixRow, SuffixStore};
use crate::sequence::Sequence;
use galley_drafter_host::{ModelId, RefreshPolicy, SelectionPolicy, View};
use galley_model::LanguageModel;
use galley_planner::acceptance_estimate::length_bucket;
use galley_planner::choice::{
    ChainCost, DraftOffer, MAX_DRAFT_TOKENS, SequenceOffer, Strategy, Survival,
};
use galley_planner::cost_table::CostTable;

/// The group of chains of the whole target. Chains with a mask or a draft model have a group of their own.
const TARGET_GROUP: u32 = 0;
/// A context that is shorter than the KV budgets of most drafters.
const SHORT_CONTEXT_TOKENS: u64 = 64;
/// A context at which a drafter with a KV budget reads no more than the budget.
const LONG_CONTEXT_TOKENS: u64 = 1 << 20;
/// Rows of a forward that take as long as reading the weights, before anything is measured.
const ROWS_OF_A_READ: f64 = 8.0;
/// Bytes that a device reads in a second, before anything is measured. Only ratios of times matter, and the first steps set
/// the scale.
const BYTES_PER_S: f64 = 2e10;
/// Rounds over which the cost of entering a drafter is spread, if the sequence has as many tokens left.
const ENTERING_ROUNDS: f64 = 128.0;
/// Standard deviations by which an acceptance is taken to be worse, for a strategy that is not in use: a strategy is
/// entered when it pays probably, and stays as long as it pays on average.
const ENTERING_DEVIATIONS: f64 = -0.5;

/// Times of a device that was not measured.
pub(crate) fn estimated_costs(model: &dyn LanguageModel) -> CostTable {
    let target = model.target();
    let weight_bytes = target.weight_bytes.max(1) as f64;
    let flop_per_s = BYTES_PER_S; // one operation a byte: only `flop_per_row` sets the balance
    let kv_bytes = target.kv_shape.bytes_per_token() as f64;
    CostTable::analytic(
        weight_bytes,
        weight_bytes / ROWS_OF_A_READ,
        kv_bytes,
        BYTES_PER_S,
        flop_per_s,
    )
}

/// The strategy of the drafter with index `at`, by its own account of its cost. Without an account, a draft token costs as
/// much as a token of the target.
pub(super) fn strategy_of(at: u32, drafter: &mut dyn DraftStrategy, costs: &CostTable) -> Strategy {
    let most = drafter.cost(LONG_CONTEXT_TOKENS, 0);
    let (weights_share, kv_tokens) =
        most.map_or((1.0, f64::INFINITY), |cost| (cost.weights_read, cost.kv_tokens_read));
    if weights_share == 0.0 && kv_tokens == 0.0 {
        return Strategy::Lookup;
    }
    let short =
        drafter.cost(SHORT_CONTEXT_TOKENS, 0).map_or(f64::INFINITY, |cost| cost.kv_tokens_read);
    let kv_share = (short / SHORT_CONTEXT_TOKENS as f64).min(1.0);
    let is_plain_target = drafter.masks().is_empty()
        && drafter.views().iter().all(|view| view.model == ModelId::TARGET)
        && weights_share == 1.0;
    let repeated = drafter.views().iter().filter_map(|view| repeated_look(view, costs));
    Strategy::Chain(ChainCost {
        group: if is_plain_target { TARGET_GROUP } else { 1 + at },
        weights_share,
        kv_share,
        kv_budget_tokens: kv_tokens.min(f64::from(u32::MAX)) as u32,
        overhead_ns_per_kv_token: repeated.sum(),
    })
}

/// Time of the looks that a view repeats while a sequence grows, in ns for each cached token and round.
fn repeated_look(view: &View, costs: &CostTable) -> Option<f64> {
    let SelectionPolicy::Observed(observe) = view.middle else { return None };
    let RefreshPolicy::Context { n_queries, refresh_tokens } = observe.when else { return None };
    Some(costs.attention_ns(n_queries, 1) / f64::from(refresh_tokens?))
}

/// The work before the first draft of a sequence that is new to a drafter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// None.
    Free,
    /// A look of the latest tokens at all cached tokens.
    Looks,
    /// A draft model reads the whole sequence.
    Reads,
}

impl Entry {
    pub(super) fn of(drafter: &dyn DraftStrategy, has_models: bool) -> Self {
        let looks = |view: &View| view.middle != SelectionPolicy::Nothing;
        match has_models {
            true => Entry::Reads,
            false if drafter.views().iter().any(looks) => Entry::Looks,
            false => Entry::Free,
        }
    }

    /// Its time for a sequence of `n_tokens` tokens, in ns.
    fn ns(self, strategy: &Strategy, costs: &CostTable, n_tokens: u32) -> f64 {
        match (self, strategy) {
            (Entry::Looks, _) => costs.attention_ns(1, n_tokens),
            (Entry::Reads, Strategy::Chain(cost)) => cost.weights_share * costs.rows_ns(n_tokens),
            (Entry::Reads | Entry::Free, _) => 0.0,
        }
    }
}

impl AutoPlanner {
    /// What the sequence could draft in the coming round; None if it leaves no choice or cannot draft now.
    pub(super) fn offer(
        &self,
        sequence: &mut Sequence,
        is_set_aside: &[bool],
        rules: &[LookupRule],
        suffixes: &mut SuffixStore,
    ) -> Option<SequenceOffer> {
        let n_left = sequence.n_left();
        let can_draft = sequence.n_todo() == 1 && sequence.n_forks == 0 && !sequence.is_finished();
        let n_tokens = sequence.n_tokens();
        let kv_tokens = sequence.table.n_tokens() as u32;
        let is_known = n_tokens == sequence.tokens.len();
        let (id, salt) = (sequence.key.id(), sequence.table.kind().salt());
        let Sequence { tokens, draft, .. } = sequence;
        let row = SuffixRow { sequence: id, salt, tokens };
        let draft = draft.as_mut()?;
        let present = draft.plan().drafter;
        let most = draft.auto_length()?.min(self.max_draft_length);
        let auto = draft.auto.as_mut()?;
        if !can_draft {
            return None;
        }
        let n_most = most.min((n_left as u32).saturating_sub(1)).min(MAX_DRAFT_TOKENS as u32);
        let mut drafts = Vec::with_capacity(self.strategies.len());
        for (at, strategy) in self.strategies.iter().enumerate() {
            let own = auto.acceptance.get(at).copied().unwrap_or_default();
            let estimates = &self.estimates[at];
            let is_present = present == Some(at);
            let deviations = if is_present { 0.0 } else { ENTERING_DEVIATIONS };
            let (bucket, n) = match strategy {
                Strategy::Chain(_) => (length_bucket(kv_tokens), n_most),
                Strategy::Lookup => {
                    if !is_known {
                        continue;
                    }
                    let Some(lookup) = rules[at].look(at, row, n_most.max(1), suffixes) else {
                        continue;
                    };
                    let found = (lookup.bucket, n_most.min(lookup.tokens.len() as u32));
                    auto.lookups.push(lookup);
                    found
                }
            };
            if n == 0 || is_set_aside[at] {
                continue;
            }
            let probability = |position| estimates.probability(&own, bucket, position, deviations);
            let entering_ns = if is_present {
                0.0
            } else {
                let rounds = f64::min(n_left as f64 / 2.0, ENTERING_ROUNDS).max(1.0);
                self.entries[at].ns(strategy, &self.costs, n_tokens as u32) / rounds
            };
            drafts.push(DraftOffer {
                strategy: at as u16,
                entering_ns,
                survival: Survival::new(n, probability),
            });
        }
        Some(SequenceOffer { kv_tokens, drafts })
    }
}
