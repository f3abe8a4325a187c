//! A drafter's shared library: loaded after its manifest has been checked, and never unloaded.

use std::error::Error as _;
use std::ffi::CStr;
use std::mem::{ManuallyDrop, offset_of};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use galley_drafter_abi as abi;

use crate::ffi::read_prefix;
use crate::{LoadError, Manifest};

/// A loaded library. Its code stays until the process ends, because threads of the library may
/// still run.
#[derive(Debug)]
pub struct Library {
    path: PathBuf,
    manifest: Manifest,
    create: CreateFn,
    _code: Arc<ManuallyDrop<libloading::Library>>,
}

/// The function that creates a drafter: `gd_library.create` of the header.
///
/// # Safety
///
/// The host must live until the drafter is destroyed, and the options until the call returns.
pub type CreateFn = unsafe extern "C" fn(
    *const abi::gd_host,
    *const abi::gd_option,
    usize,
    *mut *mut abi::gd_drafter,
) -> abi::gd_status;

impl Library {
    /// Reads the manifest, loads the file, and checks that the loaded library has the same
    /// manifest.
    pub fn open(path: &Path) -> Result<Arc<Library>, LoadError> {
        let manifest = Manifest::of_file(path)?;
        // The linker would search a bare file name in the system's folders and might load another
        // file.
        let absolute = std::path::absolute(path)
            .map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })?;
        let code = ManuallyDrop::new(load(&absolute).map_err(|e| LoadError::Unloadable {
            path: path.to_owned(),
            reason: linker_says(&e),
        })?);
        let create = entry(&code, &manifest)
            .map_err(|reason| LoadError::Incompatible { path: path.to_owned(), reason })?;
        let code = Arc::new(code);
        Ok(Arc::new(Library { path: path.to_owned(), manifest, create, _code: code }))
    }

    /// The manifest of the library.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The path it was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The function that creates its drafters.
    pub fn create_fn(&self) -> CreateFn {
        self.create
    }

    /// The same library with another `create`, so that a tool can interpose itself between drafter
    /// and host.
    ///
    /// # Safety
    ///
    /// `create` must meet every requirement of the header on `gd_library.create`, because this host
    /// relies on them.
    pub unsafe fn with_create(&self, create: CreateFn) -> Arc<Library> {
        let (path, manifest) = (self.path.clone(), self.manifest.clone());
        Arc::new(Library { path, manifest, create, _code: Arc::clone(&self._code) })
    }
}

/// The dynamic linker's message. libloading holds it as the source of an error that only names the
/// failed function.
fn linker_says(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(unix)]
fn load(path: &Path) -> Result<libloading::Library, libloading::Error> {
    use libloading::os::unix;
    // SAFETY: loading runs the library's initialisers. The user gave this file or put it into a
    // folder for drafters, and its manifest declares it a drafter.
    let code = unsafe { unix::Library::open(Some(path), unix::RTLD_NOW | unix::RTLD_LOCAL)? };
    Ok(code.into())
}

#[cfg(not(unix))]
fn load(path: &Path) -> Result<libloading::Library, libloading::Error> {
    // SAFETY: as above.
    unsafe { libloading::Library::new(path) }
}

/// Calls the entry symbol and checks the returned `gd_library`.
fn entry(code: &libloading::Library, manifest: &Manifest) -> Result<CreateFn, String> {
    type EntryFn = unsafe extern "C" fn() -> *const abi::gd_library;
    // SAFETY: the header fixes the type of the symbol with this name.
    let symbol = unsafe { code.get::<EntryFn>(abi::GD_ENTRY_SYMBOL) }
        .map_err(|e| format!("it has no entry symbol galley_drafter_v1 ({})", linker_says(&e)))?;
    // SAFETY: the header promises a function without arguments.
    let library = NonNull::new(unsafe { symbol() }.cast_mut()).ok_or("its entry gives NULL")?;
    // SAFETY: the header promises a static struct that begins with its size; no field beyond that
    // size is read.
    let library: abi::gd_library = unsafe { read_prefix(library.as_ptr()) };
    if library.struct_size < offset_of!(abi::gd_library, manifest) {
        return Err(format!("its gd_library has {} bytes, too few", library.struct_size));
    }
    if library.abi_major != abi::GD_ABI_MAJOR {
        return Err(format!(
            "it speaks major version {} of the drafter ABI, and this Galley {}",
            library.abi_major,
            abi::GD_ABI_MAJOR
        ));
    }
    let create = library.create.ok_or("its gd_library has no create")?;
    if library.manifest.is_null() {
        return Err("its gd_library has no manifest".to_owned());
    }
    // SAFETY: not NULL, and the header promises a NUL-terminated text that lives as long as the code.
    let text = unsafe { CStr::from_ptr(library.manifest) };
    let loaded = Manifest::of_marked(text.to_bytes())
        .map_err(|reason| format!("the manifest in its gd_library is wrong: {reason}"))?;
    if loaded != *manifest {
        return Err("the manifest in its gd_library is another than the file's".to_owned());
    }
    Ok(create)
}
