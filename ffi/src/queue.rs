//! Queues of events: reading them, and the memory of events that were read.
//!
//! A queue has two halves. [`Open`] is the engine's queue, and goes with galley_queue_close. The leases of events
//! that were read outlive it, and the handle leads to them until the last of them has been released.

use crate::border::{call, give};
use crate::codes;
use crate::engine::{OpenEngine, find_engine, galley_engine};
use crate::error::galley_error;
use crate::event::{Leases, MIN_EVENT_SIZE, galley_event};
use crate::failure::Failure;
use crate::handles::{Kind, Stale, Table};
use crate::signal::{Signal, Woken, deadline};
use ::galley_engine::{EventQueue, QueuedEvent};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A bounded queue of events, and the requests that they belong to.
pub enum galley_queue {}

pub(crate) struct Queue {
    /// None once the queue is closed.
    open: Mutex<Option<Arc<Open>>>,
    signal: Arc<Signal>,
    leases: Mutex<Lent>,
}

/// The engine's queue. The fields are dropped in their order: the queue before its engine.
pub(crate) struct Open {
    pub(crate) events: EventQueue,
    pub(crate) engine: Arc<OpenEngine>,
}

struct Lent {
    leases: Leases,
    /// No event is lent any more, and the handle goes with the last lease.
    is_closed: bool,
}

static QUEUES: Table<Arc<Queue>> = Table::new(Kind::Queue);

fn find_queue(queue: *mut galley_queue) -> Result<Arc<Queue>, Failure> {
    QUEUES.find(queue.addr() as u64).map_err(|stale| Failure::handle("queue", stale))
}

/// The engine's half of a queue.
pub(crate) fn find_open(queue: *mut galley_queue) -> Result<Arc<Open>, Failure> {
    find_queue(queue)?.open()
}

fn closed() -> Failure {
    Failure::new(codes::GALLEY_CLOSED, "the queue is closed")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic inside these locks leaves a lease too many at worst.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    fn open(&self) -> Result<Arc<Open>, Failure> {
        lock(&self.open).clone().ok_or_else(closed)
    }

    /// Waits until there are events, and takes up to `n_events` of them.
    fn take(
        &self,
        deadline: Option<Instant>,
        n_events: usize,
    ) -> Result<Vec<QueuedEvent>, Failure> {
        loop {
            let open = self.open()?;
            let mut taken = Vec::new();
            while taken.len() < n_events
                && let Some(event) = open.events.try_recv()
            {
                taken.push(event);
            }
            if taken.len() < n_events {
                // The queue was empty. Events that arrive from now on set the signal again.
                self.signal.clear();
                if open.events.rearm() {
                    self.signal.set();
                }
            }
            if !taken.is_empty() {
                return Ok(taken);
            }
            drop(open); // so that the queue ends at once when it is closed meanwhile
            match self.signal.wait(deadline) {
                Woken::Ready => {}
                Woken::TimedOut => return Ok(Vec::new()),
                Woken::Closed => return Err(closed()),
            }
        }
    }

    /// The events as C reads them.
    fn lend(&self, taken: Vec<QueuedEvent>) -> Result<Vec<galley_event>, Failure> {
        let mut lent = lock(&self.leases);
        if lent.is_closed {
            return Err(closed());
        }
        taken.into_iter().filter_map(|event| lent.leases.lend(event).transpose()).collect()
    }

    /// Whether the handle may go, after a close or a release.
    fn is_over(&self) -> bool {
        let lent = lock(&self.leases);
        lent.is_closed && lent.leases.is_empty()
    }
}

/// Removes a queue that nothing needs any more.
fn forget_if_over(handle: *const galley_queue, queue: &Queue) {
    if queue.is_over() {
        let _ = QUEUES.remove(handle.addr() as u64); // another thread may have done it
    }
}

/// Opens a queue of an engine. When capacity events are unread (at least 1), the sequences of this queue pause until
/// some are read; no event is lost, and other queues go on.
///
/// # Safety
///
/// Pointers are NULL, or valid as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn galley_queue_open(
    engine: *mut galley_engine,
    capacity: usize,
    out: *mut *mut galley_queue,
) -> *mut galley_error {
    let work = || {
        let engine = find_engine(engine)?;
        if capacity == 0 {
            return Err(Failure::argument("capacity", "at least 1"));
        }
        let signal = Arc::new(Signal::default());
        let wake = {
            let signal = Arc::clone(&signal);
            move || signal.set()
        };
        let events = engine.engine.event_queue(capacity, wake);
        let lent = Lent { leases: Leases::new(), is_closed: false };
        let open = Mutex::new(Some(Arc::new(Open { events, engine })));
        let queue = Arc::new(Queue { open, signal, leases: Mutex::new(lent) });
        let id = QUEUES.insert(queue).ok_or_else(|| Failure::full("queues"))?;
        Ok(std::ptr::without_provenance_mut(id as usize))
    };
    // SAFETY: the caller's promise.
    unsafe { give(out, std::ptr::null_mut(), work) }
}

