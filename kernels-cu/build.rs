//! Compiles the kernels: by nvcc (feature `cuda`), by a C++ compiler for the emulation (feature `emulate`), or not at all.

use std::path::{Path, PathBuf};

/// Kernel sources: one compilation unit each.
const UNITS: [&str; 7] = ["attention", "linear", "observe", "rope", "rows", "sample", "table"];

/// Sources of the emulation.
const EMULATOR: [&str; 6] = ["blocks", "collectives", "fibers", "launch", "recordings", "settings"];

fn main() {
    for folder in ["cu", "emulator", "include"] {
        println!("cargo:rerun-if-changed={folder}");
    }
    if std::env::var_os("CARGO_FEATURE_EMULATE").is_some() {
        emulated();
    }
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some() {
        cuda();
    }
}

/// All units and the emulation, as one library.
fn emulated() {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(2).include("include").include("emulator");
    // Units are C++ by content, not by name. `#pragma unroll` is nvcc's.
    build.flag("-x").flag("c++").flag("-Wno-unknown-pragmas").flag("-Wno-unused-parameter");
    build.flag("-ffp-contract=off");
    build.files(UNITS.map(unit));
    build.files(EMULATOR.map(|name| format!("emulator/{name}.cpp")));
    build.compile("galley_emulated");
}

/// One library a unit: with several units in one build, `cc` would switch to relocatable device code, which is slower.
fn cuda() {
    for name in UNITS {
        let mut build = cc::Build::new();
        build.cuda(true).cpp(true).std("c++17").include("include").debug(false);
        build.flag("-O3").file(unit(name));
        build.compile(&format!("galley_cuda_{name}"));
    }
}

fn unit(name: &str) -> PathBuf {
    Path::new("cu").join(name).with_extension("cu")
}
