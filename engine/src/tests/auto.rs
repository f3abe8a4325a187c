//! The engine chooses drafters: the right one where it pays, none where none pays, and no token changes.

use super::drafter::{Kind, Known, drafting_of};
use super::schedules::{Bench, simple};
use super::toy::Toy;
use crate::config::EngineConfig;
use crate::draft_settings::{DraftRequest, DrafterChoice};
use crate::request::Request;
use crate::stats::Stats;
use std::sync::Arc;

const N_TOKENS: u32 = 300;

fn auto(seed: u64) -> Request {
    let choice = DraftRequest::default().drafter(DrafterChoice::Auto);
    simple(5, N_TOKENS, seed).drafting(choice)
}

/// Runs requests that leave the choice to the engine, with drafts of at most `most` tokens. Times are those of the test's table, not of the clock.
fn run(kinds: &[Kind], n_requests: u64, most: u32) -> (Stats, Known) {
    let known = Known::default();
    let toy = Toy::new(2000, 4, 64);
    let config = EngineConfig::default();
    let mut bench =
        Bench::drafting(Box::new(toy), &config, |sizes| drafting_of(kinds, &known, sizes));
    for seed in 0..n_requests {
        let mut request = auto(seed);
        request.drafting.draft_length = Some(most);
        bench.submit(request);
    }
    bench.run_to_the_end();
    (bench.verdict().expect("the tokens of plain decoding"), known)
}

#[test]
fn the_drafter_that_is_right_is_used_and_the_one_that_is_wrong_is_left() {
    for n_requests in [1, 6] {
        let (stats, known) = run(&[Kind::Never, Kind::Right], n_requests, 8);
        let planner = stats.planner.expect("a planner");
        let (never, right) = (planner.drafts[0], planner.drafts[1]);
        assert!(right > 10 * never.max(1), "{right} and {never} of {planner:?}");
        assert!(planner.plain_rounds * 20 < planner.rounds, "{planner:?}");
        assert!(stats.drafts.accept_rate() > 0.8, "{:?}", stats.drafts);
        assert!(known.lock().unwrap().sequences.is_empty(), "every drafter is told of every end");
    }
}

#[test]
fn a_drafter_that_does_not_pay_is_left_for_plain_decoding() {
    let (stats, _) = run(&[Kind::Never], 4, 8);
    let planner = stats.planner.expect("a planner");
    assert!(planner.plain_rounds * 10 > planner.rounds * 9, "{planner:?}");
    assert!(stats.drafts.drafted > 0, "it was tried");
    // The control: a request that names the drafter gets it in every round.
    let named = DrafterChoice::Named(format!("{:?}", Kind::Never));
    let known = Known::default();
    let toy = Box::new(Toy::new(2000, 4, 64));
    let config = EngineConfig::default();
    let mut bench =
        Bench::drafting(toy, &config, |sizes| drafting_of(&[Kind::Never], &known, sizes));
    bench.submit(auto(1).drafting(DraftRequest::default().drafter(named)));
    bench.run_to_the_end();
    let stats = bench.verdict().unwrap();
    assert!(stats.drafts.rounds > u64::from(N_TOKENS) * 9 / 10);
}

#[test]
fn a_drafter_whose_drafts_become_wrong_is_left_within_32_rounds() {
    let (stats, _) = run(&[Kind::Fading], 1, 2);
    let planner = stats.planner.expect("a planner");
    // 60 rounds are right; the next ones are wrong until it is left, and probes are rare.
    assert!(planner.drafts[0] > 55, "{planner:?}");
    assert!(planner.drafts[0] < 60 + 32 + planner.probes, "{planner:?}");
    assert!(stats.drafts.accept_rate() > 0.6, "{:?}", stats.drafts);
}

/// Plain decoding under the engine's choice is that of a request without a drafter: the same forwards, and on a device
/// that runs ahead the same steps.
#[test]
fn plain_means_the_plain_path() {
    let calls = |request: Request| {
        let toy = Toy::new(2000, 4, 64).asynchronous(true);
        let calls = Arc::clone(&toy.calls);
        let config = EngineConfig::default();
        let known = Known::default();
        // Its lookups find nothing, so no round drafts.
        let mut bench = Bench::drafting(Box::new(toy), &config, |sizes| {
            drafting_of(&[Kind::Lookup], &known, sizes)
        });
        bench.submit(request);
        for _ in 0..40 {
            bench.step();
        }
        assert!(known.lock().unwrap().sequences.is_empty(), "no drafter is told of the sequence");
        calls.lock().unwrap().clone()
    };
    let request = |drafting: DraftRequest| simple(1, 8, 3).drafting(drafting);
    let chosen = calls(request(DraftRequest::default().drafter(DrafterChoice::Auto)));
    assert_eq!(chosen, calls(request(DraftRequest::off())));
    assert!(chosen.contains('f'), "{chosen}");
}
