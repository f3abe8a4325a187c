//! A file mapped into memory: the only `unsafe` of this crate.

use crate::{ModelError, Result};
use memmap2::{Mmap, UncheckedAdvice};
use std::{
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
};

/// A read-only mapping of a whole file.
#[derive(Debug)]
pub(super) struct Mapped {
    path: PathBuf,
    map: Mmap,
}

impl Mapped {
    /// Maps a regular file that is not empty.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| ModelError::io(path, error))?;
        let facts = file.metadata().map_err(|error| ModelError::io(path, error))?;
        if !facts.is_file() {
            return Err(ModelError::invalid(path, "file", "is not a regular file"));
        }
        if facts.len() == 0 {
            let reason = "is empty: the download did not finish, so download it again";
            return Err(ModelError::invalid(path, "file", reason));
        }
        // SAFETY: the mapping is private and read-only, so nothing here writes to it. Other
        // programs may write to the file. Their bytes can then appear in a tensor, where every bit
        // pattern is a valid number: the model computes nonsense. Headers are copied before they
        // are parsed, so checked offsets stay valid. If the file is truncated, reading the lost
        // pages raises SIGBUS and ends the process, as for every program that maps a file.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| ModelError::io(path, error))?;
        Ok(Self { path: path.into(), map })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of the file.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Tells the operating system that these bytes will not be needed soon. Only pages that lie
    /// wholly inside the range are dropped, so that neighbouring tensors keep their pages.
    pub(super) fn release(&self, range: Range<usize>) {
        let start = range.start.next_multiple_of(PAGE);
        let end = range.end.min(self.map.len()) / PAGE * PAGE;
        if start < end {
            // SAFETY: the mapping is read-only and backed by a file, so dropping its pages loses
            // nothing: the next access reads them from the file again. The range is inside the
            // mapping. A failure only costs memory, so it is ignored.
            let _ = unsafe {
                self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start)
            };
        }
    }
}

/// A multiple of every page size that the platform uses.
const PAGE: usize = if cfg!(target_arch = "x86_64") { 4 << 10 } else { 64 << 10 };
