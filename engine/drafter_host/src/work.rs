//! What drafters describe and enqueue, as the engine reads it.

/// A model of the host: 0 is the target, others were loaded for a drafter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelId(pub u32);

impl ModelId {
    /// The target.
    pub const TARGET: ModelId = ModelId(0);
}

/// A view that a drafter made: its place among [`crate::Drafter::views`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewId(pub u32);

/// A layer mask that a drafter made: its place among [`crate::Drafter::masks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MaskId(pub u32);

/// Which cached tokens a pass of `model` attends to: no more than its budget, once the model has read the sequence
/// and where the budget has room for a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Whose cache.
    pub model: ModelId,
    /// Tokens attended to in all, where a request asks for no other number.
    pub budget_tokens: u32,
    /// First tokens of the sequence, always seen.
    pub n_sinks: u32,
    /// What is seen between them and the tail.
    pub middle: Middle,
}

/// The part of a [`View`] between the first tokens and the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Middle {
    /// Nothing: the rest of the budget is a window of the latest tokens (StreamingLLM).
    Nothing,
    /// What the target attended to most.
    Observed(Observe),
}

/// How the middle of a view is selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observe {
    /// Single tokens or whole blocks; either per layer and KV head.
    pub granularity: Granularity,
    /// Latest tokens at the time of selecting, always in the tail.
    pub n_recent: u32,
    /// Who looks back, and when.
    pub when: When,
    /// Smoothing along the sequence before the best are taken.
    pub pool: Pool,
}

/// What is selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// Single tokens.
    Tokens,
    /// Whole blocks.
    Blocks,
}

/// Who looks back, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The latest `n_queries` tokens: at the first round, and again whenever `refresh_tokens` more are
    /// known (None: never again).
    Context {
        /// Tokens that look back.
        n_queries: u32,
        /// Tokens between selections.
        refresh_tokens: Option<u32>,
    },
    /// The verification, every `refresh_rounds` rounds.
    Verify {
        /// Rounds between selections, at least 1.
        refresh_rounds: u32,
    },
}

/// Smoothing of scores along the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// None.
    None,
    /// The mean of this many neighbours, an odd number.
    Average(u32),
    /// The largest of this many neighbours, an odd number.
    Max(u32),
}

/// Which sublayers a pass of `model` runs.
#[derive(Debug, PartialEq, Eq)]
pub struct Mask {
    /// Whose layers.
    pub model: ModelId,
    /// One flag a layer.
    pub attention: Vec<bool>,
    /// One flag a layer.
    pub mlp: Vec<bool>,
    /// Counts changes: scores of replays belong to one version.
    pub version: u64,
}

/// By hand, because a derived `clone_from` allocates, and a mask that changes is copied within a step.
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

/// One piece of work that a drafter enqueued. Work is done in order, after the callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Guess token after token, for rows that have no guess yet.
    Chain {
        /// With which model.
        model: ModelId,
        /// Over which cached tokens; None is all.
        view: Option<ViewId>,
        /// Through which layers; None is all.
        mask: Option<MaskId>,
    },
    /// What followed the latest earlier occurrence of the longest suffix, for rows without a guess.
    Lookup {
        /// Shortest suffix, at least 1.
        min_n: u32,
        /// Longest suffix.
        max_n: u32,
    },
    /// A guess that the drafter made itself. All tokens are in the vocabulary, and there are no more than the row's
    /// draft length.
    Push {
        /// For which row of the batch.
        row: u32,
        /// The tokens: a range of [`Program::pushed`].
        first: u32,
        /// How many.
        n_tokens: u32,
    },
    /// Compare what the target picks under a mask with the latest tokens of the rows' outputs.
    Replay {
        /// The mask.
        mask: MaskId,
        /// Tokens to compare.
        n_tokens: u32,
    },
}

/// What a drafter enqueued in one callback. Reused from round to round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// In order.
    pub work: Vec<Work>,
    /// Tokens of [`Work::Push`].
    pub pushed: Vec<u32>,
}

/// One row of a round.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The sequence: the same in every round, never used for another.
    pub sequence: u64,
    /// Prompt and output so far.
    pub tokens: &'a [u32],
    /// Tokens that may be guessed.
    pub draft_length: u32,
}
