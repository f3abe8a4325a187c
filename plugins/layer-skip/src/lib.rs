//! Drafts with some of the target's layers: a fixed choice, the first few, or a choice that is
//! searched for at run time.
//!
//! `static`: J. Zhang et al., "Draft & Verify", 2023 (arXiv 2309.08168). `exit`: M. Elhoushi et
//! al., "LayerSkip", 2024 (arXiv 2404.16710), for models that were trained to exit early. `search`:
//! H. Xia et al., "SWIFT", 2024 (arXiv 2410.06916), see `search.rs`. Skipping layers needs no
//! second model and no second cache. With a window as in StreamingLLM (arXiv 2309.17453), a guess
//! also reads less of the cache.

mod search;

use galley_drafter::{
    Chain, Control, Cost, CostAt, Drafter, Error, Guess, LayerMask, Layers, Limits, Model,
    ModelInfo, Options, Result, Step, View, export_drafter,
};
use search::MaskSearch;

#[derive(Clone, Copy)]
enum Mode {
    Static,
    Exit,
    Search,
}

struct LayerSkip {
    view: View,
    layers: Layers,
    search: Option<MaskSearch>,
    budget_tokens: u32, // 0: the whole cache
    weights_read: f64,
    attention_share: f64,
}

impl Drafter for LayerSkip {
    fn activate(host: &Control<'_>, options: &Options, _: &Limits) -> Result<Self> {
        let info = host.describe(Model::TARGET)?;
        let modes = [("static", Mode::Static), ("exit", Mode::Exit), ("search", Mode::Search)];
        let mode = options.choose("mode", &modes)?;
        refuse_what_others_read(mode, options)?;
        let mask = match mode {
            Mode::Static => static_mask(options, info.n_layers)?,
            Mode::Exit => exit_mask(options, &info)?,
            Mode::Search => search::every_second(info.n_layers)?,
        };
        let layers = host.mask(Model::TARGET, &mask)?;
        let search = match mode {
            Mode::Static | Mode::Exit => None,
            Mode::Search => Some(MaskSearch::new(host, options, mask.clone(), info.n_layers)?),
        };
        let (n_sinks, budget_tokens) = (options.parse("sinks")?, options.parse("budget")?);
        if budget_tokens != 0 && budget_tokens <= n_sinks {
            return Err(options.refuse("budget", "it leaves no room beside the sinks"));
        }
        // Without a budget of the drafter, the window serves requests that set a budget.
        let view = host.window(Model::TARGET, n_sinks, whole_if_0(budget_tokens))?;
        Ok(Self {
            view,
            layers,
            search,
            budget_tokens,
            weights_read: info.weights_read(&mask),
            attention_share: mask.attention_share(),
        })
    }

    fn guess(&mut self, step: &Step<'_>) -> Result<Guess> {
        if let Some(search) = &mut self.search {
            search.advance(step, self.layers)?;
        }
        step.chain(Chain { view: self.view, layers: self.layers, ..Chain::default() })
    }

    /// A search changes the set of skipped layers, and hardly its size.
    fn cost(&self, at: &CostAt) -> Cost {
        Cost {
            weights_read: self.weights_read,
            kv_tokens_read: at.attended(self.budget_tokens) * self.attention_share,
        }
    }
}

fn whole_if_0(budget_tokens: u32) -> u32 {
    if budget_tokens == 0 { u32::MAX } else { budget_tokens }
}

/// Refuses an option of another mode: it is a mistake, most likely a forgotten `mode=`.
fn refuse_what_others_read(mode: Mode, options: &Options) -> Result<()> {
    let [exit, skipped] = match mode {
        Mode::Static => [false, true],
        Mode::Exit => [true, false],
        Mode::Search => [false, false],
    };
    if !exit && options.text("exit")? != "0" {
        return Err(options.refuse("exit", "it is for mode=exit"));
    }
    match ["attention", "mlp"]
        .into_iter()
        .find(|name| options.text(name).is_ok_and(|t| !t.is_empty()))
    {
        Some(name) if !skipped => Err(options.refuse(name, "it is for mode=static")),
        _ => Ok(()),
    }
}

/// A mask without the sublayers in `attention` and `mlp`; without every second layer if both are empty.
fn static_mask(options: &Options, n_layers: u32) -> Result<LayerMask> {
    let (attention, mlp) = (options.list("attention")?, options.list("mlp")?);
    if attention.is_empty() && mlp.is_empty() {
        return search::every_second(n_layers);
    }
    LayerMask::skipping(&attention, &mlp, n_layers)
}

fn exit_mask(options: &Options, info: &ModelInfo) -> Result<LayerMask> {
    let n_kept = match options.parse("exit")? {
        0 => info.n_layers.div_ceil(4), // LayerSkip exits after 8 of 32 layers
        n_kept if n_kept > info.n_layers => {
            let why = format!("the model has only {} layers", info.n_layers);
            return Err(options.refuse("exit", &why));
        }
        n_kept => n_kept,
    };
    if n_kept == 0 {
        return Err(Error::unsupported("the model has no layers"));
    }
    Ok(LayerMask::exit_after(n_kept, info.n_layers))
}

export_drafter!(
    LayerSkip,
    r#"{
  "id": "galley.layer-skip",
  "name": "layer-skip",
  "version": "0.1.0",
  "description": "Drafts with some of the target's layers (Draft & Verify, LayerSkip, SWIFT)",
  "needs": ["galley.models/1", "galley.layers/1", "galley.views/1", "galley.chain/1"],
  "options": [
    {"name": "mode", "default": "static", "help": "static: skip the same layers; exit: leave early; search: look for better ones while running, with galley.replay/1"},
    {"name": "attention", "default": "", "help": "static: attention sublayers to skip, such as 3,5,7"},
    {"name": "mlp", "default": "", "help": "static: MLP sublayers to skip; both empty: every second layer but the first and last"},
    {"name": "exit", "default": "0", "help": "exit: layers to run; 0: a quarter"},
    {"name": "ratio", "default": "0.45", "help": "search: share of the sublayers to skip"},
    {"name": "window", "default": "32", "help": "search: latest tokens of an output that a choice is tried on"},
    {"name": "every", "default": "2", "help": "search: rounds between two choices, at least 2"},
    {"name": "seed", "default": "1", "help": "search: where the random choices begin"},
    {"name": "sinks", "default": "16", "help": "first tokens that stay in view under a budget"},
    {"name": "budget", "default": "0", "help": "tokens attended to in all, sinks included, where a request asks for no other number; 0: the whole cache"}
  ]
}"#
);
