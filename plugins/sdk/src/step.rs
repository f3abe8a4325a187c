//! The step phase, in which a drafter enqueues. Nothing here blocks; drafters should not allocate.

use std::marker::PhantomData;
use std::ptr;

use galley_drafter_abi::{
    GD_EXT_CHAIN, GD_EXT_REPLAY, GD_EXT_SUFFIX, GD_EXT_TOKENS, GD_NO_GUESS, GD_OK, gd_batch,
    gd_chain_args, gd_host_chain, gd_host_replay, gd_host_suffix, gd_host_tokens, gd_match,
    gd_query, gd_replay_score, gd_row, gd_status,
};

use crate::Guess;
use crate::error::{Error, Result};
use crate::handles::{Chain, LayerMask, Layers, Matcher, Model, ModelInfo};
use crate::host::{Host, Level, check, missing};

/// The host during a step. Lives as long as the call it was given for. The host does the enqueued
/// work after the callback has returned.
pub struct Step<'call> {
    host: Host,
    batch: gd_batch,
    call: PhantomData<&'call ()>,
}

/// The history of a row.
#[derive(Clone, Copy, Debug)]
pub struct Row<'step> {
    /// Identifies the sequence: the same in every round, never used for another sequence.
    pub sequence: u64,
    /// Prompt and output so far.
    pub tokens: &'step [u32],
    /// Tokens that may be guessed for this row.
    pub draft_length: u32,
}

/// A match of a row's latest tokens with earlier text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// Length of the longest suffix that has occurred before, in tokens; 0 if there is none.
    pub match_tokens: u32,
    /// Earlier occurrences of this suffix.
    pub count: u64,
    /// Tokens of the guess, written to the arrays of the query.
    pub n_tokens: usize,
}

/// The score of a mask's replays since the mask was made or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayScore {
    /// Tokens that the mask sampled right.
    pub n_matched: u64,
    /// Tokens that were compared.
    pub n_compared: u64,
}

