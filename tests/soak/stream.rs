//! All that a user can see of a sequence, and the comparison of two sequences.

use galley_engine::{Event, FinishReason, TokenEvent};

/// One sequence as the user sees it; log-probabilities are stored as bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Log-probabilities of the tokens that have one.
    pub logprobs: Vec<u32>,
    /// The alternatives of each token.
    pub top: Vec<Vec<(u32, u32)>>,
    /// All text.
    pub text: String,
    /// The finish reason and the stop that matched; None if the sequence has not ended.
    pub finish: Option<FinishReason>,
}

impl Stream {
    /// Adds an event of this sequence.
    pub fn push(&mut self, event: Event) {
        match event {
            Event::Token(TokenEvent { token, text, logprob, top, .. }) => {
                self.tokens.push(token);
                self.text.push_str(&text);
                self.logprobs.extend(logprob.map(f32::to_bits));
                self.top.push(top.into_iter().map(|(token, p)| (token, p.to_bits())).collect());
            }
            Event::Finished { reason, .. } => self.finish = Some(reason),
            _ => {}
        }
    }

    /// None if the sequence equals `whole`, or is the start of it after it was given up. Otherwise,
    /// the first difference.
    pub fn difference(&self, whole: &Stream, is_given_up: bool) -> Option<String> {
        let is_cut = is_given_up && matches!(self.finish, None | Some(FinishReason::Cancelled));
        if !is_cut {
            return (self != whole).then(|| self.first_difference(whole));
        }
        let is_start = whole.tokens.starts_with(&self.tokens)
            && whole.logprobs.starts_with(&self.logprobs)
            && whole.top.starts_with(&self.top)
            && whole.text.starts_with(&self.text);
        (!is_start).then(|| self.first_difference(whole))
    }

    fn first_difference(&self, whole: &Stream) -> String {
        let n_same = same(&self.tokens, &whole.tokens);
        let around = |stream: &Stream| {
            let end = stream.tokens.len().min(n_same + 4);
            format!("{:?}", &stream.tokens[n_same.saturating_sub(2).min(end)..end])
        };
        let (own, other) = (around(self), around(whole));
        match (self.tokens.get(n_same), whole.tokens.get(n_same)) {
            (Some(got), Some(expected)) => {
                format!("token {n_same} is {got} for {expected}: {own} for {other}")
            }
            _ if self.tokens.len() != whole.tokens.len() => {
                let (n, n_expected) = (self.tokens.len(), whole.tokens.len());
                format!("{n} tokens for {n_expected}: {:?} for {:?}", self.finish, whole.finish)
            }
            _ if self.logprobs != whole.logprobs || self.top != whole.top => {
                let at = same(&self.logprobs, &whole.logprobs).min(same(&self.top, &whole.top));
                format!("log-probabilities of token {at} differ")
            }
            _ if self.text != whole.text => {
                format!("the text is {:?} for {:?}", self.text, whole.text)
            }
            _ => format!("the end is {:?} for {:?}", self.finish, whole.finish),
        }
    }
}

/// Length of the common prefix of two slices.
fn same<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(tokens: &[u32], text: &str, finish: Option<FinishReason>) -> Stream {
        let logprobs = tokens.iter().map(|token| token + 100).collect();
        let top = tokens.iter().map(|&token| vec![(token, 7)]).collect();
        Stream { tokens: tokens.to_vec(), logprobs, top, text: text.to_owned(), finish }
    }

    #[test]
    fn every_part_of_a_stream_is_compared() {
        let whole = stream(&[1, 2, 3], "abc", Some(FinishReason::Length));
        assert_eq!(whole.difference(&whole, false), None);
        assert_eq!(whole.difference(&whole, true), None);
        let differs = |change: fn(&mut Stream), says: &str| {
            let mut other = whole.clone();
            change(&mut other);
            for is_given_up in [false, true] {
                let found = other.difference(&whole, is_given_up).expect("they differ");
                assert!(found.starts_with(says), "{found}");
            }
        };
        differs(|s| s.tokens[1] = 9, "token 1 is 9 for 2");
        differs(|s| s.tokens.push(9), "4 tokens for 3");
        differs(|s| s.logprobs[2] += 1, "log-probabilities of token 2 differ");
        differs(|s| s.top[2][0].1 += 1, "log-probabilities of token 2");
        differs(|s| s.text.push('d'), "the text is");
        differs(
            |s| s.finish = Some(FinishReason::Stop(galley_engine::Stopped::Eos(3))),
            "the end is",
        );
    }

    #[test]
    fn what_was_given_up_is_a_start_of_the_whole() {
        let whole = stream(&[1, 2, 3], "abc", Some(FinishReason::Length));
        let cut = stream(&[1, 2], "a", Some(FinishReason::Cancelled));
        assert_eq!(cut.difference(&whole, true), None);
        assert!(cut.difference(&whole, false).is_some(), "its owner has not given it up");
        let other = stream(&[1, 3], "a", None);
        assert!(other.difference(&whole, true).expect("not a start").starts_with("token 1 is 3"));
        let short = stream(&[1, 2], "ab", Some(FinishReason::Length));
        assert!(short.difference(&whole, true).expect("it ended").starts_with("2 tokens for 3"));
    }
}
