//! Gumbel-max: the kept token with the largest sum of logit and noise is the sample.
//!
//! Exact noise costs two logarithms, and few tokens can reach the largest sum. A bound on the noise
//! without logarithms ([`can_win`]) leaves a few dozen tokens to compute exactly, whatever the
//! vocabulary size.

use super::philox;
use super::top_k_top_p::Cutoff;
use super::vector_ops::{CHUNK, vectorised};

/// An upper bound of the noise: `-ln(-ln(1 - 2^-33))` is 22.87.
const MOST_NOISE: f32 = 22.9;

/// The standard Gumbel variate of a random word.
pub(super) fn gumbel(word: u32) -> f64 {
    let v = (f64::from(word) + 0.5) / 4_294_967_296.0;
    -(-v.ln()).ln()
}

vectorised! {
    /// The token with the largest sum of value and noise among the tokens that the cutoff keeps.
    fn run(work: &[f32], chunk_max: &[f32], cutoff: Cutoff, seed: u64, position: u32) -> u32 {
        let (chunks, _) = work.as_chunks::<CHUNK>();
        let mut best = Best { score: f64::NEG_INFINITY, token: u32::MAX };
        let mut words = [0; CHUNK];
        let mut maybe = [false; CHUNK];
        // The chunk with the largest value comes first: its score lets most other chunks be skipped.
        let favourite = super::argmax(chunk_max) as usize;
        let order = std::iter::once(favourite)
            .chain((0..chunks.len()).filter(|&chunk| chunk != favourite));
        for chunk in order.take(chunks.len()) {
            let max = chunk_max[chunk];
            let pace = best.pace();
            if max + MOST_NOISE < pace || max < cutoff.least || max == f32::NEG_INFINITY {
                continue;
            }
            let first_token = (chunk * CHUNK) as u32;
            let values = &chunks[chunk];
            if !can_win(values, seed, position, first_token, pace, &mut words, &mut maybe) {
                continue;
            }
            for i in (0..CHUNK).filter(|&i| maybe[i]) {
                let token = first_token + i as u32;
                if cutoff.keeps(values[i], token) {
                    best.enter(f64::from(values[i]) + gumbel(words[i]), token);
                }
            }
        }
        if best.token == u32::MAX { 0 } else { best.token }
    }
}

/// Sets `maybe` for the values of a chunk that may reach `best` with their noise, and returns
/// whether any may. False is certain, true is not.
///
/// With `v = (u + 1/2) / 2^32`, the noise is `-ln(-ln v)`, and `-ln v >= 1 - v` bounds it by
/// `-ln(1 - v)`. The bits of a float, read as an integer, bound its logarithm to base 2 from below
/// (`log2(1 + m) >= m`). This bound is cheap, and so close that few tokens pass it in vain.
#[inline(always)]
fn can_win(
    values: &[f32; CHUNK],
    seed: u64,
    position: u32,
    first_token: u32,
    best: f32,
    words: &mut [u32; CHUNK],
    maybe: &mut [bool; CHUNK],
) -> bool {
    use std::f32::consts::LN_2;
    philox::words(seed, position, first_token, words);
    let mut any = 0;
    for ((&value, &word), maybe) in values.iter().zip(&*words).zip(maybe) {
        let rest = ((!word >> 1) as i32) as f32 + 0.25; // at most (1 - v) * 2^31
        let log2 = (rest.to_bits() as i32) as f32 * (1.0 / 8_388_608.0) - 127.0;
        let bound = (31.0 - log2) * LN_2;
        *maybe = bound > best - value;
        any |= u32::from(*maybe);
    }
    any != 0
}

/// The token with the highest score so far.
struct Best {
    score: f64,
    token: u32,
}

impl Best {
    /// The score below which a token need not be computed exactly: the best score less the error
    /// that f32 arithmetic and the bound may have.
    fn pace(&self) -> f32 {
        if self.token == u32::MAX {
            return f32::NEG_INFINITY;
        }
        (self.score - 1e-3 - self.score.abs() * 2.4e-7) as f32
    }

    fn enter(&mut self, score: f64, token: u32) {
        if score > self.score || (score == self.score && token < self.token) {
            *self = Best { score, token };
        }
    }
}
