//! What measurements share: floors and medians.

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

/// Bytes a second that `n_threads` threads read from memory at this moment: the floor of decoding.
pub fn read_bandwidth(n_threads: usize) -> f64 {
    const BYTES: usize = 512 << 20;
    let data: Vec<Vec<u64>> =
        (0..n_threads).map(|i| vec![i as u64 + 1; BYTES / 8 / n_threads]).collect();
    let seconds = median_s(5, || {
        std::thread::scope(|scope| {
            for part in &data {
                scope.spawn(|| {
                    // Eight sums, so that additions wait for memory and not for each other.
                    let mut sums = [0_u64; 64];
                    for chunk in part.as_chunks::<64>().0 {
                        for (sum, x) in sums.iter_mut().zip(chunk) {
                            *sum = sum.wrapping_add(*x);
                        }
                    }
                    std::hint::black_box(sums);
                });
            }
        });
    });
    BYTES as f64 / seconds
}
