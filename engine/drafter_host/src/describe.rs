//! The host functions after their pointers have been read: they check arguments and build the
//! engine's types.

use galley_drafter_abi as abi;
use galley_drafter_abi::{GD_INVALID, GD_NO_MEMORY, gd_status};

use crate::host::{ScoredMask, State};
use crate::{
    Granularity, Mask, MaskId, Matcher, MatcherId, ModelFacts, ModelId, Observe, Pool,
    RefreshPolicy, SelectionPolicy, View, ViewId, Work,
};

impl State {
    pub(crate) fn model(&self, id: u64) -> Result<(ModelId, ModelFacts), gd_status> {
        if id == 0 {
            return Ok((ModelId::TARGET, self.target));
        }
        Ok(*self.models.at(self.models.place(id).ok_or(GD_INVALID)?))
    }

    pub(crate) fn window(&mut self, args: &abi::gd_window_args) -> Result<u64, gd_status> {
        let (model, _) = self.model(args.model.id)?;
        check(args.budget_tokens > args.n_sinks)?;
        let (budget_tokens, n_sinks) = (args.budget_tokens, args.n_sinks);
        let view = View { model, budget_tokens, n_sinks, middle: SelectionPolicy::Nothing };
        self.views.insert(view).ok_or(GD_NO_MEMORY)
    }

    pub(crate) fn observe(&mut self, args: &abi::gd_observe_args) -> Result<u64, gd_status> {
        let granularity = match args.granularity {
            abi::GD_SELECT_TOKENS => Granularity::Tokens,
            abi::GD_SELECT_BLOCKS => Granularity::Blocks,
            _ => return Err(GD_INVALID),
        };
        let when = match args.observe {
            abi::GD_OBSERVE_CONTEXT if args.n_queries >= 1 => RefreshPolicy::Context {
                n_queries: args.n_queries,
                refresh_tokens: (args.refresh > 0).then_some(args.refresh),
            },
            abi::GD_OBSERVE_VERIFY if args.refresh >= 1 => {
                RefreshPolicy::Verify { refresh_rounds: args.refresh }
            }
            _ => return Err(GD_INVALID),
        };
        let is_odd = args.pool_width % 2 == 1;
        let pool = match args.pool {
            abi::GD_POOL_NONE => Pool::None,
            abi::GD_POOL_AVERAGE if is_odd => Pool::Average(args.pool_width),
            abi::GD_POOL_MAX if is_odd => Pool::Max(args.pool_width),
            _ => return Err(GD_INVALID),
        };
        check(args.budget_tokens > args.n_recent)?;
        check(args.budget_tokens - args.n_recent >= args.n_sinks)?;
        let observe = Observe { granularity, n_recent: args.n_recent, when, pool };
        let view = View {
            model: ModelId::TARGET,
            budget_tokens: args.budget_tokens,
            n_sinks: args.n_sinks,
            middle: SelectionPolicy::Observed(observe),
        };
        self.views.insert(view).ok_or(GD_NO_MEMORY)
    }

    pub(crate) fn mask(
        &mut self,
        model: ModelId,
        attention: &[u8],
        mlp: &[u8],
    ) -> Result<u64, gd_status> {
        check(attention.iter().chain(mlp).all(|&flag| flag <= 1))?;
        let flags = |bytes: &[u8]| bytes.iter().map(|&flag| flag == 1).collect();
        let mask = Mask { model, attention: flags(attention), mlp: flags(mlp), version: 0 };
        let mask = ScoredMask { mask, n_matched: 0, n_compared: 0 };
        self.masks.insert(mask).ok_or(GD_NO_MEMORY)
    }

    pub(crate) fn change(
        &mut self,
        place: u32,
        attention: &[u8],
        mlp: &[u8],
    ) -> Result<(), gd_status> {
        check(attention.iter().chain(mlp).all(|&flag| flag <= 1))?;
        let scored = self.masks.at_mut(place);
        for (flags, bytes) in [(&mut scored.mask.attention, attention), (&mut scored.mask.mlp, mlp)]
        {
            for (flag, &byte) in flags.iter_mut().zip(bytes) {
                *flag = byte == 1;
            }
        }
        scored.mask.version += 1;
        (scored.n_matched, scored.n_compared) = (0, 0);
        self.masks_changed = true;
        self.is_unrecordable = true;
        Ok(())
    }

