//! What can go wrong with a drafter before it guesses, by what the caller can do about it.

use std::path::PathBuf;

/// Why a drafter cannot be loaded, created or activated.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Check the path and its permissions.
    #[error("cannot read drafter {}: {source}; check the path and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Name a file, or give the folder that it is in.
    #[error(
        "{} is {what}, and a drafter is a file: \
         name the file (.so), or its folder with --plugin-path and the drafter with --drafter",
        path.display()
    )]
    NotAFile {
        /// What was named.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// Name another file.
    #[error("{} is no drafter: it has no manifest (GD_MANIFEST); name another file", path.display())]
    NoManifest {
        /// The file.
        path: PathBuf,
    },
    /// Ask the drafter's author, or write the manifest right.
    #[error("the manifest of {} is wrong: {reason}; correct it and build again", path.display())]
    BadManifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Build the drafter against this Galley's header, or use another Galley.
    #[error(
        "drafter {} does not fit this Galley: {reason}; \
         build it against this Galley's galley_drafter.h or use another version",
        path.display()
    )]
    Incompatible {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// Install what the library is linked against, or build it for this machine.
    #[error(
        "cannot load {}: {reason}; \
         build it for this machine and install what it is linked against",
        path.display()
    )]
    Unloadable {
        /// The file.
        path: PathBuf,
        /// What the dynamic linker says.
        reason: String,
    },
    /// Choose one that is there, or say where to look.
    #[error(
        "no drafter named {name:?}; found: {available}; looked in: {folders}; \
         add its folder to GALLEY_PLUGIN_PATH or give the path of its file with --drafter-plugin"
    )]
    NotFound {
        /// The name asked for.
        name: String,
        /// What is there.
        available: String,
        /// Where was looked.
        folders: String,
    },
    /// Use an option that the drafter knows.
    #[error("drafter {drafter} has no option {option:?}; it knows: {known}")]
    UnknownOption {
        /// The drafter.
        drafter: String,
        /// The option asked for.
        option: String,
        /// Its options.
        known: String,
    },
    /// The drafter said no: its sentence says why.
    #[error(
        "drafter {drafter} failed to {action}: {reason}; \
         change its options or choose another drafter"
    )]
    Refused {
        /// The drafter.
        drafter: String,
        /// What it was asked to do.
        action: &'static str,
        /// Its last logged error, or the name of the status.
        reason: String,
    },
    /// Create the drafter anew, or go on without it.
    #[error("drafter {drafter} was set aside: {reason}; create it anew or choose another")]
    SetAside {
        /// The drafter.
        drafter: String,
        /// Why.
        reason: String,
    },
}
