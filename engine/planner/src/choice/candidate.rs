//! The best round with chains of one group.

use super::{ChainCost, DraftOffer, MANY_SEQUENCES, MAX_DRAFT_TOKENS, Prediction, Round, Strategy};
use crate::drift::{Phase, SizeClass};

/// Values that are told apart when draft tokens are put in order.
const N_BINS: usize = 256;

/// Longest chains that are looked at.
const CAPS: [u8; 8] = [1, 2, 3, 4, 6, 8, 12, 16];

/// The same for many sequences.
const COARSE_CAPS: [u8; 4] = [1, 2, 4, 8];

/// The draft of a sequence that has both a lookup and a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// The draft tokens, in the order in which they are added.
    tokens: Vec<DraftToken>,
    unordered: Vec<DraftToken>,
    n_in_bin: Vec<u32>,
    /// First entries of `tokens`: the draft tokens of the best round, up to the longest chain.
    n_best: usize,
    cap_of_best: u8,
}

/// A token of the draft of a sequence.
#[derive(Clone, Copy, Debug, Default)]
struct DraftToken {
    /// Index of the sequence.
    at: u32,
    bin: u16,
    /// Place in the draft, from 1.
    length: u8,
    is_chain: bool,
    survival: f32,
    /// Its attention in the verification and in the chain, and the work of entering the drafter, in ns.
    verifying_ns: f32,
    drafting_ns: f32,
    entering_ns: f32,
}

/// The times of a round while draft tokens are added.
struct Running {
    tokens: f64,
    rows: u32,
    attention_ns: f64,
    drafting_ns: f64,
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
        let weights_share = match round.strategies[usize::from(strategy)] {
            Strategy::Lookup if group.is_some() => return None, // the candidate of lookups alone
            Strategy::Lookup => 0.0,
            Strategy::Chain(cost) => cost.weights_share,
        };
        self.list_tokens(round);
        self.put_in_order();
        self.search(round, strategy, weights_share)
    }

    /// Writes the draft of each sequence in the best round.
    pub(super) fn write_plans(&self, plans: &mut [Option<(u16, u32)>]) {
        plans.fill(None);
        for token in &self.tokens[..self.n_best] {
            let at = token.at as usize;
            if let Some(offer) =
                self.offers[at].as_ref().filter(|_| token.is_within(self.cap_of_best))
            {
                plans[at] = Some((offer.strategy, u32::from(token.length)));
            }
        }
    }

    /// Lists the draft tokens that have a value: the probability that they survive, less the tokens that plain decoding
    /// would yield in the time that they take at least. A token without value lowers the rate of any round that is faster
    /// than plain decoding.
    fn list_tokens(&mut self, round: &Round<'_>) {
        let costs = round.costs;
        let plain = Running::plain(round);
        let tokens_per_ns = plain.tokens / (costs.rows_ns(plain.rows) + plain.attention_ns);
        let row_ns = costs.least_row_ns(plain.rows);
        self.unordered.clear();
        for (at, offer) in (0..).zip(&self.offers) {
            let Some(offer) = offer else { continue };
            let kv_tokens = round.sequences[at as usize].kv_tokens;
            let chain = match round.strategies[usize::from(offer.strategy)] {
                Strategy::Lookup => None,
                Strategy::Chain(cost) => Some(cost),
            };
            let drafting_ns =
                chain.map_or(0.0, |cost| costs.attention_ns(1, cost.seen_tokens(kv_tokens)));
            let looking_ns =
                chain.map_or(0.0, |cost| cost.overhead_ns_per_kv_token * f64::from(kv_tokens));
            let mut value = 1.0;
            for (length, &survival) in (1..).zip(offer.survival.values()) {
                let verifying_ns = costs.attention_ns(length + 1, kv_tokens)
                    - costs.attention_ns(length, kv_tokens);
                let own_ns = row_ns + verifying_ns + drafting_ns;
                // Never above the token before it, so that a draft stays in its order.
                value = f64::min(value, f64::from(survival) - tokens_per_ns * own_ns);
                if value <= 0.0 {
                    break;
                }
                let first = if length == 1 { 1.0 } else { 0.0 };
                self.unordered.push(DraftToken {
                    at,
                    bin: (N_BINS - 1 - ((value * N_BINS as f64) as usize).min(N_BINS - 1)) as u16,
                    length: length as u8,
                    is_chain: chain.is_some(),
                    survival,
                    verifying_ns: verifying_ns as f32,
                    drafting_ns: (drafting_ns + first * looking_ns) as f32,
                    entering_ns: (first * offer.entering_ns) as f32,
                });
            }
        }
    }

    /// Draft tokens by falling value, those of one sequence in their order: a counting sort.
    fn put_in_order(&mut self) {
        self.n_in_bin.clear();
        self.n_in_bin.resize(N_BINS + 1, 0);
        for token in &self.unordered {
            self.n_in_bin[usize::from(token.bin) + 1] += 1;
        }
        for at in 1..=N_BINS {
            self.n_in_bin[at] += self.n_in_bin[at - 1];
        }
        self.tokens.clear();
        self.tokens.resize(self.unordered.len(), DraftToken::default());
        for token in &self.unordered {
            let place = &mut self.n_in_bin[usize::from(token.bin)];
            self.tokens[*place as usize] = *token;
            *place += 1;
        }
    }

    /// Adds the draft tokens one after another and keeps the number with the best rate, for several longest chains: each
    /// further token of the longest chain costs a forward, which all chains share.
    fn search(
        &mut self,
        round: &Round<'_>,
        strategy: u16,
        weights_share: f64,
    ) -> Option<Prediction> {
        let chains = self.tokens.iter().filter(|token| token.is_chain);
        let longest = chains.map(|token| token.length).max().unwrap_or(0);
        let mut best = None::<Prediction>;
        let caps = match round.sequences.len() {
            n if n >= MANY_SEQUENCES => &COARSE_CAPS[..],
            _ => &CAPS,
        };
        for &cap in caps {
            self.search_up_to(round, strategy, weights_share, cap, &mut best);
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
        weights_share: f64,
        cap: u8,
        best: &mut Option<Prediction>,
    ) {
        let mut running = Running::plain(round);
        let drafting = round.drift.factor(Phase::Draft(strategy), SizeClass::ANY);
        let kv_tokens = round.sequences.iter().map(|s| u64::from(s.kv_tokens)).sum();
        let (mut class_end, mut verifying) = (0, 1.0);
        let most_rows = running.rows.saturating_add(round.max_draft_rows);
        let most_ns = round.max_step_ns.unwrap_or(f64::INFINITY);
        let (mut tokens_of_best, mut ns_of_best) =
            best.map_or((0.0, 1.0), |best| (best.tokens, best.drafting_ns + best.forward_ns));
        for (index, token) in
            self.tokens.iter().enumerate().filter(|(_, token)| token.is_within(cap))
        {
            if running.rows == most_rows {
                break;
            }
            running.add(round, token, weights_share);
            if running.rows >= class_end {
                let class = SizeClass::new(running.rows, kv_tokens);
                verifying = round.drift.factor(Phase::Verify(strategy), class);
                class_end = class.end_of_rows();
            }
            let found = running.prediction(round, drafting, verifying);
            let ns = found.drafting_ns + found.forward_ns;
            if found.tokens * ns_of_best > tokens_of_best * ns && ns <= most_ns {
                (tokens_of_best, ns_of_best) = (found.tokens, ns);
                *best = Some(found);
                self.n_best = index + 1;
                self.cap_of_best = cap;
            }
        }
    }
}

