//! Drafts with the target on the blocks of its cache that its last verification looked at.
//!
//! After H. Sun et al., "TriForce", 2024 (arXiv 2404.11912), which drafts with the target on chunks
//! retrieved from its own cache, and J. Tang et al., "Quest", 2024 (arXiv 2406.10774), which
//! retrieves whole blocks for each query. Both papers estimate the worth of a block from a summary
//! of the block. Here the target's verification measures it, because it reads every key anyway: the
//! blocks that a verification looked at most are the view of the next draft.

use galley_drafter::{
    Chain, Control, Cost, CostAt, Drafter, Granularity, Guess, Limits, Observation, Observer,
    Options, Pool, Result, Step, View, export_drafter,
};

struct SelfSpec {
    budget_tokens: u32,
    view: View,
}

impl Drafter for SelfSpec {
    fn activate(host: &Control<'_>, options: &Options, _: &Limits) -> Result<Self> {
        let refresh_rounds = options.parse("refresh")?;
        if refresh_rounds == 0 {
            return Err(options.refuse("refresh", "blocks are selected every round, or every few"));
        }
        let observation = Observation {
            budget_tokens: options.parse("budget")?,
            granularity: Granularity::Blocks,
            n_sinks: options.parse("sinks")?,
            n_recent: options.parse("recent")?,
            observer: Observer::Verify { refresh_rounds },
            pool: Pool::None,
        };
        if u64::from(observation.budget_tokens)
            <= u64::from(observation.n_sinks) + u64::from(observation.n_recent)
        {
            return Err(options.refuse("budget", "it leaves no room beside sinks and recent"));
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
    SelfSpec,
    r#"{
  "id": "galley.self-spec",
  "name": "self-spec",
  "version": "0.1.0",
  "description": "Drafts with the target on the blocks that its verification looked at (after TriForce and Quest)",
  "needs": ["galley.observe/1", "galley.chain/1"],
  "options": [
    {"name": "budget", "default": "512", "help": "tokens attended to in all"},
    {"name": "sinks", "default": "16", "help": "first tokens that are always selected"},
    {"name": "recent", "default": "64", "help": "latest tokens that are always in view"},
    {"name": "refresh", "default": "1", "help": "rounds after which to select again"}
  ]
}"#
);
