//! `galley run --request`: requests in files, and their answers.

use crate::{build_drafter, command, galley, json, refused, tiny};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Output, Stdio};

fn model() -> String {
    tiny("smollm2").to_str().expect("UTF-8").to_owned()
}

/// Runs `galley run --request` on a file with this text.
fn answer(text: &str, extra: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("requests.jsonl");
    std::fs::write(&file, text).expect("written");
    let (model, file) = (model(), file.to_str().expect("UTF-8"));
    galley(&[&["run", "-m", &model, "--request", file], extra].concat())
}

#[track_caller]
fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// The parts of a sequence's output that do not depend on the load of the machine.
fn fixed(output: &Value) -> Value {
    let keys =
        ["index", "text", "token_ids", "logprobs", "sources", "finish_reason", "stop_reason"];
    keys.iter().map(|key| output[key].clone()).collect()
}

#[test]
fn a_request_has_the_answer_of_the_same_flags() {
    let flags = "--temperature 0.8 --top-p 0.95 --top-k 50 --min-p 0.01 --repetition-penalty 1.1 --presence-penalty 0.3 \
                 --frequency-penalty 0.1 --logit-bias 70:-1.5 --seed 7 --max-tokens 12 --min-tokens 3 --stop ZZ \
                 --stop-token-id 250 --n 2 --logprobs 2";
    let request = json!({
        "prompt": "some text", "temperature": 0.8, "top_p": 0.95, "top_k": 50, "min_p": 0.01,
        "repetition_penalty": 1.1, "presence_penalty": 0.3, "frequency_penalty": 0.1,
        "logit_bias": {"70": -1.5}, "seed": 7, "max_tokens": 12, "min_tokens": 3, "stop": "ZZ",
        "stop_token_ids": [250], "n": 2, "logprobs": 2,
    });
    let model = model();
    let run = ["run", "-m", &model, "-p", "some text", "--json"];
    let by_flags =
        json(&galley(&[&run[..], &flags.split_whitespace().collect::<Vec<_>>()].concat()));
    let by_request = &lines(&answer(&request.to_string(), &[]))[0];
    for index in 0..2 {
        assert_eq!(fixed(&by_request["outputs"][index]), fixed(&by_flags["outputs"][index]));
    }
    for key in ["seed", "fingerprint", "prompt_token_ids"] {
        assert_eq!(by_request[key], by_flags[key], "{key}");
    }
    // Control: another number is another answer.
    let other = request.to_string().replace("\"temperature\":0.8", "\"temperature\":1.8");
    let other = &lines(&answer(&other, &[]))[0];
    assert_ne!(fixed(&other["outputs"][0]), fixed(&by_flags["outputs"][0]));
}

#[test]
fn messages_have_the_answer_of_a_chat() {
    let request = r#"{"messages": [{"role": "user", "content": "hello"}], "temperature": 0, "max_tokens": 6}"#;
    let by_request = &lines(&answer(request, &[]))[0];
    let model = model();
    let chat = ["run", "-m", &model, "-p", "hello", "--chat", "--max-tokens", "6", "--json"];
    let by_flags = json(&galley(&chat));
    assert_eq!(by_request["prompt_token_ids"], by_flags["prompt_token_ids"]);
    assert_eq!(fixed(&by_request["outputs"][0]), fixed(&by_flags["outputs"][0]));
    let folder = crate::with_template("smollm2", "{{ messages[0].content }}");
    let template = folder.path().join("chat_template.jinja");
    let other = answer(request, &["--chat-template", template.to_str().expect("UTF-8")]);
    assert_ne!(lines(&other)[0]["prompt_token_ids"], by_flags["prompt_token_ids"]);
}

