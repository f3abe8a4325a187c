//! Prompt lookup: the tokens that followed an earlier occurrence of a sequence's latest tokens.

/// The latest earlier occurrence of a suffix of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    /// Tokens of the suffix.
    pub(crate) n_tokens: usize,
    /// Index of the token that followed it.
    pub(crate) follows: usize,
}

/// Returns at most `n` tokens that followed the [longest match](longest_match). Empty where there is none.
pub(crate) fn lookup(tokens: &[u32], min_n: usize, max_n: usize, n: usize) -> &[u32] {
    longest_match(tokens, min_n, max_n)
        .map_or(&[], |Match { follows, .. }| &tokens[follows..tokens.len().min(follows + n)])
}

/// The latest earlier occurrence of the longest suffix of `tokens` with at least `min_n` and at most `max_n` tokens, if
/// such a suffix occurs earlier.
pub(crate) fn longest_match(tokens: &[u32], min_n: usize, max_n: usize) -> Option<Match> {
    let (&last, before) = tokens.split_last()?;
    let mut best = (0, 0);
    // Backwards, so that the latest of equally long matches wins.
    for (at, _) in before.iter().enumerate().rev().filter(|&(_, &token)| token == last) {
        let matched = tokens[..=at].iter().rev().zip(tokens.iter().rev());
        let length = matched.take(max_n).take_while(|(a, b)| a == b).count();
        if length > best.0 {
            best = (length, at + 1);
            if length == max_n {
                break;
            }
        }
    }
    let (n_tokens, follows) = best;
    (n_tokens >= min_n.max(1)).then_some(Match { n_tokens, follows })
}

#[cfg(test)]
mod tests {
    use super::lookup;

    /// The same result, straight from the definition.
    fn naive(tokens: &[u32], min_n: usize, max_n: usize, n: usize) -> Vec<u32> {
        for length in (min_n.max(1)..=max_n.min(tokens.len())).rev() {
            let suffix = &tokens[tokens.len() - length..];
            for end in (length..tokens.len()).rev() {
                if &tokens[end - length..end] == suffix {
                    return tokens[end..].iter().copied().take(n).collect();
                }
            }
        }
        Vec::new()
    }

    #[test]
    fn the_longest_suffix_and_the_latest_place_win() {
        let tokens = [1, 2, 3, 7, 2, 3, 8, 2, 3];
        assert_eq!(lookup(&tokens, 1, 4, 3), [8, 2, 3]);
        assert_eq!(lookup(&[1, 2, 3, 7, 2, 3, 8, 1, 2, 3], 1, 4, 2), [7, 2]);
        assert_eq!(lookup(&tokens, 3, 4, 3), [0; 0]);
        assert_eq!(lookup(&[5], 1, 4, 3), [0; 0]);
        assert_eq!(lookup(&[], 1, 4, 3), [0; 0]);
        assert_eq!(lookup(&[4, 4, 4, 4], 1, 2, 8), [4]);
    }

    #[test]
    fn it_is_what_the_definition_says() {
        let mut state = 1u32;
        for _ in 0..2000 {
            let mut next = |n: u32| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 16) % n
            };
            let tokens: Vec<u32> = (0..next(40)).map(|_| next(4)).collect();
            let (min_n, max_n, n) = (next(4) as usize, 1 + next(5) as usize, next(6) as usize);
            assert_eq!(
                lookup(&tokens, min_n, max_n, n),
                naive(&tokens, min_n, max_n, n),
                "{tokens:?} {min_n} {max_n} {n}"
            );
        }
    }
}
