//! Helpers of the measurements: the clock of a device, known numbers, and the check.

use galley_backend::cuda::CudaBackend;
use galley_benches::{median, seconds};

/// Seconds of one call of `enqueue`, with many calls enqueued at once: the median of several runs.
/// `enqueue` gets the number of the call.
pub(crate) fn seconds_each(
    backend: &mut CudaBackend,
    mut enqueue: impl FnMut(&mut CudaBackend, usize),
) -> f64 {
    let mut run = |n: usize| {
        seconds(|| {
            (0..n).for_each(|i| enqueue(backend, i));
            backend.synchronize().expect("the device works");
        }) / n as f64
    };
    run(1);
    let estimate = run(2);
    // Long enough to make the start and the wait negligible, and short enough that clocks stay
    // constant.
    let n = (0.02 / estimate).clamp(1.0, 400.0) as usize;
    median((0..5).map(|_| run(n)).collect())
}

/// A number that host and device both represent exactly: a multiple of 1/64 from -2 to below 2.
pub(crate) fn value(row: usize, at: usize) -> f32 {
    let mixed = (row as u32).wrapping_mul(0x9e37_79b1)
        ^ (at as u32).wrapping_add(7).wrapping_mul(0x85eb_ca77);
    let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x2c1b_3c6d);
    f32::from((((mixed ^ (mixed >> 13)) >> 11) & 0xff) as i16 - 128) / 64.0
}

/// Fails unless `got` equals `expected` up to `tolerance`, relative to the largest value. Also
/// fails if the check could not notice a wrong output: the same values, shifted by one place, must
/// differ by more.
pub(crate) fn check(label: &str, expected: &[f64], got: &[f32], tolerance: f64) {
    assert_eq!(expected.len(), got.len(), "{label}");
    let size = expected.iter().fold(1e-9_f64, |m, x| m.max(x.abs()));
    let error = |shift: usize| {
        let got = got.iter().cycle().skip(shift);
        expected.iter().zip(got).map(|(e, g)| (e - f64::from(*g)).abs() / size).fold(0.0, f64::max)
    };
    assert!(error(0) <= tolerance, "{label}: an error of {:.4}, {tolerance} is allowed", error(0));
    assert!(error(1) > 4.0 * tolerance, "{label}: the check cannot tell values apart");
}
