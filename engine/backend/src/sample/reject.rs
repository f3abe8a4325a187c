//! Verification by rejection (Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318): what a
//! request may ask for instead of equality.
//!
//! A drafted token d, drawn from q, is kept with probability min(1, p(d) / q(d)), where p is the target's
//! distribution; else a token is drawn from what p has more than q, max(p - q, 0). Either way the token
//! follows p. Both distributions are what remains after bias, penalties, bans, temperature and filters, so
//! their supports may differ.
//!
//! The draft, the decision and the second draw have random numbers that have nothing in common
//! ([`philox::draft_seed`], [`philox::decision`]), nor with those of a plain pick. `docs/numerics.md` says why
//! a position may be drafted again with the same ones.

use super::keep::Cutoff;
use super::passes::{gather, mass, probabilities, probability, total_weight, weight};
use super::{Row, Scratch, philox, race};

/// Makes a pick part of a verification by rejection. Greedy rows pass over it: their tokens are equal or not.
#[derive(Clone, Copy, Debug)]
pub enum Rejection<'a> {
    /// Draws a drafted token, with noise of its own, and reports what from as [`super::Pick::proposal`].
    Draft,
    /// Picks the drafted token, or one from what the target's distribution has more than the draft's: then
    /// never the drafted one, but where the two distributions are the same up to a rounding.
    Verify(&'a Proposal),
}

/// A drafted token and the distribution that it was drawn from: 4 bytes per token of the vocabulary, or 8 per
/// token that filters keep where those are the fewer.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    pub(super) token: u32,
    pub(super) from: Distribution,
}

impl Proposal {
    /// The drafted token.
    pub fn token(&self) -> u32 {
        self.token
    }

    /// The probability with which `token` is drafted; 0 for what is not in the vocabulary.
    pub fn probability(&self, token: u32) -> f32 {
        self.from.of(token)
    }
}

/// Probabilities of the tokens that filters keep.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Distribution {
    /// Ascending; empty where every token of the vocabulary has an entry.
    pub(super) tokens: Vec<u32>,
    pub(super) probabilities: Vec<f32>,
}

impl Distribution {
    /// What a race over the first `n_vocab` values of `scratch.work` draws from, with `top` the largest of
    /// them.
    fn fill(&mut self, n_vocab: usize, top: f32, cutoff: Cutoff, scratch: &mut Scratch) {
        let Scratch { work, chunk_max, keep, .. } = scratch;
        self.tokens.clear();
        self.probabilities.clear();
        if top == f32::NEG_INFINITY {
            // Nothing can be picked: that is token 0.
            self.tokens.push(0);
            self.probabilities.push(1.0);
            return;
        }
        let scale = |total| (1.0 / mass(total)) as f32;
        if cutoff == Cutoff::NONE {
            self.probabilities.resize(n_vocab, 0.0);
            let scale = scale(total_weight(work, chunk_max, top));
            probabilities(work, top, scale, &mut self.probabilities);
            return;
        }
        let kept = keep.gathered();
        kept.clear();
        gather(work, chunk_max, cutoff.least, kept);
        kept.retain(|&(value, token)| cutoff.keeps(value, token));
        let scale = scale(kept.iter().map(|&(value, _)| weight(value - top)).sum());
        let of = |value| probability(value, top, scale);
        if kept.len() * 2 < n_vocab {
            self.tokens.extend(kept.iter().map(|&(_, token)| token));
            self.probabilities.extend(kept.iter().map(|&(value, _)| of(value)));
        } else {
            self.probabilities.resize(n_vocab, 0.0);
            for &(value, token) in &*kept {
                self.probabilities[token as usize] = of(value);
            }
        }
    }

    fn of(&self, token: u32) -> f32 {
        let at = match self.tokens.is_empty() {
            true => Some(token as usize),
            false => self.tokens.binary_search(&token).ok(),
        };
        at.and_then(|at| self.probabilities.get(at)).copied().unwrap_or(0.0)
    }

    /// Tokens, ascending, and their probabilities.
    fn iter(&self) -> impl Iterator<Item = (u32, f64)> {
        let token = |at: usize| self.tokens.get(at).copied().unwrap_or(at as u32);
        let probabilities = self.probabilities.iter().enumerate();
        probabilities.map(move |(at, &probability)| (token(at), f64::from(probability)))
    }
}

/// A drafted token from the row that `scratch` holds.
pub(super) fn draft(
    n_vocab: usize,
    row: &Row<'_>,
    top: f32,
    cutoff: Cutoff,
    scratch: &mut Scratch,
) -> Proposal {
    let seed = philox::draft_seed(row.seed);
    let token = race::run(&scratch.work, &scratch.chunk_max, cutoff, seed, row.position);
    let mut from = Distribution::default();
    from.fill(n_vocab, top, cutoff, scratch);
    Proposal { token, from }
}

/// The token that the target picks after `proposal` from the row that `scratch` holds.
pub(super) fn verify(
    n_vocab: usize,
    row: &Row<'_>,
    proposal: &Proposal,
    top: f32,
    cutoff: Cutoff,
    scratch: &mut Scratch,
) -> u32 {
    let mut target = std::mem::take(&mut scratch.target);
    target.fill(n_vocab, top, cutoff, scratch);
    let token = decide(&target, proposal, philox::decision(row.seed, row.position));
    scratch.target = target;
    token
}

/// Rejection sampling with two independent uniform numbers from 0 up to, not including, 1.
pub(super) fn decide(target: &Distribution, proposal: &Proposal, random: [f64; 2]) -> u32 {
    let Proposal { token, from } = proposal;
    let [accept, at] = random;
    // Without a division. Where p is at least q, the left side is the smaller one: `accept` is below 1, and the
    // product of it and a float of 24 bits is rounded to below that float.
    if accept * f64::from(from.of(*token)) < f64::from(target.of(*token)) {
        return *token;
    }
    // Nothing is left where p is q up to a rounding. That it was rejected is as good as an accident then, and
    // any draw from p will do.
    let drawn = draw(|| uncovered(target, from), at).or_else(|| draw(|| target.iter(), at));
    drawn.unwrap_or(0)
}

/// What `target` has more than `proposal`, token by token.
fn uncovered(target: &Distribution, proposal: &Distribution) -> impl Iterator<Item = (u32, f64)> {
    let mut covered = proposal.iter().peekable();
    target.iter().map(move |(token, p)| {
        while covered.next_if(|&(other, _)| other < token).is_some() {}
        let q = covered.next_if(|&(other, _)| other == token).map_or(0.0, |(_, q)| q);
        (token, (p - q).max(0.0))
    })
}

/// The token in which the running sum of `weights` passes the fraction `at` of their sum. Sums are in the order of
/// tokens. None if nothing weighs anything.
fn draw<I: Iterator<Item = (u32, f64)>>(weights: impl Fn() -> I, at: f64) -> Option<u32> {
    let mut rest = at * weights().map(|(_, weight)| weight).sum::<f64>();
    let mut last = None;
    for (token, weight) in weights().filter(|&(_, weight)| weight > 0.0) {
        last = Some(token);
        rest -= weight;
        if rest < 0.0 {
            break;
        }
    }
    last
}
