//! The control phase, in which a drafter describes views, masks and models.

use std::marker::PhantomData;

use galley_drafter_abi::{
    GD_EXT_LAYERS, GD_EXT_MODELS, GD_EXT_OBSERVE, GD_EXT_REPLAY, GD_EXT_SUFFIX, GD_EXT_VIEWS,
    GD_OBSERVE_CONTEXT, GD_OBSERVE_VERIFY, GD_POOL_AVERAGE, GD_POOL_MAX, GD_POOL_NONE,
    GD_SELECT_BLOCKS, GD_SELECT_TOKENS, gd_host_layers, gd_host_models, gd_host_observe,
    gd_host_replay, gd_host_suffix, gd_host_views, gd_matcher, gd_matcher_args, gd_observe_args,
    gd_window_args,
};

use crate::error::Result;
use crate::handles::{LayerMask, Layers, Matcher, Model, ModelInfo, View};
use crate::host::{Host, Level, check, missing, to_str};

/// The host, while a drafter may block, allocate and read files. Lives as long as the call it was
/// given for.
pub struct Control<'call> {
    host: Host,
    call: PhantomData<&'call ()>,
}

/// The unit of a selection. A selection is made per layer and KV head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// Single tokens, as in SnapKV.
    Tokens,
    /// Whole blocks, as in Quest.
    Blocks,
}

/// The queries that look back, and how often a selection is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observer {
    /// The latest `n_queries` tokens look back: when the prompt has been read, then whenever
    /// `refresh_tokens` more tokens are known (0: never again).
    Context {
        /// How many tokens look back; at least 1.
        n_queries: u32,
        /// Tokens between selections.
        refresh_tokens: u32,
    },
    /// The target's verification looks back while it runs.
    Verify {
        /// Rounds between selections.
        refresh_rounds: u32,
    },
}

/// How scores are pooled along the sequence before the best tokens are taken. Widths are odd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// No pooling.
    None,
    /// The average of so many neighbouring scores.
    Average(u32),
    /// The largest of so many neighbouring scores.
    Max(u32),
}

/// A view of the cached tokens that the target's own attention looked at most, and a tail of the
/// latest tokens.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// Tokens attended to in all (sinks, selected tokens and tail), where a request asks for no
    /// other number.
    pub budget_tokens: u32,
    /// The unit of the selection.
    pub granularity: Granularity,
    /// First tokens of the sequence.
    pub n_sinks: u32,
    /// Latest tokens when selecting: in the tail, as far as it reaches.
    pub n_recent: u32,
    /// The queries, and how often a selection is made again.
    pub observer: Observer,
    /// Pooling of the scores.
    pub pool: Pool,
}

/// The search of a suffix index, and the limits of a guess that follows a match.
#[derive(Clone, Copy, Debug)]
pub struct Matching {
    /// Tokens that must match at least; at least 1.
    pub min_match: u32,
    /// Tokens that are matched at most: a longer match counts as one of so many tokens. The host's
    /// own limit is 64.
    pub max_match: u32,
    /// Most tokens of a guess for each token of the match; above 0.
    pub tokens_per_match: f64,
    /// A guess ends before a token with a lower frequency ([`Match`](crate::Match)); 0 to 1.
    pub min_frequency: f64,
    /// Earlier outputs of requests with the same cache salt are searched, too.
    pub uses_memory: bool,
}

