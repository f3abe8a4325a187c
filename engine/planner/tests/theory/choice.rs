//! The choice of drafter, draft length and KV budget against a search of all tries.

use crate::{LLAMA_8B, on, option, workload};
use galley_planner::theory::{DraftMethod, DraftOption, ForwardCosts, Workload, fastest_option};
use galley_planner::{ModelShape, expected_tokens};

/// Every kind of drafter with several budgets.
fn options(target: ForwardCosts, acceptance_percent: u64) -> Vec<DraftOption> {
    let small =
        ModelShape { n_layers: 16, hidden_size: 2048, n_kv_heads: 8, head_dim: 64, ..LLAMA_8B };
    let small = ModelShape { intermediate_size: 8_192, ..small };
    let forward = |costs, kv_budget_tokens, key_passes| DraftMethod::Forward {
        costs,
        kv_budget_tokens,
        key_passes,
    };
    let half = on(&LLAMA_8B.with_layers(16), "H100-SXM", 8);
    let alpha = |plus: f64| (acceptance_percent as f64 / 100.0 + plus).min(0.98);
    vec![
        option("streaming-llm", forward(target, Some(256), 0.0), alpha(0.0)),
        option("streaming-llm", forward(target, Some(1_024), 0.0), alpha(0.04)),
        option("self-spec", forward(target, Some(512), 1.0), alpha(0.1)),
        option("layer-skip", forward(half, None, 0.0), alpha(-0.2)),
        option("small-model", forward(on(&small, "H100-SXM", 8), None, 0.0), alpha(-0.12)),
        option("small-model", forward(on(&small, "H100-SXM", 8), Some(512), 0.0), alpha(-0.15)),
        option("ngram", DraftMethod::Lookup, alpha(-0.35)),
    ]
}

/// The time a token takes, written out from the formulas: c + B·(n·f + S·(kv + n·a)).
fn seconds_a_token(workload: &Workload, option: &DraftOption, draft_length: u32) -> f64 {
    let forward = |costs: &ForwardCosts, rows: f64, context: f64| {
        let a_sequence = rows * costs.row_s + context * (costs.kv_token_s + rows * costs.score_s);
        costs.weights_s + workload.batch as f64 * a_sequence
    };
    let (gamma, context) = (f64::from(draft_length), workload.context_tokens as f64);
    let target = &workload.target;
    let drafts = match option.method {
        DraftMethod::Lookup => 0.0,
        DraftMethod::Forward { costs, kv_budget_tokens, key_passes } => {
            let budget = kv_budget_tokens.map_or(context, |k| context.min(f64::from(k)));
            let key = target.kv_token_s / 2.0 + target.score_s;
            let selection = key_passes * workload.batch as f64 * context * key;
            gamma * forward(&costs, 1.0, budget) + selection
        }
    };
    let round = drafts + forward(target, gamma + 1.0, context);
    round / expected_tokens(draft_length, option.acceptance.expect("known"))
}

#[test]
fn the_choice_is_that_of_all_tries() {
    let target = on(&LLAMA_8B, "H100-SXM", 8);
    let mut chosen = std::collections::BTreeSet::new();
    for batch in [1, 4, 32, 256] {
        for context in [100, 1_000, 8_000, 100_000] {
            for percent in [30, 60, 80, 95] {
                let (workload, options) =
                    (workload(target, batch, context), options(target, percent));
                let all = options.iter().enumerate().flat_map(|(index, option)| {
                    (1..=8).map(move |length| {
                        (seconds_a_token(&workload, option, length), index, length)
                    })
                });
                let all: Vec<_> = all.collect();
                let least = all.iter().copied().reduce(|a, b| if b.0 < a.0 { b } else { a });
                let (seconds, index, length) = least.expect("tries");
                let best = fastest_option(&workload, &options, 8).expect("options");
                assert_eq!((best.option, best.draft_length), (index, length), "{workload:?}");
                let speedup = workload.plain().total_s() / seconds;
                assert!((best.speedup / speedup - 1.0).abs() < 1e-12, "{workload:?}");
                // The control: every other try is slower or equal.
                assert!(all.iter().all(|(other, ..)| *other >= seconds));
                let name = options[index].drafter.clone();
                chosen.insert(if speedup > 1.0 { name } else { "none".to_owned() });
            }
        }
    }
    // The cases tell drafters apart.
    assert!(chosen.len() >= 4, "{chosen:?}");
}

#[test]
fn an_option_without_an_acceptance_is_never_chosen() {
    let target = on(&LLAMA_8B, "H100-SXM", 8);
    let workload = workload(target, 64, 32_000);
    let mut options = options(target, 80);
    let first = fastest_option(&workload, &options, 8).expect("options").option;
    options[first].acceptance = None;
    assert_ne!(fastest_option(&workload, &options, 8).expect("options").option, first);
    for option in &mut options {
        option.acceptance = None;
    }
    assert_eq!(fastest_option(&workload, &options, 8), None);
}
