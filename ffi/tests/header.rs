//! The header is a promise: C and C++ take it without a warning, and its structs, symbols and numbers equal the
//! golden files.
//!
//! After a function or a field has been added, write the files anew with `GALLEY_BLESS=1 cargo test -p galley-ffi --test header`.
//! Any other difference breaks programs that were compiled before.

mod common;

use common::{Installed, here};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// Most functions that the interface may have.
const MAX_FUNCTIONS: usize = 40;

/// The structs of the header with their fields.
const STRUCTS: [(&str, &[&str]); 4] = [
    ("galley_string", &["ptr", "len", "id"]),
    ("galley_tokens", &["ptr", "len", "id"]),
    ("galley_logprob", &["token", "logprob"]),
    (
        "galley_event",
        &[
            "size", "kind", "id", "tag", "flags", "index", "token", "logprob", "drafter",
            "position", "text", "text_len", "top", "n_top", "json", "json_len", "ticket",
        ],
    ),
];

fn header() -> String {
    std::fs::read_to_string(here().join("include/galley.h")).expect("the header")
}

/// Compares a text with a golden file, which `GALLEY_BLESS=1` writes.
fn compare(file: &str, text: &str) {
    let path = here().join(file);
    if std::env::var_os("GALLEY_BLESS").is_some() {
        std::fs::write(&path, text).expect("written");
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(text, golden, "{file}");
}

/// The numbers of the header: `#define NAME number`.
fn numbers(header: &str) -> Vec<&str> {
    let defined = header.lines().filter_map(|line| line.strip_prefix("#define "));
    defined.filter_map(|line| line.split_once(' ')).map(|(name, _)| name).collect()
}

/// Names of the functions that the header declares.
fn functions(header: &str) -> BTreeSet<String> {
    let mut code = String::new();
    for line in header.lines().filter(|line| !line.starts_with(['#', ' ', '/'])) {
        let _ = write!(code, "{line} ");
    }
    let names = code.match_indices('(').filter_map(|(at, _)| {
        let start = code[..at].rfind(|c: char| !c.is_alphanumeric() && c != '_')? + 1;
        code[start..at].starts_with("galley_").then(|| code[start..at].to_owned())
    });
    names.collect()
}

/// A program that prints all sizes, offsets and numbers.
fn program(header: &str) -> String {
    let mut code = String::from("#include <galley.h>\n#include <stdio.h>\nint main(void) {\n");
    for (name, fields) in STRUCTS {
        let _ = writeln!(code, "printf(\"{name} %zu\\n\", sizeof({name}));");
        for field in fields {
            let _ = writeln!(code, "printf(\"{name}.{field} %zu\\n\", offsetof({name}, {field}));");
        }
    }
    for name in numbers(header) {
        let _ = writeln!(code, "printf(\"{name} %d\\n\", {name});");
    }
    code + "return 0;\n}\n"
}

fn compile(compiler: &str, flags: &[&str], code: &str, folder: &Path) -> Option<String> {
    let (source, program) = (folder.join("layout.c"), folder.join(compiler));
    std::fs::write(&source, code).expect("written");
    let compiled = Command::new(compiler)
        .args(flags)
        .args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-I"])
        .arg(here().join("include"))
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .output()
        .expect("a C compiler is there");
    if !compiled.status.success() {
        println!("{}", String::from_utf8_lossy(&compiled.stderr));
        return None;
    }
    let output = Command::new(program).output().expect("it runs");
    Some(String::from_utf8(output.stdout).expect("ASCII"))
}

const CPP: [&str; 3] = ["-std=c++17", "-x", "c++"];

#[test]
fn c_cpp_and_the_golden_file_agree() {
    let folder = tempfile::tempdir().expect("a folder");
    let code = program(&header());
    let c = compile("cc", &["-std=c11"], &code, folder.path()).expect("it compiles as C11");
    let cpp = compile("c++", &CPP, &code, folder.path()).expect("it compiles as C++17");
    assert_eq!(c, cpp);
    compare("layout.txt", &c);
    // Negative controls: another declaration, and a struct without a field that is there.
    assert!(c.contains("galley_event.ticket ") && c.contains("GALLEY_BUG "), "{c}");
    let wrong = code.replace("int main", "int galley_abi_version(int);\nint main");
    assert_eq!(compile("cc", &["-std=c11"], &wrong, folder.path()), None);
}

#[test]
fn the_library_exports_what_the_header_declares() {
    let installed = Installed::new();
    let output = Command::new("nm")
        .args(["--dynamic", "--defined-only", "--format=posix"])
        .arg(installed.path("lib/libgalley.so"))
        .output()
        .expect("nm runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let exported: BTreeSet<String> =
        text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert_eq!(exported, functions(&header()), "exported, and declared");
    let lines: String = exported.iter().map(|name| format!("{name}\n")).collect();
    compare("symbols.txt", &lines);
    assert!(exported.contains("galley_queue_wait"), "{exported:?}");
    assert!(exported.len() <= MAX_FUNCTIONS, "{} functions", exported.len());
}

#[test]
fn programs_record_the_number_of_the_interface() {
    let installed = Installed::new();
    let output = Command::new("readelf")
        .args(["--dynamic", "--wide"])
        .arg(installed.path("lib/libgalley.so"))
        .output()
        .expect("readelf runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Library soname: [libgalley.so.0]"), "{text}");
    assert!(text.contains("NODELETE"), "it stays loaded: {text}");
}
