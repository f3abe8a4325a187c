//! Prose in the field's nouns: the share of sentences in comments, documents and strings that lean on a pronoun.
//!
//! A sentence such as "Who waits for what is there" hides its subject. Code bases with clear comments have such a pronoun in one to
//! two sentences of a hundred, and so should this one. The check is a share and not a rule for each sentence, because a few
//! pronouns are right.

use super::tokens::tokens;
use super::{GENERATED, files};

/// Pronouns that stand where a noun could.
const PRONOUNS: [&str; 11] = [
    "what",
    "who",
    "whose",
    "whom",
    "whoever",
    "nobody",
    "somebody",
    "anybody",
    "everybody",
    "those",
    "others",
];

/// Fewer words are a label, not a sentence.
const MIN_WORDS: usize = 4;

/// Fewer words of a string are a name, a label or a key.
const MIN_STRING_WORDS: usize = 5;

/// Sentences with a pronoun in a hundred sentences.
const MAX_PERCENT: usize = 3;

/// Files that are not checked, and the reason for each.
const UNCHECKED: [(&str, &str); 2] = [
    ("plugins/abi/tests/snapshots/", "the drafter ABI as it was released: it cannot change"),
    ("tests/tidy/prose.rs", "its controls are examples of bad sentences"),
];

/// The text of a comment line of Rust, C or CUDA.
fn comment(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let markers = ["///", "//!", "//", "/**", "/*", "* "];
    let text = markers.iter().find_map(|marker| line.strip_prefix(marker))?;
    Some(text.trim_end_matches("*/").trim())
}

/// Paragraphs of comments: lines that follow each other, without code in fences.
fn comment_paragraphs(text: &str) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    let mut is_code = false;
    for line in text.lines() {
        let Some(comment) = comment(line).filter(|comment| !comment.is_empty()) else {
            paragraphs.push(String::new());
            continue;
        };
        if comment.starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            append(&mut paragraphs, comment);
        }
    }
    paragraphs
}

/// Paragraphs, list items and table cells of a Markdown document, without code in fences.
fn document_paragraphs(text: &str) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    let mut is_code = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if !is_code && line.starts_with('|') {
            paragraphs.extend(line.split('|').map(str::to_owned));
        } else if !is_code {
            if line.is_empty() || line.starts_with(['#', '-', '*']) {
                paragraphs.push(String::new());
            }
            append(&mut paragraphs, line);
        }
    }
    paragraphs
}

/// String literals of Rust code of at least [`MIN_STRING_WORDS`] words: errors, log lines, printed text and reasons.
/// Arguments of format strings are no words.
fn string_paragraphs(text: &str) -> Vec<String> {
    let literals = tokens(text).into_iter().filter_map(|token| token.literal());
    let texts = literals.flat_map(|literal| {
        let one_line = literal.split("\\\n").map(str::trim_start).collect::<String>();
        one_line.split("\\n").map(without_arguments).collect::<Vec<_>>()
    });
    texts.filter(|text| text.split_whitespace().count() >= MIN_STRING_WORDS).collect()
}

/// The text without the parts in braces.
fn without_arguments(text: &str) -> String {
    let parts = text.split('{');
    parts.map(|part| part.split_once('}').map_or(part, |(_, rest)| rest)).collect()
}

fn append(paragraphs: &mut [String], line: &str) {
    if let Some(last) = paragraphs.last_mut() {
        last.push_str(line);
        last.push(' ');
    }
}

/// Sentences of a paragraph with their words in lower case.
fn sentences(paragraph: &str) -> impl Iterator<Item = Vec<String>> + '_ {
    let ends = |c: char| ".!?:".contains(c);
    let parts = paragraph.split_inclusive(' ').collect::<Vec<_>>();
    let sentences: Vec<String> = parts
        .split_inclusive(|word| word.trim_end().ends_with(ends))
        .map(<[&str]>::concat)
        .collect();
    sentences.into_iter().map(|sentence| {
        let words = sentence.split(|c: char| !c.is_alphabetic() && c != '\'' && c != '_');
        words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
    })
}

/// Sentences with a pronoun, and the number of all sentences.
fn leaning(paragraphs: &[String]) -> (Vec<String>, usize) {
    let mut n_sentences = 0;
    let mut leaning = Vec::new();
    for words in paragraphs.iter().flat_map(|paragraph| sentences(paragraph)) {
        if words.len() >= MIN_WORDS {
            n_sentences += 1;
            if words.iter().any(|word| PRONOUNS.contains(&word.as_str())) {
                leaning.push(words.join(" "));
            }
        }
    }
    (leaning, n_sentences)
}

