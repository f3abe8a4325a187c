//! The drafters of a plan, with their KV budgets and acceptances.

use super::models::PlannedModel;
use crate::args::PlanArgs;
use anyhow::{Context, Result, bail};
use galley_planner::theory::{
    DRAFT_MODEL_ACCEPTANCE, Deployment, DraftMethod, DraftOption, ForwardCosts,
    streaming_llm_acceptance,
};

/// Drafters that run the target over a KV budget, each with its passes over all keys in a round. `snap-kv` selects
/// once for many rounds, and `self-spec` looks at all keys beside each verification.
const WITH_BUDGET: [(&str, f64); 3] =
    [("streaming-llm", 0.0), ("snap-kv", 0.0), ("self-spec", 1.0)];
const LAYER_SKIP: &str = "layer-skip";
const SMALL_MODEL: &str = "small-model";
const NGRAM: &str = "ngram";

/// The KV budget of the published acceptances. Smaller budgets accept less.
const PUBLISHED_BUDGET: u32 = 512;

/// The drafters to choose from.
pub(super) struct Drafters<'a> {
    args: &'a PlanArgs,
    target: ForwardCosts,
    fewer_layers: ForwardCosts,
    draft_model: Option<ForwardCosts>,
}

impl<'a> Drafters<'a> {
    pub(super) fn new(
        args: &'a PlanArgs,
        target: &PlannedModel,
        deployment: &Deployment,
        draft_model: Option<ForwardCosts>,
    ) -> Result<Self> {
        let known: Vec<_> = names().collect();
        for given in args.acceptance.iter().filter_map(|given| given.drafter.as_deref()) {
            if !known.contains(&given) {
                bail!(
                    "--acceptance (GALLEY_ACCEPTANCE): there is no drafter {given:?}; there are {}",
                    known.join(", ")
                );
            }
        }
        let n_layers = target.shape.n_layers;
        let n_draft_layers = args.draft_layers.unwrap_or(n_layers.div_ceil(2));
        if n_draft_layers > n_layers {
            bail!("--draft-layers {n_draft_layers}: the model has {n_layers}");
        }
        let costs = |shape| ForwardCosts::new(shape, deployment).context("--tp (GALLEY_TP)");
        Ok(Self {
            args,
            target: costs(&target.shape)?,
            fewer_layers: costs(&target.shape.with_layers(n_draft_layers))?,
            draft_model,
        })
    }

    /// Every drafter with every KV budget, with acceptances for this context.
    pub(super) fn options(&self, context_tokens: usize) -> Vec<DraftOption> {
        let budgets = &self.args.kv_budget;
        let option = |drafter: &str, method: DraftMethod| DraftOption {
            drafter: drafter.to_owned(),
            method,
            acceptance: given(self.args, drafter)
                .or_else(|| published(drafter, method, context_tokens)),
        };
        let forward = |costs, kv_budget_tokens, key_passes| DraftMethod::Forward {
            costs,
            kv_budget_tokens,
            key_passes,
        };
        let mut options = Vec::new();
        for (drafter, key_passes) in WITH_BUDGET {
            options.extend(
                budgets
                    .iter()
                    .map(|&budget| option(drafter, forward(self.target, Some(budget), key_passes))),
            );
        }
        options.push(option(LAYER_SKIP, forward(self.fewer_layers, None, 0.0)));
        if let Some(costs) = self.draft_model {
            let budgets = budgets.iter().copied().map(Some);
            let all = std::iter::once(None).chain(budgets);
            options.extend(all.map(|budget| option(SMALL_MODEL, forward(costs, budget, 0.0))));
        }
        options.push(option(NGRAM, DraftMethod::Lookup));
        options
    }
}

/// All names that an acceptance may be given for.
fn names() -> impl Iterator<Item = &'static str> {
    let with_budget = WITH_BUDGET.into_iter().map(|(name, _)| name);
    with_budget.chain([LAYER_SKIP, SMALL_MODEL, NGRAM])
}

/// The acceptance of the flags: that of the drafter by name, or else the number without a name, unless the acceptance
/// depends on the text alone (`ngram`) or on the training of the layers (`layer-skip`).
pub(super) fn given(args: &PlanArgs, drafter: &str) -> Option<f64> {
    let find = |name: Option<&str>| {
        let found = args.acceptance.iter().rev().find(|given| given.drafter.as_deref() == name);
        found.map(|given| given.rate)
    };
    let is_general = ![LAYER_SKIP, NGRAM].contains(&drafter);
    find(Some(drafter)).or_else(|| find(None).filter(|_| is_general))
}

/// The published acceptance of a drafter, if there is one that holds for its KV budget.
fn published(drafter: &str, method: DraftMethod, context_tokens: usize) -> Option<f64> {
    let DraftMethod::Forward { kv_budget_tokens, .. } = method else { return None };
    if kv_budget_tokens.is_some_and(|budget| budget < PUBLISHED_BUDGET) {
        return None;
    }
    match drafter {
        SMALL_MODEL => Some(DRAFT_MODEL_ACCEPTANCE),
        _ if drafter == WITH_BUDGET[0].0 => Some(streaming_llm_acceptance(context_tokens)),
        _ => None,
    }
}

/// The source of published acceptances, in a sentence.
pub(super) const PUBLISHED: &str = "published acceptances are those of Llama-3.1-8B on PG-19: StreamingLLM with a KV \
    budget of 512, and Llama-3.2-1B as a draft model. Give your own with --acceptance; `galley bench` measures them";
