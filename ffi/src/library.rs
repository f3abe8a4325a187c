//! The library itself: its versions, its abilities, and where it lies.

use crate::border::give;
use crate::codes;
use crate::error::galley_error;
use crate::strings::galley_string;
use galley_backend::cpu::InstructionSet;
use galley_engine::drafters::Search;
use serde_json::{Value, json};
use std::ffi::{CStr, OsStr, c_char};
use std::path::{Path, PathBuf};

/// The version of the interface that the library has. A program that was compiled with another GALLEY_ABI_VERSION
/// must not call any other function.
#[unsafe(no_mangle)]
pub extern "C" fn galley_abi_version() -> u32 {
    codes::GALLEY_ABI_VERSION
}

/// The version of Galley, such as "0.1.0". Lives as long as the library.
#[unsafe(no_mangle)]
pub extern "C" fn galley_version() -> *const c_char {
    VERSION.as_ptr()
}

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version has no NUL"),
    };

/// The abilities of this build on this machine, as JSON: {"version", "abi_version", "backends", "instruction_sets",
/// "drafters": [{"name", "version", "description", "path"}], "drafter_folders"}. A drafter that cannot be loaded has
/// {"path", "error"}.
///
/// out receives a text: free it with galley_string_free.
///
/// # Safety
///
/// Pointers are NULL, or valid as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn galley_features(out: *mut galley_string) -> *mut galley_error {
    // SAFETY: the caller's promise.
    unsafe { give(out, galley_string::EMPTY, || galley_string::new(features().to_string())) }
}

fn features() -> Value {
    let search = search(None);
    let drafters: Vec<Value> = search
        .all()
        .into_iter()
        .map(|found| {
            let path = found.path.to_string_lossy();
            match found.manifest {
                Ok(manifest) => json!({
                    "name": manifest.name,
                    "version": manifest.version,
                    "description": manifest.description,
                    "path": path,
                }),
                Err(error) => json!({"path": path, "error": error.to_string()}),
            }
        })
        .collect();
    let instruction_sets = InstructionSet::ALL.into_iter().filter(|set| set.is_available());
    let instruction_sets: Vec<_> = instruction_sets.map(InstructionSet::name).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "abi_version": codes::GALLEY_ABI_VERSION,
        "backends": backends(),
        "instruction_sets": instruction_sets,
        "drafters": drafters,
        "drafter_folders": search.folders,
    })
}

/// The kinds of devices that this build has code for.
fn backends() -> Vec<&'static str> {
    let built =
        [("cpu", true), ("cuda", cfg!(feature = "cuda")), ("emulated", cfg!(feature = "emulate"))];
    built.into_iter().filter(|(_, is_built)| *is_built).map(|(name, _)| name).collect()
}

/// The folders that are searched for drafters: `plugin_path`, folders around this library, folders around the
/// program, and the system's.
pub(crate) fn search(plugin_path: Option<&OsStr>) -> Search {
    let executable = std::env::current_exe().ok();
    let standard = Search::standard(None, executable.as_deref());
    let given = plugin_path.map(|list| std::env::split_paths(list).collect()).unwrap_or_default();
    let mut folders: Vec<PathBuf> = given;
    let mut own = Vec::new();
    if let Some(beside) = own_path().as_deref().and_then(Path::parent) {
        own.push(beside.join("../lib/galley/drafters"));
        own.push(beside.join("galley/drafters"));
        own.push(beside.to_owned());
    }
    folders.extend(own.iter().cloned());
    folders.extend(standard.folders);
    own.extend(standard.own);
    folders.retain(|folder| !folder.as_os_str().is_empty());
    Search { folders, own }
}

/// The file of this library, or of the program if the library is linked into it.
#[cfg(unix)]
fn own_path() -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    let own: *const () = galley_version as extern "C" fn() -> *const c_char as *const ();
    // SAFETY: dladdr looks an address up, and writes to `info`.
    let found = unsafe { libc::dladdr(own.cast(), &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: a name that dladdr found ends with a NUL, and lives as long as the library.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    // Links are followed: a link in another folder has no drafters beside it.
    std::fs::canonicalize(OsStr::from_bytes(name.to_bytes())).ok()
}

/// This system does not say where a library lies.
#[cfg(not(unix))]
fn own_path() -> Option<PathBuf> {
    None
}
