//! The environment as the Hugging Face libraries read it, and one variable of Galley's own, `GALLEY_CACHE`.
//! `pull` reads the environment only here.
//!
//! The reference is `huggingface_hub` 2.4 (`constants.py`, `utils/_auth.py`) and its HTTP client. There is one
//! difference: an empty variable counts as not set.

use super::proxy::Proxies;
use crate::error::{HubError, Or, Result, fail};
use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::HeaderValue;

/// Environment variables, and the user's home directory by the system.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    variables: BTreeMap<OsString, OsString>,
    home: Option<PathBuf>,
}

/// The destination of models.
#[derive(Clone, Debug)]
pub(super) struct Settings {
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
    pub(super) token: Token,
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
pub(super) enum Token {
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

impl Environment {
    pub(super) fn of_process() -> Self {
        Self { variables: env::vars_os().collect(), home: env::home_dir() }
    }

    #[cfg(test)]
    pub(super) fn of(variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        Self { variables: variables.collect(), home: None }
    }

    #[cfg(test)]
    pub(super) fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.insert(name.into(), value.into());
    }

    #[cfg(test)]
    pub(super) fn unset(&mut self, name: &str) {
        self.variables.remove(OsStr::new(name));
    }

    /// The value of a variable, which may be empty.
    fn even_empty(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    fn raw(&self, name: &str) -> Option<&OsStr> {
        self.even_empty(name).filter(|value| !value.is_empty())
    }

    /// The value of a variable without surrounding white space; None if nothing is left.
    fn text(&self, name: &str) -> Result<Option<String>> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        let text = value.to_str();
        let text =
            text.or_fail(HubError::Environment, || format!("{name}: the value is not Unicode"))?;
        Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
    }

    fn is_true(&self, name: &str) -> bool {
        let value = self.raw(name).unwrap_or_default().to_ascii_uppercase();
        ["1", "ON", "YES", "TRUE"].iter().any(|word| value == *word)
    }

    fn home(&self) -> Option<PathBuf> {
        let home = self.raw("HOME").or_else(|| self.raw("USERPROFILE"));
        home.map(PathBuf::from).or_else(|| self.home.clone())
    }

    /// A path with `~` and variables expanded. A path that is not Unicode stays as it is.
    fn path(&self, name: &str) -> Result<Option<PathBuf>> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        let Some(text) = value.to_str() else { return Ok(Some(value.into())) };
        let home = || self.home()?.into_os_string().into_string().ok();
        let variable = |name: &str| self.even_empty(name).and_then(OsStr::to_str);
        let path = shellexpand::full_with_context_no_errors(text, home, variable);
        // Otherwise a directory named `~` would be created in the current directory.
        let is_home = text.starts_with('~') && path.starts_with('~');
        if is_home {
            return Err(fail!(
                Environment,
                "{name}={text}: this home directory is not known; write the whole path"
            ));
        }
        Ok(Some(PathBuf::from(path.into_owned())))
    }

    /// The variable that names the proxy for `scheme`, and its URL. The rule is that of Python's `urllib`:
    /// the variable in lower case comes first, and its empty value means "no proxy".
    pub(super) fn proxy(&self, scheme: &str) -> Result<Option<(String, String)>> {
        let name = format!("{scheme}_proxy");
        let name = match self.even_empty(&name) {
            Some(_) => name,
            None => name.to_ascii_uppercase(),
        };
        Ok(self.text(&name)?.map(|url| (name, url)))
    }

    /// The hosts that need no proxy, as NO_PROXY lists them.
    pub(super) fn no_proxy(&self) -> Result<String> {
        Ok(self.proxy("no")?.map(|(_, hosts)| hosts).unwrap_or_default())
    }

    /// The directory of the Hugging Face libraries, by HF_HOME and its defaults.
    fn hf_home(&self) -> Result<Option<PathBuf>> {
        if let Some(path) = self.path("HF_HOME")? {
            return Ok(Some(path));
        }
        let cache = match self.path("XDG_CACHE_HOME")? {
            Some(path) => Some(path),
            None => self.home().map(|home| home.join(".cache")),
        };
        Ok(cache.map(|cache| cache.join("huggingface")))
    }

    fn seconds(&self, name: &str, default: Duration) -> Result<Duration> {
        let Some(text) = self.text(name)? else { return Ok(default) };
        let seconds: Result<u64, _> = text.parse();
        let what = || format!("{name}={text}: a number of seconds");
        let seconds = seconds.or_fail(HubError::Environment, what)?;
        // The libraries read 0 as the default.
        Ok(if seconds == 0 { default } else { Duration::from_secs(seconds) })
    }
}

impl Settings {
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
            token: Token::from(environment)?,
            proxies: Proxies::from(environment)?,
            certificates,
            metadata_timeout: seconds("HF_HUB_ETAG_TIMEOUT", METADATA_TIMEOUT)?,
            download_timeout: seconds("HF_HUB_DOWNLOAD_TIMEOUT", DOWNLOAD_TIMEOUT)?,
        })
    }
}

impl Token {
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
