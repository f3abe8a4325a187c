//! Ids of other implementations, round trips, streams and broken files.

use super::*;
use proptest::prelude::*;
use serde::Deserialize;
use std::fs;

/// The variable with the path of SmolLM2-135M-Instruct's GGUF file. Without it, the tests on the
/// real model are skipped.
const SMOLLM2: &str = "GALLEY_TEST_MODEL";

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct SentencePieceCase {
    text: String,
    plain: Vec<u32>,
    special: Vec<u32>,
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name)
}

fn cases<T: for<'de> Deserialize<'de>>(name: &str) -> Vec<T> {
    serde_json::from_slice(&fs::read(data(name)).unwrap()).unwrap()
}

fn from_gguf(path: &Path) -> Tokenizer {
    Tokenizer::open(path, Some(&Metadata::read(path).unwrap())).unwrap()
}

fn sentencepiece() -> Tokenizer {
    from_gguf(&data("tokenizers/sentencepiece.gguf"))
}

fn tiny() -> Tokenizer {
    Tokenizer::open(&data("models/smollm2"), None).unwrap()
}

#[test]
fn smollm2_ids_are_those_of_the_tokenizers_package() {
    let Some(path) = std::env::var_os(SMOLLM2) else {
        eprintln!("skipped: {SMOLLM2} is not set");
        return;
    };
    let tokenizer = from_gguf(Path::new(&path));
    for Case { text, ids } in cases("tokenizers/smollm2.json") {
        assert_eq!(tokenizer.encode(&text, true).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids, false), text);
    }
    assert_eq!(tokenizer.vocab_size(), 49152);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
}

#[test]
fn sentencepiece_ids_are_those_of_sentencepiece_and_llama_cpp() {
    let tokenizer = sentencepiece();
    for SentencePieceCase { text, plain, special } in cases("tokenizers/sentencepiece.json") {
        assert_eq!(tokenizer.encode(&text, false).unwrap(), special, "{text:?}");
        assert_eq!(tokenizer.encode_plain(&text).unwrap(), plain, "{text:?}");
        if !text.contains("<tool>") {
            assert_eq!(tokenizer.decode(&plain, false), text);
        }
    }
    assert_eq!(tokenizer.encode("", true).unwrap(), [1], "add_bos_token");
}

#[test]
fn both_file_formats_give_the_same_tokenizer() {
    let (json, gguf) = (tiny(), from_gguf(&data("models/smollm2.gguf")));
    assert_eq!(json.fingerprint(), gguf.fingerprint());
    assert_ne!(json.fingerprint(), sentencepiece().fingerprint());
    assert_eq!(json.vocab_size(), gguf.vocab_size());
    assert_eq!((json.bos(), json.eos()), (gguf.bos(), gguf.eos()));
    for Case { text, .. } in cases("tokenizers/smollm2.json") {
        let ids = json.encode(&text, true).unwrap();
        assert_eq!(gguf.encode(&text, true).unwrap(), ids);
        assert_eq!(json.decode(&ids, false), text);
        assert_eq!(json.inner.decode(&ids, false).unwrap(), text);
    }
}

#[test]
fn special_tokens_in_plain_text_are_only_text() {
    for (tokenizer, token) in [(tiny(), "<|im_end|>"), (sentencepiece(), "</s>")] {
        let id = tokenizer.token_to_id(token).unwrap();
        let text = format!("a{token}b");
        assert!(tokenizer.is_special(id));
        assert!(tokenizer.encode(&text, false).unwrap().contains(&id));
        assert!(tokenizer.contains_special(&text));
        assert!(!tokenizer.contains_special(&text[..text.len() - 2]));

        let plain = tokenizer.encode_plain(&text).unwrap();
        assert!(!plain.contains(&id));
        assert_eq!(tokenizer.decode(&plain, true), text);
        let skipped = tokenizer.decode(&tokenizer.encode(&text, false).unwrap(), true);
        assert_eq!(skipped.replace(' ', ""), "ab");
    }
}

#[test]
fn a_token_has_bytes_and_a_spelling() {
    let tokenizer = sentencepiece();
    let (space, byte) = (tokenizer.token_to_id("▁the"), tokenizer.token_to_id("<0xE2>"));
    assert_eq!(tokenizer.token_bytes(space.unwrap()), Some(&b" the"[..]));
    assert_eq!(tokenizer.token_bytes(byte.unwrap()), Some(&[0xe2][..]));
    assert_eq!(tokenizer.id_to_token(byte.unwrap()).unwrap(), "<0xE2>");
    assert_eq!(tokenizer.token_bytes(u32::MAX), None);
    assert_eq!(tokenizer.decode(&[u32::MAX, space.unwrap()], false), "the");
}

#[test]
fn a_completion_keeps_its_first_space() {
    let tokenizer = sentencepiece();
    let prompt = tokenizer.encode("To be", true).unwrap();
    let the = tokenizer.token_to_id("▁the").unwrap();
    assert_eq!(tokenizer.stream(true).push(the), "the");
    assert_eq!(tokenizer.stream_after(&prompt, true).push(the), " the");
    assert_eq!(tokenizer.stream_after(&prompt[..1], true).push(the), "the");
}

