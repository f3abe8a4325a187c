//! Views, masks, matchers and work of drafters, as plain data for the engine.

/// A model of the host: 0 is the target, the others are draft models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelId(pub u32);

impl ModelId {
    /// The target.
    pub const TARGET: ModelId = ModelId(0);
}

/// A view that a drafter made: its index in [`crate::Drafter::views`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewId(pub u32);

/// A layer mask that a drafter made: its index in [`crate::Drafter::masks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MaskId(pub u32);

/// A matcher that a drafter made: its index in [`crate::Drafter::matchers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MatcherId(pub u32);

/// The cached tokens that a pass of `model` attends to: no more than its budget, once the model has
/// read the sequence and if the budget has room for a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The model that attends over this view.
    pub model: ModelId,
    /// Limit on the tokens attended to, unless a request sets another.
    pub budget_tokens: u32,
    /// First tokens of the sequence, in the view if the budget has room for them and a draft.
    pub n_sinks: u32,
    /// The selection between sinks and tail.
    pub middle: SelectionPolicy,
}

/// The part of a [`View`] between the first tokens and the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectionPolicy {
    /// Nothing: the rest of the budget is a window of the latest tokens (StreamingLLM).
    Nothing,
    /// The tokens that the target attended to most.
    Observed(Observe),
}

/// Selection of a view's middle from observed attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observe {
    /// Single tokens or whole blocks, selected per layer and KV head.
    pub granularity: Granularity,
    /// Latest tokens at the time of the selection: in the tail, as far as the tail reaches.
    pub n_recent: u32,
    /// The queries that the selection observes, and how often it is repeated.
    pub when: RefreshPolicy,
    /// Smoothing of scores along the sequence before the best are selected.
    pub pool: Pool,
}

/// The unit of selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// Single tokens.
    Tokens,
    /// Whole blocks.
    Blocks,
}

/// The queries that a selection observes, and how often it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshPolicy {
    /// The latest `n_queries` tokens, in the first round and again after every `refresh_tokens` new
    /// tokens (None: never again).
    Context {
        /// Tokens used as queries.
        n_queries: u32,
        /// Tokens between selections.
        refresh_tokens: Option<u32>,
    },
    /// The rows of the verification, every `refresh_rounds` rounds.
    Verify {
        /// Rounds between selections, at least 1.
        refresh_rounds: u32,
    },
}

/// Smoothing of scores along the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// No smoothing.
    None,
    /// The mean of this many neighbours, an odd number.
    Average(u32),
    /// The maximum of this many neighbours, an odd number.
    Max(u32),
}

/// How a suffix index is searched for a draft.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matcher {
    /// Tokens that must match at least, at least 1.
    pub min_match: u32,
    /// Tokens that are matched at most: a longer match counts as one of this length.
    pub max_match: u32,
    /// Limit on draft tokens for each token of the match, above 0.
    pub tokens_per_match: f64,
    /// A draft ends before a token with a lower frequency ([`SuffixMatch::frequencies`]).
    pub min_frequency: f64,
    /// Earlier outputs of requests with the same salt are searched, too.
    pub uses_memory: bool,
}

/// The result of searching a suffix index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SuffixMatch {
    /// Length of the longest suffix that has occurred before, in tokens; 0 if there is none.
    pub match_tokens: u32,
    /// Earlier occurrences of this suffix.
    pub count: u32,
    /// The tokens that followed it most often.
    pub tokens: Vec<u32>,
    /// For each of `tokens` the share of occurrences that went on up to this token. It never rises
    /// along a draft, so it estimates the probability that verification accepts the token.
    pub frequencies: Vec<f32>,
}

impl SuffixMatch {
    /// Draft tokens that are expected to be accepted: the sum of the frequencies.
    pub fn expected_tokens(&self) -> f32 {
        self.frequencies.iter().sum()
    }

    /// Becomes the result of a search that has found nothing. Keeps its memory.
    pub fn clear(&mut self) {
        (self.match_tokens, self.count) = (0, 0);
        self.tokens.clear();
        self.frequencies.clear();
    }
}

/// The sublayers that a pass of `model` runs.
#[derive(Debug, PartialEq, Eq)]
pub struct Mask {
    /// The model that runs under this mask.
    pub model: ModelId,
    /// One flag a layer: whether its attention runs.
    pub attention: Vec<bool>,
    /// One flag a layer: whether its MLP runs.
    pub mlp: Vec<bool>,
    /// Counts changes. Replay scores belong to one version.
    pub version: u64,
}

/// Written by hand, because a derived `clone_from` allocates and a changed mask is copied within a
/// step.
impl Clone for Mask {
    fn clone(&self) -> Self {
        let Mask { model, attention, mlp, version } = self;
        Mask { model: *model, attention: attention.clone(), mlp: mlp.clone(), version: *version }
    }

    fn clone_from(&mut self, from: &Self) {
        let Mask { model, attention, mlp, version } = from;
        (self.model, self.version) = (*model, *version);
        self.attention.clone_from(attention);
        self.mlp.clone_from(mlp);
    }
}

/// One piece of work that a drafter enqueued. The engine runs work in order, after the callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Draft token after token, for rows without a draft.
    Chain {
        /// The model that drafts.
        model: ModelId,
        /// The cached tokens attended to; None means all.
        view: Option<ViewId>,
        /// The layers that run; None means all.
        mask: Option<MaskId>,
    },
    /// Draft the tokens that followed the latest earlier occurrence of the longest suffix, for rows
    /// without a draft.
    Lookup {
        /// Shortest suffix, at least 1.
        min_n: u32,
        /// Longest suffix.
        max_n: u32,
    },
    /// Draft the tokens that followed the longest suffix most often, for rows without a draft.
    Propose {
        /// How the suffix index is searched.
        matcher: MatcherId,
    },
    /// A draft that the drafter made itself. All tokens are in the vocabulary, and their number is
    /// at most the row's draft length.
    Push {
        /// Row of the batch.
        row: u32,
        /// Start of the tokens in [`Program::pushed`].
        first: u32,
        /// Number of tokens.
        n_tokens: u32,
    },
    /// Compare the tokens that the target samples under a mask with the latest tokens of the rows'
    /// outputs.
    Replay {
        /// The mask.
        mask: MaskId,
        /// Number of tokens to compare.
        n_tokens: u32,
    },
}

/// The work that a drafter enqueued in one callback. The memory is reused from round to round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The work, in order.
    pub work: Vec<Work>,
    /// Tokens of all [`Work::Push`].
    pub pushed: Vec<u32>,
}

/// One row of a round.
#[derive(Clone, Copy, Debug)]
pub struct DraftRow<'a> {
    /// The sequence's id: the same in every round, never reused.
    pub sequence: u64,
    /// Tokens of prompt and output so far.
    pub tokens: &'a [u32],
    /// Limit on draft tokens for this row.
    pub draft_length: u32,
}
