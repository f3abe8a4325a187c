//! Requests to a tiny model, and their answers.

use galley_api::{AnswerBody, ErrorCode, ModelTexts, RequestBody, parse_request, started_json};
use galley_engine::Engine;
use galley_engine::drafters::Search;
use serde_json::{Value, json};
use std::path::Path;

struct World {
    engine: Engine,
    texts: ModelTexts,
}

impl World {
    fn new() -> Self {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/models/smollm2");
        let settings = json!({"model": model, "kv_cache_tokens": 1024, "threads": 1});
        let opened = galley_api::open_engine(
            settings.to_string().as_bytes(),
            |_| {},
            |path| Search::standard(path, None),
        );
        let (engine, files) = opened.expect("an engine");
        Self { engine, texts: ModelTexts::of(&files) }
    }

    fn body(&self, request: &Value) -> RequestBody {
        parse_request(request.to_string().as_bytes()).expect("a request")
    }

    fn answer(&self, request: &Value) -> Value {
        let request = self.body(request).into_request(&self.texts).expect("a request");
        let handle = self.engine.submit(request).expect("it is accepted");
        let submitted = handle.submitted().clone();
        let answers = handle.collect().expect("an answer");
        let body = AnswerBody::new(&submitted, &answers, self.engine.drafters());
        let started: Value = serde_json::from_str(&started_json(&submitted)).expect("JSON");
        let answer: Value = serde_json::from_str(&body.to_json()).expect("JSON");
        for (key, value) in started.as_object().expect("an object") {
            assert_eq!(&answer[key], value, "{key}");
        }
        answer
    }
}

/// The keys of an object and of the objects in it, without values.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (key.clone(), shape(value))).collect()
        }
        Value::Array(items) => items.iter().take(1).map(shape).collect(),
        _ => Value::Null,
    }
}

#[test]
fn an_answer_has_the_form_of_the_document() {
    let world = World::new();
    let request = json!({
        "prompt": "some text", "max_tokens": 5, "ignore_eos": true, "logprobs": 2, "n": 2, "seed": u64::MAX,
    });
    let mut answer = world.answer(&request);
    let document = include_str!("../../../docs/requests.md");
    let example =
        document.split("```json answer\n").nth(1).and_then(|rest| rest.split("```").next());
    let mut example: Value = serde_json::from_str(example.expect("an example")).expect("JSON");
    for of in [&mut answer, &mut example] {
        // The lengths of these lists are a matter of chance.
        of["outputs"][0]["sources"] = Value::Null;
        of["outputs"][0]["usage"]["drafts"]["accepted_per_position"] = Value::Null;
    }
    assert_eq!(shape(&answer), shape(&example));
    assert_eq!(answer["seed"], u64::MAX);
    let output = &answer["outputs"][1];
    assert_eq!((&output["index"], &output["finish_reason"]), (&json!(1), &json!("length")));
    for list in ["token_ids", "logprobs", "sources"] {
        assert_eq!(output[list].as_array().expect(list).len(), 5, "{list}");
    }
    assert_eq!(output["sources"], json!([null, null, null, null, null]));
    assert_eq!(output["usage"]["completion_tokens"], 5);
    assert_eq!(output["logprobs"][0]["top"].as_array().expect("alternatives").len(), 2);
    let plain = world.answer(&json!({"prompt": "some text", "max_tokens": 1}));
    assert!(plain["outputs"][0].get("logprobs").is_none() && plain.get("resumed_text").is_none());
}

/// The digits of a log-probability are those of its f32, so that every reader gets the same number.
#[test]
fn log_probabilities_keep_their_bits() {
    let world = World::new();
    let request =
        json!({"prompt": "some text", "max_tokens": 8, "ignore_eos": true, "logprobs": 0});
    let request = world.body(&request).into_request(&world.texts).expect("a request");
    let handle = world.engine.submit(request).expect("it is accepted");
    let submitted = handle.submitted().clone();
    let answers = handle.collect().expect("an answer");
    let printed = AnswerBody::new(&submitted, &answers, &[]).to_json();
    for logprob in &answers[0].logprobs {
        let digits = format!("\"logprob\":{}", logprob.logprob);
        assert!(printed.contains(&digits), "{digits} is not in {printed}");
        assert!(!printed.contains(&format!("\"logprob\":{}", logprob.logprob + 1e-3)), "control");
    }
}

