//! The kernels of the CUDA backend: `.cu` sources, launchers in C, and their table.
//!
//! `include/galley_kernels.h` is the contract. The same sources are compiled by nvcc for a GPU
//! (feature `cuda`) and by a C++ compiler for an emulation of the device on the CPU (feature
//! `emulate`). Both provide a [`bindings::gk_kernels`], and callers need not know which one they
//! have. Without features the crate contains only types, and needs no compiler.

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

#[cfg(any(feature = "cuda", feature = "emulate"))]
use bindings::gk_kernels;

/// The CUDA release of the linked runtime, such as "13.0". It needs a driver of the same major
/// release or newer.
#[cfg(feature = "cuda")]
pub const CUDA_RELEASE: &str = env!("GALLEY_CUDA_RELEASE");

/// The path of a shared library that is the CUDA driver on the CPU, for tests: `driver/driver.h`
/// describes it. Once it is loaded, a search for the driver finds it.
#[cfg(feature = "emulate")]
pub const EMULATED_DRIVER: &str = env!("GALLEY_EMULATED_DRIVER");

/// The kernels for a GPU. Loading them needs no GPU: launchers return an error if there is none.
#[cfg(feature = "cuda")]
pub fn cuda() -> &'static gk_kernels {
    // SAFETY: the function returns the address of a constant.
    unsafe { &*bindings::galley_cuda_kernels() }
}

/// The kernels on the CPU. With a null stream, launchers return when the work is done, and "device
/// memory" is ordinary memory. Any other stream comes from [`EMULATED_DRIVER`].
#[cfg(feature = "emulate")]
pub fn emulated() -> &'static gk_kernels {
    // SAFETY: the function returns the address of a constant.
    unsafe { &*bindings::galley_emulated_kernels() }
}

#[cfg(all(test, feature = "cuda"))]
mod tests {
    use super::*;
    use std::ffi::CStr;

    /// `cudaErrorInsufficientDriver`: the runtime also returns it on a machine without a driver.
    const NO_DRIVER: i32 = 35;

    /// The table and the error names are there without a driver, too.
    #[test]
    fn the_table_is_there_without_a_gpu() {
        let kernels = cuda();
        // SAFETY: the table is constant: null-terminated names, functions that match their types.
        let name = unsafe { CStr::from_ptr(kernels.name) };
        assert_eq!(name.to_str(), Ok("cuda"));
        let error_name = kernels.error_name.expect("a table without holes");
        // SAFETY: as above.
        let name = unsafe { CStr::from_ptr(error_name(NO_DRIVER)) };
        assert_eq!(name.to_str(), Ok("cudaErrorInsufficientDriver"));
    }

    /// A launch without a driver returns an error and does not crash.
    #[test]
    fn a_launch_without_a_driver_is_an_error() {
        if std::path::Path::new("/dev/nvidiactl").exists() {
            println!("skipped: this machine has a driver");
            return;
        }
        let null = std::ptr::null_mut::<f32>();
        let call = bindings::gk_angles {
            positions: null.cast(),
            inv_freq: null.cast(),
            angles: null,
            n_rows: 1,
            half: 32,
            scale: 1.0,
        };
        let angles = cuda().angles.expect("a table without holes");
        // SAFETY: the call outlives the launch, and there is no device to follow its pointers.
        let error = unsafe { angles(&call, null.cast()) };
        assert_eq!(error, NO_DRIVER);
    }
}
