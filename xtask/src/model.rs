//! The small model of tests, soak and demo, fetched by `galley pull`.

use crate::shell::{command, output, target};
use anyhow::{Context, Result, bail};
use std::env::consts::EXE_SUFFIX;
use std::path::PathBuf;
use std::process::Command;

/// The path of SmolLM2-135M-Instruct: `GALLEY_TEST_MODEL`, or else the model that `galley pull` fetches.
pub(crate) fn model() -> Result<PathBuf> {
    match std::env::var_os("GALLEY_TEST_MODEL") {
        Some(path) => std::path::absolute(path).context("GALLEY_TEST_MODEL"),
        None => {
            // The binary that the tests have built: building the package alone would take minutes, because
            // its features differ.
            let galley = target().join("debug").join(format!("galley{EXE_SUFFIX}"));
            let galley = galley.to_str().context("the target folder's name is not UTF-8")?;
            pull(command(galley, ["pull", "smollm2-135m-instruct"]))
        }
    }
}

/// Runs `galley pull`, which prints the path of the model as its last line.
pub(crate) fn pull(command: Command) -> Result<PathBuf> {
    let printed = output(command)?;
    let path = PathBuf::from(printed.lines().last().context("galley pull printed no path")?);
    if !path.exists() {
        bail!("galley pull printed {:?}, which does not exist", path);
    }
    Ok(path)
}
