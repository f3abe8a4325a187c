//! Placeholders for tokens that are sampled before the host reads them.

use crate::{InputToken, Placeholder, Placeholders};
use std::collections::VecDeque;
use std::ops::Range;

/// Sampled tokens that the host has read, by placeholder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SampledTokens {
    /// The first placeholder number of each run, and the run's tokens.
    runs: Vec<(usize, Vec<u32>)>,
}

impl SampledTokens {
    /// Takes runs: the first placeholder number of each, and its tokens.
    pub(crate) fn of_runs(runs: Vec<(usize, Vec<u32>)>) -> Self {
        Self { runs }
    }

    /// The token of a placeholder; None if it is not here.
    pub fn token(&self, placeholder: Placeholder) -> Option<u32> {
        let number = placeholder.number();
        let of = |(first, tokens): &(usize, Vec<u32>)| {
            number.checked_sub(*first).and_then(|at| tokens.get(at)).copied()
        };
        self.runs.iter().find_map(of)
    }

    /// Replaces placeholders by their tokens; keeps placeholders whose tokens are not here.
    pub fn resolve(&self, tokens: &mut [InputToken]) {
        for token in tokens {
            let known = token.placeholder().and_then(|placeholder| self.token(placeholder));
            *token = known.map_or(*token, InputToken::known);
        }
    }

    /// The number of tokens.
    pub fn n_sampled(&self) -> usize {
        self.runs.iter().map(|(_, tokens)| tokens.len()).sum()
    }
}

/// Allocates placeholder numbers. Takes the lowest free numbers, so that the device buffer stays
/// small although the device is always a step ahead of the host.
#[derive(Debug, Default)]
pub(crate) struct PlaceholderNumbers {
    /// Runs of numbers in use, before [`PlaceholderNumbers::send`].
    made: Vec<Range<usize>>,
    /// Runs of numbers of each copy to the host that was started and not taken, oldest first.
    sent: VecDeque<Vec<Range<usize>>>,
}

impl PlaceholderNumbers {
    /// Allocates `n` consecutive numbers.
    pub(crate) fn add(&mut self, n: usize) -> Range<usize> {
        if n == 0 {
            return 0..0;
        }
        let mut taken: Vec<_> = self.live().cloned().collect();
        taken.sort_by_key(|run| run.start);
        let mut first = 0;
        for run in taken {
            if first + n <= run.start {
                break;
            }
            first = run.end;
        }
        match self.made.last_mut().filter(|last| last.end == first) {
            Some(last) => last.end += n,
            None => self.made.push(first..first + n),
        }
        first..first + n
    }

    /// Groups the numbers added since the last call for one copy to the host. Returns their runs.
    pub(crate) fn send(&mut self) -> &[Range<usize>] {
        self.sent.push_back(std::mem::take(&mut self.made));
        self.sent.back().map_or(&[], Vec::as_slice)
    }

    /// Frees the numbers of the oldest copy and returns their runs; empty if there is no copy.
    pub(crate) fn take(&mut self) -> Vec<Range<usize>> {
        self.sent.pop_front().unwrap_or_default()
    }

    /// Whether a copy was started and not taken.
    pub(crate) fn has_sent(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Whether the token of a placeholder was not taken yet.
    pub(crate) fn is_live(&self, placeholder: Placeholder) -> bool {
        self.live().any(|run| run.contains(&placeholder.number()))
    }

    fn live(&self) -> impl Iterator<Item = &Range<usize>> {
        self.sent.iter().flatten().chain(&self.made)
    }
}

/// Placeholders of a synchronous device, which knows sampled tokens at once.
#[derive(Debug, Default)]
pub struct PendingTokens {
    numbers: PlaceholderNumbers,
    tokens: Vec<u32>,
}

impl PendingTokens {
    /// Adds sampled tokens. Returns their placeholders.
    pub fn push(&mut self, tokens: &[u32]) -> Placeholders {
        let numbers = self.numbers.add(tokens.len());
        self.tokens.resize(self.tokens.len().max(numbers.end), 0);
        self.tokens[numbers.clone()].copy_from_slice(tokens);
        Placeholders::of_numbers(numbers)
    }

