//! Executes the work that drafters enqueue for a round.

use super::chain::ChainRow;
use super::draft_model::index_of;
use super::lookup::lookup;
use super::mask::layer_mask;
use super::round::DraftRound;
use super::strategy::DraftStrategy;
use galley_backend::LayerMask;
use galley_drafter_host::{ModelId, Outcome, Program, View, ViewId, Work};
use galley_model::Result;
use std::time::Instant;

/// The work that one drafter has enqueued for its rows.
pub(super) struct Proposal<'a> {
    drafter: usize,
    rows: Vec<usize>,
    program: &'a Program,
    /// Index of the next work to execute.
    next: usize,
}

impl<'a> Proposal<'a> {
    pub(super) fn new(drafter: usize, rows: Vec<usize>, program: &'a Program) -> Self {
        Proposal { drafter, rows, program, next: 0 }
    }

    /// Takes the next work unless it is a chain.
    fn take_work(&mut self) -> Option<Work> {
        let work = *self.program.work.get(self.next)?;
        if matches!(work, Work::Chain { .. }) {
            return None;
        }
        self.next += 1;
        Some(work)
    }

    /// The next work if it is a chain.
    fn next_chain<'d>(&self, drafters: &'d [Box<dyn DraftStrategy>]) -> Option<Chain<'d>> {
        let &Work::Chain { model, view, mask } = self.program.work.get(self.next)? else {
            return None;
        };
        let drafter = &drafters[self.drafter];
        let view = view.map(|ViewId(index)| (index as usize, drafter.views()[index as usize]));
        Some(Chain { model, mask: layer_mask(mask, drafter.masks()), view })
    }
}

/// A chain that a drafter has enqueued, with the parts that the drafter refers to by id.
struct Chain<'d> {
    model: ModelId,
    mask: LayerMask<'d>,
    view: Option<(usize, View)>,
}

impl DraftRound<'_> {
    /// Tells a drafter of the rows that are new to it, and executes the work that it enqueues.
    pub(super) fn introduce(
        &mut self,
        drafter: usize,
        rows: &[usize],
        drafters: &mut [Box<dyn DraftStrategy>],
        program: &mut Program,
    ) -> Result<()> {
        let is_new = |&at: &usize| !self.sequences[at].draft.is_known;
        let new: Vec<usize> = rows.iter().copied().filter(is_new).collect();
        if new.is_empty() {
            return Ok(());
        }
        let outcome = drafters[drafter].after_prefill(&self.draft_rows(&new), program);
        let n_views = drafters[drafter].views().len();
        for &at in rows {
            self.sequences[at].draft.introduce(n_views);
        }
        match outcome {
            Outcome::Ready | Outcome::NoGuess => {
                self.execute(&mut [Proposal::new(drafter, new, program)], drafters)
            }
            Outcome::Failed | Outcome::SetAside => Ok(()),
        }
    }

    /// Executes enqueued work, each drafter's in order. Chains of one model and layer mask that are
    /// next at the same time run together.
    pub(super) fn execute(
        &mut self,
        proposals: &mut [Proposal<'_>],
        drafters: &mut [Box<dyn DraftStrategy>],
    ) -> Result<()> {
        loop {
            for proposal in &mut *proposals {
                while let Some(work) = proposal.take_work() {
                    self.work(work, proposal, &mut *drafters[proposal.drafter])?;
                }
            }
            let Some(first) = proposals.iter().find_map(|next| next.next_chain(drafters)) else {
                return Ok(());
            };
            self.run_together(&first, proposals, drafters)?;
        }
    }

    /// Runs `first` together with all next chains of the same model and mask.
    fn run_together(
        &mut self,
        first: &Chain<'_>,
        proposals: &mut [Proposal<'_>],
        drafters: &[Box<dyn DraftStrategy>],
    ) -> Result<()> {
        let mut rows = Vec::new();
        for proposal in proposals {
            let Some(chain) = proposal.next_chain(drafters) else { continue };
            if chain.model != first.model || chain.mask != first.mask {
                continue;
            }
            proposal.next += 1;
            if let Some(view) = chain.view {
                let started = Instant::now();
                self.select(view, &proposal.rows)?;
                self.state.times.selecting += started.elapsed();
            }
            rows.extend(proposal.rows.iter().map(|&at| ChainRow { at, view: chain.view }));
        }
        let started = Instant::now();
        self.chain(index_of(first.model), &first.mask, &rows)?;
        self.state.times.drafting += started.elapsed();
        Ok(())
    }

    /// Executes work other than a chain.
    fn work(
        &mut self,
        work: Work,
        proposal: &Proposal<'_>,
        drafter: &mut dyn DraftStrategy,
    ) -> Result<()> {
        match work {
            Work::Chain { .. } => {}
            Work::Lookup { min_n, max_n } => {
                for &at in &proposal.rows {
                    let sequence = &mut self.sequences[at];
                    if sequence.draft.tokens.is_empty() {
                        let (min_n, max_n) = (min_n as usize, max_n as usize);
                        let found = lookup(sequence.tokens, min_n, max_n, sequence.n_slots);
                        sequence.draft.extend(found);
                    }
                }
            }
            Work::Propose { matcher } => {
                let matcher = drafter.matchers()[matcher.0 as usize];
                self.propose(&matcher, &proposal.rows);
            }
            Work::Push { row, first, n_tokens } => {
                if let Some(&at) = proposal.rows.get(row as usize) {
                    let tokens = &proposal.program.pushed[first as usize..][..n_tokens as usize];
                    self.push(at, tokens);
                }
            }
            Work::Replay { mask, n_tokens } => {
                self.replay(drafter, mask, n_tokens as usize, &proposal.rows)?;
            }
        }
        Ok(())
    }
}
