//! The hub's listing of a model, and which of its files a model needs.

use super::cache::{Repo, create_parent, file_name, link};
use super::download::{self, Client, Remote, Status};
use super::settings::Settings;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const INDEX: &str = "model.safetensors.index.json";

/// A connection to the hub.
pub(super) struct Hub<'a> {
    settings: &'a Settings,
    client: Client,
}

/// What the hub says of a revision.
#[derive(Debug, Deserialize)]
struct Listing {
    sha: String,
    #[serde(default)]
    siblings: Vec<File>,
}

/// A file of a revision.
#[derive(Clone, Debug, Deserialize)]
struct File {
    #[serde(rename = "rfilename")]
    name: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Clone, Debug, Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl<'a> Hub<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        Self { settings, client: Client::new(settings.token.as_deref()) }
    }

    /// Fetches what is missing of a model.
    pub(super) fn pull(&self, repo: &Repo, file: Option<&str>, force: bool) -> Result<PathBuf> {
        let listing = self.list(repo)?;
        let snapshot = repo.directory(self.settings).join("snapshots").join(&listing.sha);
        let fetch = |file: &File| self.fetch(repo, &listing.sha, file, &snapshot, force);
        let result = match file {
            Some(name) => {
                let file = listing.siblings.iter().find(|file| file.name == name);
                fetch(file.with_context(|| {
                    let names = listing.names(|_| true);
                    format!("{} has no file {name}. It has:{names}", repo.source())
                })?)?
            }
            None if listing.has("config.json") && listing.has_weights() => {
                for file in listing.weights(fetch)? {
                    fetch(file)?;
                }
                // The configuration last: a snapshot that has it is complete.
                let (config, rest): (Vec<_>, Vec<_>) = listing
                    .siblings
                    .iter()
                    .filter(|file| is_description(&file.name))
                    .partition(|file| file.name == "config.json");
                for file in rest.into_iter().chain(config) {
                    fetch(file)?;
                }
                snapshot.clone()
            }
            None => fetch(listing.only_gguf(repo)?)?,
        };
        repo.write_ref(&listing.sha, self.settings)?;
        Ok(result)
    }

    fn list(&self, repo: &Repo) -> Result<Listing> {
        let Settings { endpoint, token, .. } = self.settings;
        let revision = repo.revision.replace('/', "%2F");
        let url = format!("{endpoint}/api/models/{}/revision/{revision}?blobs=true", repo.id);
        let source = repo.source();
        let body = match self.client.get_text(&url)? {
            Status::Found(body) => body,
            Status::Unauthorized if token.is_none() => bail!(
                "{source}: there is no such model at {endpoint}, or it is private: set HF_TOKEN to \
                 an access token that may read it"
            ),
            Status::Unauthorized => bail!("{source}: {endpoint} does not accept the access token"),
            Status::Forbidden => bail!(
                "{source}: the owner asks you to agree to terms first: {endpoint}/{}",
                repo.id
            ),
            Status::NotFound => bail!("{source}: there is no such model or revision at {endpoint}"),
        };
        let listing: Listing = serde_json::from_str(&body)
            .with_context(|| format!("{url}: this is not what a hub answers"))?;
        ensure!(is_hash(&listing.sha), "{url}: {:?} is no commit", listing.sha);
        for file in &listing.siblings {
            file_name(&file.name).with_context(|| source.clone())?;
        }
        Ok(listing)
    }

    /// Fetches one file and links it into the snapshot.
    fn fetch(
        &self,
        repo: &Repo,
        commit: &str,
        file: &File,
        snapshot: &Path,
        force: bool,
    ) -> Result<PathBuf> {
        let path = snapshot.join(file_name(&file.name)?);
        if path.exists() && !force {
            return Ok(path);
        }
        let Settings { endpoint, .. } = self.settings;
        let hash = match &file.lfs {
            Some(lfs) => Some(&lfs.sha256),
            None => file.blob_id.as_ref(),
        };
        let hash = hash.with_context(|| format!("{}: the hub does not say its hash", file.name))?;
        ensure!(is_hash(hash), "{}: {hash:?} is no hash", file.name);
        let blob = repo.directory(self.settings).join("blobs").join(hash);
        create_parent(&blob)?;
        let remote = Remote {
            url: format!("{endpoint}/{}/resolve/{commit}/{}", repo.id, escape(&file.name)),
            name: &file.name,
            size: file.lfs.as_ref().map(|lfs| lfs.size).or(file.size),
            sha256: file.lfs.as_ref().map(|lfs| lfs.sha256.as_str()),
        };
        download::fetch(&self.client, &remote, &blob, force)?;
        link(&blob, &path, file.name.matches('/').count())?;
        Ok(path)
    }
}

impl Listing {
    fn has(&self, name: &str) -> bool {
        self.siblings.iter().any(|file| file.name == name)
    }

    fn has_weights(&self) -> bool {
        self.siblings.iter().any(|file| is_weights(&file.name))
    }

    /// The safetensors that make up the model. Repositories keep other things under that ending:
    /// the index, where there is one, decides.
    fn weights(&self, fetch: impl Fn(&File) -> Result<PathBuf>) -> Result<Vec<&File>> {
        let named = |name: &str| self.siblings.iter().find(|file| file.name == name);
        if let Some(file) = named("model.safetensors") {
            return Ok(vec![file]);
        }
        let Some(index) = named(INDEX) else {
            return Ok(self.siblings.iter().filter(|file| is_weights(&file.name)).collect());
        };
        let path = fetch(index)?;
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let index: Index =
            serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let shards: BTreeSet<String> = index.weight_map.into_values().collect();
        let shards = shards.iter().map(|name| {
            named(name).with_context(|| format!("{INDEX} names {name:?}, which is not there"))
        });
        shards.collect()
    }

    /// The GGUF file of a repository that has only one.
    fn only_gguf(&self, repo: &Repo) -> Result<&File> {
        let is_gguf = |file: &&File| file.name.ends_with(".gguf");
        let mut files = self.siblings.iter().filter(is_gguf);
        match (files.next(), files.next()) {
            (Some(file), None) => Ok(file),
            (None, _) => bail!(
                "{}: no model that Galley can read: neither config.json with *.safetensors, nor a \
                 .gguf file",
                repo.source()
            ),
            _ => bail!(
                "{} has several models; choose one with --file:{}",
                repo.source(),
                self.names(|file| is_gguf(&file))
            ),
        }
    }

    /// Files and their sizes, a line each.
    fn names(&self, keep: impl Fn(&File) -> bool) -> String {
        let line = |file: &File| match file.lfs.as_ref().map(|lfs| lfs.size).or(file.size) {
            Some(size) => format!("\n  {} ({})", file.name, indicatif::HumanBytes(size)),
            None => format!("\n  {}", file.name),
        };
        self.siblings.iter().filter(|file| keep(file)).map(line).collect()
    }
}

fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors") && !name.contains('/') && !name.starts_with("consolidated")
}

/// Whether a file describes the model, its tokenizer or its chats.
fn is_description(name: &str) -> bool {
    matches!(name, "config.json" | "generation_config.json" | "chat_template.jinja")
        || (name.starts_with("tokenizer") && name.ends_with(".json") && !name.contains('/'))
}

/// SHA-1 or SHA-256 in hexadecimal: what blobs and snapshots are called.
fn is_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A file name in a URL.
fn escape(name: &str) -> String {
    let mut url = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                url.push(char::from(byte));
            }
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}
