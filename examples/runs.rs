//! Examples are tests: each runs on a tiny model.

use std::process::Command;

#[test]
fn embed_prints_two_continuations() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/models/llama3");
    let output = Command::new(env!("CARGO_BIN_EXE_embed")).args([model, "a prompt"]).output();
    let output = output.expect("the example starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("greedy: ") && text.contains("sampled: "), "{text}");
}

#[test]
fn embed_says_what_is_wrong() {
    let output = Command::new(env!("CARGO_BIN_EXE_embed")).arg("no/such/model").output();
    let output = output.expect("the example starts");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no/such/model"));
}
