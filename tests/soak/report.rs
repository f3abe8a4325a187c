//! The report of a soak: counts, and descriptions of findings.

use galley_engine::Stats;
use std::fmt;
use std::time::Duration;

/// Counts, and descriptions of findings.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The seed of the soak.
    pub seed: u64,
    /// Time so far.
    pub elapsed: Duration,
    /// Number of workloads, with one engine each.
    pub n_workloads: u64,
    /// Sequences compared with the same request run alone.
    pub n_comparisons: u64,
    /// Compared sequences that went on after a part of their output.
    pub n_resumed: u64,
    /// Tokens in the compared sequences.
    pub n_tokens: u64,
    /// Compared sequences that differed.
    pub n_differences: u64,
    /// Sequences verified by rejection; only their ends are checked.
    pub n_by_rejection: u64,
    /// Sequences that did not end, or not as they should.
    pub n_unfinished: u64,
    /// Blocks still in use when no sequence was left.
    pub n_leaked_blocks: u64,
    /// Number of preemptions.
    pub n_preemptions: u64,
    /// Tokens found in the prefix cache.
    pub n_prefix_hits: u64,
    /// Tokens of draft models found there.
    pub n_draft_prefix_hits: u64,
    /// Number of draft tokens.
    pub n_drafted: u64,
    /// Number of accepted draft tokens.
    pub n_accepted: u64,
    /// Descriptions of the first findings.
    pub findings: Vec<String>,
    /// Whether an engine is stuck: the soak stops then.
    pub is_stuck: bool,
}

/// Number of findings that are described.
const MOST_FINDINGS: usize = 5;

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.n_differences + self.n_unfinished + self.n_leaked_blocks == 0
    }

    /// Adds the counts of an engine.
    pub(super) fn add_stats(&mut self, stats: &Stats) {
        self.n_preemptions += stats.preemptions;
        self.n_prefix_hits += stats.prefix_hit_tokens;
        self.n_draft_prefix_hits += stats.draft_prefix_hit_tokens;
        self.n_drafted += stats.drafts.drafted;
        self.n_accepted += stats.drafts.accepted;
    }

    pub(super) fn differs(&mut self, place: &str, detail: &str) {
        self.n_differences += 1;
        self.find(format!("DIFFERENT: {place}: {detail}"));
    }

    pub(super) fn unfinished(&mut self, place: &str, detail: &str) {
        self.n_unfinished += 1;
        self.find(format!("UNFINISHED: {place}: {detail}"));
    }

    pub(super) fn leaked(&mut self, place: &str, n_blocks: usize) {
        self.n_leaked_blocks += n_blocks as u64;
        self.find(format!("LEAKED: {place}: {n_blocks} blocks"));
    }

    fn find(&mut self, finding: String) {
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(finding);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: [(&str, u64); 14] = [
            ("seed", self.seed),
            ("workloads", self.n_workloads),
            ("comparisons", self.n_comparisons),
            ("of them resumed", self.n_resumed),
            ("tokens compared", self.n_tokens),
            ("differences", self.n_differences),
            ("by rejection", self.n_by_rejection),
            ("unfinished", self.n_unfinished),
            ("leaked blocks", self.n_leaked_blocks),
            ("preemptions", self.n_preemptions),
            ("prefix hits", self.n_prefix_hits),
            ("of draft models", self.n_draft_prefix_hits),
            ("drafted", self.n_drafted),
            ("accepted", self.n_accepted),
        ];
        rows.iter().try_for_each(|(name, value)| writeln!(f, "{name:16} {value}"))?;
        writeln!(f, "{:16} {:.0}", "seconds", self.elapsed.as_secs_f64())
    }
}
