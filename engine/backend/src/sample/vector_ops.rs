//! Passes over a whole row, compiled for each instruction set from loops that the compiler
//! vectorises. Every instruction set gives the same bits: no operation is contracted, and each sum
//! has a fixed order.

/// Values of a chunk. A pass reads or skips a chunk as a whole.
pub(super) const CHUNK: usize = 4 * super::philox::LANES;

/// The weight of the most likely token, for which `exp(x)` is 1. Weights are whole numbers, so that
/// a sum does not depend on its order. A weight below one half (a value 28 below the top) rounds to
/// zero.
const WEIGHT_OF_ONE: f64 = (1u64 << 40) as f64;

/// Compiles a function for AVX-512, AVX2 and the baseline, and chooses one at each call.
macro_rules! vectorised {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        pub(super) fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn generic($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    generic($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    generic($($arg),*)
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the condition above checks the features.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the condition above checks the feature.
                    return unsafe { avx2($($arg),*) };
                }
            }
            generic($($arg),*)
        }
    };
}

pub(super) use vectorised;

vectorised! {
    /// The index of the largest value, the first if there are several. Skips NaN; 0 if no value is
    /// above -inf.
    fn argmax(row: &[f32]) -> u32 {
        const BLOCK: usize = 512;
        let mut best = f32::NEG_INFINITY;
        let mut best_block = None;
        for (block, values) in row.chunks(BLOCK).enumerate() {
            let max = max_of(values);
            if max > best {
                best = max;
                best_block = Some(block);
            }
        }
        let Some(block) = best_block else { return 0 };
        let first = block * BLOCK;
        let at = row[first..].iter().position(|&v| v == best).unwrap_or(0);
        (first + at) as u32
    }
}

vectorised! {
    /// Writes `row * factor` to `work`, padded with -inf; NaN becomes -inf and +inf the largest
    /// number. Fills `chunk_max` and returns its largest value.
    fn temper(row: &[f32], factor: f32, work: &mut [f32], chunk_max: &mut [f32]) -> f32 {
        let mut top = f32::NEG_INFINITY;
        let (whole, rest) = row.as_chunks::<CHUNK>();
        let (work, _) = work.as_chunks_mut::<CHUNK>();
        for ((from, to), max) in whole.iter().zip(&mut *work).zip(&mut *chunk_max) {
            *max = temper_chunk(from, factor, to);
            top = if *max > top { *max } else { top };
        }
        if !rest.is_empty() {
            let mut last = [f32::NEG_INFINITY; CHUNK];
            last[..rest.len()].copy_from_slice(rest);
            let max = temper_chunk(&last, factor, &mut work[whole.len()]);
            chunk_max[whole.len()] = max;
            top = if max > top { max } else { top };
        }
        top
    }
}

#[inline(always)]
fn temper_chunk(from: &[f32; CHUNK], factor: f32, to: &mut [f32; CHUNK]) -> f32 {
    for (to, &from) in to.iter_mut().zip(from) {
        let value = from * factor;
        let value = if value < f32::MAX { value } else { f32::MAX }; // also replaces NaN
        *to = if from > f32::NEG_INFINITY { value } else { f32::NEG_INFINITY };
    }
    max_of(to)
}

