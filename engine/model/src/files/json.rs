//! JSON files, read as Python's `json` reads them.

use super::mistakes::{recognise, server_error};
use crate::{ModelError, Result};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads a JSON file of at most [`MAX_JSON_BYTES`].
///
/// Python writes numbers that JSON does not have (`NaN`, `Infinity`, `1e999`) and unpaired
/// surrogates. Such a number becomes a string, so only a field that needs a number reports an
/// error. An unpaired surrogate becomes U+FFFD, and so do bytes that are not UTF-8.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| ModelError::io(path, error))?;
    if bytes.len() as u64 > MAX_JSON_BYTES {
        let reason = format!("is longer than {MAX_JSON_BYTES} bytes");
        return Err(ModelError::invalid(path, "file", reason));
    }
    let json = parse(&bytes).map_err(|error| failed(path, &bytes, &error))?;
    match server_error(&json) {
        Some(mistake) => Err(ModelError::unsupported(path, mistake)),
        None => Ok(json),
    }
}

/// Reads a JSON file; `null` if it does not exist.
pub(crate) fn read_json_if_there(path: &Path) -> Result<Value> {
    match read_json(path) {
        Err(ModelError::Io { reason, .. }) if reason.kind() == io::ErrorKind::NotFound => {
            Ok(Value::Null)
        }
        result => result,
    }
}

/// The error about a file that a JSON parser has refused.
pub(crate) fn failed(path: &Path, bytes: &[u8], error: &serde_json::Error) -> ModelError {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        let reason = "begins with a byte order mark, which JSON does not allow: save the file as UTF-8 without BOM";
        return ModelError::invalid(path, "JSON", reason);
    }
    // A byte order mark of either order, or ASCII in 16 bits without a mark.
    let is_utf16 = bytes.starts_with(b"\xff\xfe")
        || bytes.starts_with(b"\xfe\xff")
        || matches!(bytes, [b'{' | b'[', 0, ..] | [0, b'{' | b'[', ..]);
    if is_utf16 {
        let reason = "is UTF-16 text, and JSON is UTF-8: save the file as UTF-8 without BOM";
        return ModelError::invalid(path, "JSON", reason);
    }
    if let Some(mistake) = recognise(bytes) {
        return ModelError::unsupported(path, mistake);
    }
    let way_out = match error.is_eof() {
        true => ": the file is cut off, so download it again",
        false => "",
    };
    ModelError::invalid(path, "JSON", format!("{error}{way_out}"))
}

fn parse(bytes: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(bytes)
        .or_else(|_| serde_json::from_str(&without_pythonisms(&String::from_utf8_lossy(bytes))))
}

/// Replaces the parts of `text` that Python reads and JSON does not allow.
fn without_pythonisms(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '"' => string(rest, &mut output),
            '-' | '0'..='9' | 'A'..='Z' | 'a'..='z' => word(rest, &mut output),
            _ => {
                output.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    output
}

/// Copies the string literal at the start of `text` and returns its length.
fn string(text: &str, output: &mut String) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    let mut copied = 0;
    while at < bytes.len() && bytes[at] != b'"' {
        if bytes[at] != b'\\' {
            at += 1;
            continue;
        }
        match escaped_half(&text[at..]) {
            Some((true, true)) => at += 12,
            Some(_) => {
                output.push_str(&text[copied..at]);
                output.push_str("\\ufffd");
                at += 6;
                copied = at;
            }
            None => at += 2,
        }
    }
    // In a truncated file, the string may end without a quote, or within an escape.
    let end = (at + 1).min(text.len());
    output.push_str(&text[copied..end]);
    end
}

/// For a `\u` escape of a surrogate at the start of `text`: whether it is a high surrogate, and
/// whether its low surrogate follows.
fn escaped_half(text: &str) -> Option<(bool, bool)> {
    let code = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    match code(0)? {
        0xd800..=0xdbff => {
            Some((true, code(6).is_some_and(|code| (0xdc00..0xe000).contains(&code))))
        }
        0xdc00..=0xdfff => Some((false, false)),
        _ => None,
    }
}

/// Copies the number or constant at the start of `text`, and returns its length.
fn word(text: &str, output: &mut String) -> usize {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.');
    let length = text.find(|c| !is_part(c)).unwrap_or(text.len());
    let word = &text[..length];
    let is_number = word.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit());
    let is_endless = is_number && word.parse::<f64>().is_ok_and(f64::is_infinite);
    if is_endless || ["NaN", "Infinity", "-Infinity"].contains(&word) {
        output.extend(["\"", word, "\""]);
    } else {
        output.push_str(word);
    }
    length
}

/// The index of a model with a million tensors is about this long.
const MAX_JSON_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_python_writes_is_read() {
        for (text, expected) in [
            (
                r#"{"a": Infinity, "b": [-Infinity, NaN, 1e999], "c": 1}"#,
                json!({
                    "a": "Infinity", "b": ["-Infinity", "NaN", "1e999"], "c": 1
                }),
            ),
            (r#"["NaN: Infinity", "\"NaN", NaN]"#, json!(["NaN: Infinity", "\"NaN", "NaN"])),
            (
                r#"["\ud83d", "\ud83d\ude00", "\udc00x", "\\ud83d", NaN]"#,
                json!(["\u{fffd}", "😀", "\u{fffd}x", "\\ud83d", "NaN"]),
            ),
            (r#"{"n": 1000000000000000019884624838656}"#, json!({"n": 1e30})),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap(), expected, "{text}");
        }
        assert_eq!(parse(b"[\"caf\xe9\"]").unwrap(), json!(["caf\u{fffd}"]));
    }

    #[test]
    fn what_python_refuses_is_refused_where_it_is() {
        for text in [
            "{\"a\": nan}",
            "[1,]",
            "{\"a\": Infinity",
            "[\"\\",
            "[\"\\u\u{e9}",
            "{'a': 1}",
            "[1 // x\n]",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        let error = parse(b"{\"a\": Infinity,\n \"b\": }").unwrap_err();
        assert_eq!(error.line(), 2, "{error}");
    }
}
