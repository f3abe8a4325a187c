//! The emulation itself: its results against plain computations, and its detection of undefined behaviour. The cases
//! are C++, in `tests/emulator/`.
#![cfg(feature = "emulate")]

mod common;

use common::{folder, link, objects, run, sources, stderr};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// All cases, linked with the emulation that the crate was built with.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = folder("emulator");
    let flags = ["-O1", "-Itests/emulator", "-Wall", "-Wextra", "-Wno-unused-parameter"];
    let mut parts = objects(&folder, "cases", &sources("tests/emulator", "cu"), &flags);
    parts.push(Path::new(env!("OUT_DIR")).join("libgalley_emulated.a"));
    link(&folder, "cases", &parts, &[])
});

const SCHEDULES: [&[(&str, &str)]; 5] = [
    &[("SCHEDULE", "fifo"), ("THREADS", "1")],
    &[("SCHEDULE", "lifo"), ("THREADS", "3")],
    &[("SCHEDULE", "random"), ("SEED", "1")],
    &[("SCHEDULE", "random"), ("SEED", "2"), ("THREADS", "1")],
    &[],
];

#[test]
fn computes_what_cuda_defines_in_every_schedule() {
    for schedule in SCHEDULES {
        for copies in ["late", "early"] {
            let settings = [schedule, &[("COPIES", copies)]].concat();
            let output = run(&PROGRAM, &["all"], &settings);
            assert!(output.status.success(), "{settings:?}: {}", stderr(&output));
        }
    }
}

/// Cases that end their process, and the expected messages.
const DEATHS: [(&str, &[&str]); 15] = [
    ("lane_outside_its_mask", &["__shfl_sync: lane 3 calls it and is not in its mask 000000f0"]),
    (
        "shuffle_from_a_lane_that_is_not_there",
        &["reads lane 20, which takes no part (mask 0000ffff)"],
    ),
    ("different_collectives", &["meet in different collectives", "__shfl_sync", "__ballot_sync"]),
    (
        "deadlock",
        &[
            "block (0,0,0): deadlock",
            "threads 0 to 4: waits at __syncwarp of",
            "(mask ffffffff, missing lanes 00000020)",
            "thread 5: waits at __syncthreads of",
        ],
    ),
    ("different_barriers", &["meet in different barriers", "warps.cu:"]),
    ("odd_width", &["the width 12 is no power of two"]),
    ("too_little_shared_memory", &["wrote 0 bytes behind its 100 bytes of dynamic shared memory"]),
    ("copy_to_an_odd_address", &["cp.async", "must be multiples of 16"]),
    ("copy_from_an_odd_address", &["cp.async", "must be multiples of 16"]),
    ("odd_matrix_row", &["thread (1,0,0)", "ldmatrix: the row address", "is no multiple of 16"]),
    ("load_without_all_lanes", &["load_matrix_x4 needs all 32 lanes", "7fffffff"]),
    ("multiply_without_all_lanes", &["mma_bf16 needs all 32 lanes", "fffffffe"]),
    ("too_many_groups", &["more than 32 groups of cp.async"]),
    ("launch_in_a_kernel", &["a kernel launches a kernel"]),
    ("too_large_a_stack", &["its local variables need more than the 64 KiB of a stack"]),
];

#[test]
fn notices_what_hardware_leaves_undefined() {
    let list = run(&PROGRAM, &["list"], &[]);
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let listed: Vec<_> = list.lines().collect();
    assert_eq!(listed.len(), DEATHS.len(), "a case without its sentence here: {listed:?}");
    for (case, sentences) in DEATHS {
        for schedule in SCHEDULES {
            // GALLEY_EMULATOR_COPIES is not set: copies land late.
            let output = run(&PROGRAM, &[case], schedule);
            let said = stderr(&output);
            assert!(!output.status.success(), "{case}, {schedule:?}: ended well");
            for sentence in sentences {
                // A message may name threads by their order of arrival, which is known in the first schedule alone.
                let exact = schedule == SCHEDULES[0] || !sentence.contains("thread");
                assert!(!exact || said.contains(sentence), "{case}, {schedule:?}: {said}");
            }
            assert!(said.contains("emulator: block (0,0,0)"), "{case}, {schedule:?}: {said}");
        }
    }
}

#[test]
fn refuses_settings_and_says_which_there_are() {
    let cases = [
        (
            "SCHEDULE",
            "lilo",
            "GALLEY_EMULATOR_SCHEDULE is \"lilo\": it may be fifo, lifo or random",
        ),
        ("COPIES", "", "GALLEY_EMULATOR_COPIES is \"\": it may be late or early"),
        ("SEED", "-1", "GALLEY_EMULATOR_SEED is \"-1\": it may be a number"),
        ("THREADS", "0", "GALLEY_EMULATOR_THREADS is \"0\": it may be a number from 1 to 256"),
    ];
    for (name, value, sentence) in cases {
        let output = run(&PROGRAM, &["all"], &[(name, value)]);
        assert!(
            !output.status.success() && stderr(&output).contains(sentence),
            "{}",
            stderr(&output)
        );
    }
}
