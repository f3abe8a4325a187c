//! The choice against all plans, and against its limits.

use super::*;
use crate::cost_table::MeasuredForward;

/// Numbers that look random, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u32) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(n)) as u32
    }

    fn unit(&mut self) -> f64 {
        f64::from(self.below(1 << 20)) / f64::from(1 << 20)
    }
}

/// A staircase of tiles of `tile` rows, and attention that is free for `free` rows.
fn costs(base_ns: f64, tile: u32, tile_ns: f64, kv_ns: f64, free: u32) -> CostTable {
    let rows = |n: u32| base_ns + f64::from(n.div_ceil(tile)) * tile_ns;
    let attention = |rows: u32| kv_ns * f64::from(rows.max(free)) / f64::from(free);
    let mut measured = Vec::new();
    for n in 1..=64 {
        let ns = rows(n);
        measured.push(MeasuredForward { n_sequences: n, rows_each: 1, kv_tokens_each: 0, ns });
    }
    for n in 1..=10 {
        let ns = rows(n) + 1000.0 * attention(n);
        measured.push(MeasuredForward { n_sequences: 1, rows_each: n, kv_tokens_each: 1000, ns });
    }
    CostTable::fit(&measured, 16).expect("both kinds")
}

const CHAIN: ChainCost = ChainCost {
    group: 0,
    weights_share: 1.0,
    kv_share: 1.0,
    kv_budget_tokens: 512,
    overhead_ns_per_kv_token: 0.0,
};

fn draft(strategy: u16, n: u32, probability: f64) -> DraftOffer {
    DraftOffer { strategy, entering_ns: 0.0, survival: Survival::new(n, |_| probability) }
}

fn round<'a>(
    costs: &'a CostTable,
    drift: &'a Drift,
    strategies: &'a [Strategy],
    sequences: &'a [SequenceOffer],
) -> Round<'a> {
    Round {
        costs,
        drift,
        strategies,
        sequences,
        other_rows: 0,
        other_attention_ns: 0.0,
        max_draft_rows: u32::MAX,
        max_step_ns: None,
        least_gain: 1.0,
    }
}

/// Tokens per second of given plans, straight from the definition.
fn rate_of(round: &Round<'_>, plans: &[Option<(u16, u32)>]) -> f64 {
    let (mut tokens, mut rows, mut ns) = (0.0, round.other_rows, round.other_attention_ns);
    let mut depths = [0; MAX_DRAFT_TOKENS];
    let mut share = 0.0;
    for (sequence, plan) in round.sequences.iter().zip(plans) {
        let (strategy, length) = plan.unwrap_or((0, 0));
        tokens += 1.0;
        rows += 1 + length;
        ns += round.costs.attention_ns(1 + length, sequence.kv_tokens);
        let Some(draft) = sequence.drafts.iter().find(|draft| draft.strategy == strategy) else {
            continue;
        };
        tokens +=
            draft.survival.values()[..length as usize].iter().map(|&v| f64::from(v)).sum::<f64>();
        if let Strategy::Chain(cost) = round.strategies[usize::from(strategy)] {
            share = cost.weights_share;
            let seen = cost.seen_tokens(sequence.kv_tokens);
            ns += f64::from(length) * round.costs.attention_ns(1, seen);
            ns += if length > 0 { draft.entering_ns } else { 0.0 };
            (0..length as usize).for_each(|depth| depths[depth] += 1);
        }
    }
    ns += depths.iter().map(|&n| share * round.costs.rows_ns(n)).sum::<f64>();
    tokens * 1e9 / (ns + round.costs.rows_ns(rows))
}

/// The best rate over all plans with chains of one group.
fn best_of_all(round: &Round<'_>, plans: &mut Vec<Option<(u16, u32)>>, group: Option<u32>) -> f64 {
    let Some(sequence) = round.sequences.get(plans.len()) else { return rate_of(round, plans) };
    let mut best = 0.0;
    let mut options = vec![(None, group)];
    for draft in &sequence.drafts {
        let of = match round.strategies[usize::from(draft.strategy)] {
            Strategy::Chain(cost) => Some(cost.group),
            Strategy::Lookup => group,
        };
        if group.is_some() && of != group {
            continue;
        }
        for length in 1..=draft.survival.values().len() as u32 {
            options.push((Some((draft.strategy, length)), of));
        }
    }
    for (plan, group) in options {
        plans.push(plan);
        best = f64::max(best, best_of_all(round, plans, group));
        plans.pop();
    }
    best
}

#[test]
fn the_choice_is_as_good_as_the_best_of_all_plans() {
    let mut numbers = Numbers(1);
    let drift = Drift::frozen();
    let (mut n_drafting, mut sum) = (0, 0.0);
    let n_cases = 300;
    for case in 0..n_cases {
        let kv_ns = 1.0 + 30.0 * numbers.unit();
        let (tile, free) = (1 + numbers.below(6), 1 + numbers.below(4));
        let costs = costs(1e4 * (1.0 + numbers.unit()), tile, 3e4 * numbers.unit(), kv_ns, free);
        let strategies = [
            Strategy::Lookup,
            Strategy::Chain(CHAIN),
            Strategy::Chain(ChainCost {
                group: 1,
                weights_share: 0.3,
                kv_budget_tokens: 10_000,
                ..CHAIN
            }),
        ];
        let sequences: Vec<_> = (0..1 + numbers.below(3))
            .map(|_| {
                let kv_tokens = 100 + numbers.below(8000);
                let chance = |numbers: &mut Numbers| numbers.unit().sqrt();
                let mut drafts =
                    vec![draft(1, 3, chance(&mut numbers)), draft(2, 3, chance(&mut numbers))];
                if numbers.below(2) == 0 {
                    drafts.push(draft(0, 1 + numbers.below(3), chance(&mut numbers)));
                }
                SequenceOffer { kv_tokens, drafts }
            })
            .collect();
        let round = round(&costs, &drift, &strategies, &sequences);
        let choice = Chooser::default().choose(&round);
        let (told, real) = (choice.chosen.rate(), rate_of(&round, &choice.plans));
        assert!((told / real - 1.0).abs() < 1e-4, "case {case}: says {told}, is {real}");
        let best = best_of_all(&round, &mut Vec::new(), None);
        assert!(real <= best * (1.0 + 1e-9), "case {case}: the search over all plans is complete");
        assert!(real >= 0.93 * best, "case {case}: {real} of {best}, {:?}", choice.plans);
        assert!(real >= rate_of(&round, &vec![None; sequences.len()]) * (1.0 - 1e-9));
        sum += real / best;
        n_drafting += usize::from(choice.plans.iter().any(Option::is_some));
    }
    let mean = sum / f64::from(n_cases);
    assert!(mean > 0.995, "on average {mean} of the best");
    assert!(n_drafting > 50 && n_drafting < 290, "{n_drafting} of the cases draft");
}

