//! Requests with random changes are read or refused, without a panic.

#[path = "common/exercise.rs"]
mod exercise;

use exercise::{exercise, tiny_texts};
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use std::path::Path;

/// Pieces with a meaning in a request.
const PIECES: [&str; 24] = [
    "null",
    "true",
    "1e400",
    "-1",
    "0.5",
    "NaN",
    "4294967296",
    "\"",
    "\\ud800",
    "\\u0000",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\"temperature\":",
    "\"messages\":",
    "\"resume\":{",
    "\"logit_bias\":{\"1\":",
    "\"ignore_unknown\":true,",
    "\u{0}",
    "\u{feff}",
    "é",
];

struct Random(TestRng);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    /// One to three changes of the bytes.
    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..1 + self.below(3) {
            let at = self.below(bytes.len() + 1);
            let end = at + self.below(bytes.len() - at + 1).min(40);
            match self.below(5) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 => drop(bytes.drain(at..end)),
                2 => drop(bytes.splice(at..end, PIECES[self.below(PIECES.len())].bytes())),
                3 => drop(bytes.splice(at..at, PIECES[self.below(PIECES.len())].bytes())),
                _ => {
                    let from = self.below(other.len());
                    let piece = &other[from..other.len().min(from + 1 + self.below(60))];
                    drop(bytes.splice(at..end, piece.iter().copied()));
                }
            }
        }
    }
}

#[test]
fn mutated_requests_are_read_or_refused() {
    let texts = tiny_texts();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/request");
    let entries = std::fs::read_dir(folder).expect("the seeds of the fuzz target");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> =
        paths.iter().map(|path| std::fs::read(path).expect("bytes")).collect();
    // A fixed seed, so that every run has the same cases.
    let mut random = Random(TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let n_cases = 60_000;
    let (mut n_read, mut n_refused) = (0, 0);
    for _ in 0..n_cases {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        let other = random.below(seeds.len());
        random.mutate(&mut bytes, &seeds[other]);
        match exercise(&bytes, &texts) {
            true => n_read += 1,
            false => n_refused += 1,
        }
    }
    println!("{n_read} read, {n_refused} refused");
    assert!(
        n_read > n_cases / 100 && n_refused > n_cases / 100,
        "{n_read} read, {n_refused} refused"
    );
}
