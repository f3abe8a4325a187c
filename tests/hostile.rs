//! Misbehaving drafters in the real engine: output equals plain decoding, bit for bit, or the
//! drafter is refused at load. A drafter that keeps misbehaving is set aside with one warning.

mod sanitizer;

use galley_backend::Formats;
use galley_engine::drafters::{Drafter, Library, LoadError, ModelFacts};
use galley_engine::{
    DraftConfig, DraftRequest, DrafterSetup, Engine, EngineConfig, Request, SchedulePolicy,
    StartError,
};
use galley_tests::on_cpu;
use galley_tests::runs::{
    Alteration, Altered, Seen, Setup, alone, open, requests, run, run_drafting,
};
use sanitizer::sanitizer;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

const MODEL: &str = "llama3";

/// The cases of tests/c/hostile.c: name, minimum number of draft tokens, and whether the drafter is
/// set aside.
const HOSTILE: [(&str, u64, bool); 21] = [
    ("RANDOM", 100, false),
    ("OUT_OF_VOCABULARY", 0, false),
    ("HALF_OUT_OF_VOCABULARY", 50, false),
    ("TOO_MANY", 0, false),
    ("TWICE", 100, false),
    ("NOTHING", 0, false),
    ("NO_GUESS", 0, false),
    ("FAILS", 0, true),
    ("FAILS_LATE", 0, true),
    ("ODD_STATUS", 0, false),
    ("STALE", 0, true),
    ("WRONG_CALLS", 100, false),
    ("THREAD", 50, false),
    ("MANY_HANDLES", 100, false),
    ("REPLAYS", 100, false),
    ("SLOW", 1, true),
    ("SCRIBBLES", 100, false),
    ("PROPOSES_AGAIN_AND_AGAIN", 20, false),
    ("QUERIES", 20, false),
    ("SLOW_FEEDBACK", 1, true),
    ("NONE", 0, false),
];

/// The headers of the drafter ABI.
fn headers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/abi/include")
}

/// Compiles one variant, with a sanitizer if this process has the sanitizer's runtime.
fn build(case: &str) -> (tempfile::TempDir, PathBuf) {
    build_against(&headers(), case)
}

/// Compiles one variant against the headers in a folder.
fn build_against(headers: &Path, case: &str) -> (tempfile::TempDir, PathBuf) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(format!("lib{case}.so"));
    let mut cc = Command::new("cc");
    cc.env_remove("LD_PRELOAD");
    cc.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-pthread"]);
    if std::env::var_os(SANITIZED).is_some() {
        cc.args(["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
    }
    cc.args(["-fvisibility=hidden", "-I"])
        .arg(headers)
        .arg(format!("-DCASE_{case}"))
        .arg(here.join("c/hostile.c"))
        .arg("-o")
        .arg(&path);
    assert!(cc.status().expect("a C compiler is there").success(), "{case} compiles");
    (folder, path)
}

/// Builds the Rust drafter that panics.
fn panics() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.env_remove("LD_PRELOAD").current_dir(env!("CARGO_MANIFEST_DIR"));
    build.args(["build", "--quiet", "--locked", "-p", "galley-drafter", "--example", "panics"]);
    assert!(build.status().expect("cargo runs").success(), "it builds");
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.ancestors().nth(2).expect("a test is in target/PROFILE/deps");
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    folder.join("examples").join(format!("{prefix}panics{suffix}"))
}

fn drafting(path: &Path, options: &[(&str, &str)]) -> Result<DraftConfig, LoadError> {
    let options: BTreeMap<_, _> =
        options.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
    let drafters = vec![DrafterSetup::new(Library::open(path)?, options)];
    Ok(DraftConfig::default().drafters(drafters))
}

/// A pool that is too small, and a random schedule.
fn crowded() -> Setup {
    let config = EngineConfig::default()
        .max_num_seqs(8)
        .max_num_batched_tokens(128)
        .prefix_caching(true)
        .policy(SchedulePolicy::Random { seed: 5 });
    Setup { device: on_cpu(Formats::BF16, 2), n_blocks: 40, config, max_logit_rows: 48 }
}

