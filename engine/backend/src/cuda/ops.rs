//! [`Backend`] on a GPU, or on its emulation.

mod decoder;
mod memory;
mod sampling;

use super::CudaBackend;
use crate::{Backend, DeviceMemory};

impl Backend for CudaBackend {
    fn description(&self) -> String {
        let given_up = self.graphs.given_up.as_ref();
        let why = given_up.map_or(String::new(), |why| format!(", forwards not recorded: {why}"));
        format!("{}, {}{why}", self.device.description(), self.formats())
    }

    fn arithmetic(&self, _has_blocks: bool) -> String {
        format!("{}-{}", self.device.architecture(), self.formats())
    }

    fn is_asynchronous(&self) -> bool {
        true
    }
}
