//! An allocator that counts allocations per thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator with a counter. A program that counts allocations sets it as its
/// `#[global_allocator]`.
pub struct Counting;

thread_local! {
    // A const initialiser and no destructor, because an allocator must not allocate.
    static N_ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Allocations and reallocations that `call` makes on this thread.
pub fn allocations(call: impl FnOnce()) -> u64 {
    let before = N_ALLOCATIONS.get();
    call();
    N_ALLOCATIONS.get() - before
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        N_ALLOCATIONS.set(N_ALLOCATIONS.get() + 1);
        // SAFETY: promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, n_bytes: usize) -> *mut u8 {
        N_ALLOCATIONS.set(N_ALLOCATIONS.get() + 1);
        // SAFETY: promised by the caller.
        unsafe { System.realloc(at, layout, n_bytes) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: promised by the caller.
        unsafe { System.dealloc(at, layout) }
    }
}
