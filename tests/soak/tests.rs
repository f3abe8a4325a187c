//! The soak finds nothing where nothing is wrong, and what is wrong where something is; and it leaves nothing out.

use galley_engine::{DrafterChoice, Prompt, SchedulePolicy, Verify};
use galley_tests::soak::dimensions::{DRAFTERS, End, Workload};
use galley_tests::soak::{Control, Report, Soak, Target};
use galley_tests::{TINY_MODELS, data};
use std::collections::BTreeSet;
use std::path::Path;

const SEED: u64 = 11;

/// Runs workloads of tiny models until `is_enough`.
fn soak(seed: u64, control: Option<Control>, is_enough: impl FnMut(&Report) -> bool) -> Report {
    println!("seed {seed}");
    Soak { seed, targets: Target::tiny(), only: None, control }.run(is_enough)
}

#[test]
fn a_short_soak_finds_nothing() {
    let report = soak(SEED, None, |report| report.n_workloads == 30);
    println!("{report}");
    assert!(report.is_clean(), "{:#?}", report.findings);
    assert!(report.n_comparisons > 200 && report.n_by_rejection > 5, "{report}");
    assert!(report.n_preemptions > 100 && report.n_prefix_hits > 100, "{report}");
    assert!(report.n_accepted > 100 && report.n_drafted > report.n_accepted + 100, "{report}");
}

#[test]
fn a_wrong_order_of_summation_is_found() {
    let enough = |report: &Report| report.n_differences > 0 || report.n_workloads == 30;
    let report = soak(SEED, Some(Control::Sum), enough);
    println!("{report}");
    assert!(report.n_differences > 0, "{report}");
}

#[test]
fn a_verifier_that_accepts_a_wrong_guess_in_a_thousand_is_found() {
    let enough = |report: &Report| report.n_differences > 0 || report.n_workloads == 100;
    let report = soak(SEED, Some(Control::Verify), enough);
    println!("{report}");
    assert!(report.n_differences > 0, "{report}");
}

/// What differs can be run again by its number.
#[test]
fn a_workload_follows_from_the_seed_and_its_number() {
    let targets = Target::tiny;
    let soak = |seed| Soak { seed, targets: targets(), only: None, control: None };
    let drawn = |soak: &Soak, number| {
        let (target, workload) = soak.draw(number);
        format!("{} {workload:?}", target.name)
    };
    let (one, two) = (soak(SEED), soak(SEED + 1));
    assert_eq!(drawn(&one, 5), drawn(&soak(SEED), 5));
    assert_ne!(drawn(&one, 5), drawn(&one, 6));
    assert_ne!(drawn(&one, 5), drawn(&two, 5));
}