/// Waits for events, and writes up to n_events of them. A negative timeout_ms waits without end, 0 does not wait.
///
/// events has room for n_events events of event_size bytes, which is sizeof(galley_event) in the caller's header. n
/// receives their number: 0 after the timeout. Each event must be released. Several threads may wait, and each event
/// reaches one of them. Events of a request arrive in order.
///
/// # Safety
///
/// Pointers are NULL, or valid as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn galley_queue_wait(
    queue: *mut galley_queue,
    timeout_ms: i64,
    events: *mut galley_event,
    event_size: usize,
    n_events: usize,
    n: *mut usize,
) -> *mut galley_error {
    let work = || {
        let queue = find_queue(queue)?;
        check_events(events, event_size)?;
        if n_events == 0 {
            return Err(Failure::argument("n_events", "at least 1"));
        }
        let deadline = deadline(timeout_ms);
        let lent = loop {
            let taken = queue.take(deadline, n_events)?;
            let is_over = taken.is_empty();
            let lent = queue.lend(taken)?;
            if is_over || !lent.is_empty() {
                break lent;
            }
        };
        for (i, event) in lent.iter().enumerate() {
            // SAFETY: the caller has room for n_events events of event_size bytes, and i is below n_events.
            unsafe { write_event(events.byte_add(i * event_size), event_size, event) };
        }
        Ok(lent.len())
    };
    // SAFETY: the caller's promise.
    unsafe { give(n, 0, work) }
}

/// Checks an array of events.
fn check_events(events: *const galley_event, event_size: usize) -> Result<(), Failure> {
    if events.is_null() || !events.is_aligned() {
        return Err(Failure::argument("events", "an array of galley_event, not NULL"));
    }
    if event_size < MIN_EVENT_SIZE || !event_size.is_multiple_of(align_of::<galley_event>()) {
        return Err(Failure::argument("event_size", "sizeof(galley_event)"));
    }
    Ok(())
}

/// Writes an event into a caller's place of `event_size` bytes, which may be older or newer than [`galley_event`].
///
/// # Safety
///
/// `to` is valid for writes of `event_size` bytes, at least [`MIN_EVENT_SIZE`].
unsafe fn write_event(to: *mut galley_event, event_size: usize, event: &galley_event) {
    let n_bytes = event_size.min(size_of::<galley_event>());
    let event = galley_event { size: n_bytes as u32, ..*event };
    // SAFETY: both places have n_bytes bytes and do not overlap; the remaining bytes are the caller's place too.
    unsafe {
        std::ptr::copy_nonoverlapping((&raw const event).cast::<u8>(), to.cast::<u8>(), n_bytes);
        to.cast::<u8>().add(n_bytes).write_bytes(0, event_size - n_bytes);
    }
}

/// Frees the texts, log-probabilities and JSON of events. Any number of the events of a wait may be released at a
/// time, in any order, also after the queue has been closed. An event that has been released already is
/// GALLEY_INVALID_ARGUMENT, or GALLEY_CLOSED if it was the last one of a closed queue; the remaining events are
/// released nevertheless.
///
/// # Safety
///
/// Pointers are NULL, or valid as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn galley_queue_release(
    queue: *mut galley_queue,
    events: *const galley_event,
    event_size: usize,
    n_events: usize,
) -> *mut galley_error {
    call(|| {
        let found = match QUEUES.find(queue.addr() as u64) {
            Err(stale @ Stale::Unknown) => return Err(Failure::handle("queue", stale)),
            found => found.ok(),
        };
        if n_events == 0 {
            return Ok(());
        }
        check_events(events, event_size)?;
        let mut tickets = (0..n_events).map(|i| {
            // SAFETY: the array has n_events events of event_size bytes, each at least as long as the first
            // version's.
            unsafe { (&raw const (*events.byte_add(i * event_size)).ticket).read() }
        });
        let Some(found) = found else {
            // A closed queue whose memory has been released. Events without memory may still come.
            return if tickets.all(|ticket| ticket == 0) { Ok(()) } else { Err(closed()) };
        };
        let mut lent = lock(&found.leases);
        let n_unknown = tickets.filter(|ticket| !lent.leases.release(*ticket)).count();
        drop(lent);
        forget_if_over(queue, &found);
        match n_unknown {
            0 => Ok(()),
            n => {
                Err(Failure::argument("events", &format!("unreleased: {n} of {n_events} are not")))
            }
        }
    })
}

/// A file descriptor that is readable while the queue has unread events, for poll, epoll and event loops. It belongs
/// to the queue: do not read, write or close it, and stop watching it before galley_queue_close. It may be readable
/// when another thread has read the events. GALLEY_UNSUPPORTED where the system has no eventfd.
///
/// fd receives the descriptor, or -1.
///
/// # Safety
///
/// Pointers are NULL, or valid as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn galley_queue_fd(
    queue: *mut galley_queue,
    fd: *mut i32,
) -> *mut galley_error {
    // SAFETY: the caller's promise.
    unsafe { give(fd, -1, || find_queue(queue)?.signal.descriptor()) }
}

/// Closes a queue: cancels its requests and discards its unread events. Threads that wait for its events return
/// GALLEY_CLOSED. Events that were read remain valid until they are released. If its engine has been closed, the engine
/// ends: see galley_engine_close.
#[unsafe(no_mangle)]
pub extern "C" fn galley_queue_close(queue: *mut galley_queue) -> *mut galley_error {
    call(|| {
        let found = find_queue(queue)?;
        let open = lock(&found.open).take().ok_or_else(closed)?;
        lock(&found.leases).is_closed = true;
        found.signal.close();
        forget_if_over(queue, &found);
        drop(open);
        Ok(())
    })
}
