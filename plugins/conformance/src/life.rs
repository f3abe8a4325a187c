//! A drafter's life, from create to destroy, and a record of it.

use crate::interposer::{self, Lending};
use crate::observed::{Observed, SharedRecord};
use crate::suffixes::LatestMatch;
use crate::target::{LIMITS, TARGET};
use galley_drafter_host::{
    Cost, DraftRow, Drafter, Library, LoadError, Manifest, ModelFacts, ModelId, ModelLoader,
    ModelRefused, Outcome, Program, Verified, Work,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A library under test, and the options for its drafters.
pub struct Subject {
    library: Arc<Library>,
    options: BTreeMap<String, String>,
}

/// One call of `guess`, and the work that it enqueued.
#[derive(Clone, Debug, PartialEq)]
pub struct GuessCall {
    /// Number of rows, and their largest draft length.
    pub shape: (usize, u32),
    /// Whether the host may record the program.
    pub is_recordable: bool,
    /// The result of the callback.
    pub outcome: Outcome,
    /// The enqueued work.
    pub program: Program,
    /// Number of the activation, from 0.
    pub activation: u32,
}

/// The record of a life.
pub struct Lived {
    /// The error, if the drafter was not created or not activated.
    pub refused: Option<String>,
    /// Views and masks after the first activation.
    pub described: String,
    /// All calls of `guess`.
    pub asked: Vec<GuessCall>,
    /// Costs at rising context lengths, first without a budget (0), then with one.
    pub costs: Vec<(u64, u32, Option<Cost>)>,
    /// The interposer's record.
    pub observed: Observed,
}

impl Subject {
    /// Loads a library. Options that its manifest does not have are dropped.
    ///
    /// # Errors
    ///
    /// The error of the host, if it refuses the library.
    pub fn open(path: &Path, options: &BTreeMap<String, String>) -> Result<Self, LoadError> {
        let library = Library::open(path)?;
        let mut options = options.clone();
        options.retain(|key, _| library.manifest().options.iter().any(|o| o.name == *key));
        Ok(Subject { library, options })
    }

    /// The manifest of the library.
    pub fn manifest(&self) -> &Manifest {
        self.library.manifest()
    }

    /// A whole life: activated twice, and asked for drafts of every shape, repeatedly and with
    /// other sequences.
    pub fn live(&self, lending: Lending) -> Lived {
        self.live_with(&[], lending)
    }

    /// A whole life with some options changed.
    pub(crate) fn live_with(&self, other: &[(&str, &str)], lending: Lending) -> Lived {
        let mut lived = Lived {
            refused: None,
            described: String::new(),
            asked: Vec::new(),
            costs: Vec::new(),
            observed: Observed::default(),
        };
        // The header allows create to run on another thread, so it does here.
        let (drafter, observed) = std::thread::scope(|scope| {
            let create = scope.spawn(|| self.create(other, lending));
            create.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        match drafter {
            Err(error) => lived.refused = Some(error.to_string()),
            Ok(drafter) => lived.go_through(drafter, &observed),
        }
        lived.observed = observed.lock().clone();
        lived
    }

    /// Creates a drafter without activating it.
    pub(crate) fn create(
        &self,
        other: &[(&str, &str)],
        lending: Lending,
    ) -> (Result<Drafter, LoadError>, SharedRecord) {
        let mut options = self.options.clone();
        options.extend(other.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())));
        interposer::create(&self.library, &options, TARGET, lending)
    }

    /// Creates and activates a drafter.
    pub(crate) fn activate(&self) -> Result<(Drafter, SharedRecord), LoadError> {
        let (drafter, observed) = self.create(&[], Lending::default());
        let mut drafter = drafter?;
        drafter.activate(LIMITS, &mut SmallModelLoader::default())?;
        Ok((drafter, observed))
    }
}

impl Lived {
    fn go_through(&mut self, mut drafter: Drafter, observed: &SharedRecord) {
        let mut loader = SmallModelLoader::default();
        for activation in 0..2 {
            if let Err(error) = drafter.activate(LIMITS, &mut loader) {
                self.refused.get_or_insert(error.to_string());
                return;
            }
            if activation == 0 {
                self.described = format!("{:?} {:?}", drafter.views(), drafter.masks());
                self.ask_for_costs(&mut drafter);
            }
            for content in 0..N_CONTENTS {
                self.rounds(&mut drafter, observed, activation, content);
            }
            drafter.deactivate();
        }
    }

    fn ask_for_costs(&mut self, drafter: &mut Drafter) {
        for budget in [0, 64] {
            for context in [1, 64, 1000, LIMITS.max_context_tokens] {
                self.costs.push((context, budget, drafter.cost(context, budget)));
            }
        }
    }

    /// One round of every shape. The sequences and their tokens differ by `content`.
    fn rounds(
        &mut self,
        drafter: &mut Drafter,
        observed: &SharedRecord,
        activation: u32,
        content: usize,
    ) {
        let mut program = Program::default();
        for (number, draft_lengths) in SHAPES.iter().enumerate() {
            let first = 100 * (number + SHAPES.len() * content);
            let texts: Vec<Vec<u32>> = (0..draft_lengths.len())
                .map(|row| tokens(first + row, LENGTHS[(row + content) % LENGTHS.len()]))
                .collect();
            let rows: Vec<DraftRow<'_>> = draft_lengths
                .iter()
                .zip(&texts)
                .enumerate()
                .map(|(row, (&draft_length, tokens))| DraftRow {
                    sequence: (first + row) as u64,
                    tokens,
                    draft_length,
                })
                .collect();
            drafter.after_prefill(&rows, &mut program);
            add_scores(drafter, &program);
            let texts: Vec<&[u32]> = rows.iter().map(|row| row.tokens).collect();
            let outcome = drafter.guess_with(&rows, &mut LatestMatch(&texts), &mut program);
            add_scores(drafter, &program);
            let longest = draft_lengths.iter().copied().max().unwrap_or(0);
            self.asked.push(GuessCall {
                shape: (rows.len(), longest),
                is_recordable: observed.lock().is_recordable,
                outcome,
                program: program.clone(),
                activation,
            });
            let verified: Vec<Verified> = rows.iter().map(verdict).collect();
            drafter.feedback(&verified);
            for row in &rows {
                drafter.end(row.sequence);
            }
        }
    }
}

/// The fate of a row's draft: a part of it is accepted.
fn verdict(row: &DraftRow<'_>) -> Verified {
    let (sequence, n_proposed) = (row.sequence, row.draft_length);
    Verified { sequence, n_proposed, n_accepted: row.tokens.len() as u32 % (n_proposed + 1) }
}

/// Adds the replay scores that an engine would have measured.
fn add_scores(drafter: &mut Drafter, program: &Program) {
    for work in &program.work {
        if let Work::Replay { mask, n_tokens } = *work {
            let version = drafter.masks()[mask.0 as usize].version;
            let n_compared = u64::from(n_tokens);
            drafter.add_replay_score(mask, version, n_compared / 2, n_compared);
        }
    }
}

/// A token sequence that repeats itself now and then.
pub(crate) fn tokens(seed: usize, n_tokens: usize) -> Vec<u32> {
    (0..n_tokens).map(|i| ((i * i % 37 + seed * 31) % TARGET.vocab_size as usize) as u32).collect()
}

/// Loads a small model for every name.
#[derive(Default)]
pub(crate) struct SmallModelLoader {
    n_loaded: u32,
}

impl ModelLoader for SmallModelLoader {
    fn load(&mut self, source: &str) -> Result<(ModelId, ModelFacts), ModelRefused> {
        if source.is_empty() {
            return Err(ModelRefused::Failed("a model has a name".to_owned()));
        }
        self.n_loaded += 1;
        let small = ModelFacts { n_layers: 2, hidden_size: 128, n_parameters: 1_000_000, ..TARGET };
        Ok((ModelId(self.n_loaded), small))
    }
}

/// Draft lengths of the rows, for each round.
const SHAPES: [&[u32]; 5] = [&[3], &[1, 4, 2], &[4; 8], &[1], &[2, 2]];

/// Tokens in a row.
const LENGTHS: [usize; 4] = [40, 1, 7, 300];

/// Repetitions of every shape.
const N_CONTENTS: usize = 3;
