//! Tokens of a batch: ids, and placeholders of sampled tokens that the host has not read.

use std::ops::Range;

/// The number of a token that the device has sampled and the host has not read.
/// [`AsyncSampling::sample_async`] returns it; it is valid until [`AsyncSampling::wait_tokens`] returns the token.
///
/// [`AsyncSampling::sample_async`]: crate::AsyncSampling::sample_async
/// [`AsyncSampling::wait_tokens`]: crate::AsyncSampling::wait_tokens
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placeholder(u32);

impl Placeholder {
    /// The number: an index into the device's buffer of pending tokens.
    pub(crate) fn number(self) -> usize {
        self.0 as usize
    }
}

/// Consecutive placeholders, one for each row of a call of [`AsyncSampling::sample_async`].
///
/// [`AsyncSampling::sample_async`]: crate::AsyncSampling::sample_async
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placeholders(Range<u32>);

impl Placeholders {
    /// The placeholders with these numbers.
    pub(crate) fn of_numbers(numbers: Range<usize>) -> Self {
        debug_assert!(numbers.end <= PLACEHOLDER_BIT as usize, "numbers have 31 bits");
        Self(numbers.start as u32..numbers.end as u32)
    }
}

impl Iterator for Placeholders {
    type Item = Placeholder;

    fn next(&mut self) -> Option<Placeholder> {
        self.0.next().map(Placeholder)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Placeholders {}

/// A token of a [`Batch`](crate::Batch): a token id, or the placeholder of a sampled token.
///
/// Kernels read it as a `u32`: a token id, or [`PLACEHOLDER_BIT`] with the placeholder's number.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct InputToken(u32);

/// The bit that marks a placeholder (`GK_PLACEHOLDER_BIT` of the kernels). No token id has it.
const PLACEHOLDER_BIT: u32 = 1 << 31;

impl InputToken {
    /// The token with this id, which is below 2³¹.
    pub fn known(id: u32) -> Self {
        debug_assert!(id < PLACEHOLDER_BIT, "token id {id} has more than 31 bits");
        Self(id)
    }

    /// The token that `placeholder` stands for.
    pub fn pending(placeholder: Placeholder) -> Self {
        Self(PLACEHOLDER_BIT | placeholder.0)
    }

    /// The token id; None for a placeholder.
    pub fn id(self) -> Option<u32> {
        (self.0 & PLACEHOLDER_BIT == 0).then_some(self.0)
    }

    /// The placeholder; None for a token id.
    pub fn placeholder(self) -> Option<Placeholder> {
        (self.0 & PLACEHOLDER_BIT != 0).then_some(Placeholder(self.0 & !PLACEHOLDER_BIT))
    }
}

impl std::fmt::Debug for InputToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.placeholder() {
            None => write!(f, "{}", self.0),
            Some(placeholder) => placeholder.fmt(f),
        }
    }
}
