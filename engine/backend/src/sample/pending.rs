//! Placeholders for tokens that are sampled before the host reads them.

use crate::{PLACEHOLDER_BIT, placeholder_index};
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

    /// The token of placeholder `name`; None if `name` is a token id or has no token here.
    pub fn token(&self, name: u32) -> Option<u32> {
        let number = placeholder_index(name)?;
        let of = |(first, tokens): &(usize, Vec<u32>)| {
            number.checked_sub(*first).and_then(|at| tokens.get(at)).copied()
        };
        self.runs.iter().find_map(of)
    }

    /// Replaces known placeholders by their tokens.
    pub fn resolve(&self, tokens: &mut [u32]) {
        for token in tokens {
            *token = self.token(*token).unwrap_or(*token);
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
pub(crate) struct Numbers {
    /// Runs of numbers in use, before [`Numbers::send`].
    made: Vec<Range<usize>>,
    /// Runs of numbers of each copy to the host that was started and not taken, oldest first.
    sent: VecDeque<Vec<Range<usize>>>,
}

impl Numbers {
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

    /// Whether a placeholder has this number.
    pub(crate) fn is_live(&self, number: usize) -> bool {
        self.live().any(|run| run.contains(&number))
    }

    fn live(&self) -> impl Iterator<Item = &Range<usize>> {
        self.sent.iter().flatten().chain(&self.made)
    }
}

/// Placeholders of a synchronous device, which knows sampled tokens at once.
#[derive(Debug, Default)]
pub struct PendingTokens {
    numbers: Numbers,
    tokens: Vec<u32>,
}

impl PendingTokens {
    /// Adds sampled tokens. Returns their placeholders.
    pub fn push(&mut self, tokens: &[u32]) -> Range<u32> {
        let numbers = self.numbers.add(tokens.len());
        self.tokens.resize(self.tokens.len().max(numbers.end), 0);
        self.tokens[numbers.clone()].copy_from_slice(tokens);
        names(numbers)
    }

    /// Whether a placeholder that was not taken has this number.
    pub fn is_live(&self, number: usize) -> bool {
        self.numbers.is_live(number)
    }

    /// Replaces valid placeholders by their tokens; keeps every other value.
    pub fn resolve(&self, tokens: &[u32]) -> Vec<u32> {
        let known = |token| {
            placeholder_index(token).filter(|&at| self.is_live(at)).map(|at| self.tokens[at])
        };
        tokens.iter().map(|&token| known(token).unwrap_or(token)).collect()
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

/// The placeholders with these numbers.
pub(crate) fn names(numbers: Range<usize>) -> Range<u32> {
    PLACEHOLDER_BIT | numbers.start as u32..PLACEHOLDER_BIT | numbers.end as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_picks_until_they_are_taken() {
        let mut ahead = PendingTokens::default();
        let first = ahead.push(&[7, 8]);
        let second = ahead.push(&[9]);
        let names: Vec<u32> = first.chain(second).chain([5]).collect();
        assert_eq!(ahead.resolve(&names), [7, 8, 9, 5]);
        let sampled = ahead.take();
        let mut taken = names.clone();
        sampled.resolve(&mut taken);
        assert_eq!((taken, sampled.n_sampled()), (vec![7, 8, 9, 5], 3));
        assert_eq!(
            ahead.resolve(&names),
            names,
            "no placeholder stands for a token that was taken"
        );
        assert_eq!(ahead.push(&[4]), names[0]..names[1]);
    }

    #[test]
    fn what_was_sent_first_is_taken_first_and_its_numbers_are_used_again() {
        let mut ahead = PendingTokens::default();
        let mut before = ahead.push(&[100, 101]);
        ahead.send();
        for step in 1..50 {
            let now = ahead.push(&[100 * step, 100 * step + 1]);
            ahead.send();
            let sampled = ahead.take();
            assert_eq!(sampled.token(before.start), Some(100 * (step - 1).max(1)));
            assert_eq!(sampled.token(now.start), None, "not taken yet");
            assert_eq!(ahead.resolve(&[now.start]), [100 * step]);
            assert!(now.end <= PLACEHOLDER_BIT | 4, "two steps of places are enough");
            before = now;
        }
        assert_eq!(ahead.take().n_sampled(), 2);
        assert_eq!(ahead.take(), SampledTokens::default());
    }

    #[test]
    fn runs_that_do_not_fit_together_are_one_take() {
        let mut ahead = PendingTokens::default();
        ahead.push(&[1, 2]);
        ahead.send();
        ahead.push(&[3]);
        ahead.send();
        ahead.take();
        assert_eq!(ahead.push(&[]).len(), 0);
        // Numbers 0 and 1 are free again. The next run fits only behind number 2, which is in use.
        let names: Vec<u32> =
            [ahead.push(&[4, 5]), ahead.push(&[6, 7])].into_iter().flatten().collect();
        ahead.take();
        let sampled = ahead.take();
        let mut tokens = names;
        sampled.resolve(&mut tokens);
        assert_eq!(tokens, [4, 5, 6, 7]);
    }
}
