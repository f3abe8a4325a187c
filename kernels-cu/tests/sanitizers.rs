//! Kernels under the sanitizers of the C++ compiler, on the emulation. AddressSanitizer and UBSan check memory.
//! ThreadSanitizer, to which a CUDA thread is a fiber, checks for races between threads of a block and between blocks.
//!
//! The programs are in `sanitizers/`. `pipeline.cu`, a small kernel that can be built with a planted defect, shows that
//! each detector works. `launchers.cpp` calls every launcher of the table.
#![cfg(feature = "emulate")]

mod common;
#[path = "../../tests/sanitizer.rs"]
mod runtime;
mod table;

use common::{folder, link, objects, run, sources, stderr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use table::{header, launchers};

// With these flags, the compiler takes minutes to optimise a kernel with many unrolled loops.
const ADDRESS: [&str; 3] = ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
const THREAD: [&str; 2] = ["-O1", "-fsanitize=thread"];
/// The emulation reports its synchronisation to ThreadSanitizer. It is not instrumented itself, since it moves values
/// between threads by design.
const THREAD_RUNTIME: [&str; 2] = ["-O1", "-DGALLEY_EMULATOR_TSAN"];

/// The emulation's objects for each sanitizer, compiled once for both tests.
static ADDRESS_EMULATOR: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
    objects(&folder("sanitizers"), "address", &sources("emulator", "cpp"), &ADDRESS)
});
static THREAD_EMULATOR: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
    objects(&folder("sanitizers"), "thread", &sources("emulator", "cpp"), &THREAD_RUNTIME)
});

/// Whether both sanitizers are available. A missing one gives a remark, and fails the test in CI.
fn sanitizers_are_there() -> bool {
    let Some(_) = runtime::sanitizer() else { return false };
    let output = Command::new("c++").arg("-print-file-name=libtsan.so").output();
    let path = output.expect("a C++ compiler is there").stdout;
    let found = Path::new(String::from_utf8_lossy(&path).trim()).is_absolute();
    assert!(found || std::env::var_os("CI").is_none(), "c++ has no libtsan: install it");
    if !found {
        println!("skipped: c++ has no libtsan here");
    }
    found
}

/// The pipeline with the defect of number `plant`; 0 is none.
fn pipeline(name: &str, plant: u32, emulator: &[PathBuf], flags: &[&str]) -> PathBuf {
    let folder = folder("sanitizers");
    let plant_flag = format!("-DGALLEY_PLANT={plant}");
    let flags = [flags, &[plant_flag.as_str()]].concat();
    let name = format!("{name}-{plant}");
    let mut parts = objects(&folder, &name, &["sanitizers/pipeline.cu".into()], &flags);
    parts.extend_from_slice(emulator);
    link(&folder, &name, &parts, &flags)
}

const LATE: &[(&str, &str)] = &[("COPIES", "late")];
const EARLY: &[(&str, &str)] = &[("COPIES", "early")];
const RANDOM: &[(&str, &str)] = &[("SCHEDULE", "random"), ("SEED", "3"), ("THREADS", "1")];
const LIFO: &[(&str, &str)] = &[("SCHEDULE", "lifo"), ("COPIES", "early")];
const RACE: &str = "WARNING: ThreadSanitizer: data race";

#[test]
fn detectors_find_what_is_planted_and_nothing_else() {
    if !sanitizers_are_there() {
        return;
    }
    let (address, thread) = std::thread::scope(|scope| {
        let address = scope.spawn(|| ADDRESS_EMULATOR.as_slice());
        let thread = THREAD_EMULATOR.as_slice();
        (address.join().expect("compiles"), thread)
    });
    let plain = [Path::new(env!("OUT_DIR")).join("libgalley_emulated.a")];
    // Without a defect, no detector reports anything.
    let clean = [
        pipeline("plain", 0, &plain, &["-O1"]),
        pipeline("address", 0, address, &ADDRESS),
        pipeline("thread", 0, thread, &THREAD),
    ];
    for program in &clean {
        for settings in [LATE, EARLY, RANDOM] {
            let output = run(program, &[], settings);
            let said = stderr(&output);
            assert!(
                output.status.success() && said.is_empty(),
                "{program:?}, {settings:?}: {said}"
            );
        }
    }
    let found = |program: &Path, settings: &[(&str, &str)], sentence: &str| {
        let output = run(program, &[], settings);
        !output.status.success() && stderr(&output).contains(sentence)
    };
    // A wait for copies is missing: copies that land late give wrong numbers.
    let program = pipeline("plain", 1, &plain, &["-O1"]);
    assert!(found(&program, LATE, "wrong numbers"), "a missing wait");
    // A barrier is missing: after the wait, or before a stage is filled again.
    let program = pipeline("thread", 2, thread, &THREAD);
    assert!(found(&program, LATE, RACE), "a missing barrier after a wait");
    let program = pipeline("thread", 3, thread, &THREAD);
    assert!(found(&program, EARLY, RACE), "a missing barrier before a stage is filled again");
    // A shuffle exchanges values and orders no memory.
    let program = pipeline("thread", 5, thread, &THREAD);
    assert!(found(&program, LATE, RACE), "a missing __syncwarp");
    // Shared memory is too small: the sanitizer reports the access, the emulation the bytes.
    let program = pipeline("address", 4, address, &ADDRESS);
    assert!(found(&program, LATE, "heap-buffer-overflow"), "too little shared memory");
    let program = pipeline("plain", 4, &plain, &["-O1"]);
    assert!(found(&program, LATE, "bytes of dynamic shared memory"), "too little shared memory");
}

#[test]
fn kernels_run_under_sanitizers_without_a_report() {
    if !sanitizers_are_there() {
        return;
    }
    let program = |name: &str, emulator: &[PathBuf], flags: &[&str]| {
        let folder = folder("sanitizers");
        let mut parts = objects(&folder, &format!("{name}-kernel"), &sources("cu", "cu"), flags);
        parts.extend(objects(
            &folder,
            &format!("{name}-case"),
            &sources("sanitizers", "cpp"),
            flags,
        ));
        parts.extend_from_slice(emulator);
        link(&folder, &format!("{name}-launchers"), &parts, flags)
    };
    let header = header();
    let names = launchers(&header);
    // A launcher of the table without a case is noticed.
    let added = header.replace(
        "} gk_kernels;",
        "  int32_t (*rerank)(const gk_rerank *, gk_stream);\n} gk_kernels;",
    );
    let unknown = launchers(&added);
    assert_eq!((unknown.len(), unknown.last()), (names.len() + 1, Some(&"rerank")));
    let [address, thread] = std::thread::scope(|scope| {
        let address = scope.spawn(|| program("address", &ADDRESS_EMULATOR, &ADDRESS));
        let thread = program("thread", &THREAD_EMULATOR, &THREAD);
        [address.join().expect("compiles"), thread]
    });
    let output = run(&address, &unknown[names.len()..], LATE);
    let said = stderr(&output);
    assert!(!output.status.success() && said.contains("rerank has no case"), "{said}");
    let check = |program: &Path| {
        for settings in [LATE, LIFO, RANDOM] {
            let output = run(program, &names, settings);
            let said = stderr(&output);
            assert!(
                output.status.success() && said.is_empty(),
                "{program:?}, {settings:?}: {said}"
            );
        }
    };
    std::thread::scope(|scope| {
        for program in [&address, &thread] {
            scope.spawn(|| check(program));
        }
    });
}
