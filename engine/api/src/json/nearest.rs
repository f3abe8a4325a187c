//! The known key that an unknown key was probably meant to be.

/// The known key with the smallest edit distance to `key`, if the distance is small for its length.
pub(super) fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    if key.len() > MAX_KEY_BYTES {
        return None;
    }
    let key = key.to_lowercase();
    let most = 1 + key.chars().count() / CHARS_PER_EDIT;
    let distances = known.iter().map(|known| (distance(&key, known), *known));
    distances.min().filter(|(distance, _)| *distance <= most).map(|(_, known)| known)
}

/// Longer keys are no misspelling of a known key.
const MAX_KEY_BYTES: usize = 64;

/// One edit more is allowed for each of this many characters.
const CHARS_PER_EDIT: usize = 4;

/// Insertions, deletions and replacements of characters that lead from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, of_a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, of_b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(of_a != *of_b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_keys_have_a_nearest_one_and_other_words_none() {
        let known = ["temperature", "top_p", "top_k", "max_tokens", "stop", "stop_token_ids", "n"];
        for (key, meant) in [
            ("temprature", "temperature"),
            ("Temperature", "temperature"),
            ("topK", "top_k"),
            ("max_new_tokens", "max_tokens"),
            ("maxTokens", "max_tokens"),
            ("stop_tokens", "stop_token_ids"),
            ("stops", "stop"),
        ] {
            assert_eq!(nearest(key, &known), Some(meant), "{key}");
        }
        for key in ["stream", "model", "user", "", "x".repeat(1 << 20).as_str()] {
            assert_ne!(nearest(key, &known), Some("temperature"), "{key}");
        }
        assert_eq!(nearest("stream", &known), None);
        assert_eq!(
            (distance("", "abc"), distance("abc", ""), distance("kitten", "sitting")),
            (3, 3, 3)
        );
    }
}
