//! Helpers for measurements.

pub mod counting;

use std::time::Instant;

/// The flags of a command line, each with its value, without the `--bench` that cargo passes. A flag without a
/// value is an error.
pub fn flags(
    words: impl Iterator<Item = String>,
) -> impl Iterator<Item = Result<(String, String), String>> {
    let mut words = words.filter(|word| word != "--bench");
    std::iter::from_fn(move || {
        let word = words.next()?;
        Some(match words.next() {
            Some(value) => Ok((word, value)),
            None => Err(format!("{word} needs a value")),
        })
    })
}

/// Median seconds of one call of `f` over `n` calls, after two warm-up calls.
pub fn median_s(n: usize, mut f: impl FnMut()) -> f64 {
    f();
    f();
    median((0..n).map(|_| seconds(&mut f)).collect())
}

/// Seconds of one call of `f`.
pub fn seconds(f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64()
}

/// The median of `values`, which must not be empty.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
