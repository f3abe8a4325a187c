//! A chat over pipes: it goes on after every message that it cannot answer.

use crate::{command, tiny, with_template};
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

/// A template that refuses the word "bad" and marks no turns.
const REFUSES: &str = "{% for m in messages %}{% if 'bad' in m.content %}\
                       {{ raise_exception('no bad words') }}{% endif %}{{ m.content }}\n{% endfor %}";

/// Runs a chat with a model over pipes.
fn chat(model: &Path, extra: &[&str], input: &[u8]) -> Output {
    let model = model.to_str().expect("UTF-8");
    let mut galley = command(&[&["chat", "-m", model][..], extra].concat());
    galley.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut galley = galley.spawn().expect("the binary starts");
    let mut stdin = galley.stdin.take().expect("a pipe");
    // The binary may end before it has read all input.
    let _ = stdin.write_all(input);
    drop(stdin);
    galley.wait_with_output().expect("it ends")
}

fn parts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    (stdout, stderr)
}

const SHORT: [&str; 3] = ["--max-tokens", "2", "--ignore-eos"];

#[test]
fn case_16_a_message_that_the_template_refuses_is_left_out() {
    let model = with_template("smollm2", REFUSES);
    let (stdout, stderr) = parts(&chat(model.path(), &SHORT, b"hello\nbad\nhello again\n"));
    assert_eq!(stdout.matches(" [length]\n").count(), 2, "{stdout}");
    assert_eq!(stderr.matches("no bad words").count(), 1, "{stderr}");
    assert!(stderr.contains("left out") && stderr.contains("/new"), "{stderr}");
    // The refused message is not part of the conversation: the answers are the same without it.
    let (without, stderr) = parts(&chat(model.path(), &SHORT, b"hello\nhello again\n"));
    assert!(stdout == without && stderr.is_empty(), "{stderr}");
    // Control: the comparison detects another conversation.
    let (other, _) = parts(&chat(model.path(), &SHORT, b"hello\ngood\nhello again\n"));
    assert_ne!(other, without);
    assert_eq!(other.matches(" [length]\n").count(), 3);
}

#[test]
fn other_refusals_of_a_template_end_no_chat_either() {
    // A template that fails instead of refusing, one that allows a single message, and one that does not end.
    for (template, input) in [
        ("{{ messages[0].content }}{{ messages[1].content.x.y }}", &b"one\ntwo\n"[..]),
        (
            "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}\
             {{ messages[0].content }}",
            b"one\ntwo\n/new\nthree\n",
        ),
        (
            "{% if messages|length > 1 %}{% for i in range(99999) %}{% for k in range(99999) %}\
             {% endfor %}{% endfor %}{% endif %}{{ messages[0].content }}",
            b"one\ntwo\n/new\nthree\n",
        ),
    ] {
        let model = with_template("smollm2", template);
        let (stdout, stderr) = parts(&chat(model.path(), &SHORT, input));
        let n_answers = if input.ends_with(b"three\n") { 2 } else { 0 };
        assert_eq!(stdout.matches(" [length]\n").count(), n_answers, "{stdout}{stderr}");
        assert!(stderr.contains("error: ") && stderr.contains("/new"), "{stderr}");
    }
}

#[test]
fn a_template_without_system_messages_is_named_before_the_first() {
    let template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}\
                    {% endif %}{{ messages[0].content }}";
    let model = with_template("smollm2", template);
    let output = chat(model.path(), &["--system", "- brief", "--max-tokens", "2"], b"hello\n");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("--system (GALLEY_SYSTEM)"), "{error}");
    assert_eq!(error.matches("no system role").count(), 1, "{error}");
    parts(&chat(model.path(), &SHORT, b"hello\n"));
}

#[test]
fn case_28_a_line_that_is_not_utf8_is_left_out() {
    let model = tiny("smollm2");
    for wrong in [&b"\xff\xfe\n"[..], b"caf\xe9\n", b"\xc3\n", b"\xed\xa0\x80\n"] {
        let input = [b"hello\n", wrong, b"hello again\r\n"].concat();
        let (stdout, stderr) = parts(&chat(&model, &SHORT, &input));
        let (without, _) = parts(&chat(&model, &SHORT, b"hello\nhello again\n"));
        assert_eq!(stdout, without);
        assert!(stderr.contains("UTF-8") && stderr.contains("left out"), "{stderr}");
    }
    // The same holds for a last line without a line feed.
    let (stdout, _) = parts(&chat(&model, &SHORT, b"hello\n\xff"));
    assert_eq!(stdout.matches(" [length]\n").count(), 1);
}

