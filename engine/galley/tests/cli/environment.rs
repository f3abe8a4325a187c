//! Arguments and variables in the forms that people write.

use crate::{command, json, refused, tiny};
use serde_json::Value;

fn model() -> String {
    tiny("smollm2").to_str().expect("UTF-8").to_owned()
}

/// Runs the tiny model with environment variables set.
fn run(extra: &[&str], variables: &[(&str, &str)]) -> Value {
    let model = model();
    let args = ["run", "-m", &model, "-p", "some text", "--max-tokens", "6", "--json"];
    let mut galley = command(&[&args[..], extra].concat());
    json(&galley.envs(variables.iter().copied()).output().expect("the binary starts"))
}

fn ids(run: &Value) -> Value {
    run["outputs"][0]["token_ids"].clone()
}

#[test]
fn case_12_text_that_begins_with_a_dash_is_text() {
    let model = model();
    let of = |prompt: &str| {
        let args = ["run", "-m", &model, "-p", prompt, "--max-tokens", "2", "--json"];
        json(&crate::galley(&args))
    };
    let (dash, none) = (of("- item"), of("item"));
    assert_ne!(dash["prompt_token_ids"], none["prompt_token_ids"]);
    assert_eq!(ids(&run(&["--stop", "---"], &[])), ids(&run(&[], &[])));
    let args = ["chat", "-m", &model, "--system", "- brief", "--stop", "-x", "--max-tokens", "1"];
    let output = command(&args).stdin(std::process::Stdio::null()).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn case_13_variables_take_the_words_that_people_write() {
    // The first token is an end token, so it ends the output unless end tokens are ignored.
    let ends = ["--logit-bias", "2:100"];
    for (value, n_tokens) in [("1", 6), ("true", 6), ("YES", 6), ("0", 1), ("false", 1), ("", 1)] {
        let run = run(&ends, &[("GALLEY_IGNORE_EOS", value)]);
        assert_eq!(ids(&run).as_array().expect("ids").len(), n_tokens, "{value:?}");
    }
    let plain = ids(&run(&[], &[]));
    let empty = ["SEED", "THREADS", "MODEL", "DRAFTER", "KV_BUDGET", "STOP", "CPU", "DEVICE"];
    let empty: Vec<String> = empty.iter().map(|name| format!("GALLEY_{name}")).collect();
    let empty: Vec<(&str, &str)> = empty.iter().map(|name| (name.as_str(), "")).collect();
    assert_eq!(ids(&run(&[], &empty)), plain);
    assert_eq!(run(&[], &[("GALLEY_SEED", "7")])["seed"], 7);
    assert_eq!(run(&["--seed", "8"], &[("GALLEY_SEED", "7")])["seed"], 8);
}

#[test]
fn case_13_a_wrong_variable_is_named() {
    let model = model();
    for (variable, value, part) in [
        ("GALLEY_IGNORE_EOS", "maybe", "--ignore-eos"),
        ("GALLEY_SEED", "x", "--seed"),
        ("GALLEY_THREADS", "0", "--threads"),
        ("GALLEY_TEMPERATURE", "-1", "--temperature"),
        ("GALLEY_CPU", "sse9", "--cpu"),
        ("GALLEY_CHAT_TEMPLATE", "no/such/file", "--chat-template"),
    ] {
        let mut galley = command(&["run", "-m", &model, "-p", "x", "--chat"]);
        let output = galley.env(variable, value).output().expect("the binary starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{variable} was accepted");
        assert!(error.contains(variable) && error.contains(part), "{error}");
        assert_eq!(error.matches("error: ").count(), 1, "{error}");
    }
}

#[test]
fn info_takes_its_model_from_the_environment() {
    let mut galley = command(&["info", "--json"]);
    let info = json(&galley.env("GALLEY_MODEL", model()).output().expect("the binary starts"));
    assert_eq!(info["family"], "Llama");
    refused(&["info"], &["no model"]);
}
