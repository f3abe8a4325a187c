//! The best round with chains of one group.

use super::{DraftOffer, MAX_DRAFT_TOKENS, Prediction, Round, Strategy};
use crate::drift::{Phase, SizeClass};

/// Values that are told apart when draft tokens are put in order.
const N_BINS: usize = 256;

/// Longest chains that are looked at.
const CAPS: [u32; 8] = [1, 2, 3, 4, 6, 8, 12, 16];

/// The draft of a sequence that has both a lookup and a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The lookup, if its first token is at least as sure.
    LookupsFirst,
    /// The chain: the forward that other sequences pay for drafts for this one, too.
    ChainsFirst,
}

/// Both orders.
pub(super) const ORDERS: [Order; 2] = [Order::LookupsFirst, Order::ChainsFirst];

/// The best round with chains of one group, and the buffers of the search.
#[derive(Debug, Default)]
pub(super) struct Candidate {
    /// The draft that each sequence would get.
    offers: Vec<Option<DraftOffer>>,
    /// Sequences, one entry a draft token, in the order in which tokens are added.
    order: Vec<u32>,
    /// First entries of `order`: the draft tokens of the best round.
    n_best: usize,
    /// The longest chain of the best round.
    cap_of_best: u32,
    n_in_bin: Vec<u32>,
    is_chain: Vec<bool>,
    lengths: Vec<u32>,
}

/// The times of a round while draft tokens are added.
struct Running {
    tokens: f64,
    rows: u32,
    attention_ns: f64,
    draft_ns: f64,
    entering_ns: f64,
    /// Rows of each forward of the chain.
    rows_at_depth: [u32; MAX_DRAFT_TOKENS],
}

impl Candidate {
    /// The best round with chains of `group`, or with lookups alone; None if no sequence has such a draft, or if the order
    /// makes no difference to the first one.
    pub(super) fn best(
        &mut self,
        round: &Round<'_>,
        group: Option<u32>,
        order: Order,
    ) -> Option<Prediction> {
        self.offers.clear();
        let mut n_both = 0;
        self.offers.extend(round.sequences.iter().map(|sequence| {
            let (lookup, chain) = offers_of(sequence.kv_tokens, &sequence.drafts, round, group);
            match (lookup, chain) {
                (Some(lookup), Some(chain)) => {
                    n_both += 1;
                    let is_surer = lookup.survival.first() >= chain.survival.first();
                    Some(if order == Order::LookupsFirst && is_surer { lookup } else { chain })
                }
                (lookup, chain) => lookup.or(chain),
            }
        }));
        if order == Order::ChainsFirst && n_both == 0 {
            return None;
        }
        let leads = self.offers.iter().flatten().map(|offer| offer.strategy);
        // Corrections are learned by strategy. A round is named after its chain, or after its lookup.
        let strategy =
            leads.min_by_key(|&at| (round.strategies[usize::from(at)] == Strategy::Lookup, at))?;
        let has_chain = round.strategies[usize::from(strategy)] != Strategy::Lookup;
        if group.is_some() != has_chain {
            return None; // a group without a chain is the candidate of lookups alone
        }
        self.put_in_order(round);
        self.search(round, strategy)
    }

    /// Writes the draft of each sequence in the best round.
    pub(super) fn write_plans(&self, plans: &mut [Option<(u16, u32)>]) {
        plans.fill(None);
        for &at in &self.order[..self.n_best] {
            let at = at as usize;
            let Some(offer) = &self.offers[at] else { continue };
            let length = plans[at].map_or(0, |(_, length)| length) + 1;
            if length <= self.cap_of_best || !self.is_chain[at] {
                plans[at] = Some((offer.strategy, length));
            }
        }
    }