#[test]
fn case_28_an_answer_is_as_long_as_there_is_room() {
    let model = with_template("smollm2", "{% for m in messages %}{{ m.content }}\n{% endfor %}");
    let model = model.path();
    let long = ["--max-tokens", "400", "--ignore-eos"];
    let small = [&long[..], &["--kv-cache-tokens", "64"]].concat();
    let (stdout, stderr) = parts(&chat(model, &small, b"hello\nmore\n/new\nhello\n"));
    // The first answer fills the cache, the second has no room, and the third follows /new and equals the first.
    assert_eq!(stdout.matches(" [length]\n").count(), 2, "{stdout}{stderr}");
    let (first, third) = stdout.split_at(stdout.len() / 2);
    assert_eq!(first, third);
    assert_eq!(stderr.matches("the context is full").count(), 2, "{stderr}");
    assert_eq!(stderr.matches("error: the conversation has ").count(), 1, "{stderr}");
    assert!(stderr.contains("/new starts over"), "{stderr}");
    // The answer is as long as that of a run with the most tokens that fit. A run refuses one token more and
    // names the limit.
    let run = |max_tokens: usize| {
        let max_tokens = max_tokens.to_string();
        let path = model.to_str().expect("UTF-8");
        let args = ["run", "-m", path, "--chat", "-p", "hello", "--ignore-eos", "--json"];
        let size = ["--kv-cache-tokens", "64", "--max-tokens", &max_tokens];
        command(&[&args[..], &size].concat()).output().expect("the binary starts")
    };
    let short = crate::json(&run(1));
    let room = 65 - short["prompt_token_ids"].as_array().expect("tokens").len();
    let full = crate::json(&run(room));
    assert_eq!(full["outputs"][0]["token_ids"].as_array().expect("ids").len(), room);
    assert_eq!(first, format!("{} [length]\n", full["outputs"][0]["text"].as_str().expect("text")));
    let refusal = run(room + 1);
    let error = String::from_utf8_lossy(&refusal.stderr);
    assert!(!refusal.status.success() && error.contains(&format!("{room} do")), "{error}");
    // A limit of the user causes no note, and the room limits --min-tokens, too.
    assert!(parts(&chat(model, &SHORT, b"hello\n")).1.is_empty());
    let least = [&small[..], &["--min-tokens", "300"]].concat();
    assert_eq!(parts(&chat(model, &least, b"hello\n")).0, first);
}

#[test]
fn a_message_that_is_too_long_is_left_out() {
    let model = tiny("smollm2");
    let input = [b"hello\n", "word ".repeat(1000).as_bytes(), b"\nhello again\n"].concat();
    let (stdout, stderr) = parts(&chat(&model, &SHORT, &input));
    assert_eq!(stdout, parts(&chat(&model, &SHORT, b"hello\nhello again\n")).0);
    assert!(stderr.contains("tokens, and an answer fits after at most"), "{stderr}");
}

#[test]
fn a_chat_over_pipes_prints_answers_alone() {
    let model = tiny("smollm2");
    let (plain, _) = parts(&chat(&model, &SHORT, b"hello\n\n  \nagain\n"));
    assert_eq!(plain.matches(" [length]\n").count(), 2);
    assert!(!plain.contains('>') && !plain.contains('\x1b'), "{plain:?}");
    for term in ["dumb", "xterm-256color", ""] {
        let path = model.to_str().expect("UTF-8");
        let mut galley = command(&[&["chat", "-m", path][..], &SHORT].concat());
        galley.env("TERM", term).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut galley = galley.stderr(Stdio::piped()).spawn().expect("the binary starts");
        galley.stdin.take().expect("a pipe").write_all(b"hello\nagain\n").expect("written");
        let output = galley.wait_with_output().expect("it ends");
        assert_eq!(parts(&output), (plain.clone(), String::new()), "{term}");
    }
    // An empty input.
    assert_eq!(parts(&chat(&model, &SHORT, b"")), (String::new(), String::new()));
}

#[test]
fn another_template_can_be_given() {
    let model = tiny("smollm2");
    let folder = with_template("smollm2", REFUSES);
    let file = folder.path().join("chat_template.jinja");
    let file = file.to_str().expect("UTF-8");
    let (own, _) = parts(&chat(&model, &SHORT, b"hello\n"));
    let (others, _) = parts(&chat(folder.path(), &SHORT, b"hello\n"));
    assert_ne!(own, others);
    let extra = [&SHORT[..], &["--chat-template", file]].concat();
    assert_eq!(parts(&chat(&model, &extra, b"hello\n")).0, others);
    let missing = [&SHORT[..], &["--chat-template", "no/such/file"]].concat();
    let error = chat(&model, &missing, b"hello\n").stderr;
    let error = String::from_utf8_lossy(&error);
    assert!(error.contains("--chat-template") && error.contains("no/such/file"), "{error}");
}
