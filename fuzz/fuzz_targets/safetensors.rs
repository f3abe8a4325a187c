//! Any config.json and any model.safetensors open as a model and load, or are refused.
//!
//! The input is the length of the configuration (two bytes), the configuration, and the weights.
//!
//! RUSTC_BOOTSTRAP=1 cargo fuzz run safetensors fuzz/corpus/safetensors fuzz/seeds/safetensors
#![no_main]

#[path = "../../engine/model/tests/common/exercise.rs"]
mod exercise;

use libfuzzer_sys::fuzz_target;
use std::{cell::LazyCell, fs};
use tempfile::TempDir;

thread_local! {
    static DIRECTORY: LazyCell<TempDir> = LazyCell::new(|| tempfile::tempdir_in("/dev/shm").unwrap());
}

fuzz_target!(|input: (u16, &[u8])| {
    let (length, bytes) = input;
    let (config, weights) = bytes.split_at(bytes.len().min(length.into()));
    DIRECTORY.with(|directory| {
        fs::write(directory.path().join("config.json"), config).unwrap();
        fs::write(directory.path().join("model.safetensors"), weights).unwrap();
        if exercise::exercise(directory.path()).is_ok() {
            let _ = exercise::load(directory.path());
        }
    });
});
