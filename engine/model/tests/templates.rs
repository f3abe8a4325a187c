//! Compares chat templates with the texts that jinja2 renders: the templates of tests/data, and of
//! any folder, for templates that Galley may not distribute.
//!
//! `tests/oracle/make_chats.py FOLDER` renders every template of a folder in transformers'
//! environment and writes `cases.json` there; `GALLEY_TEST_TEMPLATES=FOLDER` then runs this test.

use galley_model::chat::{ChatOptions, ChatTemplate, Message};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

#[derive(Deserialize)]
struct Oracle {
    chats: Vec<(String, Vec<Message>, Vec<Value>)>,
    variables: Vec<Map<String, Value>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    /// Indices of the conversation and of the variables.
    chat: usize,
    variables: usize,
    prompt: bool,
    text: Option<String>,
    /// The message of `raise_exception`.
    raised: Option<String>,
    /// Another error of jinja2 or Python.
    error: Option<String>,
}

#[derive(Default)]
struct Count {
    equal: usize,
    refused_by_both: usize,
    complaints: Vec<String>,
}

/// The cases of `folder`, template by template.
fn counts(folder: &Path) -> BTreeMap<String, Count> {
    let oracle = fs::read(folder.join("cases.json")).expect("make_chats.py writes cases.json");
    let oracle: Oracle = serde_json::from_slice(&oracle).expect("make_chats.py writes cases");
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    for case in &oracle.cases {
        let count = counts.entry(case.template.clone()).or_default();
        match compare(folder, &oracle, case) {
            Ok(true) => count.equal += 1,
            Ok(false) => count.refused_by_both += 1,
            Err(complaint) => {
                let name = &oracle.chats[case.chat].0;
                count.complaints.push(format!("{name}, variables {}: {complaint}", case.variables));
            }
        }
    }
    counts
}

#[test]
fn templates_render_as_in_transformers() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/templates");
    let counts = counts(&data);
    let n_equal: usize = counts.values().map(|count| count.equal).sum();
    assert!(n_equal > 200 && counts.len() > 6, "{n_equal} cases of {} templates", counts.len());
    for (template, count) in counts {
        assert!(count.complaints.is_empty(), "{template}: {:#?}", count.complaints);
    }
}

#[test]
fn templates_of_a_folder_render_as_in_jinja2() {
    let Some(folder) = std::env::var_os("GALLEY_TEST_TEMPLATES") else {
        println!("skipped: GALLEY_TEST_TEMPLATES names no folder with cases.json");
        return;
    };
    let counts = counts(Path::new(&folder));
    let mut n_equal = 0;
    for (template, count) in &counts {
        let (equal, refused, other) = (count.equal, count.refused_by_both, count.complaints.len());
        println!("{template}: {equal} equal, {refused} refused by both, {other} other");
        for complaint in count.complaints.iter().take(3) {
            println!("    {complaint}");
        }
        n_equal += usize::from(count.complaints.is_empty());
    }
    println!("{n_equal} of {} templates are equal in every case", counts.len());
    assert_eq!(n_equal, counts.len());
}

/// Whether both rendered the same text, or both refused.
fn compare(folder: &Path, oracle: &Oracle, case: &Case) -> Result<bool, String> {
    let source = fs::read_to_string(folder.join(&case.template)).map_err(|e| e.to_string())?;
    let bos = Some("<s>".to_owned());
    let template = ChatTemplate::new(&source, None, bos, Some("</s>".to_owned()));
    let (_, messages, tools) = &oracle.chats[case.chat];
    let options = ChatOptions {
        add_generation_prompt: case.prompt,
        tools: tools.clone(),
        variables: oracle.variables[case.variables].clone(),
    };
    let text = template
        .map_err(|e| e.to_string())
        .and_then(|template| template.render_with(messages, &options).map_err(|e| e.to_string()));
    match (text, &case.text, &case.raised) {
        (Ok(text), Some(expected), _) if text == *expected => Ok(true),
        (Ok(text), Some(expected), _) => Err(first_difference(&text, expected)),
        (Ok(_), None, _) => {
            Err(format!("renders, where jinja2 says {:?} {:?}", case.raised, case.error))
        }
        (Err(error), Some(_), _) => Err(format!("refuses: {error}")),
        (Err(error), None, Some(raised)) if !error.ends_with(raised.as_str()) => {
            Err(format!("refuses with {error:?}, jinja2 with {raised:?}"))
        }
        (Err(_), None, _) => Ok(false),
    }
}

fn first_difference(text: &str, expected: &str) -> String {
    let pairs = text.char_indices().zip(expected.chars());
    let at =
        pairs.take_while(|((_, a), b)| a == b).last().map_or(0, |((at, c), _)| at + c.len_utf8());
    let around = |text: &str| -> String {
        let start = text.floor_char_boundary(at.saturating_sub(30));
        text[start..].chars().take(90).collect()
    };
    format!("at {at} {:?}, in jinja2 {:?}", around(text), around(expected))
}
