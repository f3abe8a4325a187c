//! Errors of reading or running a model.

use std::io;
use std::path::{Path, PathBuf};

/// Result of reading or running a model.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;

/// A model error. It names the file and the field, and the remedy if one is known.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file could not be read at all.
    #[error("{}: {}", path.display(), explain(path, reason))]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system. It is not the `source()`, which would print it twice.
        reason: io::Error,
    },
    /// The file is readable, but a field is impossible.
    #[error("{}: {field}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The JSON field, metadata key or tensor.
        field: String,
        /// The defect of the field.
        reason: String,
    },
    /// The file is sound, but needs a feature that Galley does not have.
    #[error("{}: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The missing feature, and the remedy if one is known.
        reason: String,
    },
    /// Text that cannot be turned into tokens, or a chat that its template refuses.
    #[error("{0}")]
    Text(String),
    /// The device refused.
    #[error(transparent)]
    Backend(#[from] galley_backend::BackendError),
}

impl ModelError {
    /// An [`ModelError::Invalid`].
    pub fn invalid(path: &Path, field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { path: path.into(), field: field.into(), reason: reason.into() }
    }

    /// An [`ModelError::Io`].
    pub fn io(path: &Path, reason: io::Error) -> Self {
        Self::Io { path: path.into(), reason }
    }

    /// An [`ModelError::Unsupported`].
    pub fn unsupported(path: &Path, reason: impl Into<String>) -> Self {
        Self::Unsupported { path: path.into(), reason: reason.into() }
    }
}

/// The error of the operating system about `path`, with a remedy if one is known.
fn explain(path: &Path, error: &io::Error) -> String {
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
