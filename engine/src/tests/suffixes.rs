//! Suffix indexes in the engine: earlier outputs of the same salt are found, and bytes come back.

use super::drafter::{Kind, Known, drafting};
use super::schedules::{Bench, simple};
use super::toy::Toy;
use crate::config::EngineConfig;
use crate::draft_settings::{DraftRequest, DrafterChoice};
use crate::request::Request;
use crate::stats::Stats;

fn bench(kind: Kind) -> Bench {
    Bench::drafting(Box::new(Toy::new(200, 4, 64)), &EngineConfig::default(), |sizes| {
        drafting(kind, &Known::default(), sizes)
    })
}

/// Accepted draft tokens of the second of two requests.
fn accepted_by_the_second(first: Request, second: Request) -> u64 {
    let mut bench = bench(Kind::Suffix);
    bench.submit(first);
    bench.run_to_the_end();
    let before = bench.core.stats().drafts.accepted;
    bench.submit(second);
    bench.run_to_the_end();
    bench.verdict().unwrap().drafts.accepted - before
}

#[test]
fn an_output_is_found_by_requests_of_its_salt_alone() {
    let request = |salt| simple(9, 60, 3).cache_salt(salt).ignore_eos(true);
    let again = accepted_by_the_second(request(0), request(0));
    let apart = accepted_by_the_second(request(0), request(5));
    assert!(again > 40, "the same answer again: {again}");
    assert!(apart < again / 2, "a salt of its own: {apart}");
    assert_eq!(accepted_by_the_second(request(5), request(0)), apart, "no salt is a salt");
    assert_eq!(accepted_by_the_second(request(5), request(5)), again);
    // A request without drafter leaves no output.
    let off = request(0).drafting(DraftRequest::default().drafter(DrafterChoice::Off));
    assert_eq!(accepted_by_the_second(off, request(0)), apart);
}

fn bytes(stats: &Stats) -> (usize, usize) {
    (stats.suffix_index_bytes, stats.suffix_memory_bytes)
}

#[test]
fn bytes_are_counted_and_come_back() {
    let mut with = bench(Kind::Suffix);
    (0..3).for_each(|seed| with.submit(simple(9, 60, seed)));
    (0..10).for_each(|_| with.step());
    let stats = with.core.stats();
    assert!(stats.suffix_index_bytes > 0 && stats.suffix_memory_bytes == 0, "{stats:?}");
    assert!(stats.suffix_index_bytes <= stats.suffix_bytes_limit);
    with.run_to_the_end();
    let stats = with.core.stats();
    assert!(stats.suffix_index_bytes == 0 && stats.suffix_memory_bytes > 0, "{stats:?}");
    assert!(stats.suffix_index_bytes_peak > 0);
    // A drafter that does not search has no index.
    let mut without = bench(Kind::Lookup);
    without.submit(simple(9, 60, 1));
    (0..10).for_each(|_| without.step());
    assert_eq!(bytes(&without.core.stats()), (0, 0));
}
