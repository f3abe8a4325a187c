//! Facts and statistics of an engine as JSON.

use galley_engine::{DraftStats, Engine, PlannerStats, Stats};
use serde_json::{Value, json};

/// The object of galley_engine_info. `path` is the model's directory or file.
pub(crate) fn info(engine: &Engine, path: &str, has_chat_template: bool) -> Value {
    let (facts, config) = (engine.model(), engine.config());
    let (c, kv) = (&facts.config, &facts.kv_shape);
    json!({
        "path": path,
        "fingerprint": &**engine.fingerprint(),
        "device": facts.device,
        "drafters": engine.drafters(),
        "family": format!("{:?}", c.family),
        "parameters": c.parameters(),
        "vocab_size": c.vocab_size,
        "has_chat_template": has_chat_template,
        "weight_bytes": facts.weight_bytes,
        "block_size_tokens": kv.block_size,
        "limits": {
            "max_model_len": engine.max_tokens_of_sequence(),
            "kv_cache_tokens": kv.n_blocks * kv.block_size,
            "max_num_seqs": config.max_num_seqs,
            "max_num_batched_tokens": config.max_num_batched_tokens,
            "max_waiting": config.max_waiting,
        },
        "prefix_caching": config.prefix_caching,
    })
}

/// The object of galley_engine_stats. Counters count from the start of the engine, times are in milliseconds.
pub(crate) fn stats(stats: &Stats, drafters: &[String]) -> Value {
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    let each = drafters.iter().zip(&stats.drafters).map(|(name, drafts)| {
        let mut object = of_drafts(drafts);
        object["name"] = name.as_str().into();
        object
    });
    json!({
        "running": stats.running,
        "waiting": stats.waiting,
        "requests": stats.requests,
        "finished": stats.finished,
        "preemptions": stats.preemptions,
        "prompt_tokens": stats.prompt_tokens,
        "generated_tokens": stats.generated_tokens,
        "prefix_query_tokens": stats.prefix_query_tokens,
        "prefix_hit_tokens": stats.prefix_hit_tokens,
        "draft_prefix_hit_tokens": stats.draft_prefix_hit_tokens,
        "kv_blocks": {
            "used": stats.kv_blocks_used,
            "peak": stats.kv_blocks_peak,
            "total": stats.kv_blocks_total,
            "drafting": stats.kv_blocks_drafting,
        },
        "suffix_bytes": {
            "index": stats.suffix_index_bytes,
            "index_peak": stats.suffix_index_bytes_peak,
            "memory": stats.suffix_memory_bytes,
            "limit": stats.suffix_bytes_limit,
        },
        "steps": stats.steps,
        "failed_steps": stats.failed_steps,
        "forward_ms": ms(stats.forward),
        "sampling_ms": ms(stats.sampling),
        "drafting_ms": ms(stats.drafting),
        "bookkeeping_ms": ms(stats.bookkeeping),
        "drafts": of_drafts(&stats.drafts),
        "drafters": each.collect::<Vec<_>>(),
        "planner": stats.planner.as_ref().map(|planner| of_planner(planner, drafters)),
    })
}

/// The planner's choices.
fn of_planner(planner: &PlannerStats, drafters: &[String]) -> Value {
    let last = &planner.last;
    json!({
        "rounds": planner.rounds,
        "plain_rounds": planner.plain_rounds,
        "probes": planner.probes,
        "drafts": drafters.iter().zip(&planner.drafts).map(|(name, n)| (name.clone(), (*n).into())).collect::<serde_json::Map<_, _>>(),
        "mean_error": planner.mean_error(),
        "planning_ms": planner.planning.as_secs_f64() * 1e3,
        "last": {
            "n_sequences": last.n_sequences,
            "n_draft_tokens": last.n_draft_tokens,
            "drafter": last.drafter.and_then(|at| drafters.get(at)),
            "tokens_per_s": last.tokens_per_s,
            "plain_tokens_per_s": last.plain_tokens_per_s,
            "runner_up_tokens_per_s": last.runner_up_tokens_per_s,
        },
    })
}

fn of_drafts(drafts: &DraftStats) -> Value {
    json!({
        "rounds": drafts.rounds,
        "drafted": drafts.drafted,
        "accepted": drafts.accepted,
        "accepted_per_position": drafts.accepted_per_position,
    })
}
