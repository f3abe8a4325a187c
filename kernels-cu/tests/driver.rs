//! The emulated driver itself: when work runs, which calls it refuses, and which errors end the process. The cases are
//! C++, in `tests/driver/`.
#![cfg(feature = "emulate")]

mod common;

use common::{folder, link, objects, run, sources, stderr};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// All cases, linked with the driver and the emulation that the crate was built with.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = folder("driver");
    let driver = Path::new(galley_kernels_cu::EMULATED_DRIVER);
    let beside = driver.parent().expect("it is in a folder").display();
    let flags = ["-O1", "-Itests/emulator", "-Wall", "-Wextra", "-Wno-unused-parameter"];
    let mut files = sources("tests/driver", "cu");
    files.push("tests/emulator/main.cu".into());
    let mut parts = objects(&folder, "driver", &files, &flags);
    parts.push(Path::new(env!("OUT_DIR")).join("libgalley_emulated.a"));
    parts.push(driver.into());
    link(&folder, "driver", &parts, &[&format!("-Wl,-rpath,{beside}")])
});

const WORK: [&[(&str, &str)]; 5] = [
    &[],
    &[("WORK", "late")],
    &[("WORK", "early")],
    &[("WORK", "random"), ("SEED", "1")],
    &[("WORK", "random"), ("SEED", "2")],
];

#[test]
fn does_what_cuda_says_whenever_work_is_done() {
    for settings in WORK {
        let output = run(&PROGRAM, &["all"], settings);
        assert!(output.status.success(), "{settings:?}: {}", stderr(&output));
    }
}

/// Cases that end their process, and the expected message. An access fault ends a process without a message.
const DEATHS: [(&str, &str); 5] = [
    ("memory_that_outlives_the_context", "with 1 allocations in it"),
    ("pinned_memory_that_is_freed_before_its_copy", "which a copy on its way uses: wait for it"),
    ("kernel_over_freed_memory", ""),
    ("kernel_that_leaves_its_buffer", ""),
    ("host_that_follows_a_device_address", ""),
];

#[test]
fn notices_what_cuda_leaves_undefined() {
    let list = run(&PROGRAM, &["list"], &[]);
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let expected: Vec<_> = DEATHS.iter().map(|(case, _)| *case).collect();
    assert_eq!(list.lines().collect::<Vec<_>>(), expected);
    for (case, sentence) in DEATHS {
        let output = run(&PROGRAM, &[case], &[]);
        let said = stderr(&output);
        // The process ends by a signal; a failed check would exit with a code.
        assert!(output.status.code().is_none() && said.contains(sentence), "{case}: {said}");
    }
}
