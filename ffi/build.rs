//! The name that programs record of the shared library, and a mark that keeps it loaded.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let system = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let flags: &[&str] = match system.as_str() {
        "linux" | "android" | "freebsd" => &[
            // Until version 1.0 the interface may change, and its number is 0.
            "-Wl,-soname,libgalley.so.0",
            // The engine's threads run code of the library, so dlclose must not unload it.
            "-Wl,-z,nodelete",
        ],
        "macos" => &["-Wl,-install_name,@rpath/libgalley.0.dylib"],
        _ => &[],
    };
    for flag in flags {
        println!("cargo::rustc-cdylib-link-arg={flag}");
    }
}
