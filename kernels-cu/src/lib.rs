//! The kernels of the CUDA backend: `.cu` sources, launchers in C, and their table.
//!
//! `include/galley_kernels.h` is the contract. The same sources are compiled by nvcc for a GPU (feature `cuda`) and by a
//! C++ compiler for an emulation of the device on the CPU (feature `emulate`): both give a [`bindings::gk_kernels`],
//! and callers need not know which one they have. Without features the crate holds types alone and needs no compiler.

#[allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unsafe_op_in_unsafe_fn,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "generated: the header documents and names them"
)]
pub mod bindings;

#[cfg(feature = "emulate")]
mod recording;

use bindings::gk_kernels;
#[cfg(feature = "emulate")]
pub use recording::{Recording, record};

/// The kernels for a GPU. Loading them needs no GPU: launchers answer with an error where there is none.
#[cfg(feature = "cuda")]
pub fn cuda() -> &'static gk_kernels {
    // SAFETY: it returns the address of a constant.
    unsafe { &*bindings::galley_cuda_kernels() }
}

/// The kernels on the CPU: "device memory" is ordinary memory, launchers return when the work is done.
#[cfg(feature = "emulate")]
pub fn emulated() -> &'static gk_kernels {
    // SAFETY: it returns the address of a constant.
    unsafe { &*bindings::galley_emulated_kernels() }
}
