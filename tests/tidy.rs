//! The house rules that a compiler does not know: arrows between crates, the places of `unsafe`,
//! the first line of every file, the structure of documents.
//!
//! A check is a function from text to complaints. The tests at the end apply all checks to the
//! tree; the tests of `tidy/controls.rs` show that each check notices violations.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The places where `unsafe` may be written, and the reason for each.
const UNSAFE_PLACES: [(&str, &str); 10] = [
    ("kernels-cu/", "calls C, in which the kernels are"),
    ("engine/backend/src/cuda/", "launches kernels over device memory"),
    ("engine/backend/src/cpu/", "kernels: instructions, and pointers into packed weights and KV"),
    ("engine/backend/src/sample/vector_ops.rs", "calls functions compiled for an instruction set"),
    ("engine/model/src/weights/mapped.rs", "maps files"),
    ("engine/drafter_host/src/", "loads shared libraries and speaks C with them"),
    ("plugins/conformance/src/interposer/", "stands between a drafter and its host, in C"),
    ("plugins/sdk/src/", "the border between C and safe Rust"),
    ("ffi/src/", "the border between Rust and the programs that call it from C"),
    ("benches/counting.rs", "is an allocator, to count"),
];

/// Written by a program: their `unsafe` has no explanations, and they are not split.
const GENERATED: [&str; 2] = ["plugins/abi/src/bindings.rs", "kernels-cu/src/bindings.rs"];

/// Files over [`MAX_LINES`], and the reason why each stays whole.
const LONG_FILES: [(&str, &str); 5] = [
    ("engine/backend/src/cpu/attention.rs", "one algorithm: its parts make sense together only"),
    ("engine/backend/src/sample/tests.rs", "every step of sampling against one naive sampler"),
    ("kernels-cu/include/galley_kernels.h", "one contract, between all kernels and their callers"),
    (GENERATED[0], "generated"),
    (GENERATED[1], "generated"),
];
const MAX_LINES: usize = 400;
/// For C++ and CUDA sources, which no formatter limits to this width.
const MAX_COLUMNS: usize = 120;

/// Folders of pure code, in which the same call always gives the same result: no clock, no
/// environment, no randomness.
const PURE: [&str; 4] =
    ["block_manager/src/", "engine/backend/src/", "engine/model/src/", "engine/planner/src/"];

/// Files in [`PURE`] folders that may read a clock, and the reason for each.
const IMPURE_FILES: [(&str, &str); 2] = [
    ("engine/backend/src/cpu/probe.rs", "measures the machine, for benches"),
    ("engine/model/src/chat/time.rs", "tells a chat template the date"),
];

// ---- checks

/// Rows of ARCHITECTURE.md's table: crate, folder, and crates that it may import.
fn arrow_table(text: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let names = |cell: &str| -> Vec<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let table = text.split("<!-- tests/tidy.rs parses this table -->").nth(1).unwrap_or_default();
    let rows = table.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).filter_map(|line| {
        let cells: Vec<_> = line.split('|').map(names).collect();
        let (name, folder) = (cells.get(1)?.first()?.clone(), cells.get(2)?.first()?.clone());
        Some((name, (folder, cells.get(3)?.clone())))
    });
    rows.collect()
}

/// Compares the table with the workspace in the output of `cargo metadata`.
fn check_arrows(table: &BTreeMap<String, (String, Vec<String>)>, metadata: &Value) -> Vec<String> {
    let root = Path::new(metadata["workspace_root"].as_str().unwrap_or_default());
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let name_of = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let mut complaints = Vec::new();
    for package in packages {
        let name = name_of(package);
        let Some((folder, allowed)) = table.get(&name) else {
            complaints.push(format!("{name} is not in the table"));
            continue;
        };
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        if manifest != root.join(folder).join("Cargo.toml") {
            complaints.push(format!("{name} is not in {folder}"));
        }
        let arrows = package["dependencies"].as_array().into_iter().flatten();
        for arrow in arrows.filter(|arrow| arrow["path"].is_string() && arrow["kind"] != "dev") {
            if !allowed.contains(&name_of(arrow)) {
                complaints.push(format!("{name} imports {}: not in the table", name_of(arrow)));
            }
        }
    }
    let names: Vec<_> = packages.iter().map(name_of).collect();
    let gone = table.keys().filter(|name| !names.contains(name));
    complaints.extend(gone.map(|name| format!("{name} is in the table and not in the workspace")));
    complaints
}

/// The first line must state the purpose of the file.
fn check_first_line(text: &str) -> Vec<String> {
    let fine = text
        .lines()
        .next()
        .is_some_and(|line| line.trim_end().len() > "//! ".len() && line.starts_with("//! "));
    if fine { vec![] } else { vec!["does not start with a //! line with its subject".into()] }
}