    /// Draft tokens by falling value, those of one sequence in their order: a counting sort. The value of a draft token is
    /// its survival, less the tokens that plain decoding would yield in the time that this token alone takes. A token
    /// without value lowers the rate of any round that is faster than plain decoding, and is left out.
    fn put_in_order(&mut self, round: &Round<'_>) {
        let plain = Running::plain(round);
        let plain_ns = round.costs.rows_ns(plain.rows) + plain.attention_ns;
        let tokens_per_ns = plain.tokens / plain_ns;
        let bin = |value: f64| N_BINS - 1 - ((value * N_BINS as f64) as usize).min(N_BINS - 1);
        let for_each_token = |offers: &[Option<DraftOffer>], with: &mut dyn FnMut(u32, usize)| {
            for (at, offer) in offers.iter().enumerate() {
                let Some(offer) = offer else { continue };
                let kv_tokens = round.sequences[at].kv_tokens;
                let mut value = 1.0;
                for (length, &survival) in (1..).zip(offer.survival.values()) {
                    let ns = own_ns(round, kv_tokens, offer, length);
                    value = f64::min(value, f64::from(survival) - tokens_per_ns * ns);
                    if value <= 0.0 {
                        break;
                    }
                    with(at as u32, bin(value));
                }
            }
        };
        self.n_in_bin.clear();
        self.n_in_bin.resize(N_BINS + 1, 0);
        for_each_token(&self.offers, &mut |_, bin| self.n_in_bin[bin + 1] += 1);
        for at in 1..=N_BINS {
            self.n_in_bin[at] += self.n_in_bin[at - 1];
        }
        self.order.clear();
        self.order.resize(self.n_in_bin[N_BINS] as usize, 0);
        let (next, order) = (&mut self.n_in_bin, &mut self.order);
        for_each_token(&self.offers, &mut |at, bin| {
            order[next[bin] as usize] = at;
            next[bin] += 1;
        });
    }

    /// Adds the draft tokens one after another and keeps the number with the best rate, for several longest chains: each
    /// further token of the longest chain costs a forward, which all chains share.
    fn search(&mut self, round: &Round<'_>, strategy: u16) -> Option<Prediction> {
        let is_chain =
            |offer: &DraftOffer| round.strategies[usize::from(offer.strategy)] != Strategy::Lookup;
        self.is_chain.clear();
        self.is_chain.extend(self.offers.iter().map(|offer| offer.as_ref().is_some_and(is_chain)));
        let longest = self.offers.iter().flatten().filter(|offer| is_chain(offer));
        let longest = longest.map(|offer| offer.survival.values().len() as u32).max().unwrap_or(0);
        let mut best = None::<Prediction>;
        for cap in CAPS {
            self.search_up_to(round, strategy, cap, &mut best);
            if cap >= longest {
                break;
            }
        }
        best
    }

    fn search_up_to(
        &mut self,
        round: &Round<'_>,
        strategy: u16,
        cap: u32,
        best: &mut Option<Prediction>,
    ) {
        let mut running = Running::plain(round);
        self.lengths.clear();
        self.lengths.resize(self.offers.len(), 0);
        let drafting = round.drift.factor(Phase::Draft(strategy), SizeClass::ANY);
        let kv_tokens = round.sequences.iter().map(|s| u64::from(s.kv_tokens)).sum();
        let (mut class, mut verifying) = (None, 1.0);
        let most_rows = running.rows.saturating_add(round.max_draft_rows);
        for (index, &at) in self.order.iter().enumerate() {
            let at = at as usize;
            let Some(offer) = &self.offers[at] else { continue };
            if self.lengths[at] >= cap && self.is_chain[at] {
                continue;
            }
            if running.rows == most_rows {
                break;
            }
            self.lengths[at] += 1;
            running.add(round, round.sequences[at].kv_tokens, offer, self.lengths[at]);
            let now = SizeClass::new(running.rows, kv_tokens);
            if class.replace(now) != Some(now) {
                verifying = round.drift.factor(Phase::Verify(strategy), now);
            }
            let found = running.prediction(round, drafting, verifying);
            let is_too_slow =
                round.max_step_ns.is_some_and(|most| found.drafting_ns + found.forward_ns > most);
            if !is_too_slow && best.is_none_or(|best| found.rate() > best.rate()) {
                *best = Some(found);
                self.n_best = index + 1;
                self.cap_of_best = cap;
            }
        }
    }
}

/// The drafts of a sequence in a round with chains of `group`: its surest lookup, and the chain with the best rate for this
/// sequence alone.
fn offers_of(
    kv_tokens: u32,
    drafts: &[DraftOffer],
    round: &Round<'_>,
    group: Option<u32>,
) -> (Option<DraftOffer>, Option<DraftOffer>) {
    let (mut lookup, mut chain) = (None::<DraftOffer>, None::<(DraftOffer, f64)>);
    for draft in drafts.iter().filter(|draft| draft.survival.first() > 0.0) {
        match round.strategies[usize::from(draft.strategy)] {
            Strategy::Lookup => {
                if lookup.is_none_or(|best| draft.survival.first() > best.survival.first()) {
                    lookup = Some(*draft);
                }
            }
            Strategy::Chain(cost) if Some(cost.group) == group => {
                let rate = rate_alone(kv_tokens, draft, round);
                if chain.is_none_or(|(_, best)| rate > best) {
                    chain = Some((*draft, rate));
                }
            }
            Strategy::Chain(_) => {}
        }
    }
    (lookup, chain.map(|(chain, _)| chain))
}

