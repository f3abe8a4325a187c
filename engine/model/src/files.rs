//! Files of a model: finding them, reading JSON, and recognising files that are something else.

mod json;
mod mistakes;

pub(crate) use json::{failed, read_json, read_json_if_there};
pub(crate) use mistakes::recognise;

use crate::{ModelError, Result};
use std::io;
use std::path::{Path, PathBuf};

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

/// The error of the operating system about `path`, with a remedy if one is known.
pub(crate) fn explain(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => match closed_folder(path) {
            Some(folder) => format!(
                "{error}: the folder {} may not be searched by this user: `chmod u+rx` it, or ask its owner",
                folder.display()
            ),
            None => format!("{error}: the file may not be read by this user: ask its owner"),
        },
        io::ErrorKind::NotFound if path.is_symlink() => format!(
            "{error}: it is a link to a file that is gone, as when a cache of the hub was cleaned: fetch the model again"
        ),
        io::ErrorKind::IsADirectory => format!("{error}: a file is needed here"),
        _ => error.to_string(),
    }
}

/// The outermost folder on the way to `path` without search permission.
fn closed_folder(path: &Path) -> Option<PathBuf> {
    let folders: Vec<_> =
        path.ancestors().skip(1).filter(|folder| *folder != Path::new("")).collect();
    let is_closed = |folder: &&&Path| {
        let found = folder.join(".").metadata();
        found.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    folders.iter().rev().find(is_closed).map(|folder| folder.to_path_buf())
}
