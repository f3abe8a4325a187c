//! Errors before a drafter can draft, one variant for each remedy.

use std::path::PathBuf;

/// Why a drafter cannot be loaded, created or activated.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read. Remedy: check the path and its permissions.
    #[error("cannot read drafter {}: {source}; check the path and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The path is no file. Remedy: name a file, or give the folder that holds it.
    #[error(
        "{} is {kind}, and a drafter is a file: \
         name the file (.so), or its folder with --plugin-path and the drafter with --drafter",
        path.display()
    )]
    NotAFile {
        /// The given path.
        path: PathBuf,
        /// The kind of thing at that path.
        kind: &'static str,
    },
    /// The file has no manifest. Remedy: name another file.
    #[error("{} is no drafter: it has no manifest (GD_MANIFEST); name another file", path.display())]
    NoManifest {
        /// The file.
        path: PathBuf,
    },
    /// The manifest is wrong. Remedy: ask the drafter's author, or correct the manifest.
    #[error("the manifest of {} is wrong: {reason}; correct it and build again", path.display())]
    BadManifest {
        /// The file.
        path: PathBuf,
        /// The fault in the manifest.
        reason: String,
    },
    /// The ABI does not fit. Remedy: build the drafter against this Galley's header, or use another
    /// Galley.
    #[error(
        "drafter {} does not fit this Galley: {reason}; \
         build it against this Galley's galley_drafter.h or use another version",
        path.display()
    )]
    Incompatible {
        /// The file.
        path: PathBuf,
        /// The difference.
        reason: String,
    },
    /// The dynamic linker failed. Remedy: install the libraries it is linked against, or build it
    /// for this machine.
    #[error(
        "cannot load {}: {reason}; \
         build it for this machine and install the libraries it is linked against",
        path.display()
    )]
    Unloadable {
        /// The file.
        path: PathBuf,
        /// The message of the dynamic linker.
        reason: String,
    },
    /// No drafter has this name. Remedy: choose an available one, or give its folder.
    #[error(
        "no drafter named {name:?}; found: {available}; looked in: {folders}; \
         add its folder to GALLEY_PLUGIN_PATH or give the path of its file with --drafter-plugin"
    )]
    NotFound {
        /// The requested name.
        name: String,
        /// The names that were found.
        available: String,
        /// The folders that were searched.
        folders: String,
    },
    /// The drafter has no such option. Remedy: use one of its options.
    #[error("drafter {drafter} has no option {option:?}; it knows: {known}")]
    UnknownOption {
        /// The drafter.
        drafter: String,
        /// The requested option.
        option: String,
        /// Its options.
        known: String,
    },
    /// The drafter refused; its own message says why.
    #[error(
        "drafter {drafter} failed to {action}: {reason}; \
         change its options or choose another drafter"
    )]
    Refused {
        /// The drafter.
        drafter: String,
        /// The requested action.
        action: &'static str,
        /// Its last logged error, or the name of the status.
        reason: String,
    },
    /// The drafter was set aside. Remedy: create it anew, or continue without it.
    #[error("drafter {drafter} was set aside: {reason}; create it anew or choose another")]
    SetAside {
        /// The drafter.
        drafter: String,
        /// The reason why it was set aside.
        reason: String,
    },
}
