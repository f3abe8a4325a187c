//! The cache of the Hugging Face libraries.
//!
//! ```text
//! models--ORG--NAME/refs/REVISION             the commit of a branch or tag
//! models--ORG--NAME/blobs/HASH                files by content
//! models--ORG--NAME/snapshots/COMMIT/FILE     links to blobs
//! ```

use super::failure::writing;
use super::settings::HubSettings;
use crate::error::{HubError, Or, Result, fail};
use std::fs;
use std::io::{self, ErrorKind, Write};
#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// A repository of the hub at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repo {
    /// `ORG/NAME`.
    pub(super) id: String,
    /// A branch, a tag or a commit.
    pub(super) revision: String,
}

impl Repo {
    /// Parses `ORG/NAME` or `ORG/NAME@REVISION`.
    pub(super) fn parse(source: &str) -> Result<Self> {
        let (id, revision) = source.split_once('@').unwrap_or((source, "main"));
        let word = |word: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !word.is_empty() && word.chars().all(known) && !word.starts_with(['.', '-'])
        };
        let is_id = id.split('/').count() == 2
            && id.split('/').all(word)
            && !id.contains("--")
            && !id.contains("..");
        if !is_id {
            return Err(fail!(
                Name,
                "{id:?} is no model id: a model id is ORG/NAME or ORG/NAME@REVISION"
            ));
        }
        let is_revision = revision.split('/').all(word) && !revision.contains("..");
        if !is_revision {
            return Err(fail!(Name, "{revision:?} is no revision: a branch, a tag or a commit"));
        }
        Ok(Self { id: id.into(), revision: revision.into() })
    }

    /// The repository as the user writes it; the inverse of [`Repo::parse`].
    pub(super) fn source(&self) -> String {
        match self.revision.as_str() {
            "main" => self.id.clone(),
            revision => format!("{}@{revision}", self.id),
        }
    }

    /// The directory of this repository in the cache.
    pub(super) fn directory(&self, settings: &HubSettings) -> PathBuf {
        settings.cache.join(format!("models--{}", self.id.replace('/', "--")))
    }

    /// The snapshot of the revision, if there is one.
    fn snapshot(&self, settings: &HubSettings) -> Option<PathBuf> {
        let directory = self.directory(settings);
        let reference = fs::read_to_string(directory.join("refs").join(&self.revision));
        // A commit has no file in `refs`: the revision is the commit.
        let commit = reference.map_or_else(|_| self.revision.clone(), |text| text.trim().into());
        let snapshot = directory.join("snapshots").join(file_name(&commit).ok()?);
        snapshot.is_dir().then_some(snapshot)
    }

    /// The model in the cache: a directory of safetensors, or the one GGUF file.
    pub(super) fn cached(&self, settings: &HubSettings) -> Result<PathBuf> {
        let missing = || missing(&self.source(), settings);
        let snapshot = self.snapshot(settings).or_fail(HubError::Missing, missing)?;
        // The configuration is fetched last: a snapshot with a configuration has all weights.
        let has_weights = |name: &str| name.ends_with(".safetensors");
        let files = list(&snapshot)?;
        if files.iter().any(|name| name == "config.json") && files.iter().any(|n| has_weights(n)) {
            return Ok(snapshot);
        }
        let gguf: Vec<&String> = files.iter().filter(|name| name.ends_with(".gguf")).collect();
        match gguf.as_slice() {
            [] => Err(fail!(Missing, "{}", missing())),
            [name] => Ok(snapshot.join(name)),
            _ => {
                let paths =
                    gguf.iter().map(|name| format!("\n  {}", snapshot.join(name).display()));
                Err(fail!(
                    Choice,
                    "{} has several models; name one:{}",
                    self.source(),
                    paths.collect::<String>()
                ))
            }
        }
    }

    /// One file in the cache.
    pub(super) fn cached_file(&self, file: &str, settings: &HubSettings) -> Result<PathBuf> {
        let name = file_name(file)?;
        let path = self.snapshot(settings).map(|snapshot| snapshot.join(name));
        let subject = || format!("{file} of {}", self.source());
        let path = path.filter(|path| path.exists());
        path.or_fail(HubError::Missing, || absent(&subject(), settings))
    }

    /// Stores that the revision is `commit`. It writes nothing if the cache has this reference: the cache may
    /// be read-only.
    pub(super) fn write_ref(&self, commit: &str, settings: &HubSettings) -> Result<()> {
        let path = self.directory(settings).join("refs").join(&self.revision);
        let is_known = || fs::read_to_string(&path).is_ok_and(|text| text.trim() == commit);
        if self.revision == commit || is_known() {
            return Ok(());
        }
        create_parent(&path)?;
        // The rename is atomic: another process reads either the old commit or the new one.
        let directory = path.parent().unwrap_or(&path);
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(commit.as_bytes())?;
            // Other users of the cache must be able to read the reference.
            #[cfg(unix)]
            file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(|error: io::Error| writing(error, &path))
    }
}

/// The message that `source` is not in the cache, with the command that fetches it.
pub(super) fn missing(source: &str, settings: &HubSettings) -> String {
    format!("{}: `galley pull {source}`", absent(source, settings))
}

fn absent(subject: &str, settings: &HubSettings) -> String {
    let offline = settings.offline.map_or(String::new(), |name| format!(", and {name} is set"));
    format!("{subject} is not in {}{offline}", settings.cache.display())
}

/// `name` as a relative path that cannot leave the folder which it is joined to.
pub(super) fn file_name(name: &str) -> Result<&Path> {
    let path = Path::new(name);
    let normal = |component| matches!(component, Component::Normal(_));
    // `Path::components` normalises `a//b` and `a/./b`, which are no valid names.
    let plain = name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    let safe = plain && path.components().all(normal) && !name.contains(['\\', '\0', ':']);
    match safe {
        true => Ok(path),
        false => {
            Err(fail!(Content, "{name:?} is no name for a file: it could be written anywhere"))
        }
    }
}

/// Makes `link` a link to `blob`, and replaces an existing file. `depth` is the number of `/` in the file's name.
pub(super) fn link(blob: &Path, link: &Path, depth: usize) -> Result<()> {
    create_parent(link)?;
    match fs::remove_file(link) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(writing(error, link));
        }
        _ => {}
    }
    let name = blob.file_name().unwrap_or_default();
    // The way up from snapshots/COMMIT is two directories, and one more for each directory in the file's name.
    let target = Path::new(&"../".repeat(depth + 2)).join("blobs").join(name);
    symlink(&target, blob, link).map_err(|error| writing(error, link))
}

#[cfg(unix)]
fn symlink(target: &Path, _: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_: &Path, blob: &Path, link: &Path) -> io::Result<()> {
    fs::hard_link(blob, link)
}

pub(super) fn create_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(|error| writing(error, parent)),
        None => Ok(()),
    }
}

/// The files of a snapshot, including files in its directories.
fn list(directory: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(relative) = todo.pop() {
        let path = directory.join(&relative);
        let shown = || path.display().to_string();
        for entry in fs::read_dir(&path).or_fail(HubError::Cache, shown)? {
            let name = relative.join(entry.or_fail(HubError::Cache, shown)?.file_name());
            if directory.join(&name).is_dir() {
                todo.push(name);
            } else if let Some(name) = name.to_str() {
                files.push(name.to_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}
