//! Token counts of a sequence, for penalties.

use std::collections::HashMap;

/// The tokens of prompt and output, and how often each occurs in the output.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenCounts {
    /// Index of each token's entry.
    index: HashMap<u32, u32>,
    entries: Vec<TokenCount>,
}

/// One token of [`TokenCounts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenCount {
    pub(crate) token: u32,
    pub(crate) n_in_output: u32,
}

impl TokenCounts {
    /// The tokens of a prompt, before any output.
    pub fn of_prompt(tokens: &[u32]) -> Self {
        let mut seen = TokenCounts::default();
        for &token in tokens {
            seen.entry(token);
        }
        seen
    }

    /// Counts an output token.
    pub fn push_output(&mut self, token: u32) {
        self.entry(token).n_in_output += 1;
    }

    /// How often a token occurs in the output.
    pub(super) fn n_in_output(&self, token: u32) -> u32 {
        self.index.get(&token).map_or(0, |&at| self.entries[at as usize].n_in_output)
    }

    /// Every seen token, once.
    pub(crate) fn iter(&self) -> impl Iterator<Item = TokenCount> {
        self.entries.iter().copied()
    }

    /// Index of a token in the order of [`TokenCounts::iter`].
    #[cfg(any(feature = "cuda", feature = "emulate"))]
    pub(crate) fn place(&self, token: u32) -> Option<usize> {
        self.index.get(&token).map(|&at| at as usize)
    }

    fn entry(&mut self, token: u32) -> &mut TokenCount {
        let next = self.entries.len() as u32;
        let at = *self.index.entry(token).or_insert(next);
        if at == next {
            self.entries.push(TokenCount { token, n_in_output: 0 });
        }
        &mut self.entries[at as usize]
    }
}
