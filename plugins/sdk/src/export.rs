//! The border to the host: the expansion of `export_drafter!`, and the callbacks that the host
//! calls. Panics and errors stop here.

use std::any::Any;
use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use galley_drafter_abi::{
    GD_ABI_MAJOR, GD_ABI_MINOR, GD_EXT_FEEDBACK, GD_INVALID, GD_MANIFEST_MARK, GD_NO_GUESS, GD_OK,
    GD_PANIC, GD_WRONG_PHASE, gd_batch, gd_cost, gd_drafter, gd_drafter_feedback, gd_host,
    gd_library, gd_limits, gd_option, gd_status, gd_str, gd_verified,
};

use crate::control::Control;
use crate::error::{Error, Result};
use crate::feedback::{Feedback, rows};
use crate::host::{Host, Level, read};
use crate::options::Options;
use crate::step::Step;
use crate::{CostAt, Drafter, Guess, Limits};

pub use galley_drafter_abi::gd_library as RawLibrary;

/// Makes this library a drafter. A library says `export_drafter!(Type, r#"{"id": …}"#)` once:
/// `Type` is a [`Drafter`], and the text is the manifest that `galley_drafter.h` describes.
#[macro_export]
macro_rules! export_drafter {
    ($drafter:ty, $manifest:literal $(,)?) => {
        const _: () = {
            const TEXT: &str = concat!("galley-drafter-manifest/1:", $manifest, "\0");
            #[used]
            static MANIFEST: [u8; TEXT.len()] = $crate::export::manifest(TEXT);
            struct Exported;
            impl $crate::export::Exported for Exported {
                type Drafter = $drafter;
                const FEEDBACK: Option<$crate::export::FeedbackTable> = {
                    use $crate::export::NoFeedback as _;
                    $crate::export::Tables::<$drafter>::FEEDBACK
                };
            }
            static LIBRARY: $crate::export::Library =
                $crate::export::Library::new::<Exported>(&MANIFEST);

            // SAFETY: the header gives this name to this function, and a library has only one of them.
            #[unsafe(no_mangle)]
            extern "C" fn galley_drafter_v1() -> *const $crate::export::RawLibrary {
                LIBRARY.as_ptr()
            }
        };
    };
}

/// A drafter and its tables, as [`export_drafter!`] finds them.
pub trait Exported: 'static {
    /// The drafter.
    type Drafter: Drafter;
    /// The table of `galley.feedback/1`.
    const FEEDBACK: Option<FeedbackTable>;
}

/// A table of `galley.feedback/1`.
pub type FeedbackTable = &'static gd_drafter_feedback;

/// The tables of a drafter. A constant of the type itself comes before one of a trait, so that the
/// traits of a drafter decide which tables it has.
pub struct Tables<D>(PhantomData<D>);

impl<D: Feedback> Tables<D> {
    /// The table of a drafter with [`Feedback`].
    pub const FEEDBACK: Option<FeedbackTable> = Some(&gd_drafter_feedback {
        struct_size: size_of::<gd_drafter_feedback>(),
        feedback: Some(feedback::<D>),
    });
}

/// The absence of [`Feedback`].
pub trait NoFeedback {
    /// No table.
    const FEEDBACK: Option<FeedbackTable> = None;
}

impl<D> NoFeedback for Tables<D> {}

/// The bytes of a manifest, checked when the drafter is compiled.
pub const fn manifest<const N: usize>(text: &str) -> [u8; N] {
    let (text, mut bytes, mut i) = (text.as_bytes(), [0; N], 0);
    while i < N {
        assert!((text[i] == 0) == (i == N - 1), "a manifest has no NUL inside");
        assert!(
            i + 1 >= GD_MANIFEST_MARK.len() || text[i] == GD_MANIFEST_MARK[i],
            "the mark is that of the header"
        );
        bytes[i] = text[i];
        i += 1;
    }
    bytes
}

/// The value that the entry point gives to the host.
pub struct Library(gd_library);

// SAFETY: the library is never written, and its pointers lead to statics.
unsafe impl Sync for Library {}

impl Library {
    /// The library of a drafter, with the manifest that [`manifest`] made.
    pub const fn new<E: Exported>(manifest: &'static [u8]) -> Self {
        Self(gd_library {
            struct_size: size_of::<gd_library>(),
            abi_major: GD_ABI_MAJOR,
            abi_minor: GD_ABI_MINOR,
            manifest: manifest.as_ptr().cast(),
            create: Some(create::<E>),
        })
    }