    /// Whether the token of a placeholder was not taken yet.
    pub fn is_live(&self, placeholder: Placeholder) -> bool {
        self.numbers.is_live(placeholder)
    }

    /// The same tokens with the tokens of valid placeholders in their places.
    pub fn resolve(&self, tokens: &[InputToken]) -> Vec<InputToken> {
        let known = |token: InputToken| match token.placeholder() {
            Some(at) if self.is_live(at) => InputToken::known(self.tokens[at.number()]),
            _ => token,
        };
        tokens.iter().map(|&token| known(token)).collect()
    }

    /// Groups the tokens added since the last call, for one call of [`PendingTokens::take`].
    pub fn send(&mut self) {
        self.numbers.send();
    }

    /// Takes the oldest group of tokens; without one, all tokens added so far.
    pub fn take(&mut self) -> SampledTokens {
        if !self.numbers.has_sent() {
            self.send();
        }
        let run = |run: Range<usize>| (run.start, self.tokens[run].to_vec());
        SampledTokens::of_runs(self.numbers.take().into_iter().map(run).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known<const N: usize>(ids: [u32; N]) -> [InputToken; N] {
        ids.map(InputToken::known)
    }

    #[test]
    fn placeholders_stand_for_sampled_tokens_until_they_are_taken() {
        let mut pending = PendingTokens::default();
        let first = pending.push(&[7, 8]);
        let second = pending.push(&[9]);
        let placeholders = first.clone().chain(second).map(InputToken::pending);
        let tokens: Vec<InputToken> = placeholders.chain(known([5])).collect();
        assert_eq!(pending.resolve(&tokens), known([7, 8, 9, 5]));
        let sampled = pending.take();
        let mut taken = tokens.clone();
        sampled.resolve(&mut taken);
        assert_eq!((&taken[..], sampled.n_sampled()), (&known([7, 8, 9, 5])[..], 3));
        assert_eq!(
            pending.resolve(&tokens),
            tokens,
            "no placeholder stands for a token that was taken"
        );
        assert!(pending.push(&[4]).eq(first.take(1)));
    }

    #[test]
    fn what_was_sent_first_is_taken_first_and_its_numbers_are_used_again() {
        let mut pending = PendingTokens::default();
        let first = |pending: &mut PendingTokens, tokens: [u32; 2]| {
            let mut placeholders = pending.push(&tokens);
            pending.send();
            assert!(
                placeholders.clone().all(|at| at.number() < 4),
                "two steps of places are enough"
            );
            placeholders.next().expect("two placeholders")
        };
        let mut before = first(&mut pending, [100, 101]);
        for step in 1..50 {
            let now = first(&mut pending, [100 * step, 100 * step + 1]);
            let sampled = pending.take();
            assert_eq!(sampled.token(before), Some(100 * (step - 1).max(1)));
            assert_eq!(sampled.token(now), None, "not taken yet");
            assert_eq!(pending.resolve(&[InputToken::pending(now)]), known([100 * step]));
            before = now;
        }
        assert_eq!(pending.take().n_sampled(), 2);
        assert_eq!(pending.take(), SampledTokens::default());
    }

    #[test]
    fn runs_that_do_not_fit_together_are_one_take() {
        let mut pending = PendingTokens::default();
        pending.push(&[1, 2]);
        pending.send();
        pending.push(&[3]);
        pending.send();
        pending.take();
        assert_eq!(pending.push(&[]).len(), 0);
        // Numbers 0 and 1 are free again. The next run fits only behind number 2, which is in use.
        let placeholders = [pending.push(&[4, 5]), pending.push(&[6, 7])].into_iter().flatten();
        let mut tokens: Vec<InputToken> = placeholders.map(InputToken::pending).collect();
        pending.take();
        let sampled = pending.take();
        sampled.resolve(&mut tokens);
        assert_eq!(tokens, known([4, 5, 6, 7]));
    }
}
