//! Programs in C and C++: hostile callers, the examples, and streams that are equal in Rust and C.

mod common;
#[path = "../../tests/sanitizer.rs"]
mod runtime;

use common::{Installed, Link, model, output, run, settings};
use galley_api::{ModelTexts, open_engine, parse_requests};
use galley_engine::drafters::Search;
use galley_engine::{Event, RequestHandle};
use runtime::sanitizer;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Programs are linked with the sanitizer where it is there.
fn link() -> Link {
    if sanitizer().is_some() { Link::Sanitized } else { Link::Shared }
}

/// Runs a hostile program of `tests/c` over a tiny model.
fn survives(name: &str) {
    let installed = Installed::new();
    let program = installed.compile(&format!("tests/c/{name}.c"), link());
    let said = output(&program, &[&settings("smollm2", "")], "");
    assert_eq!(said, format!("{name}: fine\n"));
}

#[test]
fn wrong_arguments_are_errors() {
    survives("arguments");
}

#[test]
fn wrong_json_is_an_error() {
    survives("json");
}

#[test]
fn any_thread_may_call_at_any_time() {
    survives("threads");
}

/// Negative control: the sanitizer sees the library's memory.
#[test]
fn text_that_is_read_after_its_release_is_noticed() {
    if sanitizer().is_none() {
        return;
    }
    let installed = Installed::new();
    let program = installed.compile("tests/c/released.c", Link::Sanitized);
    let run = run(&program, &[&settings("smollm2", "")], "");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && said.contains("heap-use-after-free"), "{said}");
}

#[test]
fn the_static_library_needs_what_galley_pc_says() {
    let installed = Installed::new();
    let program = installed.compile("tests/c/arguments.c", Link::Static);
    assert_eq!(output(&program, &[&settings("llama3", "")], ""), "arguments: fine\n");
}

/// Requests with every kind of setting.
fn requests() -> Vec<Value> {
    let prompts =
        ["Once upon a time", "to be or not to be or not to be", "1 2 3 4 1 2 3 4 1 2", "é"];
    let request = |i: usize| {
        let mut request = json!({"prompt": prompts[i % 4], "max_tokens": 8 + i % 24, "seed": i});
        let kinds = [
            json!({"temperature": 0}),
            json!({"temperature": 0.8, "top_p": 0.9}),
            json!({"temperature": 1.3, "top_k": 20, "min_p": 0.01, "logprobs": 3}),
            json!({"temperature": 0, "repetition_penalty": 1.2, "presence_penalty": 0.5, "logprobs": 0}),
            json!({"temperature": 0.7, "frequency_penalty": 0.4, "n": 3}),
            json!({"temperature": 0, "stop": ["e", "or"], "min_tokens": 3}),
            json!({"temperature": 0.9, "logit_bias": {"7": 4.5}, "ignore_eos": true, "logprobs": 1}),
        ];
        let Value::Object(more) = &kinds[i % 7] else { unreachable!("an object") };
        request.as_object_mut().expect("an object").extend(more.clone());
        request
    };
    (0..200).map(request).collect()
}

/// The events of each sequence, by tag and index, in the form of tests/c/stream.c without the drafter.
type Lines = BTreeMap<(u64, u32), Vec<String>>;

/// The end of a sequence without its times.
fn end(tag: u64, json: &str) -> String {
    let end: Value = serde_json::from_str(json).expect("JSON");
    let tokens = &end["usage"]["completion_tokens"];
    format!("{tag} end {} {} {tokens}", end["finish_reason"], end["stop_reason"])
}

fn lines_of_rust(tag: u64, mut handle: RequestHandle, to: &mut Lines) {
    while let Some(event) = handle.recv() {
        match event {
            Event::Token(event) => {
                let mut line = format!("{tag} 1 {} {} ", event.index, event.token);
                event.text.bytes().for_each(|byte| write!(line, "{byte:02x}").expect("memory"));
                match event.logprob {
                    Some(logprob) => write!(line, " {:x}", logprob.to_bits()).expect("memory"),
                    None => line.push_str(" -"),
                }
                for (token, logprob) in &event.top {
                    write!(line, " {token}:{:x}", logprob.to_bits()).expect("memory");
                }
                to.entry((tag, event.index)).or_default().push(line);
            }
            Event::Finished { index, reason, usage } => {
                let json = galley_api::finished_json(index, &reason, &usage);
                to.entry((tag, index)).or_default().push(end(tag, &json));
            }
            other => panic!("{tag}: {other:?}"),
        }
    }
}

/// The events of the requests in this process, without a drafter.
fn expected(requests: &[Value]) -> Lines {
    let search = |folders: Option<&_>| Search::standard(folders, None);
    let (engine, files) =
        open_engine(settings("llama3", "").as_bytes(), |_| {}, search).expect("an engine");
    let texts = ModelTexts::of(&files);
    let bodies = parse_requests(json!(requests).to_string().as_bytes()).expect("requests");
    let requests = bodies.into_iter().map(|body| body.into_request(&texts).expect("a request"));
    let mut lines = Lines::new();
    let handles = engine.submit_all(requests.collect::<Vec<_>>()).expect("accepted");
    for (tag, handle) in (0..).zip(handles) {
        lines_of_rust(tag, handle, &mut lines);
    }
    lines
}

