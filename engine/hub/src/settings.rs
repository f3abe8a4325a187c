//! The settings of the hub and the cache by the variables of the Hugging Face libraries, and by one variable of Galley's
//! own, `GALLEY_CACHE`.
//!
//! The reference is `huggingface_hub` 2.4 (`constants.py`, `utils/_auth.py`) and its HTTP client. There is one
//! difference: an empty variable counts as not set.

use super::environment::Environment;
use super::proxy::Proxies;
use crate::error::{HubError, Or, Result, fail};
use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::HeaderValue;

/// The destination of models.
#[derive(Clone, Debug)]
pub(super) struct HubSettings {
    /// The cache: a directory for each repository.
    pub(super) cache: PathBuf,
    /// The variable that forbids the network, if one is set: only the cache is used.
    pub(super) offline: Option<&'static str>,
    /// The Python interpreter with the pip that fetches packages.
    pub(super) python: PathBuf,
}

/// The source of models, and the connection to it.
#[derive(Debug)]
pub(super) struct Network {
    /// The hub, without a slash at the end.
    pub(super) endpoint: String,
    pub(super) token: AccessToken,
    pub(super) proxies: Proxies,
    /// Files and directories of certificates that replace the system's store, with the variables that name them.
    pub(super) certificates: Vec<(&'static str, PathBuf)>,
    /// Longest wait for the next bytes of a listing.
    pub(super) metadata_timeout: Duration,
    /// Longest wait for the next bytes of a file.
    pub(super) download_timeout: Duration,
}

/// The access token. It is sent to the hub, never to a server that the hub redirects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AccessToken {
    Absent,
    Given {
        value: String,
        /// The variable or the file that holds the token.
        source: String,
    },
    /// The user forbids sending a token.
    Withheld,
    /// The file of the token cannot be read; the text has the file and the reason.
    Unreadable(String),
}

const HUB: &str = "https://huggingface.co";
const METADATA_TIMEOUT: Duration = Duration::from_secs(60);
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Variables for certificates. The files of all that are set are read, in this order.
const CERTIFICATES: [&str; 4] =
    ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];
const NO_TOKEN: &str = "HF_HUB_DISABLE_IMPLICIT_TOKEN";

impl HubSettings {
    pub(super) fn from(environment: &Environment) -> Result<Self> {
        let mut cache = None;
        for name in ["GALLEY_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"] {
            if cache.is_none() {
                cache = environment.path(name)?;
            }
        }
        let cache = match cache {
            Some(cache) => cache,
            None => environment
                .hf_home()?
                .or_fail(HubError::Environment, || {
                    "no place for models: set GALLEY_CACHE to a directory".into()
                })?
                .join("hub"),
        };
        // As in the libraries, the second variable counts if the first one is not set, but not if the first
        // one is false.
        let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
            .into_iter()
            .find(|name| environment.raw(name).is_some())
            .filter(|name| environment.is_true(name));
        Ok(Self { cache, offline, python: "python3".into() })
    }
}

impl Network {
    pub(super) fn from(environment: &Environment) -> Result<Self> {
        let endpoint = environment.text("HF_ENDPOINT")?.unwrap_or_else(|| HUB.into());
        let is_url = endpoint.starts_with("https://") || endpoint.starts_with("http://");
        if !is_url {
            return Err(fail!(
                Environment,
                "HF_ENDPOINT={endpoint}: an address begins with https:// or http://"
            ));
        }
        let mut certificates = Vec::new();
        for name in CERTIFICATES {
            let Some(value) = environment.path(name)? else { continue };
            match name {
                "SSL_CERT_DIR" => {
                    let directories = env::split_paths(&value);
                    certificates.extend(directories.map(|path| (name, path)));
                }
                _ => certificates.push((name, value)),
            }
        }
        let seconds = |name, default| environment.seconds(name, default);
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: AccessToken::from(environment)?,
            proxies: Proxies::from(environment)?,
            certificates,
            metadata_timeout: seconds("HF_HUB_ETAG_TIMEOUT", METADATA_TIMEOUT)?,
            download_timeout: seconds("HF_HUB_DOWNLOAD_TIMEOUT", DOWNLOAD_TIMEOUT)?,
        })
    }
}

impl AccessToken {
    fn from(environment: &Environment) -> Result<Self> {
        if environment.is_true(NO_TOKEN) {
            return Ok(Self::Withheld);
        }
        let variables = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];
        if let Some(name) = variables.into_iter().find(|name| environment.raw(name).is_some())
            && let Some(value) = environment.text(name)?.and_then(|text| clean(&text))
        {
            return Ok(Self::Given { value, source: name.into() });
        }
        let file = match environment.path("HF_TOKEN_PATH")? {
            Some(file) => Some(file),
            None => environment.hf_home()?.map(|home| home.join("token")),
        };
        Ok(file.map_or(Self::Absent, |file| Self::from_file(&file)))
    }

    fn from_file(file: &Path) -> Self {
        match fs::read_to_string(file) {
            Ok(text) => match clean(text.trim_start_matches('\u{feff}')) {
                Some(value) => Self::Given { value, source: file.display().to_string() },
                None => Self::Absent,
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Self::Absent,
            // A public model needs no token, so an unreadable file is an error only if the hub refuses the request.
            Err(error) => Self::Unreadable(format!("{}: {error}", file.display())),
        }
    }

    /// The value of the `Authorization` header, if there is a token.
    pub(super) fn header(&self) -> Result<Option<HeaderValue>> {
        let Self::Given { value, source } = self else { return Ok(None) };
        if let Some((at, c)) = value.char_indices().find(|(_, c)| !c.is_ascii_graphic()) {
            return Err(fail!(
                Environment,
                "the access token of {source} has {c:?} at byte {at}, which no token has: copy the token again"
            ));
        }
        let header = HeaderValue::try_from(format!("Bearer {value}"));
        let mut header =
            header.or_fail(HubError::Environment, || format!("the access token of {source}"))?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    /// An addition to a refusal that explains why no token was sent.
    pub(super) fn note(&self) -> String {
        match self {
            Self::Withheld => format!(" (no token was sent, because {NO_TOKEN} is set)"),
            Self::Unreadable(reason) => format!(" (no token was sent: {reason})"),
            Self::Absent | Self::Given { .. } => String::new(),
        }
    }
}

/// A token without line ends and surrounding white space; None if nothing is left.
fn clean(text: &str) -> Option<String> {
    let token = text.replace(['\r', '\n'], "").trim().to_owned();
    Some(token).filter(|token| !token.is_empty())
}