#[test]
fn a_stop_names_its_token_or_text() {
    let world = World::new();
    let ask = |fields: Value| {
        let mut request =
            json!({"prompt": "some text", "max_tokens": 12, "temperature": 0, "ignore_eos": true});
        request
            .as_object_mut()
            .expect("an object")
            .extend(fields.as_object().expect("fields").clone());
        world.answer(&request)["outputs"][0].clone()
    };
    let plain = ask(json!({}));
    let third = plain["token_ids"][2].clone();
    let stopped = ask(json!({"stop_token_ids": [third]}));
    assert_eq!((&stopped["finish_reason"], &stopped["stop_reason"]), (&json!("stop"), &third));
    let text = plain["text"].as_str().expect("text");
    let part: String = text.chars().skip(3).take(4).collect();
    let stopped = ask(json!({"stop": part}));
    assert_eq!(
        (&stopped["finish_reason"], &stopped["stop_reason"]),
        (&json!("stop"), &json!(part))
    );
    assert_eq!(plain["stop_reason"], Value::Null);
}

#[test]
fn messages_are_rendered_by_the_template_of_the_model() {
    let world = World::new();
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let rendered = world.texts.render_chat(&json!({"messages": messages}).to_string());
    let rendered = rendered.expect("text");
    assert_eq!(rendered, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    let of_messages = world.answer(&json!({"messages": messages, "max_tokens": 6, "seed": 1}));
    let of_text =
        json!({"prompt": rendered, "add_special_tokens": false, "max_tokens": 6, "seed": 1});
    let of_text = world.answer(&of_text);
    for key in ["token_ids", "text"] {
        assert_eq!(of_messages["outputs"][0][key], of_text["outputs"][0][key], "{key}");
    }
    assert_eq!(of_messages["prompt_token_ids"], of_text["prompt_token_ids"]);
    let plain = world.answer(&json!({"prompt": "Hi", "max_tokens": 6, "seed": 1}));
    assert_ne!(of_messages["prompt_token_ids"], plain["prompt_token_ids"], "control");
    let error = world.texts.render_chat("{\"messages\": [{}]}").expect_err("no role");
    assert_eq!(error.field.as_deref(), Some("messages[0].role"));
    assert!(world.texts.render_chat("{}").is_err());
}

#[test]
fn an_answer_is_resumed_from_its_own_json() {
    let world = World::new();
    let settings =
        json!({"temperature": 1.2, "max_tokens": 10, "ignore_eos": true, "presence_penalty": 0.7});
    let with = |fields: Value| {
        let mut request = settings.clone();
        request
            .as_object_mut()
            .expect("an object")
            .extend(fields.as_object().expect("fields").clone());
        request
    };
    let whole = world.answer(&with(json!({"prompt": "some text"})));
    let ids = whole["outputs"][0]["token_ids"].as_array().expect("ids");
    let resumed = |generated: &[Value], fingerprint: &Value| {
        with(json!({
            "prompt": whole["prompt_token_ids"], "seed": whole["seed"],
            "resume": {"generated": generated, "fingerprint": fingerprint},
        }))
    };
    let rest = world.answer(&resumed(&ids[..4], &whole["fingerprint"]));
    assert_eq!(rest["outputs"][0]["token_ids"].as_array().expect("ids"), &ids[4..]);
    let texts = [&rest["resumed_text"], &rest["outputs"][0]["text"]]
        .map(|text| text.as_str().expect("text"));
    assert_eq!(texts.concat(), whole["outputs"][0]["text"].as_str().expect("text"));
    let other = world.body(&resumed(&ids[..4], &json!("of another engine")));
    let other = other.into_request(&world.texts).expect("a request");
    let error = galley_api::ApiError::from(world.engine.submit(other).expect_err("another engine"));
    assert_eq!(
        (error.code, error.field.as_deref()),
        (ErrorCode::InvalidRequest, Some("resume.fingerprint"))
    );
}
