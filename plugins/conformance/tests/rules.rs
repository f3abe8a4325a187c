//! Every rule: Galley's own drafters keep all of them, and each rule has a test drafter that breaks
//! it.

mod common;

use common::{build, check, compile, failed, here, our_drafters};
use drafter_check::RULES;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The faults in tests/c/bad.c, and every rule that notices each of them.
const BAD: [(&str, &[u8]); 64] = [
    ("NO_MANIFEST", &[1]),
    ("BAD_NAME", &[1]),
    ("NO_ENTRY", &[2]),
    ("MAJOR_2", &[2]),
    ("CRASHES_AT_LOAD", &[2]),
    ("FAILS", &[3]),
    ("ENDS_THE_PROCESS", &[3]),
    ("CRASHES_WHEN_MANY", &[3]),
    ("HANGS", &[3]),
    ("THREAD_LOCAL", &[3]),
    ("ARGUMENT_SIZE", &[3, 4, 9]),
    ("DRAFTER_SIZE", &[3, 4]),
    ("DRAFTER_SIZE_UNSET", &[4]),
    ("NO_DESTROY", &[3, 4]),
    ("RESERVED", &[4]),
    ("OPTION_CRASHES", &[5]),
    ("OPTION_LATE", &[5]),
    ("OPTION_SILENT", &[5]),
    ("TEXT_WITH_NUL", &[5, 6]),
    ("STALE", &[3, 7, 9]),
    ("ONLY_ONCE", &[3, 7]),
    ("WINDOW_IN_GUESS", &[8]),
    ("OTHER_THREAD", &[8]),
    ("FORGED", &[9]),
    ("NULL_HOST", &[9]),
    ("TOO_LONG", &[9, 10]),
    ("NO_TOKEN", &[10]),
    ("ODD_STATUS", &[11]),
    ("NO_GUESS_TOO_EARLY", &[11]),
    ("COUNTS", &[12]),
    ("NEED_NOT_CHECKED", &[13]),
    ("NEED_REFUSED_SILENTLY", &[13]),
    ("NEED_TOO_MUCH", &[13]),
    ("NEED_TOO_LITTLE", &[13, 14]),
    ("OTHER_NOT_CHECKED", &[14]),
    ("OTHER_TOO_LATE", &[14]),
    ("IGNORES_FAILURE", &[15]),
    ("WANTS_HOST_OF_TODAY", &[16]),
    ("WANTS_LIMITS_OF_TODAY", &[16]),
    ("BEYOND", &[17]),
    ("WRITES_LIMITS", &[17]),
    ("WRITES_BEHIND", &[17]),
    ("LEAKS", &[18]),
    ("KEEPS_SEQUENCES", &[19]),
    ("SLOW", &[20]),
    ("COST_NAN", &[21]),
    ("COST_FALLS", &[21]),
    ("LOGS_BYTES", &[22]),
    ("LOGS_LOUDER", &[22]),
    ("MATCHER_RESERVED", &[4]),
    ("QUERY_SIZE", &[4, 9]),
    ("NO_MATCHER", &[9]),
    ("KNOWS_EVERY_ID", &[23]),
    ("COMPARES_A_PREFIX", &[23]),
    ("ANOTHER_TABLE", &[23]),
    ("TABLE_WHEN_ACTIVE", &[23]),
    ("ASKS_BACK", &[8]),
    ("TABLE_SIZE", &[24]),
    ("TABLE_IS_EMPTY", &[24]),
    ("FEEDBACK_CRASHES", &[25]),
    ("FEEDBACK_HAS_ROOM_FOR_A_ROUND", &[25]),
    ("FEEDBACK_KEEPS", &[19]),
    ("FEEDBACK_WRITES", &[17]),
    ("FEEDBACK_MAKES_A_VIEW", &[8]),
];

