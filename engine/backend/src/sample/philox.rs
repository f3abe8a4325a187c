//! Philox4x32-10 (Salmon et al., SC'11, "Parallel random numbers: as easy as 1, 2, 3"): a block
//! cipher used as a random number generator. It has no state, so any number of any stream can be
//! computed directly.
//!
//! The noise of a token is word `token % 4` of the block with counter `[token / 4, position, 0, 0]`
//! under the key `seed`. A block with another third word serves another purpose: seeds of the
//! further sequences of a request (1), and verification by rejection (2 and 3).

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const N_ROUNDS: usize = 10;

/// Blocks that [`words`] computes side by side.
pub(super) const LANES: usize = 16;

/// One block: four random words.
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let mut state = counter.map(|word| [word]);
    rounds(&mut state, key);
    state.map(|[word]| word)
}

/// The random word of one token.
pub fn word(seed: u64, position: u32, token: u32) -> u32 {
    philox4x32_10([token / 4, position, 0, 0], key(seed))[(token % 4) as usize]
}

/// The seed of sequence `index` of a request. The first sequence has the seed of the request, so
/// that a request for one sequence gets the first sequence of a request for many.
pub fn sequence_seed(seed: u64, index: u32) -> u64 {
    if index == 0 {
        return seed;
    }
    // No token has this counter: the third word is 1.
    let [a, b, _, _] = philox4x32_10([index, 0, 1, 0], key(seed));
    u64::from(a) << 32 | u64::from(b)
}

/// The seed of a sequence's draft noise in verification by rejection.
pub fn draft_seed(seed: u64) -> u64 {
    let [a, b, _, _] = philox4x32_10([0, 0, 2, 0], key(seed));
    u64::from(a) << 32 | u64::from(b)
}

/// The two random numbers that decide on a draft token by rejection, from 0 (included) to 1 (excluded).
pub fn decision(seed: u64, position: u32) -> [f64; 2] {
    let [a, b, c, d] = philox4x32_10([0, position, 3, 0], key(seed));
    let uniform = |high: u32, low: u32| {
        let bits = u64::from(high) << 32 | u64::from(low);
        (bits >> 11) as f64 / (1u64 << 53) as f64
    };
    [uniform(a, b), uniform(c, d)]
}

/// The random words of tokens `first_token .. first_token + 4 * LANES`; `first_token` is a multiple
/// of 4.
#[inline(always)]
pub(super) fn words(seed: u64, position: u32, first_token: u32, out: &mut [u32; 4 * LANES]) {
    let mut state = [[0; LANES], [position; LANES], [0; LANES], [0; LANES]];
    for (i, counter) in state[0].iter_mut().enumerate() {
        *counter = (first_token / 4).wrapping_add(i as u32);
    }
    rounds(&mut state, key(seed));
    for (i, block) in out.chunks_exact_mut(4).enumerate() {
        for (word, lane) in block.iter_mut().zip(&state) {
            *word = lane[i];
        }
    }
}

fn key(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

/// All rounds on `N` blocks side by side, written so that the compiler vectorises the loop over blocks.
#[inline(always)]
fn rounds<const N: usize>(state: &mut [[u32; N]; 4], mut key: [u32; 2]) {
    for round in 0..N_ROUNDS {
        if round > 0 {
            key = [key[0].wrapping_add(KEY_STEPS[0]), key[1].wrapping_add(KEY_STEPS[1])];
        }
        let [a, b, c, d] = state;
        for i in 0..N {
            let p = u64::from(MULTIPLIERS[0]) * u64::from(a[i]);
            let q = u64::from(MULTIPLIERS[1]) * u64::from(c[i]);
            a[i] = (q >> 32) as u32 ^ b[i] ^ key[0];
            c[i] = (p >> 32) as u32 ^ d[i] ^ key[1];
            b[i] = q as u32;
            d[i] = p as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors of Random123 (`kat_vectors`).
    #[test]
    fn known_answers() {
        let cases: [([u32; 4], [u32; 2], [u32; 4]); 3] = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32_10(counter, key), expected);
        }
    }

    #[test]
    fn words_are_those_of_the_tokens() {
        let mut out = [0; 4 * LANES];
        words(0x0123_4567_89ab_cdef, 77, 128, &mut out);
        for (i, &got) in out.iter().enumerate() {
            assert_eq!(got, word(0x0123_4567_89ab_cdef, 77, 128 + i as u32));
        }
    }

    #[test]
    fn sequences_of_a_request_have_seeds_of_their_own() {
        assert_eq!(sequence_seed(9, 0), 9);
        let mut seeds: Vec<u64> = (0..1000).map(|i| sequence_seed(9, i)).collect();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 1000);
    }
}
