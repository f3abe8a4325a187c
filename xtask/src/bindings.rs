//! Rust's side of the drafter contract: generated from the header by bindgen, committed, compared in CI.
//!
//! bindgen is a program here and no dependency: building Galley needs no libclang.

use crate::shell::{command, exists, output, root, target};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

/// What `cargo xtask bindings` can be told.
#[derive(Args, Debug)]
pub(crate) struct BindingsArgs {
    /// Change nothing: fail if the committed bindings are not what the header gives.
    #[arg(long)]
    check: bool,
}

const HEADER: &str = "plugins/abi/include/galley_drafter.h";
const BINDINGS: &str = "plugins/abi/src/bindings.rs";

/// Another version may write the same in other words. `.ci/run` installs this one.
const VERSION: &str = "0.73.2";

const FIRST_LINE: &str =
    "//! Generated from galley_drafter.h by `cargo xtask bindings`: change the header instead.";

pub(crate) fn run(args: &BindingsArgs) -> Result<()> {
    let fresh = generate()?;
    if args.check {
        return compare(&fresh);
    }
    fs::write(root().join(BINDINGS), fresh).with_context(|| format!("cannot write {BINDINGS}"))
}

/// What the header gives.
pub(crate) fn generate() -> Result<String> {
    let mut version = bindgen();
    version.arg("--version");
    if !exists(version) {
        bail!(
            "bindgen does not start: `cargo install bindgen-cli --locked --version {VERSION}`, \
             or name the program with BINDGEN"
        );
    }
    let mut version = bindgen();
    version.arg("--version");
    let version = output(version)?;
    if version.trim() != format!("bindgen {VERSION}") {
        bail!("{} is here, {VERSION} is needed: others word things differently", version.trim());
    }
    let mut bindgen = bindgen();
    bindgen.arg(HEADER).args(["--allowlist-type", "gd_.*", "--allowlist-var", "GD_.*"]);
    bindgen.args(["--disable-header-comment", "--no-doc-comments", "--use-core"]);
    bindgen.args(["--no-prepend-enum-name", "--formatter", "none", "--raw-line", FIRST_LINE]);
    bindgen.args(["--", &format!("-I{}", compiler_headers()?)]);
    let raw = output(bindgen).context(
        "if libclang is what is missing: `pip install libclang==18.1.1`, and LIBCLANG_PATH=the folder of libclang.so",
    )?;
    format(&raw)
}

/// An error unless `fresh` is what is committed.
pub(crate) fn compare(fresh: &str) -> Result<()> {
    let committed = fs::read_to_string(root().join(BINDINGS)).context(BINDINGS)?;
    match first_difference(&committed, fresh) {
        None => Ok(()),
        Some(difference) => bail!(
            "{BINDINGS} is not what {HEADER} gives: `cargo xtask bindings` writes it anew\n{difference}"
        ),
    }
}

/// Where two texts part, as a diff would show it.
fn first_difference(committed: &str, fresh: &str) -> Option<String> {
    if committed == fresh {
        return None;
    }
    let (mut ours, mut theirs) = (committed.split('\n'), fresh.split('\n'));
    (1..).find_map(|number| {
        let (ours, theirs) = (ours.next(), theirs.next());
        let line = |mark, line: Option<&str>| match line {
            Some(line) => format!("{mark} {line}"),
            None => format!("{mark} (the end)"),
        };
        let hint = || format!("line {number}:\n{}\n{}", line('-', ours), line('+', theirs));
        (ours != theirs).then(hint)
    })
}

/// The program, with the libclang that `.ci/run` installs unless another is named.
fn bindgen() -> Command {
    let program = std::env::var("BINDGEN").unwrap_or_else(|_| "bindgen".into());
    let mut bindgen = command::<&str>(&program, []);
    let libclang = target().join("tools").join("clang").join("native");
    if std::env::var_os("LIBCLANG_PATH").is_none() && libclang.is_dir() {
        bindgen.env("LIBCLANG_PATH", libclang);
    }
    bindgen
}

/// The folder with the C compiler's own headers, such as stddef.h: libclang alone brings none.
fn compiler_headers() -> Result<String> {
    let folder = output(command("cc", ["-print-file-name=include"]))?;
    Ok(folder.trim().to_owned())
}

/// `code` in the style of the workspace.
fn format(code: &str) -> Result<String> {
    let mut rustfmt = command("rustfmt", ["--edition", "2024", "--config-path"]);
    rustfmt.arg(root()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut rustfmt = rustfmt.spawn().context("rustfmt does not start")?;
    // It reads all before it writes: neither side waits for the other.
    rustfmt.stdin.take().context("rustfmt has no input")?.write_all(code.as_bytes())?;
    let output = rustfmt.wait_with_output()?;
    if !output.status.success() {
        bail!("rustfmt failed: {}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_shown_and_equality_is_none() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        let shown = |committed, fresh| first_difference(committed, fresh).expect("different");
        assert_eq!(shown("a\nb\n", "a\nc\n"), "line 2:\n- b\n+ c");
        assert_eq!(shown("a\n", "a"), "line 2:\n- \n+ (the end)");
        assert_eq!(shown("a", "a\nb"), "line 2:\n- (the end)\n+ b");
    }

    #[test]
    fn other_bindings_are_refused_with_the_command_that_helps() {
        let committed = fs::read_to_string(root().join(BINDINGS)).expect("bindings");
        compare(&committed).expect("the same");
        let other = committed.replace("pub const GD_OK", "pub const GD_FINE");
        let error = compare(&other).expect_err("another name").to_string();
        for part in [BINDINGS, "cargo xtask bindings", "- pub const GD_OK", "+ pub const GD_FINE"] {
            assert!(error.contains(part), "no {part:?} in: {error}");
        }
    }

    #[test]
    fn ci_installs_the_version_that_is_needed() {
        let ci = fs::read_to_string(root().join(".ci/run")).expect("a script");
        assert!(ci.contains(&format!("bindgen-cli --version {VERSION}")));
    }
}
