//! A plan: everything that the theory says about one batch size and context length.

use super::best::{DraftOption, Strategy, critical_length, fastest_option};
use super::forward::{ForwardCosts, StepTime};
use super::memory::MemoryNeeds;
use super::round::{BreakEven, Workload};

/// A target on its hardware, and the drafters to choose from.
#[derive(Clone, Debug, PartialEq)]
pub struct Planner {
    /// The target.
    pub target: ForwardCosts,
    /// The memory of the target, and of a draft model if there is one.
    pub needs: MemoryNeeds,
    /// Memory of one GPU in bytes; None if it is not known.
    pub memory_bytes: Option<f64>,
    /// Longest draft to consider, tokens; at least 1.
    pub max_draft_length: u32,
    /// Longest context to consider in the search for the critical length, tokens.
    pub longest_context_tokens: usize,
}

/// The plan for one batch size and context length.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadPlan {
    /// The batch and its context.
    pub workload: Workload,
    /// A step of plain decoding.
    pub plain: StepTime,
    /// The fastest option with a known acceptance, which may be slower than plain decoding.
    pub fastest: Option<Strategy>,
    /// Draft length of [`Self::verification`]: that of the fastest option, or 1.
    pub draft_length: u32,
    /// A verification.
    pub verification: StepTime,
    /// Each option's outlook, in the order of the options.
    pub outlooks: Vec<Outlook>,
    /// The shortest context at which drafting pays at this batch size; None if there is none.
    pub critical_length_tokens: Option<usize>,
    /// The most sequences of this length that fit into memory; None if the memory is not known.
    pub max_sequences: Option<usize>,
}

/// The outlook of one option.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// One draft token for each sequence, seconds.
    pub draft_step_s: f64,
    /// Choosing the KV of the drafts, seconds a round.
    pub selection_s: f64,
    /// The lowest acceptance at which drafting pays; None if no acceptance does.
    pub break_even: Option<BreakEven>,
    /// The best draft length and its speedup, if the acceptance is known.
    pub expected: Option<(u32, f64)>,
}

impl Planner {
    /// The plan for `batch` sequences of `context_tokens` tokens each.
    pub fn plan(
        &self,
        batch: usize,
        context_tokens: usize,
        options: &[DraftOption],
    ) -> WorkloadPlan {
        let target = self.target;
        let workload = Workload { target, batch, context_tokens, round_overhead_s: 0.0 };
        let fastest = fastest_option(&workload, options, self.max_draft_length);
        let draft_length = fastest.map_or(1, |fastest| fastest.draft_length);
        let outlook = |option: &DraftOption| Outlook {
            draft_step_s: workload.draft_step_s(&option.method),
            selection_s: workload.selection_s(&option.method),
            break_even: workload.lowest_break_even(&option.method, self.max_draft_length),
            expected: option.acceptance.and_then(|acceptance| {
                workload.best_draft_length(&option.method, acceptance, self.max_draft_length)
            }),
        };
        WorkloadPlan {
            plain: workload.plain(),
            fastest,
            draft_length,
            verification: workload.verification(draft_length),
            outlooks: options.iter().map(outlook).collect(),
            critical_length_tokens: critical_length(
                &workload,
                options,
                self.max_draft_length,
                self.longest_context_tokens,
            ),
            max_sequences: self
                .memory_bytes
                .map(|bytes| self.needs.max_sequences(bytes, context_tokens)),
            workload,
        }
    }
}

impl WorkloadPlan {
    /// The strategy to take; None: plain decoding.
    pub fn recommended(&self) -> Option<Strategy> {
        self.fastest.filter(|fastest| fastest.speedup > 1.0)
    }

    /// Whether weights and KV fit into the memory; None if the memory is not known.
    pub fn fits(&self) -> Option<bool> {
        self.max_sequences.map(|most| self.workload.batch <= most)
    }
}