#[test]
fn tokens_go_to_the_sequences_where_they_earn_most() {
    // Two chats and two documents: only documents gain by drafting over a part of their KV.
    let costs = costs(5e5, 1, 1e3, 30.0, 4);
    let drift = Drift::frozen();
    let strategies = [Strategy::Chain(CHAIN), Strategy::Lookup];
    let sequence = |kv_tokens, probability| SequenceOffer {
        kv_tokens,
        drafts: vec![draft(0, 8, probability)],
    };
    let sequences =
        [sequence(30_000, 0.9), sequence(30_000, 0.9), sequence(400, 0.05), sequence(400, 0.05)];
    let choice = Chooser::default().choose(&round(&costs, &drift, &strategies, &sequences));
    let lengths: Vec<u32> = choice.plans.iter().map(|plan| plan.map_or(0, |(_, n)| n)).collect();
    assert!(lengths[0] >= 2 && lengths[0].abs_diff(lengths[1]) <= 1, "{lengths:?}");
    assert!(lengths[2] <= 1 && lengths[3] <= 1, "{lengths:?}");
    assert!(choice.chosen.rate() > 1.2 * choice.plain.rate());
    assert!(choice.runner_up.rate() <= choice.chosen.rate());
    // A lookup that is surer than the chain goes first in the sequence that has one.
    let mut mixed = sequences.to_vec();
    mixed[2].drafts.push(draft(1, 2, 0.95));
    let choice = Chooser::default().choose(&round(&costs, &drift, &strategies, &mixed));
    assert!(matches!(choice.plans[2], Some((1, 2..))), "{:?}", choice.plans);
    assert!(matches!(choice.plans[0], Some((0, _))));
}

#[test]
fn limits_and_the_drift_of_a_phase_are_obeyed() {
    let costs = costs(1e5, 1, 1e3, 30.0, 4);
    let strategies = [Strategy::Chain(CHAIN)];
    let sequences = vec![SequenceOffer { kv_tokens: 20_000, drafts: vec![draft(0, 8, 0.9)] }; 4];
    let choose = |drift: &Drift, change: &dyn Fn(&mut Round<'_>)| {
        let mut round = round(&costs, drift, &strategies, &sequences);
        change(&mut round);
        Chooser::default().choose(&round)
    };
    let n_rows = |choice: &Choice| choice.plans.iter().flatten().map(|plan| plan.1).sum::<u32>();
    let frozen = Drift::frozen();
    let free = choose(&frozen, &|_| {});
    assert!(n_rows(&free) > 6);
    assert_eq!(n_rows(&choose(&frozen, &|round| round.max_draft_rows = 6)), 6);
    let most = 1.02 * free.plain.forward_ns;
    assert_eq!(n_rows(&choose(&frozen, &|round| round.max_step_ns = Some(most))), 0);
    assert_eq!(n_rows(&choose(&frozen, &|round| round.least_gain = 100.0)), 0);
    // Drafts that take three times their predicted time do not pay.
    let mut slow = Drift::default();
    for _ in 0..100 {
        slow.observe(Phase::Plain, SizeClass::new(4, 80_000), 1.0, 1.0);
        slow.observe(Phase::Draft(0), SizeClass::ANY, 1.0, 12.0);
    }
    assert!(n_rows(&choose(&slow, &|_| {})) < n_rows(&free));
}

/// Not a check: prints the time of a choice. `cargo test --release -p galley-planner -- --nocapture time_of`
#[test]
fn time_of_a_choice() {
    let costs = costs(5e5, 6, 1e4, 30.0, 4);
    let drift = Drift::default();
    let strategies = [
        Strategy::Lookup,
        Strategy::Chain(CHAIN),
        Strategy::Chain(CHAIN),
        Strategy::Chain(ChainCost { group: 1, weights_share: 0.3, ..CHAIN }),
    ];
    for n in [1, 16, 64, 256] {
        let mut numbers = Numbers(n);
        let sequences: Vec<_> = (0..n)
            .map(|_| SequenceOffer {
                kv_tokens: numbers.below(8000),
                drafts: (0..4).map(|at| draft(at, 8, numbers.unit().sqrt())).collect(),
            })
            .collect();
        let round = round(&costs, &drift, &strategies, &sequences);
        let mut chooser = Chooser::default();
        let started = std::time::Instant::now();
        let n_choices = 100;
        for _ in 0..n_choices {
            std::hint::black_box(chooser.choose(&round));
        }
        let each = started.elapsed() / n_choices;
        println!(
            "{n} sequences: {each:?}, drafting {:?}",
            chooser.choose(&round).plans.iter().flatten().count()
        );
    }
}