/// Requests that use every setting, and their output under plain decoding.
fn plain() -> &'static (Vec<Request>, Vec<Vec<Seen>>) {
    static PLAIN: OnceLock<(Vec<Request>, Vec<Vec<Seen>>)> = OnceLock::new();
    PLAIN.get_or_init(|| {
        let base = alone();
        let model = open(MODEL, &base);
        let config = &model.0.target().config;
        let requests = requests(config.vocab_size as u32, config.max_context.min(400));
        let (expected, _) = run(model, &base.config, &requests, false);
        let lengths = [None, Some(1), Some(7)].into_iter().cycle();
        let drafting = |draft_length| DraftRequest::default().draft_length(draft_length);
        let requests = requests.into_iter().zip(lengths);
        let requests = requests.map(|(request, n): (Request, _)| request.drafting(drafting(n)));
        (requests.collect(), expected)
    })
}

/// Warnings of all threads of this process as text.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<u8>>>);

impl Warnings {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut *self.lock())).into_owned()
    }
}

impl Write for Warnings {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The warnings of this process, reserved for one test at a time, because a drafter is set aside on
/// an engine's own thread.
fn warnings() -> (Warnings, MutexGuard<'static, ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    static ALL: OnceLock<Warnings> = OnceLock::new();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let warnings = ALL.get_or_init(|| {
        let warnings = Warnings::default();
        let writer = warnings.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        warnings
    });
    warnings.take();
    (warnings.clone(), turn)
}

/// Runs all requests with a drafter and compares output and warnings.
fn hold(name: &str, drafting: &DraftConfig, n_drafted: u64, is_set_aside: bool) {
    let (warnings, _turn) = warnings();
    let (requests, expected) = plain();
    let setup = crowded();
    let model = open(MODEL, &setup);
    let (got, stats) = run_drafting(model, &setup.config, drafting, requests, true);
    assert_eq!(*expected, got, "{name}");
    let drafted = stats.drafts.drafted;
    assert!(drafted >= n_drafted, "{name}: {drafted} drafted");
    let warnings = warnings.take();
    let n_warnings = warnings.lines().count();
    assert_eq!(n_warnings, usize::from(is_set_aside), "{name}: {warnings}");
    assert_eq!(warnings.contains("is set aside: "), is_set_aside, "{name}: {warnings}");
}

#[test]
fn hostile_drafters_change_no_bit() {
    let planted = std::env::var(SANITIZED).is_ok_and(|value| value == "planted");
    let cases = if planted { &[("PLANTED", 0, false)] } else { &HOSTILE[..] };
    for &(case, n_drafted, is_set_aside) in cases {
        let (_folder, path) = build(case);
        let drafting = drafting(&path, &[]).expect("it loads");
        hold(case, &drafting, n_drafted, is_set_aside);
    }
}

/// Drafters that were built against the frozen header of version 1.0 run, right or hostile.
#[test]
fn drafters_of_version_1_0_change_no_bit() {
    let folder = tempfile::tempdir().expect("a folder");
    let frozen = headers().join("../tests/snapshots/galley_drafter_1_0.h");
    std::fs::copy(frozen, folder.path().join("galley_drafter.h")).expect("copied");
    let sdk = "galley_drafter_sdk.h";
    std::fs::copy(headers().join(sdk), folder.path().join(sdk)).expect("copied");
    let of_1_0 = ["RANDOM", "TWICE", "WRONG_CALLS", "FAILS_LATE", "REPLAYS", "SCRIBBLES", "NONE"];
    for &(case, n_drafted, is_set_aside) in
        HOSTILE.iter().filter(|(case, ..)| of_1_0.contains(case))
    {
        let (_folder, path) = build_against(folder.path(), case);
        let drafting = drafting(&path, &[]).expect("it loads");
        hold(case, &drafting, n_drafted, is_set_aside);
    }
}