/// A long file must be listed, and a listed file must be long.
fn check_length(path: &str, text: &str) -> Vec<String> {
    let n_lines = text.lines().count();
    match (n_lines > MAX_LINES, LONG_FILES.iter().any(|(long, _)| *long == path)) {
        (true, false) => vec![format!("{n_lines} lines: split it, or give LONG_FILES a reason")],
        (false, true) => vec![format!("{n_lines} lines: no longer belongs into LONG_FILES")],
        _ => vec![],
    }
}

/// No line may be wider than [`MAX_COLUMNS`].
fn check_columns(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.chars().count()).enumerate();
    let wide = lines.filter(|(_, n_columns)| *n_columns > MAX_COLUMNS);
    wide.map(|(i, n_columns)| format!("line {}: {n_columns} columns", i + 1)).collect()
}

/// `unsafe` needs a listed place and a reason: one `SAFETY` comment right above each block and
/// `impl`, and a `# Safety` section at functions that other files can call.
fn check_unsafe(path: &str, text: &str) -> Vec<String> {
    if GENERATED.contains(&path) {
        return vec![];
    }
    let lines: Vec<_> = text.lines().collect();
    let mut complaints = Vec::new();
    let mut reasons_used = Vec::new();
    for (line, code) in tokens::lines(&tokens::tokens(text)) {
        let i = line - 1;
        for (at, _) in code.match_indices("unsafe") {
            let word = |c: char| c.is_alphanumeric() || c == '_';
            let rest = code[at + "unsafe".len()..].trim_start();
            if code[..at].ends_with(word) || code[at + "unsafe".len()..].starts_with(word) {
                continue; // part of another word, such as unsafe_code
            }
            if !UNSAFE_PLACES.iter().any(|(place, _)| path.starts_with(place)) {
                complaints.push(format!("line {}: unsafe outside UNSAFE_PLACES", i + 1));
            }
            if rest.starts_with("(no_mangle)") && path.starts_with("ffi/src/") {
                continue; // ffi/tests/header.rs compares all names with the header
            }
            let signature = rest.starts_with("fn ") || rest.starts_with("extern");
            if rest.starts_with("fn(") || (signature && !code[..at].contains("pub")) {
                continue; // a type, a function of this file, or a trait's function, documented by the trait
            }
            if signature || rest.starts_with("trait ") {
                let above = lines[..i].iter().rev().map(|line| line.trim_start());
                let mut docs =
                    above.take_while(|line| line.starts_with("///") || line.starts_with("#["));
                if !docs.any(|line| line.starts_with("/// # Safety")) {
                    complaints.push(format!("line {}: no # Safety section", i + 1));
                }
                continue;
            }
            match reason_above(&lines, i) {
                Some(reason) if !reasons_used.contains(&reason) => reasons_used.push(reason),
                _ => complaints.push(format!("line {}: no SAFETY comment of its own", i + 1)),
            }
        }
    }
    complaints
}

/// The line with `SAFETY:` of the comment that ends at most three lines above line `i`.
fn reason_above(lines: &[&str], i: usize) -> Option<usize> {
    let comment = |at: &usize| lines[*at].trim_start().starts_with("//");
    let end = (i.saturating_sub(3)..=i).rev().find(|at| comment(at))?;
    let block = (0..=end).rev().take_while(comment);
    block.into_iter().find(|&at| lines[at].trim_start().starts_with("// SAFETY:"))
}

/// No clock, environment or randomness in [`PURE`] folders, except after `#[cfg(test)]` and in
/// files of tests.
fn check_pure(path: &str, text: &str) -> Vec<String> {
    let pure = PURE.iter().any(|folder| path.starts_with(folder)) && !path.ends_with("tests.rs");
    if !pure || IMPURE_FILES.iter().any(|(file, _)| *file == path) {
        return vec![];
    }
    let words =
        ["Instant::now", "SystemTime", "env::var", "thread_rng", "RandomState", "getrandom"];
    let product = tokens::lines(&tokens::without_tests(&tokens::tokens(text))).into_iter();
    let found = product.flat_map(|(line, code)| {
        words.into_iter().filter(move |word| code.contains(word)).map(move |word| (line, word))
    });
    found.map(|(line, word)| format!("line {line}: {word} below the engine")).collect()
}

/// No path of a developer's machine.
fn check_machine_paths(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (i, line) in text.lines().enumerate() {
        for folder in ["work", "opt", "root", "home", "Users"] {
            let path = format!("/{folder}/");
            let starts = |(at, _): (usize, &str)| {
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-~}>)*".contains(c))
            };
            if line.match_indices(&path).any(starts) {
                complaints.push(format!("line {}: {path} is a path of one machine", i + 1));
            }
        }
    }
    complaints
}

