//! Packages for machines without a Rust toolchain: a tar file, a Python wheel, a Debian package.
//!
//! All three hold one tree: bin, lib with the drafters below it, include, share. Program and library find the drafters
//! by their own place, so the tree works in any folder.

mod check;
mod debian;
mod tree;

use crate::shell::{command, exists, run as run_command};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tree::{Profile, Tree, folder, make_empty};

/// The arguments of `cargo xtask dist`.
#[derive(Args, Debug)]
pub(crate) struct DistArgs {
    /// Make the Python wheel; needs Python 3 with pip.
    #[arg(long)]
    wheel: bool,
    /// Make the Debian package; needs dpkg-deb and Python 3.
    #[arg(long)]
    deb: bool,
    /// Make the tar file, as without --wheel and --deb.
    #[arg(long)]
    tar: bool,
    /// Build the CUDA backend, too; needs nvcc.
    #[arg(long)]
    cuda: bool,
    /// Install each package in an empty place and test it there.
    #[arg(long)]
    check: bool,
    /// Build in cargo's profile `dev`. Such packages are for tests.
    #[arg(long, conflicts_with = "cuda")]
    debug: bool,
}

impl DistArgs {
    /// The wheel of a quick build, tested in a new environment.
    pub(crate) fn checked_wheel() -> Self {
        DistArgs { wheel: true, deb: false, tar: false, cuda: false, check: true, debug: true }
    }

    /// All packages, each tested in an empty place.
    pub(crate) fn all_checked() -> Self {
        DistArgs { wheel: true, deb: true, tar: true, cuda: false, check: true, debug: false }
    }

    fn profile(&self) -> Profile {
        match (self.debug, self.cuda) {
            (true, _) => Profile::Dev,
            (false, true) => Profile::Cuda,
            (false, false) => Profile::Release,
        }
    }
}

/// Builds the packages and prints their paths.
pub(crate) fn run(args: &DistArgs) -> Result<()> {
    let tree = Tree::build(args.profile())?;
    if args.tar || !(args.wheel || args.deb) {
        let tar = tar(&tree)?;
        report(&tar)?;
        if args.check {
            check::tar(&tar, &tree)?;
        }
    }
    if args.deb {
        let package = debian::package(&tree)?;
        report(&package)?;
        if args.check {
            check::debian(&package, &tree)?;
        }
    }
    if args.wheel {
        let wheel = wheel(&tree)?;
        report(&wheel)?;
        if args.check {
            check::wheel(&wheel)?;
        }
    }
    Ok(())
}

/// The tree that the check of the tar file has unpacked.
pub(crate) fn unpacked() -> Result<PathBuf> {
    let entries = folder().join("check/tar").read_dir()?.filter_map(Result::ok);
    let mut paths = entries.map(|entry| entry.path());
    paths.find(|path| path.join("bin/galley").is_file()).context("no package is unpacked")
}

fn report(package: &Path) -> Result<()> {
    let n_bytes = package.metadata().with_context(|| package.display().to_string())?.len();
    eprintln!("{:.1} MB", n_bytes as f64 / 1e6);
    println!("{}", package.display());
    Ok(())
}

/// Writes the tar file. Equal trees give equal bytes.
fn tar(tree: &Tree) -> Result<PathBuf> {
    let path = folder().join(format!("{}.tar.gz", tree.name));
    let mut tar = command("tar", ["--create", "--gzip", "--sort=name", "--mtime=@0"]);
    tar.args(["--owner=0", "--group=0", "--numeric-owner", "--file"]).arg(&path);
    tar.arg("--directory").arg(folder()).arg(&tree.name);
    run_command(tar)?;
    Ok(path)
}

/// Fails without the tools that make the wheel.
pub(crate) fn python() -> Result<()> {
    ensure!(
        exists(command("python3", ["-m", "pip", "--version"])),
        "python3 -m pip does not start: the wheel needs Python 3 with pip"
    );
    Ok(())
}

/// Writes the wheel. `ffi/python/build_backend.py` chooses its name: the tag follows from the files' symbols.
fn wheel(tree: &Tree) -> Result<PathBuf> {
    python()?;
    let out = folder().join(format!("wheel{}", tree.profile.suffix()));
    make_empty(&out)?;
    let mut setting = OsString::from("tree=");
    setting.push(&tree.path);
    let mut pip = command("python3", ["-m", "pip", "wheel", "--quiet", "--no-deps"]);
    pip.args(["--no-cache-dir", "--config-settings"]).arg(setting);
    pip.arg("--wheel-dir").arg(&out).arg("ffi/python");
    run_command(pip)?;
    let mut files = out.read_dir()?.filter_map(Result::ok).map(|entry| entry.path());
    files
        .find(|path| path.extension().is_some_and(|end| end == "whl"))
        .context("pip wrote no wheel")
}
