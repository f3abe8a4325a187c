//! Stop conditions: when a sequence ends.

/// Why a sequence ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// It reached an end token of the model, a stop token or a stop string.
    Stop(Stopped),
    /// It reached `max_tokens`.
    Length,
    /// The caller cancelled the request or dropped its handle, or the engine was shut down.
    Cancelled,
}

impl FinishReason {
    /// The reason's name in APIs.
    pub fn as_str(&self) -> &'static str {
        match self {
            FinishReason::Stop(_) => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled => "cancelled",
        }
    }
}

/// The end token, stop token or stop string at which a sequence stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// One of the model's end tokens.
    Eos(u32),
    /// One of the request's stop tokens.
    Token(u32),
    /// One of the request's stop strings.
    Text(String),
}

/// The stop conditions of a request.
#[derive(Debug)]
pub(crate) struct StopRules {
    /// Strings that end a sequence.
    pub(crate) strings: Vec<String>,
    tokens: Vec<u32>,
    eos: Vec<u32>,
    /// `tokens` and `eos`.
    ends: Vec<u32>,
    /// Tokens that are never sampled.
    pub(crate) banned: Vec<u32>,
    min_tokens: usize,
    max_tokens: usize,
    /// Whether the output includes the text of the stop token or stop string.
    pub(crate) include_stop: bool,
}

impl StopRules {
    pub(crate) fn new(
        strings: Vec<String>,
        tokens: Vec<u32>,
        eos: Vec<u32>,
        banned: Vec<u32>,
        min_tokens: usize,
        max_tokens: usize,
        include_stop: bool,
    ) -> Self {
        let ends = [&*tokens, &*eos].concat();
        StopRules { strings, tokens, eos, ends, banned, min_tokens, max_tokens, include_stop }
    }

    /// Tokens that must not be sampled after `n_generated` tokens, because they would end the
    /// sequence before `min_tokens`; empty afterwards.
    pub(crate) fn early_ends(&self, n_generated: usize) -> &[u32] {
        if n_generated < self.min_tokens { &self.ends } else { &[] }
    }

    /// Whether the text that comes after `n_generated` tokens may hold a stop string.
    pub(crate) fn watches_text(&self, n_generated: usize) -> bool {
        !self.strings.is_empty() && n_generated >= self.min_tokens
    }

    /// Whether `token`, sampled after `n_generated` tokens, ends the sequence, and how.
    pub(crate) fn ends_with(&self, token: u32, n_generated: usize) -> Option<Stopped> {
        if n_generated < self.min_tokens {
            return None; // sampled nevertheless, because the row holds no other token
        }
        if self.tokens.contains(&token) {
            Some(Stopped::Token(token))
        } else if self.eos.contains(&token) {
            Some(Stopped::Eos(token))
        } else {
            None
        }
    }

    /// The most tokens that a sequence may generate.
    pub(crate) fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The finish reason, if `n_generated` tokens are the limit.
    pub(crate) fn length_limit(&self, n_generated: usize) -> Option<FinishReason> {
        (n_generated >= self.max_tokens).then_some(FinishReason::Length)
    }
}

/// Finds stop strings in text that comes in pieces, and holds back text that may become one.
///
/// The result does not depend on where the pieces end: the string that is complete first wins. If
/// several strings are complete at the same character, the longest wins.
#[derive(Debug, Default)]
pub(crate) struct StopMatcher {
    /// Text that is not released: the start of a stop string.
    held: String,
}

/// Text that the matcher releases.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Released {
    /// Text that is final.
    pub(crate) text: String,
    /// Index of the stop string that was found. All text after it is dropped.
    pub(crate) matched: Option<usize>,
}

impl StopMatcher {
    /// Takes the next piece and looks for `strings` in it. With `include`, a string that is found
    /// is released, too.
    pub(crate) fn push(&mut self, piece: &str, strings: &[String], include: bool) -> Released {
        self.held.push_str(piece);
        let found = strings
            .iter()
            .enumerate()
            .filter_map(|(i, string)| {
                self.held.find(string.as_str()).map(|start| (start + string.len(), start, i))
            })
            .min();
        if let Some((end, start, i)) = found {
            let mut text = std::mem::take(&mut self.held);
            text.truncate(if include { end } else { start });
            return Released { text, matched: Some(i) };
        }
        let n_held = self.n_held_bytes(strings);
        let kept = self.held.split_off(self.held.len() - n_held);
        Released { text: std::mem::replace(&mut self.held, kept), matched: None }
    }

