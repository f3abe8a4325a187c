//! [`Backend`] on the CPU.

mod attention_units;
mod decoder;
mod memory;
mod row_units;
mod sampling;

use super::{CpuBackend, InstructionSet};
use crate::{Backend, Formats};

impl Backend for CpuBackend {
    fn description(&self) -> String {
        format!(
            "cpu ({}, {} threads, {})",
            self.instruction_set.name(),
            self.threads.n_threads(),
            self.formats
        )
    }

    fn arithmetic(&self, has_blocks: bool) -> String {
        arithmetic(self.instruction_set, self.formats, has_blocks)
    }
}

/// See [`Backend::arithmetic`].
pub fn arithmetic(instruction_set: InstructionSet, formats: Formats, has_blocks: bool) -> String {
    let formats = if has_blocks { formats } else { formats.expanded() };
    format!("cpu-{}-{formats}", instruction_set.of_same_bits().name())
}
