//! Running commands in the workspace's root: their output is visible, and a failure is an error.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Features of all checks and tests: they include the CUDA backend, with its kernels emulated on the CPU.
pub(crate) const FEATURES: &str = "--features galley-kernels-cu/emulate,galley/emulate,galley-tests/emulate,galley-benches/emulate,galley-ffi/emulate";

/// The folder with the workspace's `Cargo.toml`.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// The target folder, for builds of cargo and for files that chores fetch.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Whether a missing tool or download is an error (in CI) or a remark (at home).
pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// A command in the root. Tools that `.ci/run` installs come before tools of the machine.
pub(crate) fn command<S: AsRef<OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = match (program, std::env::var_os("CARGO")) {
        ("cargo", Some(cargo)) => Command::new(cargo),
        _ => Command::new(program),
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = ["tools/bin", "tools/cargo/bin"].map(|folder| target().join(folder));
    if let Ok(path) = std::env::join_paths(tools.into_iter().chain(std::env::split_paths(&path))) {
        command.env("PATH", path);
    }
    command.current_dir(root()).args(args).stdin(Stdio::null());
    command
}

/// `cargo` with the arguments in `words`.
pub(crate) fn cargo(words: &str) -> Command {
    command("cargo", words.split_whitespace())
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{} does not start", name(&command)))?;
    if !status.success() {
        bail!("{} failed: {status}", name(&command));
    }
    Ok(())
}

/// Runs a command to its end and returns its standard output.
pub(crate) fn output(mut command: Command) -> Result<String> {
    command.stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("{} does not start", name(&command)))?;
    if !output.status.success() {
        bail!("{} failed: {}", name(&command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a tool is installed: `version` is a command that prints its version.
pub(crate) fn exists(mut version: Command) -> bool {
    let quiet = version.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Runs one stage under a heading and prints its time.
pub(crate) fn stage<T>(heading: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("\n=== {heading}");
    let start = Instant::now();
    let result = work();
    let outcome = if result.is_ok() { "done" } else { "FAILED" };
    eprintln!("=== {heading}: {outcome} in {:.1} s", start.elapsed().as_secs_f64());
    result
}

/// The command as a person would type it.
fn name(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_stem().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
