//! What can go wrong on a device.

/// Result of a backend operation.
pub type Result<T, E = BackendError> = std::result::Result<T, E>;

/// A device error, named by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The device cannot hold what was asked for: ask for less.
    #[error("out of memory: {what} needs {needed_bytes} bytes")]
    OutOfMemory {
        /// What was being allocated.
        what: &'static str,
        /// Its size.
        needed_bytes: u128,
    },
    /// Two shapes that must agree do not: a bug in the caller or a lying file.
    #[error("{op}: expected {expected}, got {got}")]
    Shape {
        /// The operation that refused.
        op: &'static str,
        /// What it wants.
        expected: String,
        /// What it was given.
        got: String,
    },
    /// The device refused or failed: its state is unknown from here on.
    #[error("{op} on the device failed: {error}")]
    Device {
        /// What was being done.
        op: &'static str,
        /// The error, by the name its maker gave it.
        error: String,
    },
    /// The threads that were asked for cannot be started: ask for fewer.
    #[error("{n_threads} threads cannot be started: {error}")]
    Threads {
        /// How many were asked for.
        n_threads: usize,
        /// What is in the way.
        error: String,
    },
    /// A setting that this machine or build does not have.
    #[error("{0}")]
    Unsupported(String),
}
