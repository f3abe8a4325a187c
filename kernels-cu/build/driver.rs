//! The emulated driver: a shared library under the name that the driver's has.

use std::env;
use std::path::PathBuf;

type Result<T, E = String> = std::result::Result<T, E>;

/// What loads the driver looks for a library of this name, and finds the one that is loaded already.
const NAME: &str = "libcuda.so";

const SOURCES: [&str; 5] = [
    "driver/calls.cpp",
    "driver/driver.cpp",
    "driver/memory.cpp",
    "driver/streams.cpp",
    "emulator/settings.cpp",
];

/// Compiles it and tells the crate where it is.
pub(crate) fn compile() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: cargo sets it")?);
    // In a folder of its own: cargo puts `OUT_DIR` where programs that it runs look for libraries, and one that wants
    // the driver of the machine must not find this.
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
