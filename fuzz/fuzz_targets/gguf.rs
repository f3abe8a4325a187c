//! Any bytes open as a GGUF file and load, or are refused.
//!
//! RUSTC_BOOTSTRAP=1 cargo fuzz run gguf fuzz/corpus/gguf fuzz/seeds/gguf
#![no_main]

#[path = "../../engine/model/tests/common/exercise.rs"]
mod exercise;

use libfuzzer_sys::fuzz_target;
use std::{cell::LazyCell, fs};
use tempfile::TempDir;

thread_local! {
    static DIRECTORY: LazyCell<TempDir> = LazyCell::new(|| tempfile::tempdir_in("/dev/shm").unwrap());
}

fuzz_target!(|bytes: &[u8]| {
    DIRECTORY.with(|directory| {
        let path = directory.path().join("model.gguf");
        fs::write(&path, bytes).unwrap();
        if exercise::exercise(&path).is_ok() {
            let _ = exercise::load(&path);
        }
    });
});
