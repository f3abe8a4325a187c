//! A window of decoding at a full batch, as in a server that refills its batch.
//!
//! A pass from the first token to the last waits for its slowest sequence: sequences with more accepted draft
//! tokens end earlier, and the rest run in a smaller batch. So all sequences may run for longer than the
//! window, and the window ends when they have generated a number of tokens together. A window consists of
//! whole steps of the engine and uses the engine's own times: it does not depend on the moment when this
//! thread reads them.

use super::submit;
use super::turns::{StepSpan, Turns, decodes_all, nothing_measured};
use crate::args::BenchArgs;
use crate::load::Loaded;
use anyhow::Result;
use galley_engine::{DraftRequest, Event, RequestHandle, Stats, TokenEvent};

/// A sequence ends after this many times its share of the window's tokens.
pub(super) const LONGEST: usize = 3;

/// Steps of a full batch before the window. A draft model may start its prefill at the second token, and the statistics
/// show it at the third.
const WARM_UP: usize = 3;

/// The measurements of a window.
pub(super) struct Window {
    /// The tokens of every sequence, from its first token on.
    pub(super) tokens: Vec<Vec<u32>>,
    /// The steps of the window. Every sequence runs in each of them.
    pub(super) span: StepSpan,
    /// Prompt tokens that were computed again before the window.
    pub(super) reread_tokens: u64,
}

impl Window {
    /// Most tokens of a sequence, if the window has `gen_tokens` tokens per sequence and drafts have `longest` tokens.
    pub(super) fn most_tokens(gen_tokens: usize, longest: usize) -> usize {
        LONGEST * gen_tokens + WARM_UP * (1 + longest)
    }

    /// Decodes until the sequences have `args.gen_tokens` tokens on average. If a sequence ends before the window has a
    /// step, all sequences are decoded once more with a higher limit, as far as there is room.
    pub(super) fn run(
        args: &BenchArgs,
        loaded: &Loaded,
        turns: &mut Turns,
        prompts: &[Vec<u32>],
        salt: u64,
        drafting: &DraftRequest,
    ) -> Result<Self> {
        let context = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let longest = drafting.draft_length.unwrap_or(0) as usize;
        let usual = Self::most_tokens(args.gen_tokens, longest);
        let cached = turns.last().kv_blocks_total * args.model.block_size / prompts.len().max(1);
        let room = loaded.engine.max_tokens_of_sequence().min(cached).saturating_sub(context);
        let longer = Some(room.min(8 * usual)).filter(|&n_tokens| n_tokens > usual);
        for most_tokens in std::iter::once(usual).chain(longer) {
            let window = Self::attempt(args, loaded, turns, prompts, salt, drafting, most_tokens)?;
            if let Some(window) = window {
                return Ok(window);
            }
        }
        let mode = if longest > 0 { "decoding with a drafter" } else { "plain decoding" };
        Err(nothing_measured(mode, prompts.len()))
    }

    /// One window, with sequences of at most `most_tokens` tokens. None if the window has no step.
    fn attempt(
        args: &BenchArgs,
        loaded: &Loaded,
        turns: &mut Turns,
        prompts: &[Vec<u32>],
        salt: u64,
        drafting: &DraftRequest,
        most_tokens: usize,
    ) -> Result<Option<Self>> {
        let batch = prompts.len();
        let idle = turns.last().clone();
        let mut handles = submit(args, loaded, prompts, most_tokens, salt, drafting)?;
        let is_over = |stats: &Stats| stats.finished > idle.finished;
        let mut n_full = 0;
        while n_full < WARM_UP && !is_over(turns.next()?) {
            n_full = if is_full(turns.last(), batch) { n_full + 1 } else { 0 };
        }
        let before = turns.last().clone();
        let mut after = before.clone();
        let n_wanted = (batch * (args.gen_tokens - 1)) as u64;
        while after.generated_tokens - before.generated_tokens < n_wanted
            && !is_over(turns.last())
            && is_full(turns.next()?, batch)
        {
            after = turns.last().clone();
        }
        handles.iter_mut().for_each(|handle| handle.cancel());
        let tokens = handles.iter_mut().map(rest).collect::<Result<_>>()?;
        turns.until_finished(idle.finished + batch as u64, batch)?;
        let reread_tokens = before.prompt_tokens - idle.prompt_tokens;
        let span = StepSpan::between(&before, &after).filter(|_| n_full == WARM_UP);
        Ok(span.map(|span| Window { tokens, span, reread_tokens }))
    }

    /// Whether both windows have the same tokens, up to the shorter run of each sequence.
    pub(super) fn agrees_with(&self, other: &Window) -> bool {
        self.tokens.iter().zip(&other.tokens).all(|(a, b)| {
            let n = a.len().min(b.len());
            n > 0 && a[..n] == b[..n]
        })
    }
}

/// Whether all sequences decoded in the last step and go on, and no draft model was still in its prefill.
fn is_full(stats: &Stats, batch: usize) -> bool {
    decodes_all(stats, batch) && stats.running == batch && stats.draft_models_behind == 0
}

/// The tokens of a request that ends soon.
fn rest(handle: &mut RequestHandle) -> Result<Vec<u32>> {
    let mut tokens = Vec::new();
    while let Some(event) = handle.recv() {
        match event {
            Event::Token(TokenEvent { token, .. }) => tokens.push(token),
            Event::Error(error) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(tokens)
}