/// The largest value that is not NaN, else -inf.
#[inline(always)]
fn max_of(values: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for values in whole {
        for (lane, &value) in lanes.iter_mut().zip(values) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    // By halves: a chain of sixteen comparisons would take longer than the loop above.
    let max = |a: f32, b: f32| if b > a { b } else { a };
    let lanes: [f32; 8] = std::array::from_fn(|i| max(lanes[i], lanes[i + 8]));
    let lanes: [f32; 4] = std::array::from_fn(|i| max(lanes[i], lanes[i + 4]));
    let lanes: [f32; 2] = std::array::from_fn(|i| max(lanes[i], lanes[i + 2]));
    rest.iter().copied().fold(max(lanes[0], lanes[1]), max)
}

vectorised! {
    /// The sum of all weights ([`weight`]) of `work`.
    fn total_weight(work: &[f32], chunk_max: &[f32], top: f32) -> u64 {
        let mut lanes = [0u64; CHUNK];
        for (values, &max) in work.as_chunks::<CHUNK>().0.iter().zip(chunk_max) {
            if max - top < LIGHTEST {
                continue;
            }
            for (lane, &value) in lanes.iter_mut().zip(values) {
                *lane = lane.wrapping_add(weight(value - top));
            }
        }
        lanes.iter().sum()
    }
}

/// Below this value, [`weight`] is 0.
const LIGHTEST: f32 = -29.0;

/// `exp(x)` in fixed point: the weight of a value, where `x` is its difference to the largest value
/// (so `x` is not positive).
#[inline(always)]
pub(super) fn weight(x: f32) -> u64 {
    /// The sum of this and a smaller number has the nearest whole number in its low bits.
    const INTEGER: f64 = (1u64 << 52) as f64;
    (f64::from(exp(x)) * WEIGHT_OF_ONE + INTEGER).to_bits().wrapping_sub(INTEGER.to_bits())
}

/// The probability mass of a sum of weights, in units of the most likely token.
pub(super) fn mass(weight: u64) -> f64 {
    weight as f64 / WEIGHT_OF_ONE
}

vectorised! {
    /// The probability ([`probability`]) of each of the first `out.len()` values of `work`.
    fn probabilities(work: &[f32], top: f32, scale: f32, out: &mut [f32]) {
        for (out, &value) in out.iter_mut().zip(work) {
            *out = probability(value, top, scale);
        }
    }
}

/// The probability of a value, where `scale` is the probability of `top`, the largest value.
#[inline(always)]
pub(super) fn probability(value: f32, top: f32, scale: f32) -> f32 {
    let probability = exp(value - top) * scale;
    if value > f32::NEG_INFINITY { probability } else { 0.0 }
}

/// `exp(x)` for `x` up to 0, within two units in the last place; `exp(-87)` for any lower `x`.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4; // few bits, so that a product with an integer is exact
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Adding and then subtracting this number rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let x = if x > -87.0 { x } else { -87.0 };
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let poly = 1.987_569_1e-4;
    let poly = poly * r + 1.398_2e-3;
    let poly = poly * r + 8.333_452e-3;
    let poly = poly * r + 4.166_579_6e-2;
    let poly = poly * r + 0.166_666_65;
    let poly = poly * r + 0.5;
    let poly = poly * (r * r) + r + 1.0;
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    poly * f32::from_bits(exponent << 23)
}

vectorised! {
    /// Appends every value of at least `least` with its token; skips chunks below `least`.
    fn gather(work: &[f32], chunk_max: &[f32], least: f32, out: &mut Vec<(f32, u32)>) {
        for (chunk, (values, &max)) in
            work.as_chunks::<CHUNK>().0.iter().zip(chunk_max).enumerate()
        {
            if max >= least {
                for (i, &value) in values.iter().enumerate() {
                    if value >= least {
                        out.push((value, (chunk * CHUNK + i) as u32));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_and_monotone_enough() {
        let mut worst = 0f64;
        for i in 0..870_000 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / exact - 1.0).abs());
        }
        assert!(worst < 2.5e-7, "{worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(weight(0.0), 1 << 40);
        assert_eq!(weight(LIGHTEST), 0);
        assert_eq!(weight(f32::NEG_INFINITY), 0);
    }

    #[test]
    fn argmax_takes_the_first_and_passes_over_nan() {
        let mut row = vec![0.0; 1000];
        row[3] = f32::NAN;
        row[700] = 2.0;
        row[800] = 2.0;
        assert_eq!(argmax(&row), 700);
        row[990] = f32::INFINITY;
        assert_eq!(argmax(&row), 990);
        assert_eq!(argmax(&[f32::NAN; 70]), 0);
        assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY, -5.0]), 2);
        assert_eq!(argmax(&[]), 0);
    }
}
