//! The arguments of the cost model: the effect of batch, context, KV heads and hardware on the speedup.

use crate::{LLAMA_8B, deployment, on, option, self_speculation, workload};
use galley_planner::ModelShape;
use galley_planner::theory::{
    DraftMethod, ForwardCosts, critical_length, streaming_llm_acceptance,
};

fn best_speedup(shape: &ModelShape, gpu: &str, batch: usize, context: usize) -> f64 {
    let target = on(shape, gpu, 8);
    let drafts = self_speculation(target, 512);
    workload(target, batch, context).best_draft_length(&drafts, 0.82, 8).expect("lengths").1
}

#[test]
fn the_speedup_grows_with_the_batch_at_long_context_and_falls_at_short_context() {
    let batches = [4, 16, 64, 256, 512];
    let speedups =
        |context| batches.map(|batch| best_speedup(&LLAMA_8B, "A100-80", batch, context));
    let (long, short) = (speedups(32_000), speedups(600));
    assert!(long.is_sorted_by(|a, b| a < b), "{long:?}");
    assert!(short.is_sorted_by(|a, b| a > b), "{short:?}");
    assert!(short.iter().all(|&speedup| speedup < 1.0), "{short:?}");
}

fn critical(shape: &ModelShape, gpu: &str, batch: usize) -> Option<usize> {
    let target = on(shape, gpu, 8);
    let options = [option("streaming-llm", self_speculation(target, 512), 0.82)];
    critical_length(&workload(target, batch, 0), &options, 8, 1 << 20)
}

#[test]
fn fewer_kv_heads_and_fewer_operations_a_byte_make_the_critical_length_longer() {
    let many_kv_heads = ModelShape { n_kv_heads: 32, ..LLAMA_8B };
    let (grouped, full) =
        (critical(&LLAMA_8B, "A100-80", 32), critical(&many_kv_heads, "A100-80", 32));
    assert!(full.is_some() && grouped > full, "{grouped:?} {full:?}");
    // The same bandwidth with fewer operations: an L40S and an L40.
    let (fast, slow) = (critical(&LLAMA_8B, "L40S", 128), critical(&LLAMA_8B, "L40", 128));
    assert!(fast.is_some() && slow > fast, "{slow:?} {fast:?}");
}

#[test]
fn the_critical_length_is_where_the_speedup_crosses_one() {
    for (gpu, batch) in [("A100-80", 4), ("H100-SXM", 32), ("L40", 256)] {
        let tokens = critical(&LLAMA_8B, gpu, batch).expect("long contexts pay");
        assert!(best_speedup(&LLAMA_8B, gpu, batch, tokens) > 1.0, "{gpu}: {tokens}");
        assert!(best_speedup(&LLAMA_8B, gpu, batch, tokens - 1) <= 1.0, "{gpu}: {tokens}");
    }
    let target = on(&LLAMA_8B, "H100-SXM", 8);
    let workload = workload(target, 4, 0);
    let drafts = self_speculation(target, 512);
    let of = |acceptance, longest| {
        critical_length(&workload, &[option("a", drafts, acceptance)], 8, longest)
    };
    assert_eq!(of(0.0, 1 << 24), None, "drafts that are never accepted");
    let tokens = of(0.82, 1 << 24).expect("long contexts pay");
    assert_eq!(of(0.82, tokens), Some(tokens));
    assert_eq!(of(0.82, tokens - 1), None);
    let free = [option("ngram", DraftMethod::Lookup, 0.9)];
    assert_eq!(critical_length(&workload, &free, 8, 1 << 24), Some(1), "drafts without a cost");
}

/// Best of the published runs on 8 × A100 with StreamingLLM 512 and draft length 2, and their order by context.
#[test]
fn the_theory_orders_contexts_as_the_published_runs_do() {
    let target = on(&LLAMA_8B, "A100-80", 8);
    let speedup = |context| {
        let drafts = self_speculation(target, 512);
        workload(target, 64, context).speedup(&drafts, 2, streaming_llm_acceptance(context))
    };
    let speedups = [4_000, 8_000, 16_000, 32_000, 64_000].map(speedup);
    assert!(speedups.is_sorted_by(|a, b| a < b), "{speedups:?}");
}

#[test]
fn a_sliding_window_and_copied_kv_heads_are_counted() {
    let windowed = ModelShape { sliding_window: Some(4_096), ..LLAMA_8B };
    let seconds = |shape: &ModelShape, context| {
        workload(on(shape, "A100-80", 8), 16, context).plain().total_s()
    };
    assert_eq!(seconds(&windowed, 32_000), seconds(&LLAMA_8B, 4_096));
    assert_eq!(seconds(&windowed, 1_000), seconds(&LLAMA_8B, 1_000));
    // Two KV heads on eight GPUs: each GPU has one, as with eight heads.
    let kv_s = |n_kv_heads| on(&ModelShape { n_kv_heads, ..LLAMA_8B }, "A100-80", 8).kv_token_s;
    assert_eq!(kv_s(2), kv_s(8));
    assert_eq!(kv_s(16), 2.0 * kv_s(8));
    let error = ForwardCosts::new(&LLAMA_8B, &deployment("A100-80", 3)).expect_err("32 heads");
    assert!(error.to_string().contains("1, 2, 4, 8, 16, 32"), "{error}");
    assert!(ForwardCosts::new(&LLAMA_8B, &deployment("A100-80", 0)).is_err());
}