/// The rules that a variant of bad.c breaks, and the printed text.
fn broken_by(case: &str, patience_s: &str) -> (Vec<u8>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let output = check(&["--patience", patience_s], &[build(case, folder.path())]);
    let (numbers, text) = failed(&output);
    assert_eq!(output.status.code(), Some(i32::from(!numbers.is_empty())), "{case}: {text}");
    (numbers, text)
}

#[test]
fn each_rule_is_broken_by_a_drafter_that_breaks_it() {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(&(case, expected)) = BAD.get(next.fetch_add(1, Ordering::Relaxed)) {
            let patience_s = if case == "HANGS" { "10" } else { "60" };
            let (numbers, text) = broken_by(case, patience_s);
            assert_eq!(numbers, expected, "{case}: {text}");
        }
    };
    std::thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        for worker in workers {
            worker.join().expect("as the table says");
        }
    });
    for rule in &RULES {
        let is_broken = BAD.iter().any(|(_, numbers)| numbers.contains(&rule.number));
        assert!(is_broken, "no drafter breaks {rule}");
    }
}

/// The negative control: the same drafter without a fault.
#[test]
fn a_drafter_without_fault_keeps_all_rules() {
    let (numbers, text) = broken_by("NONE", "60");
    assert_eq!(numbers, [0; 0], "{text}");
    assert!(text.contains("25 passed, 0 failed, 0 skipped"), "{text}");
}

#[test]
fn what_took_its_process_with_it_is_said() {
    for (case, part) in [
        ("CRASHES_AT_LOAD", "SIGABRT"),
        ("ENDS_THE_PROCESS", "its process ended with exit status: 0"),
        ("OPTION_CRASHES", "SIGABRT) when it was about to set budget to \"\""),
        ("NEED_NOT_CHECKED", "SIGSEGV) when it was about to live without galley.views/1"),
        ("HANGS", "it did not return within 1 s"),
    ] {
        let (_, text) = broken_by(case, if case == "HANGS" { "1" } else { "60" });
        assert!(text.contains(part), "{case}: {text}");
    }
}

/// Galley's own drafters, with options that make them use their features.
#[test]
fn our_drafters_keep_all_rules() {
    let libraries = our_drafters();
    for mode in ["static", "exit", "search"] {
        let mode = format!("mode={mode}");
        let output = check(&["--option", "model=small", "--option", &mode], &libraries);
        let (numbers, text) = failed(&output);
        assert_eq!((numbers, output.status.code()), (vec![], Some(0)), "{text}");
        // They have no feedback, to which two rules apply. In search mode the host calls `guess` in
        // every round, so there is no recorded program to compare.
        let n_whole = if mode == "mode=search" { 5 } else { 6 };
        assert_eq!(text.matches("23 passed, 0 failed, 2 skipped").count(), n_whole, "{text}");
        assert_eq!(text.matches("22 passed, 0 failed, 3 skipped").count(), 6 - n_whole, "{text}");
    }
}

/// The example in C that authors start from.
#[test]
fn the_example_in_c_keeps_all_rules() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, include) =
        (here().join("../../examples/drafters/echo.c"), here().join("../abi/include"));
    let library = compile(&source, &include, &["-O2"], "echo", folder.path());
    let (numbers, text) = failed(&check(&[], &[library]));
    assert_eq!(numbers, [0; 0], "{text}");
    // The example looks at rows, so there is no recorded program to compare, and has no feedback.
    assert!(text.contains("22 passed, 0 failed, 3 skipped"), "{text}");
}

#[test]
fn the_command_line_helps() {
    let output = check(&["--rules"], &[]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    for rule in &RULES {
        assert!(text.contains(&format!("{rule}  {}\n", rule.text)), "{text}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let library = build("NONE", folder.path());
    let output = check(&["--option", "bugdet=1"], &[library]);
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("bugdet") && error.contains("budget"), "{error}");
    let output = check(&[], &[folder.path().join("none.so")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).expect("UTF-8").contains("none.so"));
}
