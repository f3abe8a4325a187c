//! Correct and wrong drafters in C, through the whole ABI: no drafter may end its host's process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use galley_drafter_host::{
    Cost, DraftRow, Drafter, DrafterLimits, Library, LoadError, Manifest, MaskId, ModelFacts,
    ModelId, ModelLoader, ModelRefused, Outcome, Program, SelectionPolicy, View, ViewId, Work,
};

const TARGET: ModelFacts = ModelFacts {
    n_layers: 2,
    n_heads: 4,
    n_kv_heads: 2,
    head_dim: 8,
    hidden_size: 32,
    vocab_size: 100,
    block_size_tokens: 16,
    max_context_tokens: 4096,
    n_parameters: 1_000_000,
};
const LIMITS: DrafterLimits =
    DrafterLimits { max_rows: 8, max_draft_length: 4, max_context_tokens: 4096 };
const ROWS: [DraftRow<'static>; 2] = [
    DraftRow { sequence: 10, tokens: &[1, 2], draft_length: 3 },
    DraftRow { sequence: 11, tokens: &[4, 5, 6], draft_length: 4 },
];

struct Loader;

impl ModelLoader for Loader {
    fn load(&mut self, source: &str) -> Result<(ModelId, ModelFacts), ModelRefused> {
        match source {
            "small" => Ok((ModelId(1), ModelFacts { n_layers: 1, ..TARGET })),
            "strange" => Err(ModelRefused::Unsupported("another tokenizer".to_owned())),
            other => Err(ModelRefused::Failed(other.to_owned())),
        }
    }
}

/// Compiles one variant. The library lives in the returned folder.
fn build(case: &str) -> (tempfile::TempDir, PathBuf) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(format!("libgalley_drafter_{case}.so"));
    let status = Command::new("cc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-pthread"])
        .args(["-fvisibility=hidden", "-I"])
        .arg(here.join("../../plugins/abi/include"))
        .arg(format!("-DCASE_{case}"))
        .arg(here.join("tests/c/drafter.c"))
        .arg("-o")
        .arg(&path)
        .status()
        .expect("a C compiler is there");
    assert!(status.success(), "{case} compiles");
    (folder, path)
}

fn open(case: &str) -> Result<Arc<Library>, LoadError> {
    let (_folder, path) = build(case);
    Library::open(&path)
}

fn create(case: &str) -> Result<Drafter, LoadError> {
    Drafter::create(&open(case).expect("it loads"), &BTreeMap::new(), TARGET)
}

fn active(case: &str) -> Drafter {
    let mut drafter = create(case).expect("it is created");
    drafter.activate(LIMITS, &mut Loader).expect("it is activated");
    drafter
}

fn budget(value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("budget".to_owned(), value.to_owned())])
}

