//! Environment variables, read as the Hugging Face libraries read them: an empty variable counts as not set.

use crate::error::{HubError, Or, Result, fail};
use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

/// Environment variables, and the user's home directory by the system.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    variables: BTreeMap<OsString, OsString>,
    home: Option<PathBuf>,
}

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

    pub(super) fn raw(&self, name: &str) -> Option<&OsStr> {
        self.even_empty(name).filter(|value| !value.is_empty())
    }

    /// The value of a variable without surrounding white space; None if nothing is left.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        let text = value.to_str();
        let text =
            text.or_fail(HubError::Environment, || format!("{name}: the value is not Unicode"))?;
        Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        let value = self.raw(name).unwrap_or_default().to_ascii_uppercase();
        ["1", "ON", "YES", "TRUE"].iter().any(|word| value == *word)
    }

    fn home(&self) -> Option<PathBuf> {
        let home = self.raw("HOME").or_else(|| self.raw("USERPROFILE"));
        home.map(PathBuf::from).or_else(|| self.home.clone())
    }

    /// A path with `~` and variables expanded. A path that is not Unicode stays as it is.
    pub(super) fn path(&self, name: &str) -> Result<Option<PathBuf>> {
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
    pub(super) fn hf_home(&self) -> Result<Option<PathBuf>> {
        if let Some(path) = self.path("HF_HOME")? {
            return Ok(Some(path));
        }
        let cache = match self.path("XDG_CACHE_HOME")? {
            Some(path) => Some(path),
            None => self.home().map(|home| home.join(".cache")),
        };
        Ok(cache.map(|cache| cache.join("huggingface")))
    }

    pub(super) fn seconds(&self, name: &str, default: Duration) -> Result<Duration> {
        let Some(text) = self.text(name)? else { return Ok(default) };
        let seconds: Result<u64, _> = text.parse();
        let sentence = || format!("{name}={text}: a number of seconds");
        let seconds = seconds.or_fail(HubError::Environment, sentence)?;
        // The libraries read 0 as the default.
        Ok(if seconds == 0 { default } else { Duration::from_secs(seconds) })
    }
}
