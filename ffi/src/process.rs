//! The process that owns the handles. In its forked children there are no engine threads, and a lock may be held for
//! ever.

use std::sync::atomic::{AtomicU32, Ordering};

/// The id of the process that has opened an engine; 0 before that.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Makes this process the owner of the handles. Called before an engine is opened.
pub(crate) fn own() {
    // A failure means that this process is the owner already: a child is refused before it comes here.
    let _ = OWNER.compare_exchange(0, std::process::id(), Ordering::Relaxed, Ordering::Relaxed);
}

/// Whether this process was forked from a process that had opened an engine.
pub(crate) fn is_child() -> bool {
    let owner = OWNER.load(Ordering::Relaxed);
    owner != 0 && owner != std::process::id()
}