/// The lines of tests/c/stream.c; the first result is the number of tokens that a drafter guessed.
fn lines_of_c(text: &str) -> (usize, Lines) {
    let (mut n_guessed, mut to) = (0, Lines::new());
    for line in text.lines().skip(2) {
        let words: Vec<_> = line.splitn(7, ' ').collect();
        let number = |i: usize| words[i].parse::<i64>().expect("a number");
        let key = (number(0) as u64, number(2) as u32);
        let line = match words[1] {
            "1" => {
                n_guessed += usize::from(number(4) >= 0);
                assert!(number(4) >= 0 || number(5) == 0, "a position without a drafter: {line}");
                format!("{} 1 {} {} {}", words[0], words[2], words[3], words[6])
            }
            "2" => end(key.0, line.splitn(4, ' ').last().unwrap_or_default()),
            kind => panic!("kind {kind}: {line}"),
        };
        to.entry(key).or_default().push(line);
    }
    (n_guessed, to)
}

#[test]
fn c_receives_the_bytes_of_rust_with_and_without_a_drafter() {
    let installed = Installed::new();
    installed.add_drafter();
    let program = installed.compile("tests/c/stream.c", Link::Shared);
    let requests = requests();
    let expected = expected(&requests);
    let stream = |more: &str, requests: &[Value]| {
        let arguments = [settings("llama3", more), requests.len().to_string()];
        output(&program, &arguments.each_ref().map(String::as_str), &json!(requests).to_string())
    };
    let (n_guessed, plain) = lines_of_c(&stream(r#", "drafters": ["none"]"#, &requests));
    assert_eq!((n_guessed, &plain), (0, &expected));
    // Without a word about drafters, the engine chooses.
    assert_eq!(lines_of_c(&stream("", &requests)).1, expected);
    // Nothing but the place of the library says where the drafter is.
    let text = stream(r#", "drafters": ["ngram,min=1"], "draft_length": 4"#, &requests);
    let (n_guessed, drafted) = lines_of_c(&text);
    assert!(n_guessed > 20, "{n_guessed} drafted tokens");
    assert_eq!(drafted, expected);
    let info: Value = serde_json::from_str(text.lines().nth(1).expect("a line")).expect("JSON");
    assert_eq!(info["drafters"], json!(["ngram"]));
    let started: Vec<Value> =
        serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    assert_eq!((started.len(), &started[7]["seed"]), (200, &json!(7)));
    assert_eq!(started[7]["fingerprint"], info["fingerprint"]);
    // Negative control: another seed is noticed.
    let mut other = requests;
    other[1]["seed"] = 999.into();
    assert_ne!(lines_of_c(&stream("", &other)).1, expected);
}

#[test]
fn the_chat_example_streams_answers() {
    let installed = Installed::new();
    installed.add_drafter();
    let program = installed.compile("../examples/c/chat.c", link());
    let path = model("llama3");
    let path = path.to_str().expect("UTF-8");
    let chat = run(&program, &[path, "ngram"], "Hello \"there\"\n");
    let said = String::from_utf8_lossy(&chat.stderr);
    assert!(chat.status.success() && said.contains("done_layers"), "{said}");
    assert_eq!(said.matches("\n> ").count(), 2, "a line, and the end: {said}");
    assert!(chat.stdout.len() > 2, "it answers");
    // A tiny model talks until its context is full, so the chat is too long for a second answer.
    let chat = run(&program, &[path], "Hello\nand\tagain\n");
    let said = String::from_utf8_lossy(&chat.stderr);
    assert!(chat.status.success() || said.contains("do not fit in the context"), "{said}");
    let wrong = run(&program, &["no/such/model"], "");
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(!wrong.status.success() && said.contains("no/such/model"), "{said}");
    let wrong = run(&program, &[path, "no-such-drafter"], "");
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(said.starts_with("drafters: ") && said.contains("lib/galley/drafters"), "{said}");
}

#[test]
fn the_batch_example_gives_each_prompt_its_own_output() {
    let installed = Installed::new();
    let program = installed.compile("../examples/cpp/batch.cpp", link());
    let path = model("qwen2");
    let path = path.to_str().expect("UTF-8");
    let prompts = ["Once upon a time", "to be or \"not\" to be", "1 2 3 4 5 6"];
    let outputs = |input: &str| -> BTreeMap<String, String> {
        let text = output(&program, &[path], input);
        let lines = text.lines().map(|line| line.split_once('\t').expect("tag, output"));
        lines.map(|(tag, output)| (tag.to_owned(), output.to_owned())).collect()
    };
    let together = outputs(&prompts.map(|prompt| format!("{prompt}\n")).concat());
    assert_eq!(together.len(), 3);
    for (tag, prompt) in prompts.iter().enumerate() {
        let alone = outputs(&format!("{prompt}\n"));
        assert_eq!(alone["0"], together[&tag.to_string()], "{prompt}");
    }
    assert_ne!(together["0"], together["1"]);
    assert!(outputs("").is_empty());
}

#[test]
fn the_program_of_the_documentation_streams() {
    let installed = Installed::new();
    let text =
        std::fs::read_to_string(common::here().join("../docs/embedding.md")).expect("a page");
    let code = text.split("```c\n").nth(1).and_then(|rest| rest.split("```").next());
    let source = installed.path("bin/embedding.c");
    std::fs::write(&source, code.expect("a program")).expect("written");
    let program = installed.compile(source.to_str().expect("UTF-8"), link());
    let path = model("llama3");
    let output = run(&program, &[path.to_str().expect("UTF-8")], "");
    assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
    let wrong = run(&program, &["no/such/model"], "");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("no/such/model"), "{wrong:?}");
}
