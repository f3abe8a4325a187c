//! Any bytes are read as a request, as several or as settings, or are refused. A request that is read is printed and read
//! again as an equal one.
//!
//! RUSTC_BOOTSTRAP=1 cargo fuzz run request fuzz/corpus/request fuzz/seeds/request
#![no_main]

use galley_api::{ModelTexts, parse_request, parse_requests, parse_settings, request_json};
use galley_engine::ModelFiles;
use libfuzzer_sys::fuzz_target;
use std::path::Path;
use std::sync::LazyLock;

static TEXTS: LazyLock<ModelTexts> = LazyLock::new(|| {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/models/smollm2");
    ModelTexts::of(&ModelFiles::open(&model).expect("a tiny model"))
});

fuzz_target!(|json: &[u8]| {
    let _ = parse_settings(json).map(drop);
    let _ = parse_requests(json);
    if let Ok(text) = std::str::from_utf8(json) {
        let _ = TEXTS.render_chat(text);
    }
    let Ok(body) = parse_request(json) else { return };
    let Ok(request) = body.into_request(&TEXTS) else { return };
    let printed = request_json(&request);
    let again = parse_request(printed.as_bytes()).expect("a printed request is read");
    assert_eq!(again.into_request(&TEXTS).expect("it has a prompt"), request);
});
