//! Rust bindings of C headers, and the C header of Rust functions: bindgen and cbindgen generate them, they are committed,
//! and CI compares them with their sources.
//!
//! Both are external programs and no dependencies, so that building Galley needs no libclang, and `cargo xtask` builds
//! quickly.

mod header;

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

/// A committed file, its source, and the text that a program has made of the source.
#[derive(Clone)]
pub(crate) struct Generated {
    file: &'static str,
    source: &'static str,
    text: String,
}

pub(crate) fn run(args: &BindingsArgs) -> Result<()> {
    let fresh = generate()?;
    if args.check {
        return compare(&fresh);
    }
    for Generated { file, text, .. } in fresh {
        fs::write(root().join(file), text).with_context(|| format!("cannot write {file}"))?;
    }
    Ok(())
}

/// Generates the bindings of [`CONTRACTS`] and the header of the C library.
pub(crate) fn generate() -> Result<Vec<Generated>> {
    check_version("bindgen", bindgen, VERSION, "bindgen-cli")?;
    let mut fresh: Vec<Generated> = CONTRACTS.iter().map(bindings_of).collect::<Result<_>>()?;
    fresh.push(header::generate()?);
    Ok(fresh)
}

/// An error unless a program is there in the version that `.ci/run` installs.
fn check_version(name: &str, program: fn() -> Command, needed: &str, package: &str) -> Result<()> {
    let ask = || {
        let mut version = program();
        version.arg("--version");
        version
    };
    if !exists(ask()) {
        bail!(
            "{name} does not start: `cargo install {package} --locked --version {needed}`, or name the program with {}",
            name.to_uppercase()
        );
    }
    let version = output(ask())?;
    if version.trim() != format!("{name} {needed}") {
        bail!("{} is here, {needed} is needed: other versions write other text", version.trim());
    }
    Ok(())
}

fn bindings_of(contract: &Contract) -> Result<Generated> {
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
    Ok(Generated { file: contract.bindings, source: contract.header, text: format(&raw)? })
}

/// An error unless the committed files equal `fresh`.
pub(crate) fn compare(fresh: &[Generated]) -> Result<()> {
    fresh.iter().try_for_each(|Generated { file, source, text }| {
        let committed = fs::read_to_string(root().join(file)).context(*file)?;
        match first_difference(&committed, text) {
            None => Ok(()),
            Some(difference) => bail!(
                "{file} differs from the text that {source} gives: `cargo xtask bindings` writes it anew\n{difference}"
            ),
        }
    })
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
        let read = |file: &'static str, source| {
            let text = fs::read_to_string(root().join(file)).expect("a committed file");
            Generated { file, source, text }
        };
        let mut committed: Vec<_> =
            CONTRACTS.iter().map(|contract| read(contract.bindings, contract.header)).collect();
        committed.push(read(header::FILE, header::SOURCE));
        compare(&committed).expect("the same");
        let names =
            ["pub const GD_OK", "pub const GK_BAD_CALL", "galley_error *galley_queue_wait("];
        for (i, old) in names.into_iter().enumerate() {
            let mut other = committed.clone();
            other[i].text = other[i].text.replace(old, "another");
            let error = compare(&other).expect_err("another name").to_string();
            for part in [committed[i].file, "cargo xtask bindings", &format!("- {old}"), "another"]
            {
                assert!(error.contains(part), "no {part:?} in: {error}");
            }
        }
    }

    #[test]
    fn ci_installs_the_versions_that_are_needed() {
        let ci = fs::read_to_string(root().join(".ci/run")).expect("a script");
        assert!(ci.contains(&format!("bindgen-cli --version {VERSION}")));
        assert!(ci.contains(&format!("cbindgen --version {}", header::VERSION)));
    }
}
