//! A window of decoding at a full batch: what a server does whose batch is refilled.
//!
//! Sequences with luckier guesses would end earlier, and the rest would run in a smaller batch: a pass from the first
//! token to the last waits for its slowest sequence and measures neither. So all sequences may go on for longer than
//! they are measured, and the window ends when they have generated a number of tokens together.

use super::submit;
use crate::args::BenchArgs;
use crate::load::Loaded;
use anyhow::{Result, bail};
use galley_engine::{DraftRequest, Event, RequestHandle, Stats};
use std::time::{Duration, Instant};

/// How many times its share one sequence may generate before it ends all the same.
pub(super) const LONGEST: usize = 3;

/// What happened in a window.
pub(super) struct Window {
    /// Of every sequence, from its first.
    pub(super) tokens: Vec<Vec<u32>>,
    /// Those that the window saw.
    n_tokens: usize,
    seconds: f64,
    /// Tokens of prompts that were computed before it.
    pub(super) reread_tokens: u64,
    pub(super) before: Stats,
    pub(super) after: Stats,
}

impl Window {
    /// Decodes until there are `args.gen_tokens` tokens a sequence on average.
    pub(super) fn run(
        args: &BenchArgs,
        loaded: &Loaded,
        prompts: &[Vec<u32>],
        salt: u64,
        drafting: &DraftRequest,
    ) -> Result<Self> {
        let n_read = loaded.engine.stats().prompt_tokens;
        let most_tokens = LONGEST * args.gen_tokens;
        let mut handles = submit(args, loaded, prompts, most_tokens, salt, drafting)?;
        let mut tokens = vec![Vec::new(); prompts.len()];
        // A draft model may begin to read with the second token; with the third, the statistics say so.
        let has_begun = |tokens: &Vec<u32>| tokens.len() > 2;
        while !tokens.iter().all(has_begun) || loaded.engine.stats().draft_models_behind > 0 {
            poll(&mut handles, &mut tokens)?;
            if handles.iter().all(RequestHandle::is_over) {
                match loaded.engine.stats().draft_models_behind {
                    0 => break, // a tiny model may have ended before anybody looked
                    _ => bail!(
                        "all sequences ended before the draft model had read them: raise --gen"
                    ),
                }
            }
        }
        let (before, begin) = (loaded.engine.stats(), Instant::now());
        let n_before: usize = tokens.iter().map(Vec::len).sum();
        let n_wanted = prompts.len() * (args.gen_tokens - 1);
        let n_generated =
            |tokens: &[Vec<u32>]| tokens.iter().map(Vec::len).sum::<usize>() - n_before;
        while n_generated(&tokens) < n_wanted && !handles.iter().all(RequestHandle::is_over) {
            poll(&mut handles, &mut tokens)?;
        }
        let (seconds, after) = (begin.elapsed().as_secs_f64(), loaded.engine.stats());
        let n_tokens = n_generated(&tokens).max(1);
        for handle in &mut handles {
            handle.cancel();
            while handle.recv().is_some() {}
        }
        let reread_tokens = before.prompt_tokens - n_read;
        Ok(Window { tokens, n_tokens, seconds, reread_tokens, before, after })
    }

    /// Tokens a second.
    pub(super) fn speed(&self) -> f64 {
        self.n_tokens as f64 / self.seconds
    }

    /// Milliseconds a step.
    pub(super) fn ms(&self, of: fn(&Stats) -> Duration) -> f64 {
        let steps = (self.after.steps - self.before.steps).max(1);
        (of(&self.after) - of(&self.before)).as_secs_f64() * 1e3 / steps as f64
    }

    /// Whether both generated the same, as far as both came.
    pub(super) fn agrees_with(&self, other: &Window) -> bool {
        self.tokens.iter().zip(&other.tokens).all(|(a, b)| {
            let n = a.len().min(b.len());
            n > 0 && a[..n] == b[..n]
        })
    }
}

/// Takes the tokens that are there, or waits a little.
fn poll(handles: &mut [RequestHandle], tokens: &mut [Vec<u32>]) -> Result<()> {
    let mut has_heard = false;
    for (handle, tokens) in handles.iter_mut().zip(tokens) {
        while let Some(event) = handle.try_recv() {
            has_heard = true;
            match event {
                Event::Token { token, .. } => tokens.push(token),
                Event::Finished { .. } => {}
                Event::Error { message } => bail!("{message}"),
            }
        }
    }
    if !has_heard {
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}
