//! A GPU, through the CUDA driver.

use super::device::Device;
use crate::{BackendError, Result};
use std::sync::Arc;

/// Opens the GPU of this ordinal.
pub(super) fn open(ordinal: usize) -> Result<Arc<dyn Device>> {
    Err(BackendError::Unsupported(format!("GPU {ordinal}: this build cannot open it")))
}
