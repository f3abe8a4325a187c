//! Drafter, draft length and KV budget change between rounds, and no token changes.

use super::drafter::{Kind, Known, drafting_of};
use super::schedules::{Bench, Random, plain, random_request, simple};
use super::toy::Toy;
use crate::config::{EngineConfig, SchedulePolicy};
use crate::draft_settings::{DraftRequest, DrafterChoice};
use crate::request::Request;
use crate::stats::Stats;
use std::sync::Arc;

fn drafted_by(request: Request, kind: Kind, draft_length: u32) -> Request {
    let drafter = DrafterChoice::Named(format!("{kind:?}"));
    let draft_length = Some(draft_length);
    request.drafting(DraftRequest { drafter, draft_length, ..DraftRequest::default() })
}

/// Random requests with five drafters, whose plans the random schedule changes.
fn run(seed: u32, is_asynchronous: bool) -> Stats {
    const KINDS: [Kind; 5] = [Kind::Right, Kind::Wrong, Kind::Lookup, Kind::Suffix, Kind::Mixed];
    let mut random = Random::new(seed);
    let config = EngineConfig {
        max_num_batched_tokens: 8 + random.below(56),
        policy: SchedulePolicy::Random { seed: seed.into() },
        ..EngineConfig::default()
    };
    let toy = Toy::new(random.of(&[24, 200]), 4, 64).asynchronous(is_asynchronous);
    let known = Known::default();
    let mut bench =
        Bench::drafting(Box::new(toy), &config, |sizes| drafting_of(&KINDS, &known, sizes));
    let prefixes = [random.tokens(40)];
    for _ in 0..8 {
        let request = random_request(&mut random, 90, &prefixes);
        let request = if is_asynchronous { plain(request) } else { request };
        let draft_length = 1 + random.below(8) as u32;
        let mut request = drafted_by(request, random.of(&KINDS), draft_length);
        if random.one_in(3) {
            request.drafting.drafter = DrafterChoice::Auto;
        }
        bench.submit(request);
    }
    bench.run_to_the_end();
    let stats = bench.verdict().unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    let told = known.lock().unwrap();
    assert!(told.sequences.is_empty(), "every drafter is told of every end");
    assert_eq!(told.drafts, stats.drafts, "and of the fate of every draft");
    stats
}

/// The random schedule changes the plan of one round in eight. A drafter asserts that it is told of
/// a sequence once before it drafts for it, and of its end once after.
#[test]
fn a_drafter_may_change_between_any_two_rounds() {
    for is_asynchronous in [false, true] {
        let (mut rounds, mut accepted) = (0, 0);
        for seed in 0..100 {
            let stats = run(seed, is_asynchronous);
            rounds += stats.drafts.rounds;
            accepted += stats.drafts.accepted;
        }
        println!("{rounds} rounds, {accepted} accepted tokens");
        assert!(rounds > 2000 && accepted > 1000, "{rounds} {accepted}");
    }
}

/// A drafter that its host sets aside drafts no more; its sequences go on without drafts.
#[test]
fn sequences_of_a_drafter_that_was_set_aside_decode_plainly() {
    let known = Known::default();
    let mut bench =
        Bench::drafting(Box::new(Toy::new(200, 4, 64)), &EngineConfig::default(), |sizes| {
            drafting_of(&[Kind::SetAside, Kind::Right], &known, sizes)
        });
    bench.submit(drafted_by(simple(5, 40, 1), Kind::SetAside, 2));
    bench.submit(drafted_by(simple(7, 40, 2), Kind::Right, 2));
    for _ in 0..6 {
        bench.step();
    }
    let sequences = known.lock().unwrap().sequences.clone();
    assert_eq!(sequences, [1 << 24].into(), "it was told that the sequence is over");
    bench.run_to_the_end();
    let stats = bench.verdict().unwrap();
    assert_eq!(stats.drafts.drafted, 2 * 2 + 26, "two rounds of the first, all of the second");
}

/// Chains of several drafters over one model and the same layers take the forwards of one chain.
#[test]
fn chains_of_one_model_run_together() {
    let n_forwards = |kinds: [Kind; 2]| {
        let toy = Toy::new(200, 4, 64);
        let calls = Arc::clone(&toy.calls);
        let mut bench = Bench::drafting(Box::new(toy), &EngineConfig::default(), |sizes| {
            drafting_of(&[Kind::Right, Kind::SetAside, Kind::Wrong], &Known::default(), sizes)
        });
        for (seed, kind) in kinds.into_iter().enumerate() {
            bench.submit(drafted_by(simple(5, 7, seed as u64), kind, 3));
        }
        bench.run_to_the_end();
        bench.verdict().unwrap();
        calls.lock().unwrap().matches('f').count()
    };
    // A prompt, and two rounds, each of three drafts and a verification.
    let one_drafter = n_forwards([Kind::Right, Kind::Right]);
    assert_eq!(one_drafter, n_forwards([Kind::Right, Kind::SetAside]));
    // The control: a drafter without a chain takes none of its forwards, and needs more steps.
    assert_ne!(one_drafter, n_forwards([Kind::Right, Kind::Wrong]));
}
