//! The environment variables that the Hugging Face libraries know, and one of our own.

use anyhow::{Context, Result};
use std::env;
use std::fs;
use std::path::PathBuf;

/// Where models come from and go to.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// The cache: a directory for each repository.
    pub(super) cache: PathBuf,
    /// The hub, without a slash at the end.
    pub(super) endpoint: String,
    /// Sent to the hub, never to the servers it redirects to.
    pub(super) token: Option<String>,
    /// Use nothing but the cache.
    pub(super) offline: bool,
    /// The interpreter whose pip fetches packages.
    pub(super) python: PathBuf,
}

impl Settings {
    pub(super) fn from_env() -> Result<Self> {
        Self::from(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// As [`Settings::from_env`], with the variables in `var`.
    pub(super) fn from(var: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let path = |name| var(name).map(PathBuf::from);
        let home = || path("HOME").or_else(|| path("USERPROFILE"));
        let hf_home = path("HF_HOME")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(home()?.join(".cache/huggingface")));
        let cache = path("GALLEY_CACHE")
            .or_else(|| path("HF_HUB_CACHE"))
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(hf_home.as_ref()?.join("hub")))
            .context("no place for models: set GALLEY_CACHE to a directory")?;
        let token = var("HF_TOKEN").or_else(|| {
            let file = path("HF_TOKEN_PATH").or_else(|| Some(hf_home?.join("token")))?;
            let token = fs::read_to_string(file).ok()?.trim().to_owned();
            Some(token).filter(|token| !token.is_empty())
        });
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let offline = var("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_lowercase();
        Ok(Self {
            cache,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            offline: matches!(offline.as_str(), "1" | "true" | "yes" | "on"),
            python: "python3".into(),
        })
    }
}
