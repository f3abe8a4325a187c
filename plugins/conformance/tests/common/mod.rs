//! Helpers that the tests of `drafter-check` share.
#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The path of the program.
pub(crate) const CHECK: &str = env!("CARGO_BIN_EXE_drafter-check");

/// The folder of the crate.
pub(crate) fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compiles one variant of bad.c into `folder`.
pub(crate) fn build(case: &str, folder: &Path) -> PathBuf {
    build_with(case, &[], folder)
}

/// Compiles one variant of bad.c with additional compiler flags.
pub(crate) fn build_with(case: &str, flags: &[&str], folder: &Path) -> PathBuf {
    let case_flag = format!("-DCASE_{case}");
    let include = here().join("../abi/include");
    let flags = [&["-O1", &case_flag, "-Wno-unused-function", "-Wno-unused-variable"], flags];
    compile(&here().join("tests/c/bad.c"), &include, &flags.concat(), case, folder)
}

/// Compiles a drafter in C against the headers in `include`.
pub(crate) fn compile(
    source: &Path,
    include: &Path,
    flags: &[&str],
    name: &str,
    folder: &Path,
) -> PathBuf {
    let path = folder.join(format!("lib{name}.so"));
    let status = Command::new("cc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"])
        .args(["-fvisibility=hidden", "-Wno-unused-const-variable"])
        .args(flags)
        .arg("-I")
        .arg(include)
        .arg(source)
        .arg("-o")
        .arg(&path)
        .status()
        .expect("a C compiler is there");
    assert!(status.success(), "{name} compiles");
    path
}

/// Runs the program.
pub(crate) fn check(words: &[&str], libraries: &[PathBuf]) -> Output {
    Command::new(CHECK).args(words).args(libraries).output().expect("drafter-check runs")
}

/// The numbers of the failed rules, and all printed text.
pub(crate) fn failed(output: &Output) -> (Vec<u8>, String) {
    let text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    let lines = text.lines().filter_map(|line| line.strip_prefix("  R"));
    let numbers = lines
        .filter(|line| line[2..].starts_with(" FAIL"))
        .map(|line| line[..2].parse().expect("a number"));
    (numbers.collect(), text)
}

/// Builds the drafters that are part of Galley.
pub(crate) fn our_drafters() -> [PathBuf; 6] {
    let names = ["ngram", "streaming-llm", "snap-kv", "self-spec", "layer-skip", "small-model"];
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(here()).args(["build", "--quiet", "--locked"]);
    for name in names {
        build.args(["--package", &format!("galley-drafter-{name}")]);
    }
    assert!(build.status().expect("cargo runs").success(), "the drafters build");
    let folder = Path::new(CHECK).parent().expect("a program is in a folder");
    names.map(|name| {
        let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        folder.join(format!("{prefix}galley_drafter_{}{suffix}", name.replace('-', "_")))
    })
}
