//! nvcc from Python wheels, for machines without a CUDA toolkit: pinned, checked by hash, below the target folder.

use crate::shell::{command, exists, root, run as run_command, target};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

const REQUIREMENTS: &str = ".ci/cuda-requirements.txt";

/// Where wheels are installed: a folder of its own, as pip empties those it installs into.
fn folder() -> PathBuf {
    target().join("tools/cuda")
}

/// The toolkit in the wheels: `kernels-cu/build/nvcc.rs` looks here by itself.
fn installed() -> PathBuf {
    folder().join("nvidia/cu13")
}

/// Installs nvcc, unless these very versions are there.
pub(crate) fn run() -> Result<()> {
    let (wanted, stamp) =
        (fs::read_to_string(root().join(REQUIREMENTS))?, folder().join("requirements.txt"));
    if fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
        eprintln!("{}: already here", installed().display());
    } else {
        let mut pip = command("python3", ["-m", "pip", "install", "--quiet", "--no-deps"]);
        pip.args(["--no-compile", "--upgrade", "--root-user-action", "ignore", "--require-hashes"]);
        pip.args(["--requirement", REQUIREMENTS, "--target"]).arg(folder());
        run_command(pip).context("the wheels are for x86-64 and arm64 Linux")?;
        link(&installed().join("lib64"), Path::new("lib"))?;
        fs::write(stamp, wanted)?;
    }
    eprintln!("builds with feature `cuda` find it by themselves; for other programs:");
    println!("export CUDA_HOME={}", installed().display());
    Ok(())
}

/// nvcc links what lies in lib64, and the wheels have lib.
#[cfg(unix)]
fn link(at: &Path, to: &Path) -> Result<()> {
    if !at.exists() {
        std::os::unix::fs::symlink(to, at)
            .with_context(|| format!("cannot link {}", at.display()))?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> Result<()> {
    bail!("the wheels are for Linux: install the CUDA toolkit")
}

/// A program of the toolkit: `NVCC` or `CUDA_HOME` first, then `PATH`, then what [`run`] installs, in the order of builds.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let named = set("NVCC").filter(|_| name == "nvcc").map(PathBuf::from);
    let at_home = set("CUDA_HOME").map(|home| Path::new(&home).join("bin").join(name));
    let installed = installed().join("bin").join(name);
    let places = named.into_iter().chain(at_home).chain([PathBuf::from(name), installed]);
    let starts = |place: &PathBuf| exists(command(&place.to_string_lossy(), ["--version"]));
    match places.into_iter().find(starts) {
        Some(place) => Ok(place),
        None => bail!(
            "{name} is not in CUDA_HOME/bin, in PATH or in {}: `cargo xtask cuda` installs it there",
            installed_for_people()
        ),
    }
}

fn installed_for_people() -> String {
    installed().join("bin").display().to_string()
}
