//! A plan as JSON: docs/planning.md lists the keys.

use super::models::PlannedModel;
use super::{Planned, Report, options};
use galley_planner::theory::{Bottleneck, BreakEven, MEMORY_SHARE, Outlook, StepTime, Strategy};
use galley_planner::{expected_tokens, theory::DraftOption};
use serde_json::{Value, json};

/// The whole report.
pub(super) fn of(report: &Report<'_>) -> Value {
    let costs = &report.costs;
    let hardware = &report.hardware;
    let plans = report.plans.iter().map(|planned| workload(report, planned));
    json!({
        "model": model(&report.target),
        "draft_model": report.draft.as_ref().map(model),
        "hardware": {
            "name": hardware.name,
            "bandwidth_gb_s": hardware.bandwidth_bytes_per_s / 1e9,
            "tflops": hardware.flops_per_s / 1e12,
            "memory_gb": hardware.memory_bytes.map(|bytes| bytes / 1e9),
            "tp": report.args.tp,
        },
        "coefficients_ms": {
            "weights": costs.weights_s * 1e3,
            "row": costs.row_s * 1e3,
            "kv_token": costs.kv_token_s * 1e3,
            "score": costs.score_s * 1e3,
        },
        "max_draft_length": report.args.max_draft_length,
        "workloads": plans.collect::<Vec<_>>(),
    })
}

fn model(model: &PlannedModel) -> Value {
    json!({
        "path": model.path,
        "family": model.family,
        "parameters": model.shape.weights() as u64,
        "max_context": model.max_context,
        "weights": model.weight_format.to_string(),
        "bytes_per_weight": model.formats.bytes_per_weight,
        "kv_bytes_per_token": model.shape.kv_values_per_token() * model.formats.bytes_per_kv_value,
    })
}

fn workload(report: &Report<'_>, planned: &Planned) -> Value {
    let plan = &planned.plan;
    let workload = &plan.workload;
    let (batch, context) = (workload.batch, workload.context_tokens);
    let plain_tokens_s = batch as f64 / plan.plain.total_s();
    let mut verification = step(&plan.verification);
    verification["draft_length"] = plan.draft_length.into();
    let drafters = planned.options.iter().zip(&plan.outlooks);
    let drafters = drafters.map(|(option, outlook)| drafter(report, planned, option, outlook));
    json!({
        "batch": batch,
        "context": context,
        "recommended": recommended(planned, plan.recommended()),
        "plain": step(&plan.plain),
        "plain_tok_s": plain_tokens_s,
        "verification": verification,
        "critical_length": plan.critical_length_tokens,
        "memory": {
            "weight_gb": report.needs.weight_bytes / 1e9,
            "kv_gb": report.needs.kv_bytes(batch, context) / 1e9,
            "usable_gb": report.hardware.memory_bytes.map(|bytes| bytes * MEMORY_SHARE / 1e9),
            "fits": plan.fits(),
            "max_sequences": plan.max_sequences,
        },
        "drafters": drafters.collect::<Vec<_>>(),
    })
}

/// A strategy; drafter "none" is plain decoding.
fn recommended(planned: &Planned, strategy: Option<Strategy>) -> Value {
    match strategy {
        None => json!({"drafter": "none", "draft_length": 0, "kv_budget": null, "speedup": 1.0}),
        Some(strategy) => {
            let option = &planned.options[strategy.option];
            json!({
                "drafter": option.drafter,
                "draft_length": strategy.draft_length,
                "kv_budget": option.kv_budget_tokens(),
                "speedup": strategy.speedup,
            })
        }
    }
}

fn step(time: &StepTime) -> Value {
    json!({
        "ms": time.total_s() * 1e3,
        "weights_share": time.share(Bottleneck::Weights),
        "kv_share": time.share(Bottleneck::Kv),
        "compute_share": time.share(Bottleneck::Compute),
        "bound_by": match time.bottleneck() {
            Bottleneck::Weights => "weights",
            Bottleneck::Kv => "kv",
            Bottleneck::Compute => "compute",
        },
    })
}

fn drafter(
    report: &Report<'_>,
    planned: &Planned,
    option: &DraftOption,
    outlook: &Outlook,
) -> Value {
    let source = match (option.acceptance, options::given(report.args, &option.drafter)) {
        (None, _) => None,
        (Some(_), Some(_)) => Some("given"),
        (Some(_), None) => Some("published"),
    };
    let round = outlook.expected.zip(option.acceptance).map(|((draft_length, speedup), rate)| {
        json!({
            "draft_length": draft_length,
            "speedup": speedup,
            "tokens": expected_tokens(draft_length, rate),
            "ms": planned.plan.workload.round_s(&option.method, draft_length) * 1e3,
        })
    });
    json!({
        "drafter": option.drafter,
        "kv_budget": option.kv_budget_tokens(),
        "draft_step_ms": outlook.draft_step_s * 1e3,
        "selection_ms": outlook.selection_s * 1e3,
        "break_even": outlook.break_even.map(|BreakEven { acceptance, draft_length }| {
            json!({"acceptance": acceptance, "draft_length": draft_length})
        }),
        "acceptance": option.acceptance,
        "acceptance_source": source,
        "round": round,
    })
}
