//! The extensions of version 1.1, through the whole ABI: suffix indexes, and feedback.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use galley_drafter_host::{
    Cost, DraftRow, Drafter, DrafterLimits, Library, Matcher, MatcherId, ModelFacts, ModelId,
    ModelLoader, ModelRefused, Outcome, Program, SuffixMatch, SuffixSource, Verified, Work,
};

const LIMITS: DrafterLimits =
    DrafterLimits { max_rows: 8, max_draft_length: 4, max_context_tokens: 4096 };
const ROWS: [DraftRow<'static>; 2] = [
    DraftRow { sequence: 10, tokens: &[1, 2], draft_length: 3 },
    DraftRow { sequence: 11, tokens: &[4, 5, 6], draft_length: 4 },
];

struct NoModels;

impl ModelLoader for NoModels {
    fn load(&mut self, source: &str) -> Result<(ModelId, ModelFacts), ModelRefused> {
        Err(ModelRefused::Failed(source.to_owned()))
    }
}

/// Finds a match in the first row alone, and counts searches.
#[derive(Default)]
struct FirstRow {
    n_searches: usize,
}

impl SuffixSource for FirstRow {
    fn search(&mut self, row: usize, matcher: &Matcher, most: usize, found: &mut SuffixMatch) {
        self.n_searches += 1;
        assert_eq!(*found, SuffixMatch::default(), "empty before");
        assert_eq!((matcher.min_match, matcher.max_match), (2, 8));
        assert_eq!((matcher.tokens_per_match, matcher.min_frequency), (1.5, 0.25));
        assert!(matcher.uses_memory);
        if row == 0 {
            (found.match_tokens, found.count) = (5, 3);
            found.tokens = [10, 11, 12, 13][..most].to_vec();
            found.frequencies = [1.0, 0.5, 0.25, 0.25][..most].to_vec();
        }
    }
}

fn active(case: &str) -> Drafter {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(format!("lib{case}.so"));
    let status = Command::new("cc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"])
        .args(["-fvisibility=hidden", "-I"])
        .arg(here.join("../../plugins/abi/include"))
        .arg(format!("-DCASE_{case}"))
        .arg(here.join("tests/c/suffix.c"))
        .arg("-o")
        .arg(&path)
        .status()
        .expect("a C compiler is there");
    assert!(status.success(), "{case} compiles");
    let library = Library::open(&path).expect("it loads");
    let facts = ModelFacts { vocab_size: 100, ..ModelFacts::default() };
    let mut drafter = Drafter::create(&library, &BTreeMap::new(), facts).expect("it is created");
    drafter.activate(LIMITS, &mut NoModels).expect("it is activated");
    drafter
}

#[test]
fn a_proposal_is_recorded() {
    let mut drafter = active("PLAIN");
    assert_eq!(drafter.matchers().len(), 1);
    let (mut program, mut suffixes) = (Program::default(), FirstRow::default());
    for _ in 0..3 {
        assert_eq!(drafter.guess_with(&ROWS, &mut suffixes, &mut program), Outcome::Ready);
        assert_eq!(program.work, [Work::Propose { matcher: MatcherId(0) }]);
    }
    assert_eq!((drafter.timings().n_calls, suffixes.n_searches), (1, 0));
    drafter.deactivate();
    assert!(drafter.matchers().is_empty());
}

/// The drafter checks the result of each query itself.
#[test]
fn a_query_is_answered_and_not_recorded() {
    let mut drafter = active("QUERIES");
    let (mut program, mut suffixes) = (Program::default(), FirstRow::default());
    for n_calls in 1..=3 {
        let outcome = drafter.guess_with(&ROWS, &mut suffixes, &mut program);
        assert_eq!(outcome, Outcome::Ready, "{drafter:?}");
        assert_eq!(drafter.timings().n_calls, n_calls);
        assert_eq!(suffixes.n_searches as u64, 4 * n_calls);
    }
    // Rows without an index have no match, which this drafter does not expect.
    assert_eq!(drafter.guess(&ROWS, &mut program), Outcome::Failed);
}

fn told(drafter: &mut Drafter) -> Option<(f64, f64)> {
    let Cost { weights_read, kv_tokens_read } = drafter.cost(1, 0)?;
    Some((weights_read, kv_tokens_read))
}

#[test]
fn feedback_goes_to_drafters_that_take_it() {
    let verified = |sequence, n_proposed, n_accepted| Verified { sequence, n_proposed, n_accepted };
    let rows = [verified(10, 3, 1), verified(11, 4, 4)];
    for (case, counts) in [
        ("PLAIN", (7.0, 5.0)),
        ("ENQUEUES", (7.0, 5.0)),
        ("SHORT_TABLE", (0.0, 0.0)),
        ("OF_1_0", (0.0, 0.0)),
    ] {
        let mut drafter = active(case);
        drafter.feedback(&[]);
        assert_eq!(told(&mut drafter), Some((0.0, 0.0)), "{case}");
        drafter.feedback(&rows);
        assert_eq!(told(&mut drafter), Some(counts), "{case}");
        let mut program = Program::default();
        assert_eq!(drafter.guess(&ROWS, &mut program), Outcome::Ready, "{case}");
        assert_eq!(program.work.len(), 1, "{case}: feedback enqueues nothing");
        drafter.deactivate();
        drafter.feedback(&rows);
        assert_eq!(told(&mut drafter), Some(counts), "{case}: not active");
    }
}

#[test]
fn a_drafter_with_slow_feedback_is_set_aside() {
    let mut drafter = active("SLOW");
    let rows = [Verified { sequence: 10, n_proposed: 1, n_accepted: 1 }];
    for _ in 0..8 {
        assert_eq!(drafter.set_aside(), None);
        drafter.feedback(&rows);
    }
    assert!(drafter.set_aside().is_some_and(|reason| reason.contains("50 ms")));
}
