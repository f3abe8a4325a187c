//! Every invariant of ARCHITECTURE.md names its tests, and rules about places in the code hold.

use super::{files, hold, read, root, tokens};

/// The part of ARCHITECTURE.md with one paragraph for each invariant.
const SECTION: &str = "## Invariants";
/// Begins the last line of each paragraph: the tests that hold the invariant.
const TESTS: &str = "*Held by* ";

/// Code, as tokens, that only the listed files of a folder may hold.
const PLACES: [(&str, &[&str], &[&str]); 2] = [
    ("engine/src/", &["Batch", "{"], &["engine/src/batch.rs"]),
    ("kernels-cu/cu/", &["__CUDACC__"], &["kernels-cu/cu/device.cuh", "kernels-cu/cu/table.cu"]),
];

/// Complaints about paragraphs of [`SECTION`] that name no test, or a test that is not there. `text_of` reads a file.
fn check_invariants(document: &str, text_of: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let section = document.split(SECTION).nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let paragraphs: Vec<_> = section.split("\n\n").filter(|text| text.starts_with("**")).collect();
    let mut complaints = Vec::new();
    if paragraphs.is_empty() {
        complaints.push(format!("no paragraph of {SECTION} begins with **"));
    }
    for paragraph in paragraphs {
        let first = paragraph.lines().next().unwrap_or_default();
        let Some((_, tests)) = paragraph.split_once(TESTS) else {
            complaints.push(format!("{first}: names no tests, {TESTS}`file` `function`"));
            continue;
        };
        let names: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        let mut text = None;
        for name in &names {
            if name.contains('/') {
                text = text_of(name);
                if text.is_none() {
                    complaints.push(format!("{first}: there is no file {name}"));
                }
            } else if !text.as_ref().is_some_and(|text| text.contains(&format!("fn {name}("))) {
                complaints.push(format!("{first}: the file before {name} has no such function"));
            }
        }
        if !names.iter().any(|name| !name.contains('/')) {
            complaints.push(format!("{first}: names no function"));
        }
    }
    complaints
}

/// The first line with this code, outside comments and strings.
fn line_of(text: &str, code: &[&str]) -> Option<usize> {
    let tokens = tokens::tokens(text);
    let is_code =
        |run: &&[tokens::Token<'_>]| run.iter().map(|token| token.text).eq(code.iter().copied());
    tokens.windows(code.len()).find(is_code).map(|run| run[0].line)
}

/// Complaints about code of [`PLACES`] in other files.
fn check_places(path: &str, text: &str) -> Vec<String> {
    if path.contains("/tests/") {
        return vec![];
    }
    let elsewhere = PLACES
        .iter()
        .filter(|(folder, _, allowed)| path.starts_with(folder) && !allowed.contains(&path));
    let found = elsewhere.filter_map(|(_, code, allowed)| {
        let line = line_of(text, code)?;
        Some(format!("line {line}: {} belongs into {allowed:?}", code.join(" ")))
    });
    found.collect()
}

#[test]
fn every_invariant_names_its_tests() {
    let document = [("ARCHITECTURE.md".to_owned(), read("ARCHITECTURE.md"))];
    let text_of = |path: &str| std::fs::read_to_string(root().join(path)).ok();
    hold(&document, |_, text| check_invariants(text, text_of));
}

#[test]
fn code_with_one_place_is_there_alone() {
    hold(&files(&[".rs", ".cu", ".cuh", ".h"]), check_places);
    for (_, code, allowed) in PLACES {
        let is_there = |path: &&str| line_of(&read(path), code).is_some();
        assert!(allowed.iter().all(is_there), "{code:?} has left {allowed:?}");
    }
}

#[test]
fn an_invariant_without_a_test_is_noticed() {
    let text_of = |path: &str| (path == "tests/a.rs").then(|| "fn it_holds() {}".to_owned());
    let of = |paragraph: &str| {
        let document = format!("## Invariants\n\n{paragraph}\n\n## Other\n\n**No** invariant.\n");
        check_invariants(&document, text_of)
    };
    assert_eq!(of("**It holds.** Always.\n*Held by* `tests/a.rs` `it_holds`."), [""; 0]);
    assert_eq!(of("**It holds.** Always.").len(), 1);
    assert_eq!(of("**It holds.**\n*Held by* `tests/a.rs`.").len(), 1, "a file is no test");
    assert_eq!(of("**It holds.**\n*Held by* `tests/a.rs` `it_does_not`.").len(), 1);
    assert_eq!(of("**It holds.**\n*Held by* `tests/b.rs` `it_holds`.").len(), 2);
    assert_eq!(of("Nothing.").len(), 1);
}

#[test]
fn code_in_another_place_is_noticed() {
    let batch = "fn f() {\n    let batch = Batch { tokens };\n}\n";
    assert_eq!(check_places("engine/src/executor.rs", batch).len(), 1);
    assert_eq!(check_places("engine/src/batch.rs", batch), [""; 0]);
    assert_eq!(check_places("engine/src/tests/toy.rs", batch), [""; 0]);
    assert_eq!(check_places("engine/src/step.rs", "let b = OtherBatch { n };"), [""; 0]);
    assert_eq!(check_places("engine/src/step.rs", "// a Batch { } in a comment"), [""; 0]);
    assert_eq!(check_places("kernels-cu/cu/rows.cu", "#ifdef __CUDACC__").len(), 1);
}