#[test]
fn a_character_is_held_back_until_it_is_complete() {
    let tokenizer = tiny();
    let ids = tokenizer.encode("é👍", false).unwrap();
    assert_eq!(ids.len(), 6, "a byte each");
    let mut stream = tokenizer.stream(false);
    let pushes: Vec<String> = ids.iter().map(|&id| stream.push(id)).collect();
    assert_eq!(pushes, ["", "é", "", "", "", "👍"]);
    assert_eq!(stream.finish(), "");

    // A new character begins within the bytes of the thumb.
    let mut stream = tokenizer.stream(false);
    let pushes: Vec<String> = [2, 3, 0, 1, 4].map(|index| stream.push(ids[index])).into();
    assert_eq!(pushes, ["", "", "\u{fffd}", "é", "\u{fffd}"]);
    stream.push(ids[2]);
    assert_eq!(stream.finish(), "\u{fffd}");
}

/// The wrong way, as a control: decodes each token on its own.
fn naive(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    ids.iter().map(|&id| tokenizer.decode(&[id], skip_special)).collect()
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut stream = tokenizer.stream(skip_special);
    let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
    text.push_str(&stream.finish());
    text
}

#[test]
fn streams_of_real_text_are_its_decoding() {
    for tokenizer in [tiny(), sentencepiece()] {
        let mut naive_is_wrong = 0;
        for Case { text, .. } in cases("tokenizers/smollm2.json") {
            let ids = tokenizer.encode(&text, false).unwrap();
            assert_eq!(streamed(&tokenizer, &ids, false), tokenizer.decode(&ids, false));
            naive_is_wrong += usize::from(naive(&tokenizer, &ids, false) != text);
        }
        assert!(naive_is_wrong > 3, "{naive_is_wrong}: the texts prove nothing");
    }
}

#[test]
fn streams_of_random_tokens_are_their_decoding() {
    let tokenizers = [tiny(), sentencepiece()];
    let naive_is_wrong = std::cell::Cell::new(0);
    let ids = proptest::collection::vec(0..720_u32, 0..60);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(2000));
    let result = runner.run(&(ids, any::<bool>()), |(ids, skip_special)| {
        for tokenizer in &tokenizers {
            let text = tokenizer.decode(&ids, skip_special);
            prop_assert_eq!(&streamed(tokenizer, &ids, skip_special), &text);
            if naive(tokenizer, &ids, skip_special) != text {
                naive_is_wrong.set(naive_is_wrong.get() + 1);
            }
        }
        // The `tokenizers` crate agrees for byte-level decoders, not with byte fallback.
        let expected = tokenizers[0].inner.decode(&ids, skip_special).unwrap();
        prop_assert_eq!(tokenizers[0].decode(&ids, skip_special), expected);
        Ok(())
    });
    result.unwrap();
    assert!(naive_is_wrong.get() > 1000, "{naive_is_wrong:?}: the tokens prove nothing");
}

/// The error about a changed copy of the tiny `tokenizer.json`.
fn refused(change: impl Fn(&mut serde_json::Value)) -> String {
    let mut json: serde_json::Value =
        serde_json::from_slice(&fs::read(data("models/smollm2/tokenizer.json")).unwrap()).unwrap();
    change(&mut json);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenizer.json");
    fs::write(&path, json.to_string()).unwrap();
    let error = Tokenizer::from_file(&path).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
    error
}

#[test]
fn broken_tokenizer_files_are_errors_that_name_the_field() {
    let error = refused(|json| {
        json["model"]["merges"] = serde_json::json!([["<|endoftext|>", "<|im_end|>"]])
    });
    assert!(error.contains("model.merges"), "{error}");
    let error = refused(|json| json["model"]["merges"] = serde_json::json!(["q qq"]));
    assert!(error.contains("qq"), "{error}");
    let error = refused(|json| json["model"]["vocab"]["zz"] = u32::MAX.into());
    assert!(error.contains("model.vocab"), "{error}");
    let error = refused(|json| json["model"]["type"] = "Unigram".into());
    assert!(error.contains("Unigram"), "{error}");
    let word_piece = serde_json::json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    let error = refused(|json| json["decoder"] = word_piece.clone());
    assert!(error.contains("WordPiece"), "{error}");
    let error = refused(|json| *json = serde_json::json!([]));
    assert!(error.contains("JSON"), "{error}");

    let nowhere = Tokenizer::open(Path::new("/nonexistent/model"), None).unwrap_err();
    assert!(nowhere.to_string().contains("tokenizer.json"), "{nowhere}");
}

#[test]
fn a_byte_in_a_file_may_be_anything() {
    let bytes = fs::read(data("tokenizers/sentencepiece.gguf")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    let mut read = 0;
    let mut step = 1;
    for at in (0..bytes.len()).step_by(41) {
        let mut bytes = bytes.clone();
        step = (step * 31 + 7) % 251;
        bytes[at] ^= step as u8 | 1;
        fs::write(&path, &bytes).unwrap();
        // An error or a working tokenizer, never a panic.
        let Ok(metadata) = Metadata::read(&path) else { continue };
        if let Ok(tokenizer) = Tokenizer::from_gguf(&path, &metadata) {
            let _ = tokenizer.encode("Fellow citizens <s>", true);
            read += 1;
        }
    }
    assert!(read > 100, "{read}");
}
