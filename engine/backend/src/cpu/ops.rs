//! [`Backend`] on the CPU.

mod attention_units;
mod decoder;
mod memory;
mod row_units;
mod sampling;

use super::CpuBackend;
use crate::Backend;

impl Backend for CpuBackend {
    fn description(&self) -> String {
        format!(
            "cpu ({}, {} threads, {})",
            self.instruction_set.name(),
            self.threads.n_threads(),
            self.dtype
        )
    }
}
