//! Every key of a request, and every kind of mistake.

use super::*;
use crate::limits::MAX_BODY_BYTES;
use std::time::{Duration, Instant};

fn read(json: &str) -> Request {
    parse_request(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}")).request
}

/// A request for the prompt `[1]` with more fields.
fn with(fields: &str) -> String {
    format!(r#"{{"prompt": [1], {fields}}}"#)
}

#[track_caller]
fn refused(json: impl AsRef<[u8]>, field: &str, part: &str) {
    let error = parse_request(json.as_ref()).expect_err("it is wrong");
    assert_eq!(error.field.as_deref().unwrap_or_default(), field, "{error}");
    assert!(error.message.contains(part), "no {part:?} in: {error}");
}

#[test]
fn an_empty_request_has_the_defaults() {
    assert_eq!(read(r#"{"prompt": "a"}"#), Request::new("a"));
    assert_eq!(read(r#"{"prompt": "a"}"#).sampling.temperature, 1.0);
    assert_eq!(read(r#" {"prompt" : [5, 0, 4294967295]}  "#), Request::new(vec![5, 0, u32::MAX]));
    let null = r#"{"prompt": "a", "temperature": null, "stop": null, "logprobs": null, "messages": null, "resume": null}"#;
    assert_eq!(read(null), Request::new("a"));
    let rendered = Request::new(Prompt::Rendered("a".into()));
    assert!(rendered.chat);
    assert_eq!(read(r#"{"prompt": "a", "add_special_tokens": false}"#), rendered);
    assert_eq!(read(r#"{"prompt": "a", "add_special_tokens": true}"#), Request::new("a"));
    assert_eq!(read(r#"{"prompt": "a", "chat": true}"#), Request::new("a").chat(true));
}

#[test]
fn every_key_reaches_its_field() {
    let json = r#"{
        "prompt": "a\u00e9", "temperature": 0.8, "top_p": 0.95, "top_k": 40, "min_p": 0.05,
        "repetition_penalty": 1.1, "presence_penalty": -0.5, "frequency_penalty": 0.25,
        "logit_bias": {"7": -1.5, "5": 100}, "logprobs": 3, "seed": 18446744073709551615, "n": 2,
        "max_tokens": 64, "min_tokens": 3, "stop": ["\n", "END"], "stop_token_ids": [9, 8],
        "include_stop_str_in_output": true, "ignore_eos": true, "priority": -4, "cache_salt": 12,
        "drafter": "ngram", "draft_length": 5, "kv_budget": 256, "verify": "rejection",
        "resume": {"generated": [3, 4], "fingerprint": "f"}
    }"#;
    let sampling = SamplingParams::default().temperature(0.8).top_p(0.95).top_k(40).min_p(0.05);
    let sampling = sampling.repetition_penalty(1.1).presence_penalty(-0.5).frequency_penalty(0.25);
    let drafter = DrafterChoice::Named("ngram".into());
    let drafting = DraftRequest::default().drafter(drafter).draft_length(5).kv_budget(256);
    let expected = Request::new("aé")
        .sampling(sampling.logit_bias([(7, -1.5), (5, 100.0)]).logprobs(3))
        .seed(u64::MAX)
        .n(2)
        .max_tokens(64)
        .min_tokens(3)
        .stop(["\n", "END"])
        .stop_tokens([9, 8])
        .include_stop(true)
        .ignore_eos(true)
        .priority(-4)
        .cache_salt(12)
        .drafting(drafting.verify(Verify::Rejection))
        .resume([3, 4])
        .fingerprint("f");
    assert_eq!(read(json), expected);
}

#[test]
fn other_spellings_of_openai_and_vllm_are_read() {
    for (fields, same) in [
        (r#""top_k": -1"#, r#""top_k": 0"#),
        (r#""max_completion_tokens": 5"#, r#""max_tokens": 5"#),
        (r#""max_completion_tokens": 5, "max_tokens": 5"#, r#""max_tokens": 5"#),
        (r#""logprobs": true, "top_logprobs": 2"#, r#""logprobs": 2"#),
        (r#""logprobs": true"#, r#""logprobs": 0"#),
        (r#""logprobs": false"#, r#""logprobs": null"#),
        (r#""stop": "x""#, r#""stop": ["x"]"#),
        (r#""model": 3, "user": {"a": {"a": []}}, "ignore_unknown": true"#, r#""n": 1"#),
    ] {
        assert_eq!(read(&with(fields)), read(&with(same)), "{fields}");
    }
    assert_eq!(read(&with(r#""drafter": "off""#)).drafting, DraftRequest::off());
    let salt = |text: &str| read(&with(&format!(r#""cache_salt": "{text}""#))).cache_salt;
    assert_eq!(salt("tenant"), 0xe9da_86d3_51cf_9a76);
    assert_ne!(salt("tenant"), salt("tenants"));
}

/// The number of the JSON becomes the f32 that the flag of the command line parses: with one rounding.
#[test]
fn a_number_is_the_nearest_f32() {
    // The last numbers lie just above the middle of two f32, so that rounding to f64 first would give the lower one.
    let literals =
        ["0.8", "0.1", "1e-3", "0.30000001192092896", "1E1", "0.5000000298023223876953126"];
    for literal in literals {
        let flag: f32 = literal.parse().expect("a number");
        let read = read(&with(&format!(r#""temperature": {literal}"#)));
        assert_eq!(read.sampling.temperature.to_bits(), flag.to_bits(), "{literal}");
    }
    let last = literals[literals.len() - 1];
    let twice = last.parse::<f64>().expect("a number") as f32;
    assert_ne!(last.parse::<f32>().expect("a number"), twice, "the control rounds twice");
}

#[test]
fn a_wrong_value_is_refused_by_its_field() {
    for (fields, field, part) in [
        (r#""temperature": "0.8""#, "temperature", "a number is needed, not the string \"0.8\""),
        (r#""temperature": true"#, "temperature", "not true"),
        (r#""temperature": -1"#, "temperature", "-1 is not between 0 and 100"),
        (r#""temperature": 1e400"#, "temperature", "1e400 is more than an f32 holds"),
        (r#""temperature": 1e39"#, "temperature", "1e39 is more than"),
        (r#""top_p": 0"#, "top_p", "not between"),
        (r#""top_p": []"#, "top_p", "not a list"),
        (r#""top_k": 2.0"#, "top_k", "a whole number is needed, not the number 2.0"),
        (r#""top_k": -2"#, "top_k", "-2 is not between -1 and 4294967295"),
        (r#""max_tokens": 1e3"#, "max_tokens", "a whole number"),
        (r#""max_tokens": 4294967296"#, "max_tokens", "4294967296 is not between 0 and"),
        (
            r#""max_tokens": 5, "max_completion_tokens": 6"#,
            "max_completion_tokens",
            "another value",
        ),
        (r#""seed": -1"#, "seed", "between 0 and 18446744073709551615"),
        (r#""seed": 99999999999999999999999999999999999999999999999999999"#, "seed", "not between"),
        (r#""n": {}"#, "n", "not an object"),
        (r#""stop": [1]"#, "stop[0]", "a string is needed"),
        (r#""stop": "\ud800""#, "stop", "hex escape"),
        (r#""stop": [""]"#, "stop", "empty"),
        (r#""stop_token_ids": [1, -2]"#, "stop_token_ids[1]", "-2 is not between"),
        (r#""stop_token_ids": 1"#, "stop_token_ids", "a list of token ids"),
        (r#""logit_bias": {"abc": 1}"#, "logit_bias.\"abc\"", "no token id"),
        (r#""logit_bias": {"+7": 1}"#, "logit_bias.\"+7\"", "no token id"),
        (r#""logit_bias": {"07": 1}"#, "logit_bias.\"07\"", "no token id"),
        (r#""logit_bias": {"7": "1"}"#, "logit_bias.\"7\"", "a number"),
        (r#""logit_bias": {"7": 1, "7": 1}"#, "logit_bias.7", "twice"),
        (r#""logit_bias": [[7, 1]]"#, "logit_bias", "an object is needed, not a list"),
        (r#""logprobs": 1.5"#, "logprobs", "whole number"),
        (r#""logprobs": 129"#, "logprobs", "128"),
        (r#""top_logprobs": 2"#, "top_logprobs", "\"logprobs\": true"),
        (r#""logprobs": false, "top_logprobs": 2"#, "top_logprobs", "\"logprobs\": true"),
        (r#""logprobs": 1, "top_logprobs": 2"#, "top_logprobs", "leave out"),
        (r#""ignore_eos": 1"#, "ignore_eos", "true or false"),
        (r#""priority": 2147483648"#, "priority", "2147483647"),
        (r#""cache_salt": -1"#, "cache_salt", "not between"),
        (r#""drafter": 3"#, "drafter", "a string"),
        (r#""verify": "maybe""#, "verify", "equality or rejection"),
        (r#""kv_budget": 0"#, "kv_budget", "between 1"),
        (r#""resume": []"#, "resume", "an object"),
        (r#""resume": {"generated": [0, 1, 2, 3, 4, "5"]}"#, "resume.generated[5]", "\"5\""),
        (r#""resume": {"generate": []}"#, "resume.generate", "\"generated\""),
        (r#""resume": {"fingerprint": 5}"#, "resume.fingerprint", "a string"),
        (r#""messages": [{"role": "user", "content": "a"}]"#, "prompt", "messages, too"),
        (r#""add_special_tokens": true"#, "add_special_tokens", "a prompt of text"),
        (r#""tools": []"#, "tools", "messages"),
        (r#""ignore_unknown": "yes""#, "ignore_unknown", "true or false"),
    ] {
        refused(with(fields), field, part);
    }
    refused(r#"{"prompt": ["a", "b"]}"#, "prompt[0]", "a whole number is needed");
    refused(r#"{"prompt": 3}"#, "prompt", "a string or a list of token ids");
    refused("{}", "prompt", "prompt or messages is needed");
    refused(r#"{"prompt": "a", "messages": {}}"#, "messages", "a list of messages");
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    refused(with(r#""temprature": 1"#), "temprature", "is \"temperature\" meant?");
    refused(with(r#""maxTokens": 1"#), "maxTokens", "is \"max_tokens\" meant?");
    refused(r#"{"promt": "a"}"#, "promt", "is \"prompt\" meant?");
    refused(with(r#""stream": true"#), "stream", "\"ignore_unknown\": true");
    let long = "x".repeat(1 << 20);
    let error = parse_request(with(&format!("\"{long}\": 1")).as_bytes()).expect_err("unknown");
    assert!(error.to_string().len() < 400, "{error}");
    // A key in a part of the request is unknown there, whatever is ignored above it.
    refused(with(r#""resume": {"x": 1}, "ignore_unknown": true"#), "resume.x", "unknown");
}

#[test]
fn text_that_is_no_object_of_json_is_refused() {
    for (json, part) in [
        ("", "EOF"),
        (" \n", "EOF"),
        ("{", "EOF"),
        ("nan", "expected ident"),
        ("NaN", "expected value"),
        ("[]", "an object is needed, not a list"),
        ("\"a\"", "an object is needed, not the string"),
        ("3", "an object is needed, not the number 3"),
        ("null", "an object is needed, not null"),
        ("{\"prompt\": \"a\"} {}", "trailing characters at line 1 column 17"),
        ("{\"prompt\": \"a\",}", "trailing comma"),
        ("{\"prompt\": \"a\", \"top_p\": NaN}", "expected value at line 1 column 26"),
        ("{\"prompt\": \"a\", \"top_p\": -Infinity}", "invalid number"),
        ("{\"prompt\": \"a\", \"top_p\": .5}", "expected value"),
        ("{\"prompt\": \"a\", \"top_p\": 01}", "invalid number"),
        ("{\"prompt\": \"a\nb\"}", "control character"),
        ("{'prompt': 1}", "key must be a string"),
        ("{\"prompt\": \"a\"\0}", "expected"),
    ] {
        refused(json, "", part);
    }
    refused(b"{\"prompt\": \"\xff\"}", "", "byte 12 begins no character");
    refused(r#"{"prompt": "a", "prompt": "a"}"#, "prompt", "twice");
    refused(r#"{"prompt": "a", "\u0070rompt": "a"}"#, "prompt", "twice");
    let twice = r#"{"prompt": "a", "x": 1, "x": 1, "ignore_unknown": true}"#;
    refused(twice, "x", "twice");
}

/// A body at the limit, of the kinds that cost most: reading takes linear time and ends in an error or a request.
#[test]
fn long_and_deep_bodies_are_read_in_linear_time() {
    let began = Instant::now();
    let n = 8 << 20;
    refused(vec![b' '; MAX_BODY_BYTES + 1], "", "67108864 are allowed");
    let ids = format!(r#"{{"prompt": [{}1]}}"#, "1,".repeat(n / 2));
    assert_eq!(read(&ids).prompt, Prompt::Tokens(vec![1; n / 2 + 1]));
    for deep in ["[", "{\"a\":", "[{\"a\":"] {
        refused(deep.repeat(n / deep.len()), "", "");
    }
    refused(with(&format!(r#""x": {}{}"#, "[".repeat(n / 2), "]".repeat(n / 2))), "x", "unknown");
    let keys: String = (0..n / 8).map(|i| format!("\"{i}\":1,")).collect();
    refused(format!("{{{keys}\"prompt\":\"a\"}}"), "0", "unknown");
    assert!(
        read(&format!("{{{keys}\"prompt\":\"a\",\"ignore_unknown\":true}}")) == Request::new("a")
    );
    let nines = read(&with(&format!("\"top_p\": 0.{}", "9".repeat(n))));
    assert_eq!(nines.sampling.top_p, 1.0, "the nearest f32");
    refused(with(&format!("\"seed\": {}", "9".repeat(n))), "seed", "not between");
    refused(with(&format!(r#""logit_bias": {{{keys}"x":1}}"#)), "logit_bias.\"x\"", "no token id");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[test]
fn several_requests_are_a_list_or_follow_each_other() {
    let requests = |json: &str| {
        parse_requests(json.as_bytes())
            .map(|bodies| bodies.into_iter().map(|body| body.request).collect::<Vec<_>>())
    };
    let both = vec![Request::new("a"), Request::new("b").n(2)];
    for json in [
        r#"[{"prompt": "a"}, {"prompt": "b", "n": 2}]"#,
        "{\"prompt\": \"a\"}\n{\"prompt\": \"b\", \"n\": 2}\n",
        "{\"prompt\":\n \"a\"}{\"prompt\": \"b\", \"n\": 2}",
    ] {
        assert_eq!(requests(json).expect(json), both);
        let error = requests(&json.replace("\"n\"", "\"m\"")).expect_err(json);
        assert_eq!(error.field.as_deref(), Some("[1].m"));
    }
    assert_eq!(requests("[]").expect("no request"), []);
    assert_eq!(requests(" ").expect("no request"), []);
    assert!(requests("{\"prompt\": \"a\"} {").is_err());
    let error = requests(r#"{"prompt": "a", "n": -1}"#).expect_err("one object");
    assert_eq!(error.field.as_deref(), Some("n"));
    let error = requests(r#"[{"prompt": "a"}, 3]"#).expect_err("no object");
    assert_eq!(error.to_string(), "[1]: an object is needed, not the number 3");
    let error =
        requests(r#"[{"prompt": "a"}, {"prompt": "a", "temperature": -1}]"#).expect_err("cold");
    assert_eq!(error.field.as_deref(), Some("[1].temperature"));
}

#[test]
fn a_prompt_may_come_beside_the_json() {
    let read = |json: &str| parse_request_of_tokens(json.as_bytes(), vec![4, 5]);
    let request = read(r#"{"n": 2}"#).expect("a request").request;
    assert_eq!(request, Request::new(vec![4, 5]).n(2));
    for json in [r#"{"prompt": "a"}"#, r#"{"messages": [{"role": "user"}]}"#] {
        assert!(read(json).expect_err(json).message.contains("already"));
    }
}
