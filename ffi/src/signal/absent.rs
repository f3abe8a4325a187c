//! A system without eventfd: there is no descriptor.

use crate::codes;
use crate::failure::Failure;

pub(crate) enum Descriptor {}

impl Descriptor {
    pub(crate) fn new() -> Result<Self, Failure> {
        let message = "this system has no eventfd: call galley_queue_wait on a thread of its own";
        Err(Failure::new(codes::GALLEY_UNSUPPORTED, message))
    }

    pub(crate) fn number(&self) -> i32 {
        match *self {}
    }

    pub(crate) fn set(&self) {
        match *self {}
    }

    pub(crate) fn clear(&self) {
        match *self {}
    }
}