    pub(crate) fn matcher(&mut self, args: &abi::gd_matcher_args) -> Result<u64, gd_status> {
        check(args.min_match >= 1 && args.max_match >= args.min_match)?;
        check(args.tokens_per_match.is_finite() && args.tokens_per_match > 0.0)?;
        check((0.0..=1.0).contains(&args.min_frequency))?;
        check(args.memory <= 1)?;
        let matcher = Matcher {
            min_match: args.min_match,
            max_match: args.max_match,
            tokens_per_match: args.tokens_per_match,
            min_frequency: args.min_frequency,
            uses_memory: args.memory == 1,
        };
        self.matchers.insert(matcher).ok_or(GD_NO_MEMORY)
    }

    pub(crate) fn chain(&mut self, args: &abi::gd_chain_args) -> Result<(), gd_status> {
        self.check_queue(args.queue.id)?;
        let (model, _) = self.model(args.model.id)?;
        let view = match args.view.id {
            0 => None,
            id => Some(self.views.place(id).ok_or(GD_INVALID)?),
        };
        let mask = match args.layers.id {
            0 => None,
            id => Some(self.masks.place(id).ok_or(GD_INVALID)?),
        };
        check(view.is_none_or(|place| self.views.at(place).model == model))?;
        check(mask.is_none_or(|place| self.masks.at(place).mask.model == model))?;
        self.enqueue(Work::Chain { model, view: view.map(ViewId), mask: mask.map(MaskId) })
    }

    pub(crate) fn lookup(&mut self, queue: u64, min_n: u32, max_n: u32) -> Result<(), gd_status> {
        self.check_queue(queue)?;
        check(min_n >= 1 && max_n >= min_n)?;
        self.enqueue(Work::Lookup { min_n, max_n })
    }

    pub(crate) fn propose(&mut self, queue: u64, matcher: u64) -> Result<(), gd_status> {
        self.check_queue(queue)?;
        let place = self.matchers.place(matcher).ok_or(GD_INVALID)?;
        self.enqueue(Work::Propose { matcher: MatcherId(place) })
    }

    /// `tokens` has at most the row's draft length.
    pub(crate) fn push(&mut self, row: u32, tokens: &[u32]) -> Result<(), gd_status> {
        let has_one = |work: &Work| matches!(work, Work::Push { row: other, .. } if *other == row);
        // Drafters usually push rows in ascending order, and then no search for an earlier push is
        // needed.
        let may_have_one = self.highest_pushed.is_some_and(|highest| row <= highest);
        check(!may_have_one || !self.program.work.iter().any(has_one))?;
        self.highest_pushed = self.highest_pushed.max(Some(row));
        let n_known = tokens.iter().take_while(|&&token| token < self.target.vocab_size).count();
        if n_known == 0 {
            return Ok(());
        }
        let first = u32::try_from(self.program.pushed.len()).map_err(|_| GD_NO_MEMORY)?;
        let n_tokens = u32::try_from(n_known).map_err(|_| GD_NO_MEMORY)?;
        self.enqueue(Work::Push { row, first, n_tokens })?;
        self.program.pushed.extend_from_slice(&tokens[..n_known]);
        Ok(())
    }

    pub(crate) fn replay(&mut self, queue: u64, id: u64, n_tokens: u32) -> Result<(), gd_status> {
        self.check_queue(queue)?;
        let place = self.masks.place(id).ok_or(GD_INVALID)?;
        check(n_tokens >= 1 && self.masks.at(place).mask.model == ModelId::TARGET)?;
        self.is_unrecordable = true;
        self.enqueue(Work::Replay { mask: MaskId(place), n_tokens })
    }

    fn enqueue(&mut self, work: Work) -> Result<(), gd_status> {
        let is_pass = |work: &&Work| !matches!(work, Work::Push { .. });
        let is_one_too_many =
            is_pass(&&work) && self.program.work.iter().filter(is_pass).count() >= MAX_PASSES;
        if is_one_too_many || self.program.work.len() >= MAX_WORK {
            return Err(GD_NO_MEMORY);
        }
        self.program.work.push(work);
        Ok(())
    }
}

fn check(is_right: bool) -> Result<(), gd_status> {
    if is_right { Ok(()) } else { Err(GD_INVALID) }
}

/// Limit on chains, lookups, proposals and replays in one callback. Each can cost a forward, and only the
/// callback is timed, not the work it enqueues: without a limit a drafter could make steps a
/// hundred times longer and never be set aside.
const MAX_PASSES: usize = 32;

/// Limit on all work of one callback; it leaves room for one push a row at any sensible row count.
const MAX_WORK: usize = 4096;
