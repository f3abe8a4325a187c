//! Drafts with a second, smaller model of the same vocabulary.
//!
//! Y. Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", 2022 (arXiv
//! 2211.17192). At long contexts the cache of the draft model costs more than its weights. A window
//! of the cache, as in "MagicDec", 2024 (arXiv 2408.11049), keeps a guess cheap. The window narrows
//! the reads of a guess alone: the cache itself holds the whole sequence.

use galley_drafter::{
    Chain, Control, Cost, CostAt, Drafter, Guess, Limits, Model, Options, Result, Step, View,
    export_drafter,
};

struct SmallModel {
    model: Model,
    view: View,
    budget_tokens: u32, // 0: the whole cache
    weights_read: f64,
    kv_share: f64, // bytes of one of its tokens, in the target's tokens
}

impl Drafter for SmallModel {
    fn activate(host: &Control<'_>, options: &Options, _: &Limits) -> Result<Self> {
        let source = options.text("model")?;
        if source.is_empty() {
            return Err(options.refuse("model", "the path or name of a model is needed"));
        }
        let n_sinks: u32 = options.parse("sinks")?;
        let budget_tokens = options.parse("budget")?;
        if budget_tokens != 0 && budget_tokens <= n_sinks {
            return Err(options.refuse("budget", "it leaves no room beside the sinks"));
        }
        let model = host.load(source)?;
        // Without a budget of the drafter, the window serves requests that set a budget.
        let seen_tokens = if budget_tokens == 0 { u32::MAX } else { budget_tokens };
        let view = host.window(model, n_sinks, seen_tokens)?;
        let (small, target) = (host.describe(model)?, host.describe(Model::TARGET)?);
        Ok(Self {
            model,
            view,
            budget_tokens,
            weights_read: small.n_parameters as f64 / target.n_parameters as f64,
            kv_share: small.kv_per_token() / target.kv_per_token(),
        })
    }

    fn guess(&mut self, step: &Step<'_>) -> Result<Guess> {
        step.chain(Chain { model: self.model, view: self.view, ..Chain::default() })
    }

    fn cost(&self, at: &CostAt) -> Cost {
        Cost {
            weights_read: self.weights_read,
            kv_tokens_read: at.attended(self.budget_tokens) * self.kv_share,
        }
    }
}

export_drafter!(
    SmallModel,
    r#"{
  "id": "galley.small-model",
  "name": "small-model",
  "version": "0.1.0",
  "description": "Drafts with a second, smaller model (speculative decoding, arXiv 2211.17192)",
  "needs": ["galley.models/1", "galley.views/1", "galley.chain/1"],
  "options": [
    {"name": "model", "default": "", "help": "path or name of a model with the target's vocabulary; required"},
    {"name": "sinks", "default": "16", "help": "first tokens that stay in view under a budget"},
    {"name": "budget", "default": "0", "help": "tokens attended to in all, sinks included, where a request asks for no other number; 0: the whole cache"}
  ]
}"#
);