#[test]
fn a_right_drafter_is_recorded() {
    let (_folder, path) = build("RIGHT");
    assert_eq!(Manifest::of_file(&path).expect("it has one").description, "A test, with commas");
    let library = Library::open(&path).expect("it loads");
    let error = Drafter::create(&library, &BTreeMap::from([("bugdet".into(), "1".into())]), TARGET)
        .expect_err("no such option");
    assert!(error.to_string().contains("it knows: budget"), "{error}");
    let error = Drafter::create(&library, &budget("0"), TARGET).expect_err("it says no");
    assert!(error.to_string().contains("the budget must be at least 1"), "{error}");

    let mut drafter = Drafter::create(&library, &budget("128"), TARGET).expect("it is created");
    let mut program = Program::default();
    assert_eq!(drafter.guess(&ROWS, &mut program), Outcome::NoGuess, "not active yet");
    // The drafter is created on this thread and used on the engine's thread.
    std::thread::spawn(move || {
        drafter.activate(LIMITS, &mut Loader).expect("it is activated");
        let view = View {
            model: ModelId::TARGET,
            budget_tokens: 128,
            n_sinks: 4,
            middle: SelectionPolicy::Nothing,
        };
        assert_eq!(drafter.views(), [view]);
        let chain = Work::Chain { model: ModelId::TARGET, view: Some(ViewId(0)), mask: None };
        let expect = |drafter: &mut Drafter, rows: &[DraftRow<'_>], n_calls: u64| {
            let mut program = Program { work: Vec::new(), pushed: vec![1] };
            assert_eq!(drafter.guess(rows, &mut program), Outcome::Ready);
            assert_eq!(program, Program { work: vec![chain], pushed: Vec::new() });
            assert_eq!(drafter.timings().n_calls, n_calls);
        };
        expect(&mut drafter, &ROWS, 1);
        expect(&mut drafter, &ROWS, 1);
        expect(&mut drafter, &ROWS[..1], 2);
        drafter.end(10);
        expect(&mut drafter, &ROWS, 2);
        drafter.end(99); // asks to be recorded again
        expect(&mut drafter, &ROWS, 3);
        let cost = Cost { weights_read: 1.0, kv_tokens_read: 32.0 };
        assert_eq!(drafter.cost(1000, 32), Some(cost));
        drafter.deactivate();
        assert!(!drafter.is_active() && drafter.views().is_empty());
        drafter.activate(LIMITS, &mut Loader).expect("again");
        expect(&mut drafter, &ROWS, 4);
    })
    .join()
    .expect("all of that held");
}