    /// The pointer that the entry point returns.
    pub const fn as_ptr(&self) -> *const gd_library {
        &raw const self.0
    }
}

/// The struct behind the `*mut gd_drafter` that `create` gives to the host.
#[repr(C)]
struct Shell<D> {
    head: gd_drafter, // first, so that a pointer to it is a pointer to the shell
    host: Host,
    options: Options,
    drafter: Option<D>, // from activate to deactivate
}

/// # Safety
///
/// The arguments are as the header says of `gd_library.create`.
unsafe extern "C" fn create<E: Exported>(
    host: *const gd_host,
    options: *const gd_option,
    n_options: usize,
    out: *mut *mut gd_drafter,
) -> gd_status {
    if host.is_null() || out.is_null() || (options.is_null() && n_options > 0) {
        return GD_INVALID;
    }
    // SAFETY: the host lives until destroy returns, and destroy drops the shell with its copies of
    // the host.
    let host = unsafe { Host::new(host) };
    guard(host, "create", || {
        let mut copies = Options::default();
        for i in 0..n_options {
            // SAFETY: the host gives n_options options, which live until this call returns.
            let option = unsafe { options.add(i).read() };
            // SAFETY: as above; both strings belong to the option.
            let (name, value) = unsafe { (copy(option.name)?, copy(option.value)?) };
            copies.0.push((name, value));
        }
        let head = gd_drafter {
            struct_size: size_of::<gd_drafter>(),
            data: std::ptr::null_mut(),
            destroy: Some(destroy::<E::Drafter>),
            activate: Some(activate::<E::Drafter>),
            deactivate: Some(deactivate::<E::Drafter>),
            after_prefill: Some(after_prefill::<E::Drafter>),
            guess: Some(guess::<E::Drafter>),
            end: Some(end::<E::Drafter>),
            cost: Some(cost::<E::Drafter>),
            get_extension: Some(get_extension::<E>),
        };
        let shell = Box::new(Shell::<E::Drafter> { head, host, options: copies, drafter: None });
        // SAFETY: `out` is the host's place for the new drafter.
        unsafe { out.write(Box::into_raw(shell).cast()) };
        Ok(GD_OK)
    })
}

unsafe extern "C" fn destroy<D: Drafter>(raw: *mut gd_drafter) {
    // SAFETY: create made `raw` as a boxed Shell<D>, and the host calls destroy last.
    let shell = unsafe { Box::from_raw(raw.cast::<Shell<D>>()) };
    guard(shell.host, "destroy", move || {
        drop(shell);
        Ok(GD_OK)
    });
}

unsafe extern "C" fn activate<D: Drafter>(
    raw: *mut gd_drafter,
    limits: *const gd_limits,
) -> gd_status {
    // SAFETY: create made `raw` as a Shell<D>; the host makes one call at a time.
    let shell = unsafe { &mut *raw.cast::<Shell<D>>() };
    guard(shell.host, "activate", || {
        if shell.drafter.is_some() {
            return Err(Error::with_status(GD_WRONG_PHASE, "the drafter is active already"));
        }
        // SAFETY: the host's limits begin with struct_size and are numbers.
        let limits = unsafe { read(limits) };
        let limits = Limits {
            max_rows: limits.max_rows,
            max_draft_length: limits.max_draft_length,
            max_context_tokens: limits.max_context_tokens,
        };
        shell.drafter = Some(D::activate(&Control::new(shell.host), &shell.options, &limits)?);
        Ok(GD_OK)
    })
}

unsafe extern "C" fn deactivate<D: Drafter>(raw: *mut gd_drafter) {
    // SAFETY: create made `raw` as a Shell<D>; the host makes one call at a time.
    let shell = unsafe { &mut *raw.cast::<Shell<D>>() };
    guard(shell.host, "deactivate", || {
        drop(shell.drafter.take());
        Ok(GD_OK)
    });
}

unsafe extern "C" fn after_prefill<D: Drafter>(
    raw: *mut gd_drafter,
    batch: *const gd_batch,
) -> gd_status {
    // SAFETY: create made `raw` as a Shell<D>; the host makes one call at a time.
    let shell = unsafe { &mut *raw.cast::<Shell<D>>() };
    guard(shell.host, "after_prefill", || {
        // SAFETY: the host's batch begins with struct_size and is made of numbers.
        let step = Step::new(shell.host, unsafe { read(batch) });
        active(&mut shell.drafter)?.after_prefill(&step)?;
        Ok(GD_OK)
    })
}

