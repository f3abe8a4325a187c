//! Recognises files with the wrong contents, by their first bytes.
//!
//! A failed download leaves a file with the right name and other contents: a Git LFS pointer, a
//! page of a web server, an archive. Readers call this module after they have failed, so a sound
//! file is never mistaken for one of these.

use std::borrow::Cow;

/// The kind of a file that is not a model's file, and the remedy. `None` for unknown contents.
pub(crate) fn recognise(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return Some(format!("the file is empty: {DOWNLOAD_AGAIN}"));
    }
    if bytes.iter().take(SCANNED_BYTES).all(|&byte| byte == 0) && bytes.len() >= 16 {
        return Some(format!(
            "the file begins with zeros only, as an unfinished download does: {DOWNLOAD_AGAIN}"
        ));
    }
    let magic = MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic));
    if let Some((_, mistake)) = magic {
        return Some((*mistake).into());
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return Some("this is a tar archive: unpack it first".into());
    }
    let text = beginning(bytes);
    pointer(&text).or_else(|| page(&text))
}

/// Recognises the error message of a server in JSON.
pub(crate) fn server_error(json: &serde_json::Value) -> Option<String> {
    let object = json.as_object().filter(|object| object.len() <= MOST_ERROR_FIELDS)?;
    let error =
        ["error", "message", "detail", "Message"].iter().find_map(|key| object.get(*key))?;
    let message = error.as_str().or_else(|| error["message"].as_str())?;
    Some(format!(
        "this is the error message of a server, not the file: {:?}. {DOWNLOAD_AGAIN_SENTENCE}",
        shortened(message)
    ))
}

/// Recognises a pointer file, which replaces the real file in a repository.
fn pointer(text: &str) -> Option<String> {
    if text.starts_with("version https://git-lfs") || text.starts_with("version https://hawser") {
        let size = text.lines().find_map(|line| line.strip_prefix("size "));
        let size = size.map(|size| format!(" for {} bytes", size.trim())).unwrap_or_default();
        return Some(format!(
            "this is a Git LFS pointer{size}, not the file itself: run `git lfs install` and `git lfs pull` in the \
             cloned folder, or fetch the model with `galley pull`"
        ));
    }
    if text.contains("/annex/objects/") {
        let mistake =
            "this is a git-annex pointer, not the file itself: run `git annex get` in the folder";
        return Some(mistake.into());
    }
    if text.starts_with("# xet version") {
        let mistake =
            "this is a Xet pointer, not the file itself: fetch the model with `galley pull`";
        return Some(mistake.into());
    }
    None
}

/// Recognises a page or a message of a server.
fn page(text: &str) -> Option<String> {
    let text = text.trim_start();
    let lower = text.to_ascii_lowercase();
    let title = || {
        let (start, end) = (lower.find("<title>")? + 7, lower.find("</title>")?);
        text.get(start..end).map(|title| format!(" with the title {:?}", shortened(title.trim())))
    };
    if ["<!doctype html", "<html", "<head", "<body", "<!--"]
        .iter()
        .any(|tag| lower.starts_with(tag))
    {
        let title = title().unwrap_or_default();
        return Some(format!(
            "this is an HTML page{title} instead of the file, as a server sends for an error or a login: \
             {DOWNLOAD_AGAIN}"
        ));
    }
    if lower.starts_with("<?xml") || lower.starts_with("<error>") {
        return Some(format!(
            "this is an XML document instead of the file, as a store sends for an error: {DOWNLOAD_AGAIN}"
        ));
    }
    let message = MESSAGES.iter().any(|message| lower.starts_with(message));
    if message {
        let line = text.lines().next().unwrap_or_default();
        return Some(format!(
            "this is the error message of a server, not the file: {:?}. {DOWNLOAD_AGAIN_SENTENCE}",
            shortened(line)
        ));
    }
    if text.starts_with('{') {
        return serde_json::from_str(text).ok().and_then(|json| server_error(&json));
    }
    None
}

/// The first bytes as text.
fn beginning(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(SCANNED_BYTES)])
}

fn shortened(text: &str) -> String {
    text.chars().take(MOST_SHOWN_CHARS).collect()
}

const SCANNED_BYTES: usize = 4096;
const MOST_SHOWN_CHARS: usize = 200;
/// Most fields of a server's error message. A configuration has many more.
const MOST_ERROR_FIELDS: usize = 6;
const DOWNLOAD_AGAIN: &str =
    "download it again; a private or gated model needs an access token (HF_TOKEN)";
