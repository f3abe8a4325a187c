//! Any bytes are read as a request, as several or as settings, or are refused. A request is printed and read again as an
//! equal one.
//!
//! RUSTC_BOOTSTRAP=1 cargo fuzz run request fuzz/corpus/request fuzz/seeds/request
#![no_main]

#[path = "../../engine/api/tests/common/exercise.rs"]
mod exercise;

use galley_api::ModelTexts;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TEXTS: LazyLock<ModelTexts> = LazyLock::new(exercise::tiny_texts);

fuzz_target!(|json: &[u8]| {
    exercise::exercise(json, &TEXTS);
});
