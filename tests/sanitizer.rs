//! The address sanitizer of the C compiler. Tests of several crates include this file by its path.

use std::path::PathBuf;
use std::process::Command;

/// The runtime, which must be loaded first. None, with a printed note, if it is not installed; in
/// CI that is an error.
pub(crate) fn sanitizer() -> Option<PathBuf> {
    let ask = |name: &str| {
        let file = format!("-print-file-name={name}");
        let output = Command::new("cc").arg(file).output().expect("a C compiler is there");
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
    };
    // The compiler prints the name unchanged if it does not have the file.
    if ask("libubsan.so").is_absolute() && ask("libasan.so").is_absolute() {
        return Some(ask("libasan.so"));
    }
    assert!(std::env::var_os("CI").is_none(), "cc has no libasan and libubsan: install them");
    println!("skipped: cc has no libasan and libubsan here");
    None
}
