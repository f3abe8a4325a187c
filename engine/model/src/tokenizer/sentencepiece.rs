//! Merges for SentencePiece BPE vocabularies, which have scores instead of merges.

use std::cmp::Reverse;
use std::collections::HashMap;

/// Longest token that may have merges, bytes. Real tokens are shorter by an order of magnitude.
pub(super) const MAX_TOKEN_BYTES: usize = 512;

/// The merges that SentencePiece would do, best first: every split of a token into two tokens, in
/// the order of the token's score. `ids` holds the tokens that text may become, so no control
/// tokens.
///
/// Equal scores keep the order of the conversion in transformers, so that both give the same ids.
pub(super) fn merges(ids: &HashMap<&str, u32>, scores: &[f32]) -> Vec<(String, String)> {
    let mut tokens: Vec<(&str, u32)> = ids.iter().map(|(&token, &id)| (token, id)).collect();
    tokens.sort_unstable_by_key(|&(_, id)| id);
    let mut merges = Vec::new();
    for (token, id) in tokens {
        let first = merges.len();
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right)) {
                let chars = (left.chars().count(), right.chars().count());
                merges.push(Merge { left, right, ids: (left_id, right_id), id, chars });
            }
        }
        merges[first..].sort_by_key(|merge| merge.ids);
    }
    merges.sort_by(|a, b| {
        let score = |merge: &Merge<'_>| scores[merge.id as usize];
        score(b).total_cmp(&score(a)).then_with(|| Reverse(a.chars).cmp(&Reverse(b.chars)))
    });
    merges.into_iter().map(|merge| (merge.left.to_owned(), merge.right.to_owned())).collect()
}

struct Merge<'a> {
    left: &'a str,
    right: &'a str,
    ids: (u32, u32),
    /// The merged token.
    id: u32,
    chars: (usize, usize),
}