/// Relative links of a document must have a target; `exists` says whether it does.
fn check_links(text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    let relative = targets.filter(|target| !target.is_empty() && !target.contains("://"));
    let dead = relative.filter(|target| !exists(target));
    dead.map(|target| format!("links to {target}, which is not there")).collect()
}

/// Headings that a document must have.
fn check_headings(text: &str, headings: &[&str]) -> Vec<String> {
    let missing = headings.iter().filter(|heading| !text.lines().any(|line| line == **heading));
    missing.map(|heading| format!("has no heading {heading:?}")).collect()
}

// ---- the tree

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace").into()
}

/// Text files of the tree with their paths from the root, without build outputs and ignored
/// folders.
fn files(extensions: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let skipped = ["target", ".git", "corpus", "artifacts", "node_modules", "__pycache__"];
            if path.is_dir() && !skipped.contains(&name.as_str()) {
                folders.push(path);
            } else if path.is_file() && extensions.iter().any(|end| name.ends_with(end)) {
                let text = std::fs::read_to_string(&path).expect("text");
                let path = path.strip_prefix(root()).expect("under the root").to_string_lossy();
                found.push((path.replace('\\', "/"), text));
            }
        }
    }
    assert!(!found.is_empty(), "no {extensions:?}");
    found
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Fails with all complaints about all files.
fn hold(files: &[(String, String)], check: impl Fn(&str, &str) -> Vec<String>) {
    let complaints = files.iter().flat_map(|(path, text)| {
        check(path, text).into_iter().map(move |complaint| format!("{path}: {complaint}"))
    });
    let complaints: Vec<_> = complaints.collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// The output of `cargo metadata`: packages of the workspace and their targets.
fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let words = ["metadata", "--no-deps", "--format-version", "1", "--offline"];
    let output = Command::new(cargo).current_dir(root()).args(words).output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn crates_import_along_the_arrows() {
    let metadata = metadata();
    let table = arrow_table(&read("ARCHITECTURE.md"));
    hold(&[("ARCHITECTURE.md".into(), String::new())], |_, _| check_arrows(&table, &metadata));
}

#[test]
fn rust_files_follow_the_rules() {
    let files = files(&[".rs"]);
    hold(&files, |path, text| {
        let checks = [check_first_line(text), check_length(path, text)];
        [&checks[..], &[check_unsafe(path, text), check_pure(path, text)]].concat().concat()
    });
    let listed = LONG_FILES.iter().chain(&UNSAFE_PLACES).chain(&IMPURE_FILES);
    for (path, reason) in listed {
        assert!(root().join(path).exists() && !reason.is_empty(), "{path} is listed and gone");
    }
}

#[test]
fn kernels_follow_the_rules() {
    let mut files = files(&[".cu", ".cuh", ".h", ".cpp"]);
    files.retain(|(path, _)| path.starts_with("kernels-cu/"));
    assert!(!files.is_empty(), "no kernels");
    hold(&files, |path, text| [check_length(path, text), check_columns(text)].concat());
}

#[test]
fn no_file_knows_a_machine() {
    let extensions =
        [".rs", ".toml", ".md", ".py", ".c", ".h", ".cu", ".cuh", ".cpp", ".sh", ".txt", "run"];
    hold(&files(&extensions), |_, text| check_machine_paths(text));
}

#[test]
fn documents_are_whole() {
    let documents = files(&[".md"]);
    hold(&documents, |path, text| {
        let folder = root().join(path).parent().expect("a folder").to_path_buf();
        check_links(text, |target| folder.join(target).exists())
    });
    let changelog = [("CHANGELOG.md".to_owned(), read("CHANGELOG.md"))];
    hold(&changelog, |_, text| check_headings(text, &["## [Unreleased]", "### Drafter ABI"]));
    let decisions = documents.into_iter().filter(|(path, _)| path.starts_with("docs/adr/"));
    let mut decisions: Vec<_> = decisions.collect();
    decisions.sort();
    for (i, (path, _)) in decisions.iter().enumerate() {
        assert!(
            path.starts_with(&format!("docs/adr/{:04}-", i + 1)),
            "{path}: a gap in the numbers"
        );
    }
    let parts = ["Context", "Decision", "Consequences", "What would make us change our mind"];
    let headings = parts.map(|part| format!("## {part}"));
    hold(&decisions, |_, text| check_headings(text, &headings.each_ref().map(String::as_str)));
}

#[path = "tidy/controls.rs"]
mod controls;
#[path = "tidy/functions.rs"]
mod functions;
#[path = "tidy/invariants.rs"]
mod invariants;
#[path = "tidy/modules.rs"]
mod modules;
#[path = "tidy/prose.rs"]
mod prose;
#[path = "tidy/tokens.rs"]
mod tokens;
#[path = "tidy/uses.rs"]
mod uses;
