//! Thousands of small templates as jinja2 renders them in transformers' environment
//! (`tests/oracle/make_expressions.py`).

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

/// The file of the repository, or the one that `GALLEY_TEST_EXPRESSIONS` names.
fn oracle() -> Oracle {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/templates");
    let named = std::env::var_os("GALLEY_TEST_EXPRESSIONS").map(PathBuf::from);
    let path = named.unwrap_or_else(|| data.join("expressions.json"));
    serde_json::from_slice(&fs::read(path).expect("the file is there")).expect("it is JSON")
}

/// What Galley does otherwise, if anything.
fn difference(source: &str, expected: &Value, context: &Map<String, Value>) -> Option<String> {
    let mut variables = context.clone();
    let messages = variables.remove("messages").unwrap_or_default();
    let messages: Vec<Message> = serde_json::from_value(messages).expect("messages");
    let options = ChatOptions { variables, ..ChatOptions::default() };
    let rendered = ChatTemplate::new(source, None, None, None).and_then(|template| {
        template.render_with(&messages, &options).map_err(|error| error.to_string())
    });
    match (rendered, expected) {
        // Names of objects with addresses.
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
