//! Rules about resources that a drafter leaves behind.

use super::{about_to, not_alive};
use crate::life::{Subject, tokens};
use crate::verdict::Verdict;
use galley_drafter_host::{DraftRow, Drafter, Program, Verified};
use std::time::{Duration, Instant};

/// R18: whole lives leave nothing behind.
pub(crate) fn lives(subject: &Subject) -> Verdict {
    grows(subject, "lives", |subject| {
        let Ok((mut drafter, _)) = subject.activate() else { return };
        let tokens = tokens(1, 20);
        let rows = [DraftRow { sequence: 1, tokens: &tokens, draft_length: 2 }];
        drafter.guess(&rows, &mut Program::default());
        drafter.end(1);
    })
}

/// R19: ended sequences leave nothing behind.
pub(crate) fn sequences(subject: &Subject) -> Verdict {
    let Ok((drafter, observed)) = subject.activate() else { return not_alive() };
    let mut worker = Worker { drafter, n_sequences: 0, program: Program::default() };
    grows(subject, "sequences", move |_| {
        worker.one_sequence();
        // The record of the interposer is no memory of the drafter.
        let mut observed = observed.lock();
        observed.guesses.clear();
        observed.returned.clear();
    })
}

struct Worker {
    drafter: Drafter,
    n_sequences: u64,
    program: Program,
}

impl Worker {
    fn one_sequence(&mut self) {
        self.n_sequences += 1;
        let tokens = tokens(self.n_sequences as usize, 30);
        let row = DraftRow { sequence: self.n_sequences, tokens: &tokens, draft_length: 3 };
        self.drafter.after_prefill(&[row], &mut self.program);
        self.drafter.guess(&[row], &mut self.program);
        let verified = Verified { sequence: self.n_sequences, n_proposed: 3, n_accepted: 1 };
        self.drafter.feedback(&[verified]);
        self.drafter.end(self.n_sequences);
    }
}

fn grows(subject: &Subject, units: &str, mut once: impl FnMut(&Subject)) -> Verdict {
    if subject.activate().is_err() {
        return not_alive();
    }
    if std::fs::read_to_string("/proc/self/maps").is_ok_and(|maps| maps.contains("libasan")) {
        return Verdict::Skip("the address sanitizer keeps freed memory".to_owned());
    }
    about_to(&format!("go through many {units}"));
    // The warm-up is long enough for allocators and first-time initialisation to settle.
    repeat(N_TIMES / 4, || once(subject));
    let Some(before) = Held::now() else {
        return Verdict::Skip(
            "this system does not report the memory, threads and files of a process".to_owned(),
        );
    };
    let n = repeat(N_TIMES, || once(subject));
    let Some(after) = Held::now() else { return Verdict::Pass };
    let (bytes, threads, files) = (
        after.bytes.saturating_sub(before.bytes),
        after.threads.saturating_sub(before.threads),
        after.files.saturating_sub(before.files),
    );
    if bytes > MOST_BYTES.max(n * MOST_BYTES_EACH) || threads > 0 || files > 0 {
        return Verdict::Fail(format!(
            "{n} {units} left {bytes} bytes, {threads} threads and {files} open files behind"
        ));
    }
    Verdict::Pass
}

/// Runs `once` up to `n_times` times, as long as `PATIENCE` allows. Returns the number of runs.
fn repeat(n_times: u64, mut once: impl FnMut()) -> u64 {
    let started = Instant::now();
    for n in 0..n_times {
        if started.elapsed() > PATIENCE {
            return n;
        }
        once();
    }
    n_times
}

/// Resources that this process holds.
struct Held {
    bytes: u64,
    threads: u64,
    files: usize,
}

impl Held {
    fn now() -> Option<Held> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let number = |key: &str| -> Option<u64> {
            let line = status.lines().find(|line| line.starts_with(key))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        let files = std::fs::read_dir("/proc/self/fd").ok()?.count();
        Some(Held { bytes: number("VmRSS:")? * 1024, threads: number("Threads:")?, files })
    }
}

const N_TIMES: u64 = 20_000;

/// Time limit for slow drafters; rule R20 is about slowness.
const PATIENCE: Duration = Duration::from_secs(2);

/// Allowed growth in bytes: the resident size varies by some pages.
const MOST_BYTES: u64 = 256 * 1024;

/// Allowed growth in bytes per repetition: less than an allocator's smallest allocation.
const MOST_BYTES_EACH: u64 = 25;
