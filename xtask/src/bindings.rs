//! Rust bindings of the C headers: bindgen generates them, they are committed, and CI compares them with the headers.
//!
//! bindgen is an external program and no dependency, so that building Galley needs no libclang.

use crate::shell::{command, exists, output, root, target};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The arguments of `cargo xtask bindings`.
#[derive(Args, Debug)]
pub(crate) struct BindingsArgs {
    /// Write nothing: fail if the committed bindings differ from freshly generated ones.
    #[arg(long)]
    check: bool,
}

/// A C header and the file with its Rust bindings.
pub(crate) struct Contract {
    header: &'static str,
    bindings: &'static str,
    /// The names that are taken from the header, as arguments of bindgen.
    names: &'static [&'static str],
}

pub(crate) const CONTRACTS: [Contract; 2] = [
    Contract {
        header: "plugins/abi/include/galley_drafter.h",
        bindings: "plugins/abi/src/bindings.rs",
        names: &["--allowlist-type", "gd_.*", "--allowlist-var", "GD_.*"],
    },
    Contract {
        header: "kernels-cu/include/galley_kernels.h",
        bindings: "kernels-cu/src/bindings.rs",
        names: &[
            "--allowlist-type",
            "gk_.*",
            "--allowlist-var",
            "GK_.*",
            "--allowlist-function",
            "galley_.*",
        ],
    },
];

/// The version of bindgen that `.ci/run` installs. Another version may generate other text for the same header.
const VERSION: &str = "0.73.2";

pub(crate) fn run(args: &BindingsArgs) -> Result<()> {
    let fresh = generate()?;
    if args.check {
        return compare(&fresh);
    }
    for (contract, fresh) in CONTRACTS.iter().zip(fresh) {
        let to = contract.bindings;
        fs::write(root().join(to), fresh).with_context(|| format!("cannot write {to}"))?;
    }
    Ok(())
}

/// Generates the bindings of all headers, in the order of [`CONTRACTS`].
pub(crate) fn generate() -> Result<Vec<String>> {
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
        bail!("{} is here, {VERSION} is needed: other versions write other text", version.trim());
    }
    CONTRACTS.iter().map(bindings_of).collect()
}

fn bindings_of(contract: &Contract) -> Result<String> {
    let name = Path::new(contract.header).file_name().unwrap_or_default().to_string_lossy();
    let first_line =
        format!("//! Generated from {name} by `cargo xtask bindings`: change the header instead.");
    let mut bindgen = bindgen();
    bindgen.arg(contract.header).args(contract.names);
    bindgen.args(["--disable-header-comment", "--no-doc-comments", "--use-core"]);
    bindgen.args(["--no-prepend-enum-name", "--formatter", "none", "--raw-line", &first_line]);
    bindgen.args(["--", &format!("-I{}", compiler_headers()?)]);
    let raw = output(bindgen).context(
        "if libclang is missing: `pip install libclang==18.1.1`, and LIBCLANG_PATH=the folder of libclang.so",
    )?;
    format(&raw)
}

/// An error unless the committed bindings equal `fresh`.
pub(crate) fn compare(fresh: &[String]) -> Result<()> {
    CONTRACTS.iter().zip(fresh).try_for_each(|(contract, fresh)| contract.compare(fresh))
}

impl Contract {
    fn compare(&self, fresh: &str) -> Result<()> {
        let Self { header, bindings, .. } = self;
        let committed = fs::read_to_string(root().join(bindings)).context(*bindings)?;
        match first_difference(&committed, fresh) {
            None => Ok(()),
            Some(difference) => bail!(
                "{bindings} differs from the bindings of {header}: `cargo xtask bindings` writes it anew\n{difference}"
            ),
        }
    }
}

/// The first line that differs between two texts, in the form of a diff.
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

/// The program bindgen, with the libclang that `.ci/run` installs unless LIBCLANG_PATH is set.
fn bindgen() -> Command {
    let program = std::env::var("BINDGEN").unwrap_or_else(|_| "bindgen".into());
    let mut bindgen = command::<&str>(&program, []);
    let libclang = target().join("tools").join("clang").join("native");
    if std::env::var_os("LIBCLANG_PATH").is_none() && libclang.is_dir() {
        bindgen.env("LIBCLANG_PATH", libclang);
    }
    bindgen
}

/// The folder with the C compiler's own headers, such as stddef.h, which libclang does not contain.
fn compiler_headers() -> Result<String> {
    let folder = output(command("cc", ["-print-file-name=include"]))?;
    Ok(folder.trim().to_owned())
}

/// Formats `code` in the style of the workspace.
fn format(code: &str) -> Result<String> {
    let mut rustfmt = command("rustfmt", ["--edition", "2024", "--config-path"]);
    rustfmt.arg(root()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut rustfmt = rustfmt.spawn().context("rustfmt does not start")?;
    // rustfmt reads all its input before it writes, so writing here cannot deadlock.
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
        let read = |contract: &Contract| fs::read_to_string(root().join(contract.bindings));
        let committed: Vec<_> =
            CONTRACTS.iter().map(|contract| read(contract).expect("bindings")).collect();
        compare(&committed).expect("the same");
        for (i, name) in ["GD_OK", "GK_BAD_CALL"].into_iter().enumerate() {
            let mut other = committed.clone();
            let (old, new) = (format!("pub const {name}"), "pub const GX_OTHER");
            other[i] = other[i].replace(&old, new);
            let error = compare(&other).expect_err("another name").to_string();
            for part in [CONTRACTS[i].bindings, "cargo xtask bindings", &format!("- {old}"), new] {
                assert!(error.contains(part), "no {part:?} in: {error}");
            }
        }
    }

    #[test]
    fn ci_installs_the_version_that_is_needed() {
        let ci = fs::read_to_string(root().join(".ci/run")).expect("a script");
        assert!(ci.contains(&format!("bindgen-cli --version {VERSION}")));
    }
}
