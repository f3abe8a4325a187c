//! The cost of a drafter's `guess` callback and of each host call in it:
//! `cargo bench -p galley-benches --bench abi`.
//!
//! The cost of a host call is the extra time of a `guess` that makes the call many times, divided
//! by the number of calls.

mod calls;

use calls::{drafter, library, rows};
use galley_benches::counting::{Counting, allocations};
use galley_benches::median_s;
use galley_drafter_host::{DraftRow, Drafter, Outcome, Program};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let library = library();
    println!("guess                          rows        ns  allocations");
    for n_rows in [1, 8, 64, 256] {
        let rows = rows(n_rows);
        for (label, call, times, is_asked) in [
            ("repeated from the recording", "chain", 1, false),
            ("asked, one chain", "chain", 1, true),
            ("asked, a push for each row", "push", n_rows, true),
        ] {
            let mut drafter = drafter(&library, call, times, is_asked);
            let (ns, n_allocations) = measure(&mut drafter, &rows);
            println!("{label:30} {n_rows:4} {ns:9.1}  {n_allocations:11}");
        }
    }
    println!("\nhost call       ns");
    let rows = rows(N_CALLS);
    let (without, _) = measure(&mut drafter(&library, "none", 0, true), &rows);
    for call in [
        "extension",
        "describe",
        "log",
        "chain",
        "lookup",
        "row",
        "push",
        "replay",
        "score",
        "change",
    ] {
        let (with, _) = measure(&mut drafter(&library, call, N_CALLS, true), &rows);
        println!("{call:10} {:8.1}", (with - without) / N_CALLS as f64);
    }
}

/// Nanoseconds of one `guess`, and its number of allocations.
fn measure(drafter: &mut Drafter, rows: &[DraftRow<'_>]) -> (f64, u64) {
    let mut program = Program::default();
    let mut guess = || {
        let outcome = drafter.guess(rows, &mut program);
        assert_eq!(outcome, Outcome::Ready);
    };
    let seconds = median_s(N_SAMPLES, || (0..N_GUESSES).for_each(|_| guess()));
    (seconds * 1e9 / N_GUESSES as f64, allocations(guess))
}

/// The largest number of chains, lookups and replays in one callback.
const N_CALLS: usize = 32;
const N_GUESSES: usize = 1000;
const N_SAMPLES: usize = 21;
