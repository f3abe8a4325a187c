//! Measured times of steps, beside the times that the tables give.

use super::AutoPlanner;
use crate::sequence::Sequence;
use crate::stats::StepStats;
use galley_planner::choice::Strategy;
use galley_planner::drift::{Phase, SizeClass};

/// The work of a step, once its drafts are made.
pub(crate) struct StepLoad {
    phase: Phase,
    size: SizeClass,
    /// Times by the tables, without corrections.
    forward_ns: f64,
    drafting_ns: f64,
    /// Whether the tables know all of the step's work: no prompt, and no drafter that was new to a sequence.
    is_regular: bool,
}

impl AutoPlanner {
    /// The work of the step that is about to run its forward.
    pub(crate) fn load_of(&self, running: &[Sequence], enters: bool) -> StepLoad {
        let (mut rows, mut kv_tokens, mut attention_ns) = (0, 0u64, 0.0);
        let (mut leader, mut drafting_ns, mut is_regular) = (None::<(bool, usize)>, 0.0, true);
        let mut rows_at_depth: Vec<u32> = Vec::new();
        for sequence in running.iter().filter(|sequence| !sequence.share.is_empty()) {
            let (n_drafted, kv) = (sequence.n_drafted() as u32, sequence.table.n_tokens() as u32);
            let own_rows = sequence.n_scheduled() as u32 + n_drafted;
            rows += own_rows;
            kv_tokens += u64::from(kv);
            attention_ns += self.costs.attention_ns(own_rows, kv);
            is_regular &= sequence.n_prompt_rows() == 0;
            let drafter = sequence.draft.as_ref().and_then(|draft| draft.plan().drafter);
            let Some(drafter) = drafter.filter(|_| n_drafted > 0) else { continue };
            let strategy = &self.strategies[drafter];
            let key = (*strategy == Strategy::Lookup, drafter);
            leader = Some(leader.map_or(key, |other| other.min(key)));
            if let Strategy::Chain(cost) = strategy {
                let seen = cost.seen_tokens(kv);
                drafting_ns += f64::from(n_drafted) * self.costs.attention_ns(1, seen);
                drafting_ns += cost.overhead_ns_per_kv_token * f64::from(kv);
                if rows_at_depth.len() < n_drafted as usize {
                    rows_at_depth.resize(n_drafted as usize, 0);
                }
                for rows in &mut rows_at_depth[..n_drafted as usize] {
                    *rows += 1;
                }
            }
        }
        let share = leader.map_or(0.0, |(_, drafter)| match self.strategies[drafter] {
            Strategy::Chain(cost) => cost.weights_share,
            Strategy::Lookup => 0.0,
        });
        drafting_ns +=
            rows_at_depth.iter().map(|&rows| share * self.costs.rows_ns(rows)).sum::<f64>();
        StepLoad {
            phase: leader.map_or(Phase::Plain, |(_, drafter)| Phase::Verify(drafter as u16)),
            size: SizeClass::new(rows, kv_tokens),
            forward_ns: self.costs.rows_ns(rows) + attention_ns,
            drafting_ns,
            is_regular: is_regular && !enters && rows > 0,
        }
    }

    /// Learns from the times of a step. On an asynchronous device only the sum of its phases is known.
    pub(crate) fn observe(&mut self, load: &StepLoad, step: &StepStats, is_asynchronous: bool) {
        let ns = |time: std::time::Duration| time.as_nanos() as f64;
        let (drafting, forward) = (ns(step.drafting), ns(step.forward + step.sampling));
        self.probes.add_time(drafting + forward);
        if !load.is_regular {
            return;
        }
        let draft_phase = match load.phase {
            Phase::Verify(strategy) if load.drafting_ns > 0.0 => Some(Phase::Draft(strategy)),
            _ => None,
        };
        let expected_draft = draft_phase
            .map_or(0.0, |phase| load.drafting_ns * self.drift.factor(phase, SizeClass::ANY));
        let expected = expected_draft + load.forward_ns * self.drift.factor(load.phase, load.size);
        self.stats.add_time(expected, drafting + forward);
        if is_asynchronous {
            let forward = (drafting + forward - expected_draft).max(0.0);
            self.drift.observe(load.phase, load.size, load.forward_ns, forward);
            return;
        }
        self.drift.observe(load.phase, load.size, load.forward_ns, forward);
        if let Some(phase) = draft_phase {
            self.drift.observe(phase, SizeClass::ANY, load.drafting_ns, drafting);
        }
    }
}
