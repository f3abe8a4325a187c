//! Files of a model: finding them, reading JSON, and recognising files that are something else.

mod json;
mod mistakes;

pub(crate) use json::{failed, read_json, read_json_if_there};
pub(crate) use mistakes::recognise;

use crate::{ModelError, Result};
use std::path::Path;

/// Whether the file exists. An error if its folder may not be searched, as the answer is unknown.
pub(crate) fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|error| ModelError::io(path, error))
}

/// Names of the files and folders in `directory`, in alphabetical order.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>> {
    let failed = |error| ModelError::io(directory, error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}
