//! `galley.h`, from the functions of `ffi/`.

use super::{Generated, check_version};
use crate::shell::{command, output, root};
use anyhow::{Result, bail};
use std::process::Command;

/// The version of cbindgen that `.ci/run` installs.
pub(super) const VERSION: &str = "0.29.4";
pub(super) const SOURCE: &str = "ffi/src";
pub(super) const FILE: &str = "ffi/include/galley.h";

/// The section that Rust wants at every function with pointers. The header says it once, at its beginning.
const SAFETY: &str = " *\n * # Safety\n *\n * Pointers are NULL, or valid as the header says.\n";

pub(super) fn generate() -> Result<Generated> {
    check_version("cbindgen", cbindgen, VERSION, "cbindgen")?;
    let mut cbindgen = cbindgen();
    cbindgen.current_dir(root().join("ffi")).args(["--quiet", "--config", "cbindgen.toml", "."]);
    let text = output(cbindgen)?.replace(SAFETY, "");
    if let Some(at) = text.find("# Safety") {
        let line = text[..at].matches('\n').count() + 1;
        bail!(
            "a Safety section of {SOURCE} is not the usual one: line {line} of the header has it"
        );
    }
    Ok(Generated { file: FILE, source: SOURCE, text })
}

/// The program cbindgen.
fn cbindgen() -> Command {
    command::<&str>(&std::env::var("CBINDGEN").unwrap_or_else(|_| "cbindgen".into()), [])
}
