//! nvcc from Python wheels, for machines without a CUDA toolkit. The wheels are pinned by version and hash, and
//! installed below the target folder.

use crate::shell::{command, exists, root, run as run_command, target};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

const REQUIREMENTS: &str = ".ci/cuda-requirements.txt";

/// The folder of the wheels. No other files belong here, because pip may delete files of a folder that it installs to.
fn folder() -> PathBuf {
    target().join("tools/cuda")
}

/// The toolkit in the wheels. `kernels-cu/build/nvcc.rs` searches this folder, too.
fn installed() -> PathBuf {
    folder().join("nvidia/cu13")
}

/// Installs nvcc, unless the pinned versions are already installed.
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

/// Creates a link `at` to folder `to`: nvcc searches libraries in lib64, but the wheels have lib.
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

/// A program of the toolkit, from `NVCC` or `CUDA_HOME`, then from `PATH`, then from the folder of [`run`].
/// Builds search in the same order.
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
