//! Feedback: a drafter that adapts is told the fate of its guesses.

use galley_drafter_abi::gd_verified;

use crate::Drafter;

/// A drafter that is told after each round how many of its guessed tokens were right.
/// [`export_drafter!`](crate::export_drafter) exports the table `galley.feedback/1` for drafters that
/// implement this.
pub trait Feedback: Drafter {
    /// A round has been verified: one item for each row with a guess. [`Drafter::end`] comes later
    /// for a sequence that ends with the round.
    fn feedback(&mut self, verified: impl Iterator<Item = Verified>);
}

/// The fate of the guess for one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Identifies the sequence, as [`Row::sequence`](crate::Row::sequence) does.
    pub sequence: u64,
    /// Tokens of the guess that were verified; at least 1.
    pub n_proposed: u32,
    /// Tokens of the guess that the sequence keeps, from its first one.
    pub n_accepted: u32,
}

/// The rows of a round.
///
/// # Safety
///
/// The arrays have `n_rows` items, which live for `'a`.
pub(crate) unsafe fn rows<'a>(verified: &gd_verified) -> impl Iterator<Item = Verified> + 'a {
    let n_rows = verified.n_rows as usize;
    // SAFETY: promised by the caller.
    let sequences = unsafe { array(verified.sequences, n_rows) };
    // SAFETY: promised by the caller.
    let n_proposed = unsafe { array(verified.n_proposed, n_rows) };
    // SAFETY: promised by the caller.
    let n_accepted = unsafe { array(verified.n_accepted, n_rows) };
    sequences.iter().zip(n_proposed).zip(n_accepted).map(
        |((&sequence, &n_proposed), &n_accepted)| Verified { sequence, n_proposed, n_accepted },
    )
}

/// # Safety
///
/// `from` is NULL or points to `n_items` items, which live for `'a`.
unsafe fn array<'a, T>(from: *const T, n_items: usize) -> &'a [T] {
    if from.is_null() {
        return &[];
    }
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts(from, n_items) }
}