impl Step<'_> {
    pub(crate) fn new(host: Host, batch: gd_batch) -> Self {
        Self { host, batch, call: PhantomData }
    }

    /// Sequences of this round; rows are numbered from 0.
    pub fn n_rows(&self) -> u32 {
        self.batch.n_rows
    }

    /// The largest draft length of the rows.
    pub fn draft_length(&self) -> u32 {
        self.batch.draft_length
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

    /// Says that `guess` now enqueues other work: the host asks again before the next round.
    pub fn rerecord(&self) {
        self.host.rerecord();
    }

    /// Guesses for every row as many tokens as its draft length, each from the token before. Rows
    /// that have a guess already are left alone.
    ///
    /// # Errors
    ///
    /// If the host refuses.
    pub fn chain(&self, chain: Chain) -> Result<Guess> {
        // SAFETY: this id is that of gd_host_chain.
        let table: gd_host_chain = unsafe { self.host.table(GD_EXT_CHAIN)? };
        let enqueue = table.chain.ok_or_else(|| missing("chain"))?;
        let args = gd_chain_args {
            struct_size: size_of::<gd_chain_args>(),
            queue: self.batch.queue,
            model: chain.model.0,
            view: chain.view.0,
            layers: chain.layers.0,
        };
        // SAFETY: the host is live during a callback; the arguments say how large they are.
        to_guess("a chain", unsafe { enqueue(self.host.raw, &raw const args) })
    }

    /// For rows without a guess: the tokens that followed the latest earlier occurrence of the
    /// longest suffix of at most `max_n` and at least `min_n` tokens.
    ///
    /// # Errors
    ///
    /// If the host refuses.
    pub fn lookup(&self, min_n: u32, max_n: u32) -> Result<Guess> {
        let lookup = self.tokens()?.lookup.ok_or_else(|| missing("lookup"))?;
        // SAFETY: the host is live during a callback.
        to_guess("a lookup", unsafe { lookup(self.host.raw, self.batch.queue, min_n, max_n) })
    }

    /// For rows without a guess: the tokens that followed the longest suffix most often, as the
    /// matcher says.
    ///
    /// # Errors
    ///
    /// If the host refuses.
    pub fn propose(&self, matcher: Matcher) -> Result<Guess> {
        let propose = self.suffixes()?.propose.ok_or_else(|| missing("propose"))?;
        // SAFETY: the host is live during a callback.
        to_guess("a proposal", unsafe { propose(self.host.raw, self.batch.queue, matcher.0) })
    }

    /// Finds the guess that [`Self::propose`] would make for a row, and guesses nothing. Fills
    /// `tokens`, and `frequencies` with the share of occurrences that went on up to each token. The
    /// guess is no longer than either.
    ///
    /// # Errors
    ///
    /// If the host refuses.
    pub fn query(
        &self,
        matcher: Matcher,
        row: u32,
        tokens: &mut [u32],
        frequencies: &mut [f32],
    ) -> Result<Match> {
        let query = self.suffixes()?.query.ok_or_else(|| missing("query"))?;
        let capacity = tokens.len().min(frequencies.len());
        let args = gd_query {
            struct_size: size_of::<gd_query>(),
            queue: self.batch.queue,
            matcher: matcher.0,
            row,
            capacity: u32::try_from(capacity).unwrap_or(u32::MAX),
            tokens: tokens.as_mut_ptr(),
            frequencies: frequencies.as_mut_ptr(),
        };
        let struct_size = size_of::<gd_match>();
        let mut out = gd_match { struct_size, count: 0, match_tokens: 0, n_tokens: 0 };
        // SAFETY: the host is live during a callback; the arguments say how large they are, and both
        // arrays have room for `capacity` items.
        let status = unsafe { query(self.host.raw, &raw const args, &raw mut out) };
        check("a query", status)?;
        let gd_match { count, match_tokens, n_tokens, .. } = out;
        Ok(Match { match_tokens, count, n_tokens: capacity.min(n_tokens as usize) })
    }

    /// The history of a row.
    ///
    /// # Errors
    ///
    /// If the host refuses.
    pub fn row(&self, row: u32) -> Result<Row<'_>> {
        let fill = self.tokens()?.row.ok_or_else(|| missing("row"))?;
        let mut out = gd_row {
            struct_size: size_of::<gd_row>(),
            sequence: 0,
            n_tokens: 0,
            tokens: ptr::null(),
            draft_length: 0,
            reserved: 0,
        };
        // SAFETY: the host is live during a callback; `out` says how large it is.
        check("a row", unsafe { fill(self.host.raw, self.batch.queue, row, &raw mut out) })?;
        let n_tokens = usize::try_from(out.n_tokens)
            .map_err(|_| Error::internal("a row has more tokens than fit into memory"))?;
        let tokens = if out.tokens.is_null() {
            &[]
        } else {
            // SAFETY: the host gives n_tokens tokens that live until the callback returns, as this Step does.
            unsafe { std::slice::from_raw_parts(out.tokens, n_tokens) }
        };
        Ok(Row { sequence: out.sequence, tokens, draft_length: out.draft_length })
    }

    /// Sets the guess for a row: at most as many tokens as its draft length.
    ///
    /// # Errors
    ///
    /// If the host refuses.
    pub fn push(&self, row: u32, tokens: &[u32]) -> Result<Guess> {
        let push = self.tokens()?.push.ok_or_else(|| missing("push"))?;
        let n_tokens = u32::try_from(tokens.len())
            .map_err(|_| Error::invalid("a guess has more tokens than can be counted"))?;
        let queue = self.batch.queue;
        // SAFETY: the host is live during a callback; the tokens live until the call returns.
        let status = unsafe { push(self.host.raw, queue, row, tokens.as_ptr(), n_tokens) };
        to_guess("a guess", status)
    }

    /// Changes a mask from the next round on, and resets its replay score.
    ///
    /// # Errors
    ///
    /// If the host refuses.
    pub fn change(&self, layers: Layers, mask: &LayerMask) -> Result<()> {
        self.host.change(layers, mask)
    }

    /// Runs the latest `n_tokens` tokens of every row's output under a mask, and compares the
    /// sampled tokens with the tokens that followed.
    ///
    /// # Errors
    ///
    /// If the host refuses.
    pub fn replay(&self, layers: Layers, n_tokens: u32) -> Result<()> {
        let replay = self.replays()?.replay.ok_or_else(|| missing("replay"))?;
        let queue = self.batch.queue;
        // SAFETY: the host is live during a callback.
        check("a replay", unsafe { replay(self.host.raw, queue, layers.0, n_tokens) })
    }

    /// The score of the replays of earlier rounds.
    ///
    /// # Errors
    ///
    /// If the host refuses.
    pub fn score(&self, layers: Layers) -> Result<ReplayScore> {
        let score = self.replays()?.score.ok_or_else(|| missing("score"))?;
        let struct_size = size_of::<gd_replay_score>();
        let mut out = gd_replay_score { struct_size, n_matched: 0, n_compared: 0 };
        // SAFETY: the host is live during a callback; `out` says how large it is.
        check("a score", unsafe { score(self.host.raw, layers.0, &raw mut out) })?;
        Ok(ReplayScore { n_matched: out.n_matched, n_compared: out.n_compared })
    }

    fn tokens(&self) -> Result<gd_host_tokens> {
        // SAFETY: this id is that of gd_host_tokens.
        unsafe { self.host.table(GD_EXT_TOKENS) }
    }

    fn suffixes(&self) -> Result<gd_host_suffix> {
        // SAFETY: this id is that of gd_host_suffix.
        unsafe { self.host.table(GD_EXT_SUFFIX) }
    }

    fn replays(&self) -> Result<gd_host_replay> {
        // SAFETY: this id is that of gd_host_replay.
        unsafe { self.host.table(GD_EXT_REPLAY) }
    }
}

fn to_guess(action: &str, status: gd_status) -> Result<Guess> {
    match status {
        GD_OK => Ok(Guess::Enqueued),
        GD_NO_GUESS => Ok(Guess::Nothing),
        status => Err(Error::refused(action, status)),
    }
}
