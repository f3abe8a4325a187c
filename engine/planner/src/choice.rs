//! The choice of a round: which sequences draft, how, and how many tokens; or none.
//!
//! The value of a round is the rate of expected tokens, (sequences + Σ survival) / time. For a number of draft tokens in
//! all, the best ones are those of most value: a draft token is worth the probability that it and all before it are
//! accepted, less the time of its own attention at the rate of plain decoding. The value falls along a draft. So draft
//! tokens are added in the order of their value, and every number of them is a candidate. All are looked at, since times are staircases and the rate has several peaks.
//!
//! Chains of one group (the same model and layer mask) share their forwards, so a round has chains of one group at most;
//! lookups go with any group. A chain's step costs the weights once, whatever its number of rows.

mod candidate;

use crate::cost_table::CostTable;
use crate::drift::{Drift, Phase, SizeClass};
use candidate::{Candidate, ORDERS, Order};

/// Most tokens of a draft that a choice looks at.
pub const MAX_DRAFT_TOKENS: usize = 16;

/// A way to draft: a drafter of the engine with its settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strategy {
    /// Looks tokens up. The draft is known before the choice, and costs nothing.
    Lookup,
    /// Drafts token after token with a model.
    Chain(ChainCost),
}

/// The cost of a draft token of a chain, in parts of the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChainCost {
    /// Chains of one group share forwards.
    pub group: u32,
    /// Share of the target's weights that a forward reads.
    pub weights_share: f64,
    /// Share of the sequence's cached tokens that a draft token attends to, by their bytes: below 1 where it runs some of the
    /// layers alone.
    pub kv_share: f64,
    /// Cached tokens that it attends to at most.
    pub kv_budget_tokens: u32,
    /// Time beside the forwards, in ns for each cached token of the sequence and round: selections.
    pub overhead_ns_per_kv_token: f64,
}

impl ChainCost {
    /// Cached tokens that a draft token attends to in a sequence of `kv_tokens`.
    pub fn seen_tokens(&self, kv_tokens: u32) -> u32 {
        ((f64::from(kv_tokens) * self.kv_share) as u32).min(self.kv_budget_tokens)
    }
}

/// A decoding sequence, as the choice sees it.
#[derive(Clone, Debug, Default)]
pub struct SequenceOffer {
    /// Cached tokens.
    pub kv_tokens: u32,
    /// At most one draft for each strategy.
    pub drafts: Vec<DraftOffer>,
}

/// A draft that a sequence could get.
#[derive(Clone, Copy, Debug)]
pub struct DraftOffer {
    /// Index of the strategy.
    pub strategy: u16,
    /// Time that a round with this strategy takes beyond its forwards, in ns: the share of it that a new drafter has to
    /// read or select before its first draft.
    pub entering_ns: f64,
    /// For each token of the draft, the probability that it and all before it are accepted.
    pub survival: Survival,
}

/// Probabilities that do not rise, one a draft token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Survival {
    n: u8,
    values: [f32; MAX_DRAFT_TOKENS],
}

impl Survival {
    /// The survival of at most `n` draft tokens, of which the one at each position (from 1) is accepted with a probability if
    /// all before it are.
    pub fn new(n: u32, probability: impl Fn(u32) -> f64) -> Self {
        let n = n.min(MAX_DRAFT_TOKENS as u32);
        let (mut values, mut survives) = ([0.0; MAX_DRAFT_TOKENS], 1.0);
        for position in 1..=n {
            survives *= probability(position).clamp(0.0, 1.0);
            values[position as usize - 1] = survives as f32;
        }
        Survival { n: n as u8, values }
    }

    /// The values, first token first.
    pub fn values(&self) -> &[f32] {
        &self.values[..usize::from(self.n)]
    }

    fn first(&self) -> f32 {
        self.values[0]
    }
}

/// Everything that a choice depends on.
pub struct Round<'a> {
    /// Times of the machine.
    pub costs: &'a CostTable,
    /// Measured over predicted times.
    pub drift: &'a Drift,
    /// The strategies, by index.
    pub strategies: &'a [Strategy],
    /// Decoding sequences that follow the choice.
    pub sequences: &'a [SequenceOffer],
    /// Rows of the coming forward that do not: chunks of prompts, sequences with a drafter of their own.
    pub other_rows: u32,
    /// Time of attention of these rows, in ns.
    pub other_attention_ns: f64,
    /// Most draft tokens in all.
    pub max_draft_rows: u32,
    /// Longest step, in ns, if plain decoding keeps within it.
    pub max_step_ns: Option<f64>,
    /// Least rate of drafting over the rate of plain decoding, for drafting to be chosen.
    pub least_gain: f64,
}

