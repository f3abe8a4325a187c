//! An allocator that counts, a thread at a time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator. A program that counts has it as its `#[global_allocator]`.
pub struct Counting;

thread_local! {
    // Neither made on first use nor dropped: an allocator may not allocate.
    static N_ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Allocations and reallocations that `call` makes on this thread.
pub fn allocations(call: impl FnOnce()) -> u64 {
    let before = N_ALLOCATIONS.get();
    call();
    N_ALLOCATIONS.get() - before
}

// SAFETY: everything is passed on to the system's allocator as it came.
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
