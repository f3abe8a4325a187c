//! The options of a drafter, as given or by default.

use std::fmt::Display;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The options of the manifest, each once, as given or by default.
#[derive(Clone, Debug, Default)]
pub struct Options(pub(crate) Vec<(String, String)>);

impl Options {
    /// The text of an option.
    ///
    /// # Errors
    ///
    /// If the manifest does not name it.
    pub fn text(&self, name: &str) -> Result<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        let (_, value) = found
            .ok_or_else(|| Error::invalid(format!("the manifest has no option \"{name}\"")))?;
        Ok(value)
    }

    /// The value of an option, read as `T`.
    ///
    /// # Errors
    ///
    /// The error gives the option, its value and the reason.
    pub fn parse<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T> {
        let value = self.text(name)?;
        value.trim().parse().map_err(|error| bad(name, value, &error))
    }

    /// The value of an option, read as a list with commas or spaces between its items. The empty
    /// text is the empty list.
    ///
    /// # Errors
    ///
    /// The error gives the option, its value and the reason.
    pub fn list<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Vec<T>> {
        let value = self.text(name)?;
        value
            .split([',', ' '])
            .filter(|part| !part.is_empty())
            .map(|part| part.parse().map_err(|error| bad(name, value, &error)))
            .collect()
    }

    /// The value of an option that is one of `choices`: pairs of a word and its value.
    ///
    /// # Errors
    ///
    /// The error gives the option, its value and the allowed words.
    pub fn choose<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T> {
        let value = self.text(name)?;
        choices.iter().find(|(word, _)| *word == value).map(|(_, choice)| *choice).ok_or_else(
            || {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                bad(name, value, &format_args!("one of {} is expected", words.join(", ")))
            },
        )
    }

    /// The error for an option with a value that makes no sense, for the drafter's own checks.
    pub fn refuse(&self, name: &str, why: &str) -> Error {
        bad(name, self.text(name).unwrap_or_default(), &why)
    }
}

fn bad(name: &str, value: &str, why: &dyn Display) -> Error {
    Error::invalid(format!("option {name}=\"{value}\": {why}"))
}
