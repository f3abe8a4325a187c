//! Verification by rejection (Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318),
//! which a request may choose instead of verification by equality.
//!
//! A draft token d, drawn from q, is accepted with probability min(1, p(d) / q(d)), where p is the
//! target's distribution. Otherwise a token is drawn from the residual max(p - q, 0). Either way
//! the token follows p. Both distributions are taken after bias, penalties, bans, temperature and
//! filters, so their supports may differ.
//!
//! The draft, the decision and the draw from the residual use independent random numbers
//! ([`philox::draft_seed`], [`philox::decision`]), which are also independent of normal sampling.
//! `docs/numerics.md` says why a position may be drafted again with the same numbers.

use super::top_k_top_p::Cutoff;
use super::vector_ops::{gather, mass, probabilities, probability, total_weight, weight};
use super::{SampleRow, Scratch, gumbel, philox};

/// The role of a sampled token in a verification by rejection. Greedy rows ignore it: their tokens
/// are compared.
#[derive(Clone, Copy, Debug)]
pub enum Rejection<'a> {
    /// Samples a draft token, with noise of its own, and reports its distribution as
    /// [`super::SampledToken::proposal`].
    Draft,
    /// Accepts the draft token, or samples from the residual max(p - q, 0). A rejected draft token
    /// is never sampled, unless p equals q up to rounding.
    Verify(&'a Proposal),
}

/// A draft token and the distribution that it was drawn from. Takes 4 bytes per token of the
/// vocabulary, or 8 per token that the filters keep, if that is less.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    pub(super) token: u32,
    pub(super) from: Distribution,
}

impl Proposal {
    /// The draft token.
    pub fn token(&self) -> u32 {
        self.token
    }

    /// The probability with which `token` is drafted; 0 outside the vocabulary.
    pub fn probability(&self, token: u32) -> f32 {
        self.from.of(token)
    }
}

/// Probabilities of the tokens that filters keep.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Distribution {
    /// The tokens, ascending; empty if every token of the vocabulary has an entry in `probabilities`.
    pub(super) tokens: Vec<u32>,
    pub(super) probabilities: Vec<f32>,
}

impl Distribution {
    /// Computes the distribution that Gumbel-max samples from, over the first `n_vocab` values of
    /// `scratch.work`; `top` is the largest value.
    fn fill(&mut self, n_vocab: usize, top: f32, cutoff: Cutoff, scratch: &mut Scratch) {
        let Scratch { work, chunk_max, keep, .. } = scratch;
        self.tokens.clear();
        self.probabilities.clear();
        if top == f32::NEG_INFINITY {
            // No token can be sampled: the result is token 0.
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

/// Samples a draft token from the row that `scratch` holds.
pub(super) fn draft(
    n_vocab: usize,
    row: &SampleRow<'_>,
    top: f32,
    cutoff: Cutoff,
    scratch: &mut Scratch,
) -> Proposal {
    let seed = philox::draft_seed(row.seed);
    let token = gumbel::run(&scratch.work, &scratch.chunk_max, cutoff, seed, row.position);
    let mut from = Distribution::default();
    from.fill(n_vocab, top, cutoff, scratch);
    Proposal { token, from }
}

/// The target's token after `proposal`, from the row that `scratch` holds.
pub(super) fn verify(
    n_vocab: usize,
    row: &SampleRow<'_>,
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

/// Rejection sampling with two independent uniform numbers from 0 (included) to 1 (excluded).
pub(super) fn decide(target: &Distribution, proposal: &Proposal, random: [f64; 2]) -> u32 {
    let Proposal { token, from } = proposal;
    let [accept, at] = random;
    // The comparison avoids a division. If p is at least q, the left side is smaller: `accept` is
    // below 1, and its product with a float of 24 bits rounds to less than that float.
    if accept * f64::from(from.of(*token)) < f64::from(target.of(*token)) {
        return *token;
    }
    // The residual is empty if p equals q up to rounding. The rejection is a rounding effect then,
    // and any draw from p is correct.
    let drawn = draw(|| uncovered(target, from), at).or_else(|| draw(|| target.iter(), at));
    drawn.unwrap_or(0)
}

/// The residual max(p - q, 0), token by token, where p is `target` and q is `proposal`.
fn uncovered(target: &Distribution, proposal: &Distribution) -> impl Iterator<Item = (u32, f64)> {
    let mut covered = proposal.iter().peekable();
    target.iter().map(move |(token, p)| {
        while covered.next_if(|&(other, _)| other < token).is_some() {}
        let q = covered.next_if(|&(other, _)| other == token).map_or(0.0, |(_, q)| q);
        (token, (p - q).max(0.0))
    })
}

/// The token where the running sum of `weights`, in token order, passes the fraction `at` of the
/// total. None if every weight is 0.
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