const DOWNLOAD_AGAIN_SENTENCE: &str =
    "Download it again; a private or gated model needs an access token (HF_TOKEN)";

/// Beginnings of the short answers of hubs and their proxies, in lower case.
const MESSAGES: [&str; 12] = [
    "entry not found",
    "not found",
    "repository not found",
    "invalid username or password",
    "invalid credentials",
    "access to model",
    "access denied",
    "unauthorized",
    "forbidden",
    "internal server error",
    "bad gateway",
    "too many requests",
];

/// First bytes of other formats, and the error about each.
const MAGICS: [(&[u8], &str); 20] = [
    (
        b"PK\x03\x04",
        "this is a zip archive, which PyTorch's .bin and .pth files are too: Galley reads safetensors and GGUF, so \
         unpack the archive, or convert the weights with transformers' `save_pretrained`",
    ),
    (
        b"\x80\x02",
        "this is a Python pickle, as old PyTorch files are: Galley reads safetensors and GGUF, so convert the weights \
         with transformers' `save_pretrained`",
    ),
    (b"\x1f\x8b", "this is a gzip archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "this is a zstd archive: unpack it first"),
    (b"\xfd7zXZ\x00", "this is an xz archive: unpack it first"),
    (b"BZh", "this is a bzip2 archive: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "this is a 7z archive: unpack it first"),
    (b"Rar!", "this is a RAR archive: unpack it first"),
    (b"GGUF", "this is a GGUF file under another name: give it a name that ends in .gguf"),
    (b"lmgg", OLD_GGML),
    (b"fmgg", OLD_GGML),
    (b"tjgg", OLD_GGML),
    (
        b"algg",
        "this is a LoRA adapter of llama.cpp from before GGUF: merge it into its model first",
    ),
    (
        b"\x89HDF\r\n\x1a\n",
        "this is an HDF5 file of Keras or TensorFlow: Galley reads safetensors and GGUF",
    ),
    (b"\x93NUMPY", "this is a NumPy array: Galley reads safetensors and GGUF"),
    (b"MZqFpD", "this is a llamafile, a program with a model in it: take the model's GGUF file"),
    (b"\x7fELF", "this is a program or a library, not a model"),
    (b"MZ", "this is a program or a library, not a model"),
    (b"%PDF", "this is a PDF document, not a model"),
    (b"\xef\xbb\xbf", "this begins with a byte order mark: it is text, saved by an editor"),
];

const OLD_GGML: &str = "this is a GGML file of 2023, from before GGUF, which no current program reads: take a GGUF file \
                        of the model, or convert it again from the original weights";
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_recognised_by_their_first_bytes() {
        let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 269060552\n";
        for (bytes, text) in [
            (lfs, "a Git LFS pointer for 269060552 bytes"),
            ("/annex/objects/SHA256E-s4--ab.safetensors\n", "git annex get"),
            (
                "<!DOCTYPE html>\n<html><head><title>Sign in</title>",
                "HTML page with the title \"Sign in\"",
            ),
            ("\n  <HTML><body>502", "an HTML page instead"),
            ("<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>", "an XML document"),
            ("Entry not found", "\"Entry not found\""),
            ("Invalid username or password.", "HF_TOKEN"),
            ("{\"error\":\"Repository not found\"}", "\"Repository not found\""),
            ("{\"error\":{\"message\":\"quota\",\"code\":429}}", "\"quota\""),
            ("", "is empty"),
            ("PK\u{3}\u{4}rest", "a zip archive"),
            ("tjgg\u{1}", "from before GGUF"),
            ("\u{feff}version 1", "a byte order mark"),
            (&"\0".repeat(64), "zeros only"),
        ] {
            let found = recognise(bytes.as_bytes()).unwrap_or_default();
            assert!(found.contains(text), "{bytes:?}: {found}");
        }
    }

    #[test]
    fn ordinary_contents_are_no_mistake() {
        for bytes in
            ["{\"model_type\": \"llama\"}", "{\"a\": ", "[]", "hello", "{\"message\": 3}", "\0\0"]
        {
            assert_eq!(recognise(bytes.as_bytes()), None, "{bytes:?}");
        }
    }
}
