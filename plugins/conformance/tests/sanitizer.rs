//! `drafter-check` with the C compiler's address sanitizer, which sees a drafter's reads of freed
//! or foreign memory.

mod common;
#[path = "../../../tests/sanitizer.rs"]
mod runtime;

use common::{CHECK, build_with};
use runtime::sanitizer;
use std::process::Command;

#[test]
fn a_sanitizer_sees_what_rules_do_not() {
    let Some(runtime) = sanitizer() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let check = |case: &str| {
        let flags = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
        let output = Command::new(CHECK)
            .arg(build_with(case, &flags, folder.path()))
            .env("LD_PRELOAD", &runtime)
            .env("ASAN_OPTIONS", "detect_leaks=0")
            .output()
            .expect("drafter-check runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let (is_fine, said) = check("NONE");
    assert!(is_fine && said.contains("23 passed, 0 failed, 2 skipped"), "{said}");
    for (case, kind) in [
        ("KEEPS_TEXT", "heap-use-after-free"),
        ("READS_BEHIND_BATCH", "heap-buffer-overflow"),
        ("READS_BEHIND_TOKENS", "heap-buffer-overflow"),
        ("READS_BEHIND_FEEDBACK", "heap-buffer-overflow"),
    ] {
        let (is_fine, said) = check(case);
        assert!(!is_fine && said.contains(kind) && said.contains("R03 FAIL"), "{case}: {said}");
        assert!(said.contains("bad.c"), "{case}: it says where: {said}");
    }
}