unsafe extern "C" fn guess<D: Drafter>(raw: *mut gd_drafter, batch: *const gd_batch) -> gd_status {
    // SAFETY: create made `raw` as a Shell<D>; the host makes one call at a time.
    let shell = unsafe { &mut *raw.cast::<Shell<D>>() };
    guard(shell.host, "guess", || {
        // SAFETY: the host's batch begins with struct_size and is made of numbers.
        let step = Step::new(shell.host, unsafe { read(batch) });
        Ok(match active(&mut shell.drafter)?.guess(&step)? {
            Guess::Enqueued => GD_OK,
            Guess::Nothing => GD_NO_GUESS,
        })
    })
}

unsafe extern "C" fn end<D: Drafter>(raw: *mut gd_drafter, sequence: u64) {
    // SAFETY: create made `raw` as a Shell<D>; the host makes one call at a time.
    let shell = unsafe { &mut *raw.cast::<Shell<D>>() };
    guard(shell.host, "end", || {
        active(&mut shell.drafter)?.end(sequence);
        Ok(GD_OK)
    });
}

unsafe extern "C" fn cost<D: Drafter>(
    raw: *mut gd_drafter,
    context_tokens: u64,
    budget_tokens: u32,
    out: *mut gd_cost,
) -> gd_status {
    // SAFETY: create made `raw` as a Shell<D>; the host makes one call at a time.
    let shell = unsafe { &mut *raw.cast::<Shell<D>>() };
    guard(shell.host, "cost", || {
        let at = CostAt { context_tokens, budget_tokens };
        let cost = active(&mut shell.drafter)?.cost(&at);
        // SAFETY: `out` has the fields that its struct_size covers, and both fields exist since
        // 1.0.
        unsafe {
            (&raw mut (*out).weights_read).write(cost.weights_read);
            (&raw mut (*out).kv_tokens_read).write(cost.kv_tokens_read);
        }
        Ok(GD_OK)
    })
}

unsafe extern "C" fn feedback<D: Feedback>(raw: *mut gd_drafter, verified: *const gd_verified) {
    // SAFETY: create made `raw` as a Shell<D>; the host makes one call at a time.
    let shell = unsafe { &mut *raw.cast::<Shell<D>>() };
    guard(shell.host, "feedback", || {
        // SAFETY: the struct begins with struct_size and is made of numbers and pointers.
        let verified = unsafe { read(verified) };
        // SAFETY: the arrays have n_rows items, which live until this call returns.
        let rows = unsafe { rows(&verified) };
        active(&mut shell.drafter)?.feedback(rows);
        Ok(GD_OK)
    });
}

/// Answers for every drafter of the library alike, so the drafter is not looked at.
unsafe extern "C" fn get_extension<E: Exported>(
    _: *mut gd_drafter,
    id: *const c_char,
) -> *const c_void {
    if id.is_null() {
        return std::ptr::null();
    }
    // SAFETY: not NULL, and the header promises a NUL-terminated text.
    let id = unsafe { CStr::from_ptr(id) };
    match E::FEEDBACK {
        Some(table) if id.to_bytes_with_nul() == GD_EXT_FEEDBACK => {
            std::ptr::from_ref(table).cast()
        }
        _ => std::ptr::null(),
    }
}

fn active<D>(drafter: &mut Option<D>) -> Result<&mut D> {
    drafter.as_mut().ok_or_else(|| Error::with_status(GD_WRONG_PHASE, "the drafter is not active"))
}

/// Runs the body of a callback. An error or a panic becomes a sentence in the log and a status.
fn guard(host: Host, callback: &str, body: impl FnOnce() -> Result<gd_status>) -> gd_status {
    // A drafter that panicked may be inconsistent. It is safe code, so it can be wrong but not
    // undefined.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            host.log(Level::Error, &error.to_string());
            error.status()
        }
        Err(panic) => {
            host.log(Level::Error, &format!("panic in {callback}: {}", message(&*panic)));
            GD_PANIC
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "without a message",
    }
}

/// # Safety
///
/// `text.len` bytes can be read at `text.ptr`.
unsafe fn copy(text: gd_str) -> Result<String> {
    if text.ptr.is_null() || text.len == 0 {
        return Ok(String::new());
    }
    // SAFETY: promised by the caller.
    let bytes = unsafe { std::slice::from_raw_parts(text.ptr.cast::<u8>(), text.len) };
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::invalid("an option is not UTF-8"))
}
