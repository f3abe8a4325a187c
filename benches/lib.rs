//! What measurements share.

pub mod counting;

use std::time::Instant;

/// Median seconds of one call of `f` over `n` calls, after two to warm up.
pub fn median_s(n: usize, mut f: impl FnMut()) -> f64 {
    f();
    f();
    let mut times: Vec<f64> = (0..n)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
