//! Errors of a device.

/// Result of a backend operation.
pub type Result<T, E = BackendError> = std::result::Result<T, E>;

/// A device error. The variants differ in the remedy that the caller has.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// An allocation exceeds the memory of the device: allocate less.
    #[error("out of memory: {purpose} needs {needed_bytes} bytes")]
    OutOfMemory {
        /// The data to allocate.
        purpose: &'static str,
        /// The size of the allocation.
        needed_bytes: u128,
    },
    /// Two shapes disagree: the caller has a bug, or a file states a wrong shape.
    #[error("{op}: expected {expected}, got {got}")]
    Shape {
        /// The operation that returns the error.
        op: &'static str,
        /// The shape or value that the operation requires.
        expected: String,
        /// The shape or value that it received.
        got: String,
    },
    /// An operation failed on the device: the state of the device is unknown afterwards.
    #[error("{op} on the device failed: {error}")]
    Device {
        /// The operation that failed.
        op: &'static str,
        /// The driver's name of the error, or a description.
        error: String,
    },
    /// The configured number of threads cannot be started: configure fewer.
    #[error("{n_threads} threads cannot be started: {error}")]
    Threads {
        /// The configured number of threads.
        n_threads: usize,
        /// The reason.
        error: String,
    },
    /// The device has no kernel for a format beside the other formats: configure a supported one.
    #[error("no kernel for {setting} in {value}: supported here is {supported}")]
    Format {
        /// The field of [`Formats`](crate::Formats).
        setting: &'static str,
        /// Its value.
        value: String,
        /// The supported values.
        supported: String,
    },
    /// Weights and operands are floats of two formats: configure one format, or quantised weights.
    #[error(
        "weights {weights} do not go with dtype {dtype}: dtype {dtype} takes weights native, q8, q4 or {dtype}, and \
         weights {weights} take dtype {weights}"
    )]
    FormatPair {
        /// The format of weights.
        weights: String,
        /// The format of operands and KV cache.
        dtype: String,
    },
    /// A setting that this machine or build does not support.
    #[error("{0}")]
    Unsupported(String),
}
