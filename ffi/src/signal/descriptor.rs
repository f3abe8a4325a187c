//! An eventfd: a file descriptor that is readable while its count is not zero.

use crate::codes;
use crate::failure::Failure;
use std::fs::File;
use std::io::{Error, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub(crate) struct Descriptor(File);

impl Descriptor {
    pub(crate) fn new() -> Result<Self, Failure> {
        // SAFETY: the call takes numbers alone.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            let message =
                format!("the system gives no file descriptor: {}", Error::last_os_error());
            return Err(Failure::new(codes::GALLEY_FAILED, message));
        }
        // SAFETY: the descriptor is open, and nothing else has its number.
        Ok(Descriptor(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    pub(crate) fn number(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Makes it readable. A write fails only when the count is at its end, and then it is readable.
    pub(crate) fn set(&self) {
        let _ = (&self.0).write(&1_u64.to_ne_bytes());
    }

    /// Makes it unreadable. A read fails only when the count is zero, and then it is unreadable.
    pub(crate) fn clear(&self) {
        let _ = (&self.0).read(&mut [0; 8]);
    }
}

#[cfg(test)]
pub(crate) fn is_readable(fd: i32) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: the array has one element, which lives during the call.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}