/// Expected tokens of a step, and its time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prediction {
    /// Tokens that the sequences of the choice keep.
    pub tokens: f64,
    /// Time of drafting, in ns.
    pub drafting_ns: f64,
    /// Time of the target's forward, in ns.
    pub forward_ns: f64,
}

impl Prediction {
    /// Tokens per second.
    pub fn rate(&self) -> f64 {
        self.tokens * 1e9 / (self.drafting_ns + self.forward_ns)
    }
}

/// The choice of a round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// For each sequence its strategy and draft length; None decodes plainly.
    pub plans: Vec<Option<(u16, u32)>>,
    /// The chosen round.
    pub chosen: Prediction,
    /// A round of plain decoding.
    pub plain: Prediction,
    /// The best round that was not chosen: another group, or plain decoding.
    pub runner_up: Prediction,
}

/// Sequences from which on a choice looks at two kinds of rounds only: the kind that it chose last, and another one in
/// turn. With all kinds at once, the time of a choice would be felt.
const MANY_SEQUENCES: usize = 32;

/// A kind of round: chains of a group, or lookups alone, and the order of lookups and chains.
type Kind = (Option<u32>, Order);

/// Chooses, and keeps its buffers from round to round.
#[derive(Debug, Default)]
pub struct Chooser {
    candidate: Candidate,
    kinds: Vec<Kind>,
    /// The kind that was chosen last, and the turn of the others.
    last: Option<Kind>,
    turn: usize,
}

impl Chooser {
    /// The best round. Without sequences, a choice without plans.
    pub fn choose(&mut self, round: &Round<'_>) -> Choice {
        let plain = plain(round);
        let mut choice = Choice {
            plans: vec![None; round.sequences.len()],
            chosen: plain,
            plain,
            runner_up: plain,
        };
        if round.sequences.is_empty() {
            return choice;
        }
        self.list_kinds(round);
        let mut best_drafting: Option<Prediction> = None;
        for at in 0..self.kinds.len() {
            let (group, order) = self.kinds[at];
            let Some(found) = self.candidate.best(round, group, order) else { continue };
            let beats = |other: Prediction, by: f64| found.rate() > other.rate() * by;
            let is_chosen = match best_drafting {
                None => beats(plain, round.least_gain),
                Some(best) => beats(best, 1.0),
            };
            if is_chosen {
                choice.runner_up = best_drafting.unwrap_or(plain);
                best_drafting = Some(found);
                choice.chosen = found;
                self.candidate.write_plans(&mut choice.plans);
                self.last = Some((group, order));
            } else if best_drafting.is_none() || beats(choice.runner_up, 1.0) {
                choice.runner_up = found;
            }
        }
        choice
    }

    /// The kinds of rounds to look at.
    fn list_kinds(&mut self, round: &Round<'_>) {
        self.kinds.clear();
        self.kinds.push((None, Order::LookupsFirst));
        for strategy in round.strategies {
            if let Strategy::Chain(cost) = strategy {
                self.kinds.extend(ORDERS.map(|order| (Some(cost.group), order)));
            }
        }
        self.kinds.sort_unstable();
        self.kinds.dedup();
        if round.sequences.len() >= MANY_SEQUENCES {
            self.turn = (self.turn + 1) % self.kinds.len();
            let turn = self.kinds[self.turn];
            let last = self.last;
            self.kinds.retain(|&kind| kind == turn || Some(kind) == last);
        }
    }
}

/// A round of plain decoding.
fn plain(round: &Round<'_>) -> Prediction {
    let n = round.sequences.len() as u32;
    let attention = |sequence: &SequenceOffer| round.costs.attention_ns(1, sequence.kv_tokens);
    let attention_ns: f64 = round.sequences.iter().map(attention).sum();
    let rows = n + round.other_rows;
    let ns = round.costs.rows_ns(rows) + attention_ns + round.other_attention_ns;
    let kv_tokens = round.sequences.iter().map(|s| u64::from(s.kv_tokens)).sum();
    let factor = round.drift.factor(Phase::Plain, SizeClass::new(rows, kv_tokens));
    Prediction { tokens: f64::from(n), drafting_ns: 0.0, forward_ns: ns * factor }
}

#[cfg(test)]
mod tests;
