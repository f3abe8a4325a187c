//! The emulated driver: a shared library with the file name of the CUDA driver.

use std::env;
use std::path::PathBuf;

type Result<T, E = String> = std::result::Result<T, E>;

/// A program that searches for the driver by this name finds the library that is loaded already.
const NAME: &str = "libcuda.so";

const SOURCES: [&str; 5] = [
    "driver/calls.cpp",
    "driver/driver.cpp",
    "driver/memory.cpp",
    "driver/streams.cpp",
    "emulator/settings.cpp",
];

/// Compiles the emulated driver, and sets its path in `GALLEY_EMULATED_DRIVER` for the crate.
pub(crate) fn compile() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: cargo sets it")?);
    // The library has a folder of its own: cargo adds `OUT_DIR` to the library path of the programs
    // that it runs, and a program that needs the machine's driver must not find this one.
    let folder = out.join("driver");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let library = folder.join(NAME);
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(2).pic(true).warnings(true).extra_warnings(true);
    let mut command = build.get_compiler().to_command();
    command.args(["-shared", "-pthread", "-fvisibility=hidden"]).arg(format!("-Wl,-soname,{NAME}"));
    command.args(SOURCES).arg("-o").arg(&library);
    let status = command.status().map_err(|error| format!("a C++ compiler: {error}"))?;
    if !status.success() {
        return Err(format!("the emulated driver does not compile: {status}"));
    }
    println!("cargo:rustc-env=GALLEY_EMULATED_DRIVER={}", library.display());
    Ok(())
}