#[test]
fn requests_run_together_and_are_answered_in_order() {
    build_drafter("ngram");
    let request = |seed: u64| {
        let n_tokens = 20 - seed;
        json!({"prompt": "a b a b a b", "seed": seed, "max_tokens": n_tokens, "ignore_eos": true})
    };
    let requests: Vec<Value> = (0..8).map(request).collect();
    let text: String = requests.iter().map(|request| format!("{request}\n")).collect();
    let answers = lines(&answer(&text, &["--stats"]));
    assert_eq!(answers.len(), 8);
    let list = lines(&answer(&json!(requests).to_string(), &["--drafter", "ngram,min=1"]));
    for (index, one) in answers.iter().enumerate() {
        assert_eq!((&one["id"], &one["seed"]), (&json!(index), &json!(index)));
        let alone = &lines(&answer(&requests[index].to_string(), &[]))[0];
        assert_eq!(fixed(&alone["outputs"][0]), fixed(&one["outputs"][0]));
        assert_eq!(list[index]["outputs"][0]["token_ids"], one["outputs"][0]["token_ids"]);
    }
    let sources = |answers: &[Value]| -> Vec<Value> {
        let outputs = answers.iter().map(|answer| answer["outputs"][0]["sources"].as_array());
        outputs.flat_map(|sources| sources.expect("a list").clone()).collect()
    };
    assert!(sources(&answers).iter().all(Value::is_null));
    assert!(sources(&list).iter().any(|source| source[0] == "ngram"), "{list:?}");
    // A drafter of a request that the engine does not have.
    let named = requests[0].to_string().replace("{", "{\"drafter\": \"ngram\", ");
    let refusal = answer(&format!("{}\n{named}", requests[1]), &[]);
    let error = String::from_utf8_lossy(&refusal.stderr);
    assert!(!refusal.status.success() && refusal.stdout.is_empty());
    for part in ["request 2 of 2", "drafter: ", "--drafter"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn standard_input_may_be_the_file() {
    let model = model();
    let mut galley = command(&["run", "-m", &model, "--request", "-"]);
    let mut galley =
        galley.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let request = br#"{"prompt": "some text", "max_tokens": 2, "seed": 3}"#;
    galley.stdin.take().expect("a pipe").write_all(request).expect("written");
    assert_eq!(lines(&galley.wait_with_output().expect("it ends"))[0]["seed"], 3);
}

#[test]
fn flags_beside_a_request_are_refused_with_its_key() {
    let model = model();
    let run = ["run", "-m", &model, "--request", "no/such/file"];
    for (flags, key) in [
        (&["--temperature", "0"][..], "\"temperature\""),
        (&["--stop-token-id", "3"], "\"stop_token_ids\""),
        (&["-p", "text"], "\"prompt\""),
        (&["-n", "2"], "\"n\""),
        (&["--chat"], "\"messages\""),
        (&["--ignore-eos"], "\"ignore_eos\""),
        (&["--verify", "rejection"], "\"verify\""),
        (&["--draft-length", "3"], "\"draft_length\""),
    ] {
        refused(&[&run[..], flags].concat(), &["beside --request", key]);
    }
    refused(&run, &["--request", "no/such/file"]);
    // Variables are meant for other calls.
    let mut galley = command(&["run", "-m", &model, "--request", "-"]);
    galley.env("GALLEY_SEED", "7").env("GALLEY_MAX_TOKENS", "3").stdin(Stdio::piped());
    let mut galley = galley.stdout(Stdio::piped()).spawn().expect("it starts");
    let request = br#"{"prompt": "some text", "max_tokens": 2, "ignore_eos": true, "seed": 3}"#;
    galley.stdin.take().expect("a pipe").write_all(request).expect("written");
    let answer = lines(&galley.wait_with_output().expect("it ends")).remove(0);
    assert_eq!(answer["seed"], 3);
    assert_eq!(answer["outputs"][0]["token_ids"].as_array().expect("ids").len(), 2);
}

#[test]
fn wrong_requests_are_refused_before_the_model_is_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("request.json");
    let file = file.to_str().expect("UTF-8");
    for (text, parts) in [
        ("", &["no request"][..]),
        ("{\"prompt\": \"a\"", &["EOF"]),
        ("{\"prompt\": \"a\", \"temprature\": 1}", &["temprature", "\"temperature\""]),
        (
            "{\"prompt\": \"a\"}\n{\"prompt\": \"a\", \"top_p\": 7}",
            &["[1].top_p", "7 is not between"],
        ),
        ("{\"prompt\": \"a\", \"seed\": NaN}", &["line 1 column 25"]),
    ] {
        std::fs::write(file, text).expect("written");
        refused(
            &["run", "-m", "no/such/model", "--request", file],
            &[&["--request"], parts].concat(),
        );
    }
    let text = "{\"prompt\": \"a\"}\n{\"prompt\": \"a\", \"max_tokens\": 100000}";
    let output = answer(text, &[]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(error.contains("request 2 of 2") && error.contains("max_tokens: 100000"), "{error}");
}

/// Without a flag the engine chooses, and the choice changes no token.
#[test]
fn the_engine_chooses_by_default_and_changes_no_token() {
    build_drafter("ngram");
    let model = model();
    let flags = ["run", "-m", &model, "-p", "a b a b a b", "--max-tokens", "40", "--ignore-eos"];
    let run = |extra: &[&str]| {
        let mut galley = command(&[&flags[..], extra].concat());
        // The tests' own default is no drafter.
        galley.env_remove("GALLEY_DRAFTER").env("GALLEY_NO_CALIBRATION", "true");
        galley.output().expect("the binary starts")
    };
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let stats = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let (chosen, plain) = (run(&["--stats"]), run(&["--stats", "--drafter", "none"]));
    assert!(!text(&plain).is_empty());
    assert_eq!(text(&chosen), text(&plain));
    assert!(stats(&chosen).contains("planner  "), "{}", stats(&chosen));
    assert!(!stats(&plain).contains("planner  "), "{}", stats(&plain));
}
