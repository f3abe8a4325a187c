//! Logit processors on the device: a row's list, folded into one edit of the kernel per token.
//!
//! The kernel applies an edit as bias, then penalties, then ban (`gk_edit`). A list that an edit
//! cannot hold in its order leaves the row to the host.

use crate::sample::{LogitProcessor, TokenCount, TokenCounts};
use galley_kernels_cu::bindings::{GK_BANNED, GK_SEEN, gk_edit};

/// The edits with the effect of `processors` on a row of `n_vocab` logits, one per token. None if only
/// the host can apply this list: if another processor comes before the bias, or a token has several
/// biases, because the sum of floats depends on the order.
pub(super) fn edits<'a>(
    processors: impl IntoIterator<Item = LogitProcessor<'a>>,
    n_vocab: usize,
) -> Option<Vec<gk_edit>> {
    let mut edits = Edits::default();
    for processor in processors {
        match processor {
            LogitProcessor::Bias(biases) => {
                if !edits.list.is_empty() || has_repeated_token(biases) {
                    return None;
                }
                let to_edit = |&(token, bias)| gk_edit { bias, ..no_edit(token) };
                edits.list.extend(biases.iter().map(to_edit));
            }
            // The kernel reads the penalties themselves from the row's settings.
            LogitProcessor::Penalties { sampling: _, seen, drafted } => {
                edits.add_seen(seen);
                for token in drafted.iter().filter_map(|token| token.id()) {
                    let edit = edits.of(token);
                    edit.flags |= GK_SEEN;
                    edit.n_in_output += 1;
                }
            }
            LogitProcessor::Bans(tokens) | LogitProcessor::MinTokens(tokens) => {
                for &token in tokens {
                    edits.of(token).flags |= GK_BANNED;
                }
            }
        }
    }
    edits.list.retain(|edit| (edit.token as usize) < n_vocab);
    Some(edits.list)
}

/// Edits of distinct tokens. A seen token's place is its place in the counts, which the counts find
/// by hash. The remaining tokens are few, so a linear search finds them.
#[derive(Default)]
struct Edits<'a> {
    list: Vec<gk_edit>,
    seen: Option<&'a TokenCounts>,
    n_seen: usize,
}

impl<'a> Edits<'a> {
    /// Index of the edit of a token.
    fn place(&self, token: u32) -> Option<usize> {
        self.seen.and_then(|seen| seen.place(token)).or_else(|| {
            let at = self.list[self.n_seen..].iter().position(|edit| edit.token == token)?;
            Some(self.n_seen + at)
        })
    }

    /// The edit of a token, which changes nothing if it is new.
    fn of(&mut self, token: u32) -> &mut gk_edit {
        let at = self.place(token).unwrap_or_else(|| {
            self.list.push(no_edit(token));
            self.list.len() - 1
        });
        &mut self.list[at]
    }

    /// Marks all tokens of `seen` as seen, and moves their edits to the front.
    fn add_seen(&mut self, seen: &'a TokenCounts) {
        let to_edit = |seen: TokenCount| gk_edit {
            flags: GK_SEEN,
            n_in_output: seen.n_in_output,
            ..no_edit(seen.token)
        };
        let earlier = std::mem::replace(&mut self.list, seen.iter().map(to_edit).collect());
        (self.seen, self.n_seen) = (Some(seen), self.list.len());
        for edit in earlier {
            match seen.place(edit.token) {
                Some(at) => {
                    self.list[at].flags |= edit.flags;
                    self.list[at].bias = edit.bias;
                }
                None => self.list.push(edit),
            }
        }
    }
}

fn has_repeated_token(biases: &[(u32, f32)]) -> bool {
    let mut tokens: Vec<u32> = biases.iter().map(|&(token, _)| token).collect();
    tokens.sort_unstable();
    tokens.windows(2).any(|pair| pair[0] == pair[1])
}

/// An edit without changes.
fn no_edit(token: u32) -> gk_edit {
    gk_edit { token, flags: 0, n_in_output: 0, bias: 0.0 }
}
