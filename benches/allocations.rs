//! A warm `guess` makes no allocation in the host, whichever host functions it calls.

mod calls;

use calls::{drafter, library, rows};
use galley_benches::counting::{Counting, allocations};
use galley_drafter_host::{Outcome, Program};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_warm_guess_allocates_nothing() {
    let library = library();
    let rows = rows(8);
    let calls = [
        ("chain", false),
        ("chain", true),
        ("lookup", true),
        ("row", true),
        ("push", true),
        ("change", true),
        ("replay", true),
        ("score", true),
        ("describe", true),
        ("extension", true),
        ("log", true),
    ];
    for (call, is_asked) in calls {
        let mut drafter = drafter(&library, call, 8, is_asked);
        let mut program = Program::default();
        let mut guess = |n_rows: usize| {
            assert_eq!(drafter.guess(&rows[..n_rows], &mut program), Outcome::Ready, "{call}");
        };
        // Warm up: the host keeps its memory from round to round.
        (0..3).for_each(|_| guess(8));
        let n_allocations = allocations(|| (0..10).for_each(|_| guess(8)));
        assert_eq!(n_allocations, 0, "{call}, asked: {is_asked}");
        // The negative control: recording a program for a new shape allocates, and the count shows
        // it.
        if !is_asked {
            assert!(allocations(|| guess(7)) > 0);
            assert_eq!(allocations(|| guess(7)), 0);
        }
    }
}

#[test]
fn allocations_are_counted() {
    assert_eq!(allocations(|| ()), 0);
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1_u8; 100]))), 1);
    let mut grows = Vec::with_capacity(1);
    assert_eq!(allocations(|| grows.extend_from_slice(&[1_u64, 2])), 1);
}
