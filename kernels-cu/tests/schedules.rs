//! Every launcher in schedules that the other tests do not use: other orders of the threads of a block, and copies that
//! land early. One schedule may hide a missing barrier; correct kernels give the same bits in all schedules.
#![cfg(feature = "emulate")]

mod common;
mod table;

use common::{folder, link, objects, run, sources, stderr};
use std::path::{Path, PathBuf};
use table::{header, launchers};

/// Each schedule may show defects that other schedules hide.
const SCHEDULES: [&[(&str, &str)]; 5] = [
    &[("SCHEDULE", "lifo"), ("COPIES", "early")],
    &[("SCHEDULE", "lifo"), ("COPIES", "late")],
    &[("SCHEDULE", "random"), ("COPIES", "early"), ("SEED", "1")],
    &[("SCHEDULE", "random"), ("COPIES", "late"), ("SEED", "2")],
    &[("SCHEDULE", "random"), ("COPIES", "late"), ("SEED", "3"), ("THREADS", "1")],
];

/// A line of `cu/linear.cu`, its replacement, and the resulting defect.
const PLANTS: [(&str, &str, &str); 3] = [
    (
        "        __syncthreads();  // the next stage has landed",
        "        //",
        "no barrier between steps of the ring",
    ),
    (
        "        copy_async_wait<T::STAGES - 2>();",
        "        copy_async_wait<T::STAGES - 1>();",
        "the next stage is not waited for",
    ),
    // In the usual schedule, late copies hide this defect.
    (
        "step < T::STAGES - 1; step++",
        "step < T::STAGES; step++",
        "a stage is filled while it is read",
    ),
];

/// A program of the cases. `kernels` replace kernels of the crate.
fn program(name: &str, cases: &[PathBuf], kernels: &[PathBuf]) -> PathBuf {
    let library = Path::new(env!("OUT_DIR")).join("libgalley_emulated.a");
    let parts = [cases, kernels, &[library]].concat();
    link(&folder("schedules"), name, &parts, &[])
}

/// The digests of cases in a schedule, or the error output of the program.
fn digests(program: &Path, names: &[&str], schedule: &[(&str, &str)]) -> Result<String, String> {
    let output = run(program, names, schedule);
    let digests = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(digests) } else { Err(stderr(&output)) }
}

#[test]
fn every_launcher_gives_the_same_bits_in_every_schedule() {
    let folder = folder("schedules");
    let cases = objects(&folder, "case", &sources("sanitizers", "cpp"), &["-O1"]);
    let (header, whole) = (header(), program("whole", &cases, &[]));
    let names = launchers(&header);
    let usual = digests(&whole, &names, &[]).expect("the usual schedule");
    assert_eq!(usual.lines().count(), names.len(), "{usual}");
    for schedule in SCHEDULES {
        assert_eq!(digests(&whole, &names, schedule).as_ref(), Ok(&usual), "{schedule:?}");
    }
    // The control: at least one schedule shows each defect planted in a kernel.
    let usual = digests(&whole, &["linear"], &[]).expect("the usual schedule");
    let source = std::fs::read_to_string("cu/linear.cu").expect("a kernel");
    std::thread::scope(|scope| {
        for (i, (line, other, fault)) in PLANTS.into_iter().enumerate() {
            let (cases, source, usual, folder) = (&cases, &source, &usual, &folder);
            scope.spawn(move || {
                assert!(source.contains(line), "no longer in linear.cu: {line}");
                let name = format!("plant-{i}");
                let planted = folder.join(&name).with_extension("cu");
                std::fs::write(&planted, source.replace(line, other)).expect("a place for a file");
                let program = program(&name, cases, &objects(folder, &name, &[planted], &["-O0"]));
                let differs =
                    |schedule: &[_]| digests(&program, &["linear"], schedule).as_ref() != Ok(usual);
                assert!(SCHEDULES.into_iter().any(differs), "unnoticed: {fault}");
                assert!(
                    line.starts_with("step <") != differs(&[]),
                    "in the usual schedule: {fault}"
                );
            });
        }
    });
}
