//! The real model and the real texts of tests, in the places where `cargo xtask data` puts them.

use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// SmolLM2's file, from `GALLEY_TEST_MODEL`. Without it the calling test is skipped, except in CI.
pub fn model() -> Option<PathBuf> {
    needed("GALLEY_TEST_MODEL", "SmolLM2")
}

fn needed(variable: &str, resource: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        println!("skipped: {resource} is named by {variable}, which `cargo xtask test` sets");
        assert!(std::env::var_os("CI").is_none(), "CI sets {variable}");
    }
    path
}

/// The bytes of a text named `sotu/FILE`, `moby-dick/FILE` or `python-stdlib/FILE`.
pub fn read(source: &str) -> Option<Vec<u8>> {
    let (set, file) = source.split_once('/').expect("set/file");
    let path = match set {
        "python-stdlib" => python_library()?.join(file),
        set => needed("GALLEY_TEST_DATA", "the texts' folder")?.join(set).join("data").join(file),
    };
    std::fs::read(path).ok()
}

/// The folder of Python's standard library: real code that most machines have.
fn python_library() -> Option<PathBuf> {
    let print = "import sysconfig; print(sysconfig.get_path('stdlib'))";
    let output = std::process::Command::new("python3").args(["-c", print]).output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// SHA-256 over the ids as little-endian 32-bit words, in hexadecimal.
pub fn hash_tokens(tokens: &[u32]) -> String {
    let mut hash = Sha256::new();
    for token in tokens {
        hash.update(token.to_le_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