#[test]
fn panics_change_no_bit() {
    let path = panics();
    for (every, n_drafted, is_set_aside) in [("1", 0, true), ("7", 100, false)] {
        let drafting = drafting(&path, &[("every", every)]).expect("it loads");
        hold(&format!("panics every {every}"), &drafting, n_drafted, is_set_aside);
    }
}

/// The negative control: with a hostile drafter too, the comparison notices a verification with a
/// rounding error.
#[test]
fn a_wrong_verification_is_noticed() {
    let (requests, expected) = plain();
    let base = alone();
    let (_folder, path) = build("RANDOM");
    let drafting = drafting(&path, &[]).expect("it loads");
    let seen = |is_wrong: bool| {
        let (model, tokenizer) = open(MODEL, &base);
        let model = if is_wrong { Box::new(Altered(model, Alteration::OtherOrder)) } else { model };
        run_drafting((model, tokenizer), &base.config, &drafting, requests, false).0
    };
    assert_eq!(*expected, seen(false));
    assert_ne!(*expected, seen(true));
}

#[test]
fn what_cannot_work_is_refused_at_load() {
    let start = |path: &Path, options: &[(&str, &str)]| -> Result<Engine, StartError> {
        let (model, tokenizer) = open(MODEL, &alone());
        let drafting = drafting(path, options)?;
        Engine::start_with_drafters(model, Some(tokenizer), alone().config, &drafting)
    };
    let panics = panics();
    for (case, options, part) in [
        ("MAJOR_2", &[][..], "major version 2"),
        ("HALF_A_DRAFTER", &[], "does not reach guess"),
        ("CREATE_FAILS", &[], "no room for a hat"),
        ("REFUSES", &[], "the stars are not right"),
        ("NONE", &[("knid", "1")], "no option \"knid\""),
        ("panics", &[("every", "0")], "panic in activate"),
        ("panics", &[("every", "often")], "option every=\"often\""),
    ] {
        let (_folder, path) = match case {
            "panics" => (None, panics.clone()),
            case => {
                let (folder, path) = build(case);
                (Some(folder), path)
            }
        };
        let error = start(&path, options).err().expect(case).to_string();
        assert!(error.contains(part), "{case}: {error}");
    }
}

/// No engine asks for costs yet, so this test calls the host directly.
#[test]
fn a_cost_that_fails_is_none() {
    for (case, is_known) in [("NONE", true), ("COST_FAILS", false)] {
        let (_folder, path) = build(case);
        let library = Library::open(&path).expect("it loads");
        let created = Drafter::create(&library, &BTreeMap::new(), ModelFacts::default());
        let cost = created.expect("it is created").cost(1000, 0);
        assert_eq!(cost.is_some(), is_known, "{case}: {cost:?}");
    }
}

/// Runs the address sanitizer of the C compiler in a child process: it watches the drafters and all
/// heap memory that host and engine give them.
#[test]
fn a_sanitizer_finds_nothing_but_what_is_planted() {
    let Some(runtime) = sanitizer() else { return };
    let run = |value: &str| {
        let this = std::env::current_exe().expect("a test has a path");
        let output = Command::new(this)
            .args(["--exact", "hostile_drafters_change_no_bit", "--nocapture"])
            .env("LD_PRELOAD", &runtime)
            .env("ASAN_OPTIONS", "detect_leaks=0")
            .env(SANITIZED, value)
            .output()
            .expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (is_fine, said) = run("yes");
    assert!(is_fine, "{said}");
    // The negative control: a drafter that reads its array of options after create has returned.
    let (is_fine, said) = run("planted");
    assert!(!is_fine && said.contains("AddressSanitizer: heap-use-after-free"), "{said}");
    assert!(said.contains("hostile.c"), "it says where: {said}");
}

/// Set in the process that has the sanitizer's runtime loaded.
const SANITIZED: &str = "GALLEY_TEST_SANITIZED";