/// The best rate of a sequence with a chain whose weights others pay for: tokens over the time of attention, of the chain
/// and of the verification, and of the rows at the price of rows in a full batch.
fn rate_alone(kv_tokens: u32, draft: &DraftOffer, round: &Round<'_>) -> f64 {
    let n = round.sequences.len() as u32 + round.other_rows;
    let row_ns = round.costs.rows_ns(2 * n) - round.costs.rows_ns(n);
    let base_ns = round.costs.rows_ns(n) / f64::from(n.max(1));
    let mut running = Running::plain(round);
    running.rows_at_depth = [round.sequences.len() as u32; MAX_DRAFT_TOKENS];
    running.attention_ns = round.costs.attention_ns(1, kv_tokens);
    let (mut tokens, mut best) = (1.0, 0.0);
    for (length, &survival) in (1..).zip(draft.survival.values()) {
        running.add(round, kv_tokens, draft, length);
        tokens += f64::from(survival);
        let rows_ns = base_ns + f64::from(length) * row_ns / f64::from(n.max(1));
        let ns = rows_ns + running.attention_ns + running.draft_ns + running.entering_ns;
        best = f64::max(best, tokens / ns);
    }
    best
}

/// Time that draft token number `length` of a sequence takes by itself, in ns: its attention in the verification and in the
/// chain. Rows and weights are paid for together with other sequences.
fn own_ns(round: &Round<'_>, kv_tokens: u32, offer: &DraftOffer, length: u32) -> f64 {
    let costs = round.costs;
    let verifying =
        costs.attention_ns(length + 1, kv_tokens) - costs.attention_ns(length, kv_tokens);
    match round.strategies[usize::from(offer.strategy)] {
        Strategy::Lookup => verifying,
        Strategy::Chain(cost) => {
            verifying + costs.attention_ns(1, kv_tokens.min(cost.kv_budget_tokens))
        }
    }
}

impl Running {
    fn plain(round: &Round<'_>) -> Self {
        let attention = round.sequences.iter().map(|s| round.costs.attention_ns(1, s.kv_tokens));
        Running {
            tokens: round.sequences.len() as f64,
            rows: round.sequences.len() as u32 + round.other_rows,
            attention_ns: attention.sum::<f64>() + round.other_attention_ns,
            draft_ns: 0.0,
            entering_ns: 0.0,
            rows_at_depth: [0; MAX_DRAFT_TOKENS],
        }
    }

    /// Adds draft token number `length` of a sequence.
    fn add(&mut self, round: &Round<'_>, kv_tokens: u32, offer: &DraftOffer, length: u32) {
        let costs = round.costs;
        let depth = length as usize - 1;
        self.tokens += f64::from(offer.survival.values()[depth]);
        self.rows += 1;
        self.attention_ns +=
            costs.attention_ns(length + 1, kv_tokens) - costs.attention_ns(length, kv_tokens);
        if let Strategy::Chain(cost) = round.strategies[usize::from(offer.strategy)] {
            let rows = &mut self.rows_at_depth[depth];
            let step_ns = costs.rows_ns(*rows + 1) - costs.rows_ns(*rows);
            *rows += 1;
            let seen = kv_tokens.min(cost.kv_budget_tokens);
            self.draft_ns += cost.weights_share * step_ns + costs.attention_ns(1, seen);
            if length == 1 {
                self.draft_ns += cost.overhead_ns_per_kv_token * f64::from(kv_tokens);
                self.entering_ns += offer.entering_ns;
            }
        }
    }

    fn prediction(&self, round: &Round<'_>, drafting: f64, verifying: f64) -> Prediction {
        Prediction {
            tokens: self.tokens,
            drafting_ns: self.draft_ns * drafting + self.entering_ns,
            forward_ns: (round.costs.rows_ns(self.rows) + self.attention_ns) * verifying,
        }
    }
}
