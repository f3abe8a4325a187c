//! Compiles the kernels: with nvcc (feature `cuda`), with a C++ compiler for the emulation
//! (`emulate`), or not at all.

#[path = "build/driver.rs"]
mod driver;
#[path = "build/nvcc.rs"]
mod nvcc;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Kernel sources: one compilation unit each.
const UNITS: [&str; 9] =
    ["attention", "history", "linear", "observe", "rope", "rows", "sample", "table", "verify"];

/// Sources of the emulation.
const EMULATOR: [&str; 6] = ["blocks", "collectives", "complaints", "fibers", "launch", "settings"];

fn main() -> ExitCode {
    for folder in ["cu", "emulator", "driver", "include", "build"] {
        println!("cargo:rerun-if-changed={folder}");
    }
    let has = |feature: &str| std::env::var_os(format!("CARGO_FEATURE_{feature}")).is_some();
    let mut result = Ok(());
    if has("EMULATE") {
        emulated();
        result = driver::compile();
    }
    if has("CUDA") {
        result = result.and_then(|()| nvcc::compile(&UNITS.map(|name| (name, unit(name)))));
    }
    if let Err(error) = result {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Compiles all units and the emulation into one library.
fn emulated() {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(2).include("include").include("emulator");
    // The units are C++ despite their extension. `#pragma unroll` is for nvcc alone.
    build.flag("-x").flag("c++").flag("-Wno-unknown-pragmas").flag("-Wno-unused-parameter");
    build.flag("-ffp-contract=off");
    build.files(UNITS.map(unit));
    build.files(EMULATOR.map(|name| format!("emulator/{name}.cpp")));
    build.compile("galley_emulated");
}

fn unit(name: &str) -> PathBuf {
    Path::new("cu").join(name).with_extension("cu")
}