impl DraftToken {
    /// Whether the token is in the round if chains have at most `cap` tokens.
    fn is_within(&self, cap: u8) -> bool {
        self.length <= cap || !self.is_chain
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
                let rate = rate_alone(kv_tokens, draft, &cost, round);
                if chain.is_none_or(|(_, best)| rate > best) {
                    chain = Some((*draft, rate));
                }
            }
            Strategy::Chain(_) => {}
        }
    }
    (lookup, chain.map(|(chain, _)| chain))
}

/// The best rate of a sequence with a chain whose weights others pay for: tokens over the time of attention, and of its share
/// of the rows.
fn rate_alone(kv_tokens: u32, draft: &DraftOffer, cost: &ChainCost, round: &Round<'_>) -> f64 {
    let costs = round.costs;
    let n = (round.sequences.len() as u32 + round.other_rows).max(1);
    let base_ns = costs.rows_ns(n) / f64::from(n);
    let row_ns = (costs.rows_ns(2 * n) - costs.rows_ns(n)) / f64::from(n);
    let drafting_ns = costs.attention_ns(1, cost.seen_tokens(kv_tokens));
    let looking_ns = cost.overhead_ns_per_kv_token * f64::from(kv_tokens) + draft.entering_ns;
    let (mut tokens, mut best) = (1.0, 0.0);
    for (length, &survival) in (1..).zip(draft.survival.values()) {
        tokens += f64::from(survival);
        let rows_ns =
            base_ns + f64::from(length) * (row_ns + drafting_ns + cost.weights_share * row_ns);
        let ns = rows_ns + costs.attention_ns(length + 1, kv_tokens) + looking_ns;
        best = f64::max(best, tokens / ns);
    }
    best
}

impl Running {
    fn plain(round: &Round<'_>) -> Self {
        let attention = round.sequences.iter().map(|s| round.costs.attention_ns(1, s.kv_tokens));
        Running {
            tokens: round.sequences.len() as f64,
            rows: round.sequences.len() as u32 + round.other_rows,
            attention_ns: attention.sum::<f64>() + round.other_attention_ns,
            drafting_ns: 0.0,
            entering_ns: 0.0,
            rows_at_depth: [0; MAX_DRAFT_TOKENS],
        }
    }

    /// Adds a draft token.
    fn add(&mut self, round: &Round<'_>, token: &DraftToken, weights_share: f64) {
        self.tokens += f64::from(token.survival);
        self.rows += 1;
        self.attention_ns += f64::from(token.verifying_ns);
        if token.is_chain {
            let rows = &mut self.rows_at_depth[usize::from(token.length) - 1];
            let step_ns = round.costs.rows_ns(*rows + 1) - round.costs.rows_ns(*rows);
            *rows += 1;
            self.drafting_ns += weights_share * step_ns + f64::from(token.drafting_ns);
            self.entering_ns += f64::from(token.entering_ns);
        }
    }

    fn prediction(&self, round: &Round<'_>, drafting: f64, verifying: f64) -> Prediction {
        Prediction {
            tokens: self.tokens,
            drafting_ns: self.drafting_ns * drafting + self.entering_ns,
            forward_ns: (round.costs.rows_ns(self.rows) + self.attention_ns) * verifying,
        }
    }
}
