//! Picks made ahead: what stands for them until somebody looks at them.

use crate::{TOKEN_OF_PICK, pick_of};
use std::collections::VecDeque;
use std::ops::Range;

/// Picks that were waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picks {
    /// The first number of each run, and its tokens.
    runs: Vec<(usize, Vec<u32>)>,
}

impl Picks {
    /// Runs of numbers: the first of each, and the tokens.
    pub(crate) fn of_runs(runs: Vec<(usize, Vec<u32>)>) -> Self {
        Self { runs }
    }

    /// The token that `name` stands for; None where these picks do not say.
    pub fn token(&self, name: u32) -> Option<u32> {
        let number = pick_of(name)?;
        let of = |(first, tokens): &(usize, Vec<u32>)| {
            number.checked_sub(*first).and_then(|at| tokens.get(at)).copied()
        };
        self.runs.iter().find_map(of)
    }

    /// Puts picks in the place of what stands for them.
    pub fn resolve(&self, tokens: &mut [u32]) {
        for token in tokens {
            *token = self.token(*token).unwrap_or(*token);
        }
    }

    /// How many there are.
    pub fn n_picks(&self) -> usize {
        self.runs.iter().map(|(_, tokens)| tokens.len()).sum()
    }
}

/// Which numbers picks made ahead have. The lowest that are free, so that few places serve a device that is always
/// a step ahead.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    /// Not sent yet, in runs.
    made: Vec<Range<usize>>,
    /// Sent together, and not taken yet.
    sent: VecDeque<Vec<Range<usize>>>,
}

impl Numbers {
    /// `n` in a row.
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

    /// Those made since the last call go together.
    pub(crate) fn send(&mut self) -> &[Range<usize>] {
        self.sent.push_back(std::mem::take(&mut self.made));
        self.sent.back().map_or(&[], Vec::as_slice)
    }

    /// Frees those that went first; none where all are taken.
    pub(crate) fn take(&mut self) -> Vec<Range<usize>> {
        self.sent.pop_front().unwrap_or_default()
    }

    /// Whether some have been sent and not taken.
    pub(crate) fn has_sent(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Whether a pick has this number.
    pub(crate) fn is_live(&self, number: usize) -> bool {
        self.live().any(|run| run.contains(&number))
    }

    fn live(&self) -> impl Iterator<Item = &Range<usize>> {
        self.sent.iter().flatten().chain(&self.made)
    }
}

/// Picks made ahead where they are known at once: a device that nobody has to wait for.
#[derive(Debug, Default)]
pub struct Ahead {
    numbers: Numbers,
    tokens: Vec<u32>,
}

impl Ahead {
    /// Adds picked tokens. Returns what stands for them in a batch.
    pub fn push(&mut self, tokens: &[u32]) -> Range<u32> {
        let numbers = self.numbers.add(tokens.len());
        self.tokens.resize(self.tokens.len().max(numbers.end), 0);
        self.tokens[numbers.clone()].copy_from_slice(tokens);
        names(numbers)
    }

    /// Whether a pick that was not taken has this number.
    pub fn is_live(&self, number: usize) -> bool {
        self.numbers.is_live(number)
    }

    /// Tokens of a batch with each pick in its place; one that there is not stays what it is.
    pub fn resolve(&self, tokens: &[u32]) -> Vec<u32> {
        let pick = |token| pick_of(token).filter(|&at| self.is_live(at)).map(|at| self.tokens[at]);
        tokens.iter().map(|&token| pick(token).unwrap_or(token)).collect()
    }

    /// Those added since the last call go together.
    pub fn send(&mut self) {
        self.numbers.send();
    }

    /// Takes those that went first; where none did, those that were added since.
    pub fn take(&mut self) -> Picks {
        if !self.numbers.has_sent() {
            self.send();
        }
        let run = |run: Range<usize>| (run.start, self.tokens[run].to_vec());
        Picks::of_runs(self.numbers.take().into_iter().map(run).collect())
    }
}

/// What stands for the picks of these numbers.
pub(crate) fn names(numbers: Range<usize>) -> Range<u32> {
    TOKEN_OF_PICK | numbers.start as u32..TOKEN_OF_PICK | numbers.end as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_picks_until_they_are_taken() {
        let mut ahead = Ahead::default();
        let first = ahead.push(&[7, 8]);
        let second = ahead.push(&[9]);
        let names: Vec<u32> = first.chain(second).chain([5]).collect();
        assert_eq!(ahead.resolve(&names), [7, 8, 9, 5]);
        let picks = ahead.take();
        let mut taken = names.clone();
        picks.resolve(&mut taken);
        assert_eq!((taken, picks.n_picks()), (vec![7, 8, 9, 5], 3));
        assert_eq!(ahead.resolve(&names), names, "nothing stands for a pick that was taken");
        assert_eq!(ahead.push(&[4]), names[0]..names[1]);
    }

    #[test]
    fn what_was_sent_first_is_taken_first_and_its_numbers_are_used_again() {
        let mut ahead = Ahead::default();
        let mut before = ahead.push(&[100, 101]);
        ahead.send();
        for step in 1..50 {
            let now = ahead.push(&[100 * step, 100 * step + 1]);
            ahead.send();
            let picks = ahead.take();
            assert_eq!(picks.token(before.start), Some(100 * (step - 1).max(1)));
            assert_eq!(picks.token(now.start), None, "not taken yet");
            assert_eq!(ahead.resolve(&[now.start]), [100 * step]);
            assert!(now.end <= TOKEN_OF_PICK | 4, "two steps of places are enough");
            before = now;
        }
        assert_eq!(ahead.take().n_picks(), 2);
        assert_eq!(ahead.take(), Picks::default());
    }

    #[test]
    fn runs_that_do_not_fit_together_are_one_take() {
        let mut ahead = Ahead::default();
        ahead.push(&[1, 2]);
        ahead.send();
        ahead.push(&[3]);
        ahead.send();
        ahead.take();
        assert_eq!(ahead.push(&[]).len(), 0);
        // Two are free before what was sent, and then there is room behind it.
        let names: Vec<u32> =
            [ahead.push(&[4, 5]), ahead.push(&[6, 7])].into_iter().flatten().collect();
        ahead.take();
        let picks = ahead.take();
        let mut tokens = names;
        picks.resolve(&mut tokens);
        assert_eq!(tokens, [4, 5, 6, 7]);
    }
}
