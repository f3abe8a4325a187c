//! Compares thousands of small templates with the texts that jinja2 renders in transformers'
//! environment (`tests/oracle/make_expressions.py`).

use galley_model::chat::{ChatOptions, ChatTemplate, Message};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Oracle {
    context: Map<String, Value>,
    groups: Vec<Group>,
    templates: Vec<(String, Value)>,
}

#[derive(Deserialize)]
struct Group {
    pattern: String,
    a: Vec<String>,
    b: Vec<String>,
    texts: Vec<Value>,
}

/// The oracle in the repository, or the file in `GALLEY_TEST_EXPRESSIONS`.
fn oracle() -> Oracle {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/templates");
    let named = std::env::var_os("GALLEY_TEST_EXPRESSIONS").map(PathBuf::from);
    let path = named.unwrap_or_else(|| data.join("expressions.json"));
    serde_json::from_slice(&fs::read(path).expect("the file is there")).expect("it is JSON")
}

fn render(source: &str, context: &Map<String, Value>) -> Result<String, String> {
    let mut variables = context.clone();
    let messages = variables.remove("messages").unwrap_or_default();
    let messages: Vec<Message> = serde_json::from_value(messages).expect("messages");
    let options = ChatOptions { variables, ..ChatOptions::default() };
    ChatTemplate::new(source, None, None, None)
        .map_err(|error| error.to_string())?
        .render_with(&messages, &options)
        .map_err(|error| error.to_string())
}

/// The difference between Galley and jinja2; `None` if they agree.
fn difference(source: &str, expected: &Value, context: &Map<String, Value>) -> Option<String> {
    match (render(source, context), expected) {
        // `false`: the text has addresses of objects, or is listed as different.
        (_, Value::Bool(false)) | (Err(_), Value::Null) => None,
        (Ok(text), Value::String(expected)) if text == *expected => None,
        (Ok(text), expected) => Some(format!("{source}: {text:?}, in jinja2 {expected}")),
        (Err(error), expected) => Some(format!("{source}: {error}, in jinja2 {expected}")),
    }
}

#[test]
fn case_04_expressions_are_those_of_python() {
    let oracle = oracle();
    let mut complaints = Vec::new();
    let mut count = 0;
    for group in &oracle.groups {
        let sources = group
            .a
            .iter()
            .flat_map(|a| group.b.iter().map(|b| group.pattern.replace("$a", a).replace("$b", b)));
        assert_eq!(group.texts.len(), group.a.len() * group.b.len());
        for (source, expected) in sources.zip(&group.texts) {
            complaints.extend(difference(&source, expected, &oracle.context));
            count += 1;
        }
    }
    for (source, expected) in &oracle.templates {
        complaints.extend(difference(source, expected, &oracle.context));
        count += 1;
    }
    for complaint in complaints.iter().take(300) {
        println!("{complaint}");
    }
    assert!(count > 100);
    assert!(complaints.is_empty(), "{} of {count} differ", complaints.len());
}

#[test]
fn a_wrong_text_is_noticed() {
    let oracle = oracle();
    let wrong = Value::String("2".into());
    assert!(difference("{{ 1 }}", &wrong, &oracle.context).is_some());
    assert!(difference("{{ 1 }}", &Value::Null, &oracle.context).is_some());
    assert!(difference("{{ none + 1 }}", &wrong, &oracle.context).is_some());
}

/// Numbers at the limits of integer types and floats.
const NUMBERS: [&str; 8] = [
    "0",
    "-1",
    "4294967296",
    "-9223372036854775808",
    "18446744073709551615",
    "170141183460469231731687303715884105727",
    "1e308",
    "(-(2 ** 126) * 2)",
];

#[test]
fn mutated_templates_render_or_fail() {
    const SEED: u64 = 11;
    println!("seed {SEED}");
    let oracle = oracle();
    let mut state = SEED;
    let mut below = |bound: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % bound.max(1)
    };
    let mut sources: Vec<String> =
        oracle.templates.iter().map(|(source, _)| source.clone()).collect();
    for group in &oracle.groups {
        for b in &group.b {
            let a = &group.a[below(group.a.len())];
            sources.push(group.pattern.replace("$a", a).replace("$b", b));
        }
    }
    let (mut n_rendered, mut n_refused) = (0, 0);
    for source in &sources {
        for _ in 0..10 {
            let chars: Vec<char> = source.chars().collect();
            let (at, other) = (below(chars.len()), below(sources.len()));
            let length = below(6);
            let end = (at + length).min(chars.len());
            let digit = chars.iter().position(char::is_ascii_digit).unwrap_or(at);
            let part = |from: usize, to: usize| chars[from..to].iter().collect::<String>();
            let mutated = match below(4) {
                0 => part(0, at) + &part(end, chars.len()),
                1 => part(0, end) + &part(at, chars.len()),
                2 => part(0, at) + &sources[other].chars().skip(at).collect::<String>(),
                _ => {
                    part(0, digit)
                        + NUMBERS[below(8)]
                        + &part((digit + 1).min(chars.len()), chars.len())
                }
            };
            // `render` returns errors. A panic ends the test.
            match render(&mutated, &oracle.context) {
                Ok(_) => n_rendered += 1,
                Err(_) => n_refused += 1,
            }
        }
    }
    assert!(n_rendered > 300 && n_refused > 300, "{n_rendered} rendered, {n_refused} refused");
}
