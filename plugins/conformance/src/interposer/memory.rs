//! Copies of structs that are lent to a drafter: on the heap, in whole words, with traps after
//! their end.

use super::between_of;
use crate::observed::Breach;
use galley_drafter_abi::{GD_INTERNAL, gd_host, gd_status};

/// A struct of the header as words; the first word is its size.
pub(super) struct GuardedWords(Vec<usize>);

impl GuardedWords {
    /// # Safety
    ///
    /// `T` is a struct of the header: it consists of whole words and has no padding.
    pub(super) unsafe fn of<T: Copy>(value: &T) -> Self {
        let mut words = vec![0; size_of::<T>() / size_of::<usize>()];
        let bytes = words.as_mut_ptr().cast::<u8>();
        // SAFETY: there is room for size_of::<T>() bytes, and the caller promises that all of them
        // are initialised.
        unsafe {
            let from = std::ptr::from_ref(value).cast::<u8>();
            bytes.copy_from_nonoverlapping(from, size_of_val(words.as_slice()));
        }
        GuardedWords(words)
    }

    /// Keeps `n_kept` words, and fills the words after them with traps; `is_newer` declares the
    /// traps as fields of a later version.
    pub(super) fn with_traps(mut self, n_kept: Option<usize>, is_newer: bool) -> Self {
        let trap = trap as unsafe extern "C" fn(*const gd_host) -> gd_status as usize;
        let n_words = self.0.len();
        let n_kept = n_kept.unwrap_or(n_words).clamp(1, n_words);
        self.0[n_kept..].fill(trap);
        self.0.resize(n_words + N_TRAPS, trap);
        let n_said = if is_newer { n_words + N_TRAPS } else { n_kept };
        self.0[0] = n_said * size_of::<usize>();
        self
    }

    /// The struct as the host passed it, so that a sanitizer sees reads beyond its end; with
    /// `is_newer`, a larger struct.
    pub(super) fn given(mut self, is_newer: bool) -> Self {
        if is_newer {
            self.0.resize(self.0.len() + N_TRAPS, GARBAGE);
            self.0[0] = size_of_val(self.0.as_slice());
        }
        self
    }

    pub(super) fn as_ptr<T>(&self) -> *const T {
        self.0.as_ptr().cast()
    }

    /// For a struct that the drafter fills.
    pub(super) fn as_mut_ptr<T>(&mut self) -> *mut T {
        self.0.as_mut_ptr().cast()
    }

    pub(super) fn is_same(&self, other: &[usize]) -> bool {
        self.0 == other
    }

    pub(super) fn to_vec(&self) -> Vec<usize> {
        self.0.clone()
    }

    /// Whether the words after the first `n_words` are unchanged.
    pub(super) fn is_whole_behind(&self, n_words: usize) -> bool {
        self.0[n_words..].iter().all(|&word| word == GARBAGE)
    }

    /// Appends a guard that `struct_size` does not cover.
    pub(super) fn guarded(mut self) -> Self {
        self.0.resize(self.0.len() + N_TRAPS, GARBAGE);
        self
    }
}

/// Copies a struct up to its `struct_size`. Missing fields are zero.
///
/// # Safety
///
/// `from` points to a size, and that many bytes can be read; zeros are a valid `T`.
pub(super) unsafe fn prefix_of<T: Copy>(from: *const T) -> T {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: the caller promises the bytes, and the copy never exceeds the size of `value`.
    unsafe {
        let n_bytes =
            from.cast::<usize>().read_unaligned().clamp(size_of::<usize>(), size_of::<T>());
        // Half a pointer counts as missing.
        let n_bytes = n_bytes / size_of::<usize>() * size_of::<usize>();
        value.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(from.cast(), n_bytes);
        value.assume_init()
    }
}

/// Stands in the words after the end of a table.
unsafe extern "C" fn trap(host: *const gd_host) -> gd_status {
    // SAFETY: the caller takes it for a function of the header, whose first argument is the host.
    if let Some(between) = unsafe { between_of(host) } {
        let place = between.place();
        let sentence = format!("a function beyond its table's struct_size was called {place}");
        between.breach(Breach::Beyond, sentence);
    }
    GD_INTERNAL
}

/// More fields than the ABI is expected to add to a struct.
const N_TRAPS: usize = 8;

/// A pattern that is no valid size, token, amount or address.
const GARBAGE: usize = 0xa5a5_a5a5_a5a5_a5a5;

/// Larger than any struct of the header will become.
pub(super) const MAX_SIZE: usize = 1024;
