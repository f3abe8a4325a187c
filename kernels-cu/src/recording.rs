//! Recordings: launches of the emulation that are kept, to be run later. What CUDA graphs are on a GPU.

use crate::bindings;
use std::ffi::c_void;
use std::ptr::NonNull;

/// Launches of one thread, in order, with their arguments.
#[derive(Debug)]
pub struct Recording(NonNull<c_void>);

// SAFETY: it is a list that nobody changes between its making and its drop, and that no thread owns.
unsafe impl Send for Recording {}
// SAFETY: a replay reads the list alone.
unsafe impl Sync for Recording {}

/// Keeps the launches of this thread from here on, instead of running them, until [`Recording::end`].
///
/// # Errors
///
/// The code of a launcher, where this thread records already.
pub fn record() -> Result<(), i32> {
    // SAFETY: it takes nothing and touches what belongs to this thread.
    code(unsafe { bindings::galley_emulated_begin_recording() })
}

impl Recording {
    /// What this thread launched since [`record`].
    ///
    /// # Errors
    ///
    /// The code of a launcher, where this thread does not record.
    pub fn end() -> Result<Self, i32> {
        let mut launches = std::ptr::null_mut();
        // SAFETY: `launches` is a place for one pointer.
        code(unsafe { bindings::galley_emulated_end_recording(&raw mut launches) })?;
        NonNull::new(launches).map(Self).ok_or(bindings::GK_BAD_CALL)
    }

    /// Runs the launches in order, over what now lies in memory; returns when they are done.
    ///
    /// # Errors
    ///
    /// The code of a launcher, where this thread records.
    ///
    /// # Safety
    ///
    /// The memory that the recorded calls name is still there, and as their launchers want it.
    pub unsafe fn replay(&self) -> Result<(), i32> {
        // SAFETY: the pointer came from `end` and is freed by drop alone; the caller answers for the memory.
        code(unsafe { bindings::galley_emulated_replay(self.0.as_ptr()) })
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `end`, and this is its last use.
        unsafe { bindings::galley_emulated_free_recording(self.0.as_ptr()) }
    }
}

fn code(code: i32) -> Result<(), i32> {
    if code == 0 { Ok(()) } else { Err(code) }
}
