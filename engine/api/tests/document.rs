//! `docs/requests.md` is true: its examples are read or written, and its tables name every key.

use galley_api::{parse_request, parse_settings};
use serde_json::Value;
use std::path::Path;

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/requests.md");
    std::fs::read_to_string(path).expect("the document")
}

/// The examples of a kind: blocks that begin with "```json KIND".
fn examples(kind: &str) -> Vec<String> {
    let (text, begin) = (document(), format!("```json {kind}\n"));
    let blocks = text.split(&begin).skip(1);
    let blocks = blocks.map(|rest| rest.split("\n```").next().unwrap_or_default().to_owned());
    let blocks: Vec<_> = blocks.collect();
    assert!(!blocks.is_empty(), "no example of {kind}");
    blocks
}

/// The keys in the first column of the tables between two headings.
fn keys(from: &str, to: &str) -> Vec<String> {
    let text = document();
    let section = text.split(from).nth(1).and_then(|rest| rest.split(to).next()).expect(from);
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.map(|row| row.split(" |").next().unwrap_or_default());
    cells.flat_map(|cell| cell.split("`, `").map(|key| key.replace('`', ""))).collect()
}

#[test]
fn examples_of_requests_and_settings_are_read() {
    for example in examples("request") {
        let read = parse_request(example.as_bytes());
        let body = read.unwrap_or_else(|error| panic!("{example}: {error}"));
        drop(body);
        // Control: a misspelt key in the example is noticed.
        let wrong =
            example.replacen("_tokens\"", "_token\"", 1).replacen("\"seed\"", "\"sead\"", 1);
        assert!(parse_request(wrong.as_bytes()).is_err(), "{wrong}");
    }
    for example in examples("settings") {
        parse_settings(example.as_bytes()).map(drop).expect("settings");
    }
    for example in examples("error") {
        let error: Value = serde_json::from_str(&example).expect("JSON");
        let wrong = parse_request(br#"{"prompt": "a", "temperature": -1}"#).expect_err("cold");
        assert_eq!(error, serde_json::from_str::<Value>(&wrong.to_json()).expect("JSON"));
    }
}

/// Every key of the tables is known: with null as its value, it counts as absent.
#[test]
fn the_tables_name_keys_that_are_known() {
    let of_requests = keys("## A request", "## An answer");
    assert!(of_requests.len() > 30, "{of_requests:?}");
    for key in &of_requests {
        let json = match key.split_once('.') {
            Some((outer, inner)) => format!(r#"{{"prompt": "a", "{outer}": {{"{inner}": null}}}}"#),
            None if key == "prompt" => r#"{"prompt": "a"}"#.to_owned(),
            None => format!(r#"{{"prompt": "a", "{key}": null}}"#),
        };
        parse_request(json.as_bytes()).map(drop).unwrap_or_else(|error| panic!("{key}: {error}"));
    }
    let of_settings = keys("## Settings of an engine", "# the end");
    assert!(of_settings.len() > 15, "{of_settings:?}");
    for key in of_settings.iter().filter(|key| *key != "model") {
        let json = format!(r#"{{"model": "org/name", "{key}": null}}"#);
        parse_settings(json.as_bytes()).map(drop).unwrap_or_else(|error| panic!("{key}: {error}"));
    }
}

/// Every key that a request, as it is printed, can have is in the tables.
#[test]
fn the_tables_name_every_printed_key() {
    let request = galley_engine::Request::new("a").resume([1]).fingerprint("f");
    let printed: Value = serde_json::from_str(&galley_api::request_json(&request)).expect("JSON");
    let listed = keys("## A request", "## An answer");
    for key in printed.as_object().expect("an object").keys().filter(|key| *key != "resume") {
        assert!(listed.contains(key), "{key} is in no table");
    }
}
