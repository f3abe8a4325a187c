//! Drafts with the target on its first tokens and a rolling window of the latest tokens.
//!
//! G. Xiao et al., "Efficient Streaming Language Models with Attention Sinks", 2023 (arXiv
//! 2309.17453), used as a drafter as in "MagicDec", 2024 (arXiv 2408.11049). The first tokens
//! take up surplus attention: a window with them is a good model, and fails without them. A guess
//! then costs the same at any context length. Tokens keep their positions in the sequence, so their
//! keys are read in place.

use galley_drafter::{
    Chain, Control, Cost, CostAt, Drafter, Guess, LayerMask, Layers, Limits, Model, Options,
    Result, Step, View, export_drafter,
};

struct StreamingLlm {
    budget_tokens: u32,
    view: View,
    layers: Layers,
    weights_read: f64,
    attention_share: f64,
}

impl Drafter for StreamingLlm {
    fn activate(host: &Control<'_>, options: &Options, _: &Limits) -> Result<Self> {
        let n_sinks = options.parse("sinks")?;
        let budget_tokens = options.parse("budget")?;
        if budget_tokens <= n_sinks {
            return Err(options.refuse("budget", "it leaves no room beside the sinks"));
        }
        let mut drafter = Self {
            budget_tokens,
            view: host.window(Model::TARGET, n_sinks, budget_tokens)?,
            layers: Layers::ALL,
            weights_read: 1.0,
            attention_share: 1.0,
        };
        let skipped = options.list("skip")?;
        if !skipped.is_empty() {
            let info = host.describe(Model::TARGET)?;
            let mask = LayerMask::skipping(&skipped, &skipped, info.n_layers)?;
            drafter.layers = host.mask(Model::TARGET, &mask)?;
            drafter.weights_read = info.weights_read(&mask);
            drafter.attention_share = mask.attention_share();
        }
        Ok(drafter)
    }

    fn guess(&mut self, step: &Step<'_>) -> Result<Guess> {
        step.chain(Chain { view: self.view, layers: self.layers, ..Chain::default() })
    }

    fn cost(&self, at: &CostAt) -> Cost {
        Cost {
            weights_read: self.weights_read,
            kv_tokens_read: at.attended(self.budget_tokens) * self.attention_share,
        }
    }
}

export_drafter!(
    StreamingLlm,
    r#"{
  "id": "galley.streaming-llm",
  "name": "streaming-llm",
  "version": "0.1.0",
  "description": "Drafts with the target on its first and latest tokens (StreamingLLM, arXiv 2309.17453)",
  "needs": ["galley.views/1", "galley.chain/1"],
  "options": [
    {"name": "sinks", "default": "16", "help": "first tokens that stay in view"},
    {"name": "budget", "default": "512", "help": "tokens attended to in all, sinks included"},
    {"name": "skip", "default": "", "help": "layers to leave out as well, such as 3,5,7; empty: none"}
  ]
}"#
);
