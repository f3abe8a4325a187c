//! The hub's listing of a repository, and the choice of the files that a model needs.

use super::cache::{Repo, create_parent, file_name, link};
use super::client::Client;
use super::download::{self, Remote};
use super::settings::{AccessToken, HubSettings, Network};
use crate::Progress;
use crate::error::{HubError, Or, Result, Within, fail};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use ureq::http::StatusCode;

const INDEX: &str = "model.safetensors.index.json";

/// A connection to the hub.
pub(super) struct Hub<'a> {
    settings: &'a HubSettings,
    network: &'a Network,
    client: Client<'a>,
    on_progress: &'a dyn Fn(Progress<'_>),
}

/// The hub's description of a revision.
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
    pub(super) fn new(
        settings: &'a HubSettings,
        network: &'a Network,
        on_progress: &'a dyn Fn(Progress<'_>),
    ) -> Result<Self> {
        Ok(Self { settings, network, client: Client::new(network)?, on_progress })
    }

    /// Fetches the files of a model that the cache does not have, or only `file`.
    pub(super) fn pull(&self, repo: &Repo, file: Option<&str>, force: bool) -> Result<PathBuf> {
        let listing = self.list(repo)?;
        let snapshot = repo.directory(self.settings).join("snapshots").join(&listing.sha);
        let fetch = |file: &File| self.fetch(repo, &listing.sha, file, &snapshot, force);
        let result = match file {
            Some(name) => {
                let file = listing.siblings.iter().find(|file| file.name == name);
                fetch(file.or_fail(HubError::Choice, || {
                    let names = listing.names(|_| true);
                    format!("{} has no file {name}. It has:{names}", repo.source())
                })?)?
            }
            None if listing.has("config.json") && listing.has_weights() => {
                for file in listing.weights(fetch).within(|| repo.source())? {
                    fetch(file)?;
                }
                // The configuration comes last: a snapshot with a configuration is complete.
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
        let Network { endpoint, .. } = self.network;
        let revision = repo.revision.replace('/', "%2F");
        let url = format!("{endpoint}/api/models/{}/revision/{revision}?blobs=true", repo.id);
        let source = repo.source();
        let body = self.client.get_text(&url).map_err(|error| self.explain(error, repo))?;
        let listing: Listing = serde_json::from_str(&body)
            .or_fail(HubError::Content, || format!("{url}: this is not the answer of a hub"))?;
        if !is_hash(&listing.sha) {
            return Err(fail!(Content, "{url}: {:?} is no commit", listing.sha));
        }
        for file in &listing.siblings {
            file_name(&file.name).within(|| source.clone())?;
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
        let hash = match &file.lfs {
            Some(lfs) => Some(&lfs.sha256),
            None => file.blob_id.as_ref(),
        };
        let unhashed = || format!("{}: the hub does not say its hash", file.name);
        let hash = hash.or_fail(HubError::Content, unhashed)?;
        if !is_hash(hash) {
            return Err(fail!(Content, "{}: {hash:?} is no hash", file.name));
        }
        let blob = repo.directory(self.settings).join("blobs").join(hash);
        create_parent(&blob)?;
        let remote = Remote {
            url: format!(
                "{}/{}/resolve/{commit}/{}",
                self.network.endpoint,
                repo.id,
                escape(&file.name)
            ),
            name: &file.name,
            size: file.lfs.as_ref().map(|lfs| lfs.size).or(file.size),
            sha256: file.lfs.as_ref().map(|lfs| lfs.sha256.as_str()),
        };
        download::fetch(&self.client, &remote, &blob, force, self.on_progress)
            .map_err(|error| self.explain(error, repo))?;
        link(&blob, &path, file.name.matches('/').count())?;
        Ok(path)
    }
}

impl Hub<'_> {
    /// Replaces a [`Refusal`](crate::refusal::Refusal) by an error that tells the user how to solve the problem.
    fn explain(&self, error: HubError, repo: &Repo) -> HubError {
        let Some(refusal) = error.refusal() else { return error };
        let Network { endpoint, token, .. } = self.network;
        let (source, page) = (repo.source(), format!("{endpoint}/{}", repo.id));
        let (note, said) = (token.note(), refusal.said());
        if let Some(host) = &refusal.host {
            let status = refusal.status;
            return fail!(
                Refused,
                "{source}: {host}, where the hub keeps its files, answers {status}: a firewall or a proxy may not let it \
                 through. Pull again later"
            );
        }
        match (refusal.status, refusal.code.as_str(), token) {
            (_, "RevisionNotFound", _) => {
                fail!(Name, "{source}: {page} has no revision {}", repo.revision)
            }
            (_, "DisabledRepo", _) => fail!(Refused, "{source}: the hub has disabled {page}{said}"),
            (StatusCode::FORBIDDEN, ..) | (_, "GatedRepo", _) => match token {
                AccessToken::Given { source: from, .. } => fail!(
                    Refused,
                    "{source}: the user of the access token in {from} may not read it: agree to its terms at {page}, or \
                     allow the token to read such models{said}"
                ),
                _ => fail!(
                    Refused,
                    "{source}: its owner asks for agreement to terms: agree at {page}, and set HF_TOKEN to an access token \
                     of the same user{note}{said}"
                ),
            },
            (StatusCode::UNAUTHORIZED, "RepoNotFound", AccessToken::Given { source: from, .. }) => {
                fail!(
                    Refused,
                    "{source}: there is no such model at {endpoint}, or the access token in {from} may not read it{said}"
                )
            }
            (StatusCode::UNAUTHORIZED, _, AccessToken::Given { source: from, .. }) => fail!(
                Refused,
                "{source}: {endpoint} does not accept the access token in {from}: set HF_TOKEN to a new one{said}"
            ),
            (StatusCode::UNAUTHORIZED, ..) => fail!(
                Refused,
                "{source}: there is no such model at {endpoint}, or it is private: set HF_TOKEN to an access token that may \
                 read it{note}"
            ),
            _ => fail!(Name, "{source}: there is no such model or revision at {endpoint}"),
        }
    }
}

impl Listing {
    fn has(&self, name: &str) -> bool {
        self.siblings.iter().any(|file| file.name == name)
    }

    fn has_weights(&self) -> bool {
        self.siblings.iter().any(|file| is_weights(&file.name))
    }

    /// The safetensors files of the model. A repository may have other files with that ending, so the index decides if
    /// there is one.
    fn weights(&self, fetch: impl Fn(&File) -> Result<PathBuf>) -> Result<Vec<&File>> {
        let named = |name: &str| self.siblings.iter().find(|file| file.name == name);
        if let Some(file) = named("model.safetensors") {
            return Ok(vec![file]);
        }
        let Some(index) = named(INDEX) else { return self.unindexed() };
        let path = fetch(index)?;
        let shown = || path.display().to_string();
        let text = fs::read_to_string(&path).or_fail(HubError::Cache, shown)?;
        let index: Index = serde_json::from_str(&text).or_fail(HubError::Content, shown)?;
        let shards: BTreeSet<String> = index.weight_map.into_values().collect();
        let shards = shards.iter().map(|name| {
            let absent = || format!("{INDEX} names {name:?}, which is not there");
            named(name).or_fail(HubError::Content, absent)
        });
        shards.collect()
    }

    /// The weights of a repository without an index: the shards by their numbering, or else every safetensors file.
    fn unindexed(&self) -> Result<Vec<&File>> {
        let all: Vec<&File> = self.siblings.iter().filter(|file| is_weights(&file.name)).collect();
        let shards: Vec<_> =
            all.iter().filter(|file| shard(&file.name).is_some()).copied().collect();
        let Some(total) = shards.first().and_then(|file| Some(shard(&file.name)?.total)) else {
            return Ok(all);
        };
        let is_there = |number| {
            shards.iter().any(|file| shard(&file.name).is_some_and(|s| s.number == number))
        };
        if let Some(number) = (1..=total).find(|&number| !is_there(number)) {
            return Err(fail!(
                Content,
                "shard {number} of {total} is not there, and neither is {INDEX}: the upload is not complete"
            ));
        }
        Ok(shards)
    }

    /// The GGUF file of a repository that has only one.
    fn only_gguf(&self, repo: &Repo) -> Result<&File> {
        let is_gguf = |file: &&File| file.name.ends_with(".gguf");
        let mut files = self.siblings.iter().filter(is_gguf);
        match (files.next(), files.next()) {
            (Some(file), None) => Ok(file),
            (None, _) => Err(fail!(
                Content,
                "{}: no model that Galley can read: neither config.json with *.safetensors, nor a \
                 .gguf file",
                repo.source()
            )),
            _ => Err(fail!(
                Choice,
                "{} has several models; choose one with --file:{}",
                repo.source(),
                self.names(|file| is_gguf(&file))
            )),
        }
    }

    /// Files and their sizes, one per line.
    fn names(&self, keep: impl Fn(&File) -> bool) -> String {
        let line = |file: &File| match file.lfs.as_ref().map(|lfs| lfs.size).or(file.size) {
            Some(size) => format!("\n  {} ({})", file.name, human_bytes(size)),
            None => format!("\n  {}", file.name),
        };
        self.siblings.iter().filter(|file| keep(file)).map(line).collect()
    }
}

/// A number of bytes for people, in units of 1024.
fn human_bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut size, mut unit) = (bytes as f64, None);
    for next in units {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, Some(next));
    }
    unit.map_or_else(|| format!("{bytes} B"), |unit| format!("{size:.2} {unit}"))
}

fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors") && !name.contains('/') && !name.starts_with("consolidated")
}

struct Shard {
    number: u32,
    total: u32,
}

/// The number of a shard and the number of shards, from a name such as `model-00001-of-00003.safetensors`.
fn shard(name: &str) -> Option<Shard> {
    let (rest, total) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
    let (_, number) = rest.rsplit_once('-')?;
    Some(Shard { number: number.parse().ok()?, total: total.parse().ok()? })
}

/// Whether a file describes the model, its tokenizer or its chat template.
fn is_description(name: &str) -> bool {
    let others = ["added_tokens.json", "special_tokens_map.json", "chat_template.json"];
    matches!(name, "config.json" | "generation_config.json" | "chat_template.jinja")
        || others.contains(&name)
        || (name.starts_with("tokenizer") && name.ends_with(".json") && !name.contains('/'))
}

/// Whether `text` is a SHA-1 or SHA-256 in hexadecimal, the name of a blob or a snapshot.
fn is_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A file name with the escapes of a URL.
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

#[cfg(test)]
mod tests {
    use super::human_bytes;

    #[test]
    fn sizes_are_shown_in_units_of_1024() {
        let sizes = [0, 1023, 1024, 98 << 20, u64::MAX].map(human_bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.00 KiB", "98.00 MiB", "16.00 EiB"]);
    }
}
