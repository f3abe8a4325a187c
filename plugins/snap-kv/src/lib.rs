//! Drafts with the target on the cached tokens that the latest tokens look at most.
//!
//! Y. Li et al., "SnapKV: LLM Knows What You are Looking for Before Generation", 2024 (arXiv
//! 2404.14469). The last queries of a prompt already show, head by head, which prompt tokens the
//! answer will need. Their attention is summed, then pooled along the sequence so that a token
//! brings its neighbours. The best tokens are kept, with the queries themselves as a tail. The
//! paper selects once. Long answers drift, so this drafter can select again.

use galley_drafter::{
    Chain, Control, Cost, CostAt, Drafter, Granularity, Guess, Limits, Observation, Observer,
    Options, Pool, Result, Step, View, export_drafter,
};

struct SnapKv {
    budget_tokens: u32,
    view: View,
}

impl Drafter for SnapKv {
    fn activate(host: &Control<'_>, options: &Options, _: &Limits) -> Result<Self> {
        let n_queries = options.parse("queries")?;
        let width: u32 = options.parse("pool")?;
        if n_queries == 0 {
            return Err(options.refuse("queries", "at least one token looks back"));
        }
        if width.is_multiple_of(2) {
            return Err(options.refuse("pool", "a pool has a middle: its width is odd"));
        }
        let make_pool: fn(u32) -> Pool = options
            .choose("pooling", &[("average", Pool::Average as _), ("max", Pool::Max as _)])?;
        let observation = Observation {
            budget_tokens: options.parse("budget")?,
            granularity: Granularity::Tokens,
            n_sinks: options.parse("sinks")?,
            n_recent: n_queries,
            observer: Observer::Context { n_queries, refresh_tokens: options.parse("refresh")? },
            pool: make_pool(width),
        };
        if u64::from(observation.budget_tokens)
            <= u64::from(observation.n_sinks) + u64::from(n_queries)
        {
            return Err(options.refuse("budget", "it leaves no room beside sinks and queries"));
        }
        Ok(Self { budget_tokens: observation.budget_tokens, view: host.observe(&observation)? })
    }

    fn guess(&mut self, step: &Step<'_>) -> Result<Guess> {
        step.chain(Chain { view: self.view, ..Chain::default() })
    }

    fn cost(&self, at: &CostAt) -> Cost {
        Cost { weights_read: 1.0, kv_tokens_read: at.attended(self.budget_tokens) }
    }
}

export_drafter!(
    SnapKv,
    r#"{
  "id": "galley.snap-kv",
  "name": "snap-kv",
  "version": "0.1.0",
  "description": "Drafts with the target on the tokens that the latest ones look at most (SnapKV, arXiv 2404.14469)",
  "needs": ["galley.observe/1", "galley.chain/1"],
  "options": [
    {"name": "budget", "default": "1024", "help": "tokens attended to in all"},
    {"name": "queries", "default": "32", "help": "latest tokens that look back, and stay in view"},
    {"name": "pool", "default": "5", "help": "width of the pool along the sequence, odd; 1: no pooling"},
    {"name": "pooling", "default": "average", "help": "average or max"},
    {"name": "refresh", "default": "64", "help": "tokens after which to select again; 0: never"},
    {"name": "sinks", "default": "0", "help": "first tokens that are always selected"}
  ]
}"#
);
