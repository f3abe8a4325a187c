//! The process that owns the handles. In its forked children there are no engine threads, and a lock may be held for
//! ever.

use std::process::id;
use std::sync::atomic::{AtomicU64, Ordering};

/// The id of the process that has opened an engine (upper half), and the number of its engines that are being opened
/// or have been opened (lower half). 0 before that. One number, so that a child never sees half of a change.
static OWNER: AtomicU64 = AtomicU64::new(0);

const PROCESS_BITS: u32 = 32;

fn process(owner: u64) -> u64 {
    owner >> PROCESS_BITS
}

/// An engine that is being opened. Dropped without [`Owning::keep`], the opening does not count.
pub(crate) struct Owning {
    is_open: bool,
}

/// Makes this process the owner of the handles. Called before the first thread of an engine starts.
pub(crate) fn own() -> Owning {
    change(|owner| match process(owner) {
        0 => u64::from(id()) << PROCESS_BITS | 1,
        _ => owner + 1,
    });
    Owning { is_open: false }
}

impl Owning {
    /// The engine is open: this process remains the owner, also after the engine has been closed.
    pub(crate) fn keep(mut self) {
        self.is_open = true;
    }
}

impl Drop for Owning {
    fn drop(&mut self) {
        if self.is_open {
            return;
        }
        let last = u64::from(id()) << PROCESS_BITS | 1;
        change(|owner| if owner == last { 0 } else { owner.saturating_sub(1) });
    }
}

/// Changes the owner, unless it is another process: a fork while an engine is opened leaves the child a child.
fn change(next: impl Fn(u64) -> u64) {
    let next = |owner| (owner == 0 || process(owner) == u64::from(id())).then(|| next(owner));
    let _ = OWNER.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
}

/// Whether this process was forked from a process that had opened an engine.
pub(crate) fn is_child() -> bool {
    let owner = process(OWNER.load(Ordering::Relaxed));
    owner != 0 && owner != u64::from(id())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only test that touches the owner: it belongs to the process.
    #[test]
    fn an_engine_that_was_not_opened_makes_no_owner() {
        let owner = || OWNER.load(Ordering::Relaxed);
        let (first, second) = (own(), own());
        drop(first);
        assert_eq!(process(owner()), u64::from(id()), "another engine is being opened");
        drop(second);
        assert_eq!(owner(), 0);
        own().keep();
        drop(own());
        assert!(process(owner()) == u64::from(id()) && !is_child());
        // A control: the state that a child of process 1 inherits while an engine is opened.
        let inherited = 1 << PROCESS_BITS | 1;
        OWNER.store(inherited, Ordering::Relaxed);
        assert!(is_child());
        drop(Owning { is_open: false });
        assert_eq!(owner(), inherited, "a child remains a child");
        OWNER.store(0, Ordering::Relaxed);
    }
}