/// A complaint with all sentences that lean on a pronoun, if there are too many of them.
fn check_share(subject: &str, paragraphs: &[String]) -> Result<(), String> {
    let (leaning, n_sentences) = leaning(paragraphs);
    if leaning.len() * 100 <= n_sentences * MAX_PERCENT {
        return Ok(());
    }
    Err(format!(
        "{subject}: {} of {n_sentences} sentences lean on a pronoun, more than {MAX_PERCENT} %:\n  {}",
        leaning.len(),
        leaning.join("\n  ")
    ))
}

/// Prose of all files with these ends, one group for each top-level folder.
fn hold_share(extensions: &[&str], paragraphs: fn(&str) -> Vec<String>) {
    let mut groups = std::collections::BTreeMap::<String, Vec<String>>::new();
    for (path, text) in files(extensions) {
        let is_unchecked = UNCHECKED.iter().any(|(place, _)| path.starts_with(place));
        if is_unchecked || GENERATED.contains(&path.as_str()) {
            continue;
        }
        let group = path.split_once('/').map_or("documents of the root", |(folder, _)| folder);
        groups.entry(group.to_owned()).or_default().extend(paragraphs(&text));
    }
    let complaints = groups.iter().filter_map(|(group, text)| check_share(group, text).err());
    let complaints: Vec<_> = complaints.collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn comments_use_nouns() {
    hold_share(&[".rs", ".h", ".c", ".cpp", ".cu", ".cuh"], comment_paragraphs);
}

#[test]
fn documents_use_nouns() {
    hold_share(&[".md"], document_paragraphs);
}

#[test]
fn strings_use_nouns() {
    hold_share(&[".rs"], string_paragraphs);
}

/// Negative controls: the check notices pronouns in every kind of comment, and skips code and labels.
#[test]
fn prose() {
    let n_leaning = |text: &str| leaning(&comment_paragraphs(text)).0.len();
    for marker in ["//", "///", "//!", "    //", "/*", " * "] {
        assert_eq!(n_leaning(&format!("{marker} Tells the caller what it needs.")), 1, "{marker}");
        assert_eq!(n_leaning(&format!("{marker} Tells the caller the sizes.")), 0, "{marker}");
    }
    for pronoun in PRONOUNS {
        assert_eq!(n_leaning(&format!("// One thread holds {pronoun}.")), 1, "{pronoun}");
    }
    let two_lines = "// The first sentence is fine. Somebody\n// writes a block, nobody reads it. The last one is fine.";
    assert_eq!(leaning(&comment_paragraphs(two_lines)).1, 3);
    assert_eq!(n_leaning(two_lines), 1, "one sentence over two lines");
    assert_eq!(n_leaning("// What for?\nlet what = \"who is it for\";"), 0, "a label, and code");
    assert_eq!(n_leaning("/// ```\n/// let what = who(is, it, for);\n/// ```"), 0, "an example");
    assert_eq!(n_leaning("// The variable `n_whats` has somewhat of a name."), 0, "whole words");

    let n_strings = |text: &str| leaning(&string_paragraphs(text)).0.len();
    for bad in [
        r#"bail!("the file has what nobody reads");"#,
        r##"let text = r#"a "file" that nobody has read"#;"##,
        "#[error(\"the folder holds \\\n         what was fetched\")]",
        "print(\"{n} files\\nthe file is for whom it concerns\");",
    ] {
        assert_eq!(n_strings(bad), 1, "{bad}");
    }
    for good in [
        "// a \"comment that nobody reads here\"",
        "let what = who(\"is\", \"this file for\", 'x');",
        "f(\"nobody reads it\");",
        "f(\"{what} needs {who:?} bytes of memory\");",
    ] {
        assert_eq!(n_strings(good), 0, "{good}");
    }

    let document = "# What must it be for\n\nA line of text.\n\n| what it is for | this is a cell |\n\n\
        ```\nwhat is this for\n```\n- who goes to the item\n";
    let (found, n_sentences) = leaning(&document_paragraphs(document));
    assert_eq!((found.len(), n_sentences), (3, 5), "{found:?}");

    let paragraphs = |n_bad: usize, n_good: usize| {
        let bad = vec!["Nobody knows the answer.".to_owned(); n_bad];
        [bad, vec!["The block has one owner.".to_owned(); n_good]].concat()
    };
    assert!(check_share("x", &paragraphs(3, 97)).is_ok());
    let complaint = check_share("x", &paragraphs(4, 96)).expect_err("too many");
    assert!(complaint.contains("4 of 100") && complaint.contains("nobody knows"), "{complaint}");
}