    /// Takes a piece without looking for strings in it, and releases all text.
    pub(crate) fn pass(&mut self, piece: &str) -> String {
        let mut text = std::mem::take(&mut self.held);
        text.push_str(piece);
        text
    }

    /// Bytes of the longest suffix of the text that is the start of a stop string.
    fn n_held_bytes(&self, strings: &[String]) -> usize {
        let longest = strings.iter().map(|s| s.len() - 1).max().unwrap_or(0);
        (1..=longest.min(self.held.len()))
            .rev()
            .find(|&n| {
                let tail = &self.held.as_bytes()[self.held.len() - n..];
                strings.iter().any(|s| s.len() > n && s.as_bytes().starts_with(tail))
            })
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &[&str], strings: &[&str], include: bool) -> (String, Option<usize>) {
        let strings: Vec<String> = strings.iter().map(|s| (*s).to_owned()).collect();
        let mut matcher = StopMatcher::default();
        let mut text = String::new();
        for piece in pieces {
            let released = matcher.push(piece, &strings, include);
            text += &released.text;
            if released.matched.is_some() {
                return (text, released.matched);
            }
        }
        (text + &matcher.pass(""), None)
    }

    #[test]
    fn a_string_is_found_across_pieces() {
        assert_eq!(all(&["one t", "wo", " three"], &["two"], false), ("one ".into(), Some(0)));
        assert_eq!(all(&["one t", "wo", " three"], &["two"], true), ("one two".into(), Some(0)));
        assert_eq!(all(&["one t", "w", "in"], &["two"], false), ("one twin".into(), None));
        assert_eq!(all(&["aab"], &["ab"], false), ("a".into(), Some(0)));
        assert_eq!(all(&["a", "a", "b"], &["aab", "ab"], false), (String::new(), Some(0)));
    }

    #[test]
    fn what_may_become_a_stop_string_is_held_back() {
        let strings = ["###".to_owned(), "#!é".to_owned()];
        let mut matcher = StopMatcher::default();
        assert_eq!(matcher.push("é ##", &strings, false).text, "é ");
        assert_eq!(matcher.push("!", &strings, false).text, "#");
        assert_eq!(matcher.push("?", &strings, false).text, "#!?");
        assert_eq!(matcher.push("##", &strings, false).text, "");
        assert_eq!(matcher.pass("x"), "##x");
    }

    /// Pieces of any size give the same result as single characters.
    #[test]
    fn pieces_do_not_matter() {
        let text = "abcaabcbbacabacbabbbcacbabcabca";
        for strings in
            [&["cab"][..], &["bbb", "bb"], &["abac", "cabacb", "ba"], &["zz"], &["caba", "aba"]]
        {
            for include in [false, true] {
                let singles: Vec<&str> = text.split("").collect();
                let expected = all(&singles, strings, include);
                for size in 1..text.len() {
                    let pieces: Vec<&str> = (0..text.len())
                        .step_by(size)
                        .map(|at| &text[at..text.len().min(at + size)])
                        .collect();
                    assert_eq!(all(&pieces, strings, include), expected, "{strings:?} by {size}");
                }
            }
        }
    }

    #[test]
    fn nothing_stops_before_min_tokens() {
        let rules = StopRules::new(vec!["x".into()], vec![5], vec![2], vec![9], 3, 10, false);
        assert_eq!(rules.ends_with(5, 2), None);
        assert_eq!(rules.ends_with(5, 3), Some(Stopped::Token(5)));
        assert_eq!(rules.ends_with(2, 3), Some(Stopped::Eos(2)));
        assert_eq!([&*rules.banned, rules.early_ends(2)].concat(), [9, 5, 2]);
        assert_eq!([&*rules.banned, rules.early_ends(3)].concat(), [9]);
        assert!(!rules.watches_text(2) && rules.watches_text(3));
        assert_eq!(rules.length_limit(9), None);
        assert_eq!(rules.length_limit(10), Some(FinishReason::Length));
    }
}