#[test]
fn wrong_libraries_are_refused() {
    for (case, part) in [
        ("WRONG_MAJOR", "major version 2"),
        ("SHORT_LIBRARY", "no create"),
        ("OTHER_MANIFEST", "in its gd_library is another"),
        ("NO_ENTRY", "no entry symbol"),
        ("UNKNOWN_NEED", "galley.magic/1"),
    ] {
        let error = open(case).expect_err(case).to_string();
        assert!(error.contains(part), "{case}: {error}");
        assert!(error.contains(&format!("libgalley_drafter_{case}.so")), "{case}: {error}");
    }
    for (case, part) in
        [("SHORT_DRAFTER", "does not reach guess"), ("MISSING_GUESS", "has no guess")]
    {
        let error = create(case).expect_err(case).to_string();
        assert!(error.contains(part), "{case}: {error}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("half.so");
    std::fs::write(&path, "galley-drafter-manifest/1:{\"id\": \"a\"}\0").expect("written");
    assert!(matches!(Library::open(&path), Err(LoadError::BadManifest { .. })));
    let text = r#"{"id": "a", "name": "a", "version": "1", "description": ""}"#;
    std::fs::write(&path, format!("galley-drafter-manifest/1:{text}\0")).expect("written");
    assert!(matches!(Library::open(&path), Err(LoadError::Unloadable { .. })));
}

#[test]
fn optional_callbacks_may_be_absent() {
    let mut drafter = active("NO_OPTIONAL");
    let mut program = Program::default();
    assert_eq!(drafter.after_prefill(&ROWS, &mut program), Outcome::NoGuess);
    assert_eq!(drafter.guess(&ROWS, &mut program), Outcome::Ready);
    drafter.end(99);
    assert_eq!(drafter.cost(1000, 0), None);
    drafter.deactivate();
}

#[test]
fn a_failing_drafter_is_set_aside_after_three() {
    let library = open("FAILS").expect("it loads");
    let mut drafter = Drafter::create(&library, &budget("13"), TARGET).expect("it is created");
    let error = drafter.activate(LIMITS, &mut Loader).expect_err("it says no").to_string();
    assert!(error.contains("no room for my tables"), "{error}");

    let mut drafter = active("FAILS");
    let mut program = Program::default();
    assert_eq!(drafter.cost(1000, 0), None);
    assert_eq!(drafter.after_prefill(&ROWS, &mut program), Outcome::Failed);
    for outcome in [Outcome::Failed, Outcome::Failed, Outcome::SetAside, Outcome::SetAside] {
        assert_eq!(drafter.guess(&ROWS, &mut program), outcome);
        assert_eq!(program, Program::default(), "the work of a failing callback is dropped");
    }
    assert_eq!(drafter.timings().n_calls, 3);
    let reason = drafter.set_aside().expect("it is");
    assert!(reason.contains("3 times") && reason.contains("lost my way"), "{reason}");
    let error = drafter.activate(LIMITS, &mut Loader).expect_err("it stays so");
    assert!(matches!(error, LoadError::SetAside { .. }), "{error}");
}

#[test]
fn no_guess_is_no_failure_and_is_not_recorded() {
    let mut drafter = active("NO_GUESS");
    for _ in 0..5 {
        assert_eq!(drafter.guess(&ROWS, &mut Program::default()), Outcome::NoGuess);
    }
    assert_eq!((drafter.timings().n_calls, drafter.set_aside()), (5, None));
}

#[test]
fn a_slow_drafter_is_set_aside() {
    let mut drafter = active("SLOW");
    let mut program = Program::default();
    for _ in 0..8 {
        assert_eq!(drafter.guess(&ROWS, &mut program), Outcome::Ready);
    }
    assert_eq!(drafter.guess(&ROWS, &mut program), Outcome::SetAside);
    assert!(drafter.set_aside().is_some_and(|reason| reason.contains("50 ms")));
}

#[test]
fn a_callback_enqueues_so_much_and_no_more() {
    let mut drafter = active("FLOODS");
    let mut program = Program::default();
    assert_eq!(drafter.guess(&ROWS, &mut program), Outcome::Ready);
    assert_eq!(program.work.len(), 32 + 1);
    assert_eq!(program.work[32], Work::Push { row: 0, first: 0, n_tokens: 1 });
}

#[test]
fn handles_are_stale_after_deactivate() {
    let mut drafter = active("STALE");
    let mut program = Program::default();
    assert_eq!(drafter.guess(&ROWS, &mut program), Outcome::Ready, "valid until then");
    drafter.deactivate();
    drafter.activate(LIMITS, &mut Loader).expect("again");
    assert_eq!(drafter.guess(&ROWS, &mut program), Outcome::Failed);
}

#[test]
fn a_call_from_another_thread_is_refused() {
    let mut drafter = active("THREAD");
    assert_eq!(drafter.guess(&ROWS, &mut Program::default()), Outcome::Ready);
}

/// The drafter checks the status of each wrong call itself; an unexpected status fails its
/// callback.
#[test]
fn wrong_calls_are_refused_one_by_one() {
    let mut drafter = active("CHECKS");
    assert_eq!(drafter.views().len(), 3);
    let mask = MaskId(0);
    assert_eq!(drafter.masks()[0].mlp, [true, false]);
    let mut program = Program::default();
    assert_eq!(drafter.after_prefill(&ROWS, &mut program), Outcome::Ready);
    assert_eq!(program.work, [Work::Replay { mask, n_tokens: 16 }]);
    let chain = |model, view, mask| Work::Chain { model: ModelId(model), view, mask };
    let expected = Program {
        work: vec![
            Work::Push { row: 1, first: 0, n_tokens: 2 },
            Work::Lookup { min_n: 1, max_n: 3 },
            chain(1, None, None),
            chain(0, Some(ViewId(0)), Some(mask)),
        ],
        pushed: vec![7, 8],
    };
    drafter.add_replay_score(mask, 1, 9, 9); // of another version
    drafter.add_replay_score(MaskId(7), 0, 9, 9); // of no mask
    for n_calls in 1..=3 {
        assert_eq!(drafter.guess(&ROWS, &mut program), Outcome::Ready, "{drafter:?}");
        assert_eq!(program, expected);
        assert_eq!(drafter.timings().n_calls, n_calls, "it looks at rows: never recorded");
        if n_calls == 1 {
            assert_eq!(drafter.masks()[0].version, 0);
            drafter.add_replay_score(mask, 0, 3, 4);
        }
    }
    assert_eq!((drafter.masks()[0].version, drafter.masks()[0].mlp[1]), (1, true));
}
