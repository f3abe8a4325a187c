//! The theory against published numbers, its own arguments and a search of all tries.

#[path = "theory/arguments.rs"]
mod arguments;
#[path = "theory/choice.rs"]
mod choice;
#[path = "theory/published.rs"]
mod published;

use galley_planner::ModelShape;
use galley_planner::theory::{
    Deployment, DraftMethod, DraftOption, Formats, ForwardCosts, Hardware, Workload,
};

const LLAMA_8B: ModelShape = ModelShape {
    n_layers: 32,
    hidden_size: 4096,
    n_heads: 32,
    n_kv_heads: 8,
    head_dim: 128,
    intermediate_size: 14_336,
    vocab_size: 128_256,
    tie_embeddings: false,
    sliding_window: None,
};

fn deployment(gpu: &str, tensor_parallel: usize) -> Deployment {
    let hardware = Hardware::gpu(gpu).expect("a known GPU");
    Deployment { hardware, tensor_parallel, formats: Formats::BF16 }
}

fn on(shape: &ModelShape, gpu: &str, tensor_parallel: usize) -> ForwardCosts {
    ForwardCosts::new(shape, &deployment(gpu, tensor_parallel)).expect("heads divide")
}

fn workload(target: ForwardCosts, batch: usize, context_tokens: usize) -> Workload {
    Workload { target, batch, context_tokens, round_overhead_s: 0.0 }
}

fn self_speculation(target: ForwardCosts, kv_budget_tokens: u32) -> DraftMethod {
    let kv_budget_tokens = Some(kv_budget_tokens);
    DraftMethod::Forward { costs: target, kv_budget_tokens, key_passes: 0.0 }
}

fn option(drafter: &str, method: DraftMethod, acceptance: f64) -> DraftOption {
    DraftOption { drafter: drafter.to_owned(), method, acceptance: Some(acceptance) }
}
