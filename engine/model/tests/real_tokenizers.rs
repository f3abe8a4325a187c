//! Tokenizers of well-known models encode, decode and stream as the `tokenizers` package does.

use galley_model::tokenizer::Tokenizer;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

/// The variable with a folder that tests/oracle/make_real_tokenizers.py has processed.
const FOLDER: &str = "GALLEY_TEST_TOKENIZERS";

#[derive(Deserialize)]
struct Answer {
    text: String,
    ids: Vec<u32>,
    with_special: Vec<u32>,
    decoded: String,
    decoded_plain: String,
}

#[test]
fn real_tokenizers_are_those_of_the_tokenizers_package() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        println!("skipped: {FOLDER} is not set");
        return;
    };
    let mut folders: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    folders.sort();
    let (mut compared, mut different) = (0, 0);
    for folder in folders {
        let Ok(expected) = fs::read(folder.join("expected.json")) else { continue };
        let answers: Vec<Answer> = serde_json::from_slice(&expected).unwrap();
        match Tokenizer::open(&folder, None) {
            Ok(tokenizer) => {
                let wrong = differences(&folder, &tokenizer, &answers);
                println!("{}: {} texts, {wrong} different", folder.display(), answers.len());
                (compared, different) = (compared + answers.len(), different + wrong);
            }
            Err(error) => println!("{}: refused: {error}", folder.display()),
        }
    }
    assert!(compared > 0, "no tokenizer was read");
    assert_eq!(different, 0, "of {compared} texts");
}

/// Number of texts with any difference. Prints the first three.
fn differences(folder: &Path, tokenizer: &Tokenizer, answers: &[Answer]) -> usize {
    let mut wrong = 0;
    for answer in answers {
        let stream = |skip_special| {
            let mut stream = tokenizer.stream(skip_special);
            let text: String = answer.ids.iter().map(|&id| stream.push(id)).collect();
            text + &stream.finish()
        };
        let found = [
            ("ids", tokenizer.encode(&answer.text, false).ok() == Some(answer.ids.clone())),
            (
                "ids with special tokens",
                tokenizer.encode(&answer.text, true).ok() == Some(answer.with_special.clone()),
            ),
            ("decoding", tokenizer.decode(&answer.ids, false) == answer.decoded),
            (
                "decoding without special tokens",
                tokenizer.decode(&answer.ids, true) == answer.decoded_plain,
            ),
            ("stream", stream(false) == answer.decoded),
            ("stream without special tokens", stream(true) == answer.decoded_plain),
        ];
        let other: Vec<&str> =
            found.iter().filter(|(_, same)| !same).map(|(text, _)| *text).collect();
        if !other.is_empty() {
            wrong += 1;
            if wrong <= 3 {
                println!("{}: {other:?} of {:?}", folder.display(), answer.text);
                println!(
                    "  expected {:?}\n  found    {:?}",
                    answer.decoded,
                    tokenizer.decode(&answer.ids, false)
                );
            }
        }
    }
    wrong
}
