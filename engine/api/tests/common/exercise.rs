//! Everything that reads bytes from outside: for mutated bodies, and for the fuzz target `request`.

use galley_api::{ModelTexts, parse_request, parse_requests, parse_settings, request_json};
use galley_engine::ModelFiles;
use std::path::Path;

/// The tokenizer and the template of a tiny model.
pub(crate) fn tiny_texts() -> ModelTexts {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = path.ancestors().find(|folder| folder.join("tests/data/models").is_dir());
    let model = root.expect("the tree of Galley").join("tests/data/models/smollm2");
    ModelTexts::of(&ModelFiles::open(&model).expect("a tiny model"))
}

/// Reads bytes as a request, as several, as settings and as a conversation. A request is printed, and read again as an
/// equal one. Whether the bytes are a request.
pub(crate) fn exercise(json: &[u8], texts: &ModelTexts) -> bool {
    let _ = parse_settings(json).map(drop);
    let _ = parse_requests(json);
    if let Ok(text) = std::str::from_utf8(json) {
        let _ = texts.render_chat(text);
    }
    let Ok(body) = parse_request(json) else { return false };
    let Ok(request) = body.into_request(texts) else { return false };
    let printed = request_json(&request);
    let again = parse_request(printed.as_bytes()).expect("a printed request is read");
    assert_eq!(again.into_request(texts).expect("it has a prompt"), request);
    true
}