impl Control<'_> {
    pub(crate) fn new(host: Host) -> Self {
        Self { host, call: PhantomData }
    }

    /// Logs a sentence for the host's user.
    pub fn log(&self, level: Level, sentence: &str) {
        self.host.log(level, sentence);
    }

    /// Facts about a model.
    ///
    /// # Errors
    ///
    /// If the host refuses.
    pub fn describe(&self, model: Model) -> Result<ModelInfo> {
        self.host.describe(model)
    }

    /// Loads a draft model from a path or name.
    ///
    /// # Errors
    ///
    /// If the model cannot be loaded, or its vocabulary is not the target's.
    pub fn load(&self, source: &str) -> Result<Model> {
        // SAFETY: this id is that of gd_host_models.
        let models: gd_host_models = unsafe { self.host.table(GD_EXT_MODELS)? };
        let load = models.load.ok_or_else(|| missing("load"))?;
        let mut out = Model::TARGET;
        // SAFETY: the host is live during a callback; the source lives until the call returns.
        let status = unsafe { load(self.host.raw, to_str(source), &raw mut out.0) };
        check(&format!("to load the model \"{source}\""), status)?;
        Ok(out)
    }

    /// A view of the first `n_sinks` tokens and the latest tokens, `budget_tokens` in all.
    ///
    /// # Errors
    ///
    /// If the host refuses.
    pub fn window(&self, model: Model, n_sinks: u32, budget_tokens: u32) -> Result<View> {
        // SAFETY: this id is that of gd_host_views.
        let views: gd_host_views = unsafe { self.host.table(GD_EXT_VIEWS)? };
        let window = views.window.ok_or_else(|| missing("window"))?;
        let struct_size = size_of::<gd_window_args>();
        let args = gd_window_args { struct_size, model: model.0, n_sinks, budget_tokens };
        let mut out = View::WHOLE;
        // SAFETY: the host is live during a callback; the arguments say how large they are.
        let status = unsafe { window(self.host.raw, &raw const args, &raw mut out.0) };
        check(&format!("a window of {n_sinks} sinks in {budget_tokens} tokens"), status)?;
        Ok(out)
    }

    /// A view of the cached tokens that the target's own attention looked at most. The host selects
    /// again by itself.
    ///
    /// # Errors
    ///
    /// If the host refuses.
    pub fn observe(&self, observation: &Observation) -> Result<View> {
        // SAFETY: this id is that of gd_host_observe.
        let table: gd_host_observe = unsafe { self.host.table(GD_EXT_OBSERVE)? };
        let observe = table.observe.ok_or_else(|| missing("observe"))?;
        let args = observe_args(observation);
        let mut out = View::WHOLE;
        // SAFETY: the host is live during a callback; the arguments say how large they are.
        let status = unsafe { observe(self.host.raw, &raw const args, &raw mut out.0) };
        check("an observed view", status)?;
        Ok(out)
    }

    /// A matcher. The host keeps a suffix index for every row of a drafter that has one.
    ///
    /// # Errors
    ///
    /// If the host refuses.
    pub fn matcher(&self, matching: &Matching) -> Result<Matcher> {
        // SAFETY: this id is that of gd_host_suffix.
        let table: gd_host_suffix = unsafe { self.host.table(GD_EXT_SUFFIX)? };
        let make = table.matcher.ok_or_else(|| missing("matcher"))?;
        let args = gd_matcher_args {
            struct_size: size_of::<gd_matcher_args>(),
            min_match: matching.min_match,
            max_match: matching.max_match,
            tokens_per_match: matching.tokens_per_match,
            min_frequency: matching.min_frequency,
            memory: u32::from(matching.uses_memory),
            reserved: 0,
        };
        let mut out = gd_matcher { id: 0 };
        // SAFETY: the host is live during a callback; the arguments say how large they are.
        let status = unsafe { make(self.host.raw, &raw const args, &raw mut out) };
        check("a matcher", status)?;
        Ok(Matcher(out))
    }

    /// A mask of a model's sublayers.
    ///
    /// # Errors
    ///
    /// If the host refuses.
    pub fn mask(&self, model: Model, mask: &LayerMask) -> Result<Layers> {
        // SAFETY: this id is that of gd_host_layers.
        let table: gd_host_layers = unsafe { self.host.table(GD_EXT_LAYERS)? };
        let make = table.mask.ok_or_else(|| missing("mask"))?;
        let (attention, mlp, n_layers) =
            (mask.attention.as_ptr(), mask.mlp.as_ptr(), mask.n_layers());
        let mut out = Layers::ALL;
        // SAFETY: the host is live during a callback; both lists have n_layers entries.
        let status =
            unsafe { make(self.host.raw, model.0, attention, mlp, n_layers, &raw mut out.0) };
        check("a layer mask", status)?;
        Ok(out)
    }

    /// Changes a mask from the next round on.
    ///
    /// # Errors
    ///
    /// If the host refuses.
    pub fn change(&self, layers: Layers, mask: &LayerMask) -> Result<()> {
        self.host.change(layers, mask)
    }

    /// Checks that the host has replays, for drafters that need them under some options alone. A
    /// drafter that always needs replays names `galley.replay/1` in its manifest.
    ///
    /// # Errors
    ///
    /// If the host lacks replays.
    pub fn need_replay(&self) -> Result<()> {
        // SAFETY: this id is that of gd_host_replay.
        let table: gd_host_replay = unsafe { self.host.table(GD_EXT_REPLAY)? };
        table.replay.ok_or_else(|| missing("replay"))?;
        table.score.ok_or_else(|| missing("score"))?;
        Ok(())
    }
}

fn observe_args(observation: &Observation) -> gd_observe_args {
    let (pool, pool_width) = match observation.pool {
        Pool::None => (GD_POOL_NONE, 1),
        Pool::Average(width) => (GD_POOL_AVERAGE, width),
        Pool::Max(width) => (GD_POOL_MAX, width),
    };
    let (observe, n_queries, refresh) = match observation.observer {
        Observer::Context { n_queries, refresh_tokens } => {
            (GD_OBSERVE_CONTEXT, n_queries, refresh_tokens)
        }
        Observer::Verify { refresh_rounds } => (GD_OBSERVE_VERIFY, 1, refresh_rounds),
    };
    gd_observe_args {
        struct_size: size_of::<gd_observe_args>(),
        budget_tokens: observation.budget_tokens,
        granularity: match observation.granularity {
            Granularity::Tokens => GD_SELECT_TOKENS,
            Granularity::Blocks => GD_SELECT_BLOCKS,
        },
        n_sinks: observation.n_sinks,
        n_recent: observation.n_recent,
        observe,
        n_queries,
        pool,
        pool_width,
        refresh,
        reserved: 0,
    }
}
