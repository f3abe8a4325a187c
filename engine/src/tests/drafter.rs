//! Test drafters with drafts that are known in advance.

use super::toy::{BLOCK_SIZE, EOS};
use crate::config::Fitted;
use crate::draft_cache::DraftModel;
use crate::draft_settings::OfferedDrafter;
use crate::drafting::{DraftStrategy, Drafting};
use crate::stats::DraftStats;
use galley_drafter_host::{
    Cost, DraftRow, Mask, MaskId, Matcher, MatcherId, ModelId, Outcome, Program, SuffixSource,
    Timings, Verified, View, Work,
};
use galley_model::ModelIndex;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// How a test drafter drafts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// With the target itself: every draft token is right.
    Right,
    /// A few tokens in rotation: hardly any draft token is right.
    Wrong,
    /// The end of the text, for requests that ignore it: no draft token is right.
    Never,
    /// With a prompt lookup.
    Lookup,
    /// With a search of the suffix index and of earlier outputs.
    Suffix,
    /// `Right`, `Wrong` and `Lookup` in rotation.
    Mixed,
    /// As `Right`; set aside by its host in its third round.
    SetAside,
    /// As `Right` for 60 rounds, and as `Never` after them.
    Fading,
    /// With the draft model of this number: every draft token is right.
    Second(usize),
}

/// Facts that the engine has told its drafters.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Sequences that are not over.
    pub(super) sequences: BTreeSet<u64>,
    /// The fate of their drafts.
    pub(super) drafts: DraftStats,
}

pub(super) type Known = Arc<Mutex<Told>>;

const MATCHER: Matcher = Matcher {
    min_match: 1,
    max_match: 8,
    tokens_per_match: 2.0,
    min_frequency: 0.1,
    uses_memory: true,
};

struct Double {
    kind: Kind,
    known: Known,
    n_rounds: usize,
}

impl DraftStrategy for Double {
    fn views(&self) -> &[View] {
        &[]
    }

    fn masks(&self) -> &[Mask] {
        &[]
    }

    fn matchers(&self) -> &[Matcher] {
        match self.kind {
            Kind::Suffix => &[MATCHER],
            _ => &[],
        }
    }

    fn after_prefill(&mut self, rows: &[DraftRow<'_>], program: &mut Program) -> Outcome {
        program.work.clear();
        let mut known = self.known.lock().unwrap();
        for row in rows {
            assert!(known.sequences.insert(row.sequence), "it is told of a sequence once");
        }
        Outcome::NoGuess
    }

    fn guess(
        &mut self,
        rows: &[DraftRow<'_>],
        _: &mut dyn SuffixSource,
        program: &mut Program,
    ) -> Outcome {
        program.work.clear();
        program.pushed.clear();
        self.n_rounds += 1;
        let kind = match (self.kind, self.n_rounds % 3) {
            (Kind::Mixed, 0) => Kind::Right,
            (Kind::Mixed, 1) => Kind::Wrong,
            (Kind::Mixed, _) => Kind::Lookup,
            (Kind::SetAside, _) if self.n_rounds >= 3 => return Outcome::SetAside,
            (Kind::Fading, _) if self.n_rounds > 60 => Kind::Never,
            (kind, _) => kind,
        };
        match kind {
            Kind::Right | Kind::Mixed | Kind::SetAside | Kind::Fading => {
                let model = ModelId::TARGET;
                program.work.push(Work::Chain { model, view: None, mask: None });
            }
            Kind::Second(number) => {
                let model = ModelId(number as u32);
                program.work.push(Work::Chain { model, view: None, mask: None });
            }
            Kind::Wrong => {
                for (at, row) in rows.iter().enumerate() {
                    let (first, n_tokens) = (program.pushed.len() as u32, row.draft_length);
                    program.pushed.extend((0..n_tokens).map(|i| (i + self.n_rounds as u32) % 3));
                    program.work.push(Work::Push { row: at as u32, first, n_tokens });
                }
            }
            Kind::Never => {
                let longest = rows.iter().map(|row| row.draft_length).max().unwrap_or(0);
                program.pushed.resize(longest as usize, EOS);
                program.work.extend(rows.iter().zip(0..).map(|(row, at)| Work::Push {
                    row: at,
                    first: 0,
                    n_tokens: row.draft_length,
                }));
            }
            Kind::Lookup => program.work.push(Work::Lookup { min_n: 1, max_n: 3 }),
            Kind::Suffix => program.work.push(Work::Propose { matcher: MatcherId(0) }),
        }
        Outcome::Ready
    }

    fn end(&mut self, sequence: u64) {
        let is_known = self.known.lock().unwrap().sequences.remove(&sequence);
        assert!(is_known, "it is told of the end once");
    }

    fn feedback(&mut self, rows: &[Verified]) {
        let mut known = self.known.lock().unwrap();
        for &Verified { sequence, n_proposed, n_accepted } in rows {
            assert!(known.sequences.contains(&sequence), "feedback comes before the end");
            known.drafts.add_round(n_proposed as usize, n_accepted as usize);
        }
    }

    fn add_replay_score(&mut self, _: MaskId, _: u64, _: u64, _: u64) {}

    fn cost(&mut self, context_tokens: u64, _: u32) -> Option<Cost> {
        let (weights_read, kv_tokens_read) = match self.kind {
            Kind::Lookup => (0.0, 0.0),
            _ => (0.25, context_tokens as f64 / 4.0),
        };
        Some(Cost { weights_read, kv_tokens_read })
    }

    fn timings(&self) -> Timings {
        Timings::default()
    }
}

/// An engine's drafting with one drafter of this kind.
pub(super) fn drafting(kind: Kind, known: &Known, sizes: &Fitted) -> Drafting {
    drafting_of(&[kind], known, sizes)
}

/// An engine's drafting with one drafter of each kind, with the kind as its name.
pub(super) fn drafting_of(kinds: &[Kind], known: &Known, sizes: &Fitted) -> Drafting {
    let double = |&kind: &Kind| -> (OfferedDrafter, Box<dyn DraftStrategy>) {
        let models = match kind {
            Kind::Second(number) => [second_model(number, sizes)].into(),
            _ => [].into(),
        };
        let double = Double { kind, known: Arc::clone(known), n_rounds: 0 };
        (OfferedDrafter { name: format!("{kind:?}"), models }, Box::new(double))
    };
    Drafting::of_test(kinds.iter().map(double).collect(), sizes)
}

/// Draft model `number` of a [`Toy`](super::toy::Toy): a block has room for as many of its blocks.
fn second_model(number: usize, sizes: &Fitted) -> DraftModel {
    DraftModel {
        index: ModelIndex(number),
        blocks_per_block: number,
        n_pool_blocks: sizes.kv_tokens / BLOCK_SIZE,
        max_context: usize::MAX,
    }
}
