//! Templates of the model families as transformers renders them, and templates that mean harm.

use super::*;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Deserialize)]
struct Case {
    template: String,
    messages: Vec<Message>,
    tools: Vec<Value>,
    add_generation_prompt: bool,
    text: Option<String>,
    error: Option<String>,
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name)
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, None, Some("<s>".into()), Some("</s>".into())).unwrap()
}

fn render(source: &str) -> Result<String> {
    template(source).render(&[Message::new("user", "hi")], true)
}

#[test]
fn templates_render_as_in_transformers() {
    let cases: Vec<Case> =
        serde_json::from_slice(&fs::read(data("templates/cases.json")).unwrap()).unwrap();
    assert!(cases.len() > 70);
    for case in cases {
        let source = fs::read_to_string(data("templates").join(&case.template)).unwrap();
        let options = ChatOptions {
            add_generation_prompt: case.add_generation_prompt,
            tools: case.tools,
            variables: Map::from_iter([("thinking".to_owned(), false.into())]),
        };
        match (template(&source).render_with(&case.messages, &options), case.text, case.error) {
            (Ok(text), Some(expected), None) => {
                assert_eq!(text, expected, "{} {:?}", case.template, case.messages);
            }
            (Err(error), None, Some(expected)) => {
                assert!(error.to_string().ends_with(&expected), "{error}");
            }
            (other, ..) => panic!("{}: {other:?} for {:?}", case.template, case.messages),
        }
    }
}

#[test]
fn the_template_is_found_where_models_keep_it() {
    let tokenizer = Tokenizer::open(&data("models/smollm2"), None).unwrap();
    let chat = [Message::new("user", "hi")];
    let expected = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
    let in_config = ChatTemplate::open(&data("models/smollm2"), None, &tokenizer).unwrap();
    assert_eq!(in_config.render(&chat, true).unwrap(), expected);

    let path = data("models/smollm2.gguf");
    let metadata = Metadata::read(&path).unwrap();
    match ChatTemplate::open(&path, Some(&metadata), &tokenizer) {
        Ok(in_gguf) => assert_eq!(in_gguf.render(&chat, true).unwrap(), expected),
        Err(error) => assert!(metadata.str("tokenizer.chat_template").is_none(), "{error}"),
    }

    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    let open = || ChatTemplate::open(directory.path(), None, &tokenizer);
    let error = open().unwrap_err().to_string();
    assert!(error.contains("--chat-template") && error.contains("galley run"), "{error}");

    let named = json!([{"name": "tool_use", "template": "tools"},
                       {"name": "default", "template": "{{ bos_token }}"}]);
    write("tokenizer_config.json", &json!({ "chat_template": named }).to_string());
    assert_eq!(open().unwrap().render(&chat, true).unwrap(), "<|im_start|>");
    let options = ChatOptions { tools: vec![json!({})], ..ChatOptions::default() };
    assert_eq!(open().unwrap().render_with(&chat, &options).unwrap(), "tools");

    write("chat_template.jinja", "{{ eos_token }}");
    assert_eq!(open().unwrap().render(&chat, true).unwrap(), "<|im_end|>");
    write("chat_template.jinja", "{% if %}");
    let error = open().unwrap_err().to_string();
    assert!(error.contains("chat_template.jinja"), "{error}");
}

#[test]
fn what_a_template_refuses_reaches_the_user() {
    let error = render("{{ raise_exception('no system role, ' ~ messages[0].content) }}");
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "the chat template refuses this conversation: no system role, hi");
    let error = render("{% macro m() %}{{ raise_exception('inner') }}{% endmacro %}\n{{ m() }}");
    assert!(error.unwrap_err().to_string().ends_with("conversation: inner"));
    let error = render("\n\n{{ messages[9].content.x }}").unwrap_err().to_string();
    assert!(error.contains("line 3"), "{error}");
}

#[test]
fn hostile_templates_are_stopped() {
    let start = Instant::now();
    for source in [
        "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for a in range(2000) %}{{ 'x' * 100000 }}{% endfor %}",
        "{{ 'x' * 9999999999 }}",
        "{{ range(9999999999) | list }}",
        "{% include 'default' %}",
        "{% extends 'default' %}",
        "{% set ns = namespace(x=[]) %}{% for a in range(9999) %}{% set ns.x = [ns.x, ns.x] %}\
         {% endfor %}{{ ns.x }}",
        "{{ (messages[0].content * 50000000) | tojson }}",
    ] {
        let error = render(source).unwrap_err().to_string();
        assert!(error.starts_with("the chat template"), "{error}");
    }
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
    let nested = "(".repeat(100_000);
    assert!(ChatTemplate::new(&format!("{{{{ {nested}"), None, None, None).is_err());
    let nested = "{% if x %}".repeat(50_000);
    assert!(ChatTemplate::new(&nested, None, None, None).is_err());
    assert!(ChatTemplate::new(&" ".repeat(MAX_SOURCE_BYTES + 1), None, None, None).is_err());
}

#[test]
fn long_conversations_have_the_instructions_they_need() {
    let source = fs::read_to_string(data("templates/llama3.jinja")).unwrap();
    let turn = [Message::new("user", "x"), Message::new("assistant", "y")];
    let chat: Vec<Message> = turn.iter().cycle().take(10_000).cloned().collect();
    let text = template(&source).render(&chat, true).unwrap();
    assert!(text.len() > 500_000);
}

#[test]
fn generation_tags_mean_nothing() {
    let plain = "a\n  {%- if true -%} b {% endif +%}\n{% generations %}{%";
    let tagged = "a\n  {%- generation -%} b {% endgeneration +%}\n{% generations %}{%";
    assert_eq!(without_generation_tags(tagged), plain);
    assert_eq!(without_generation_tags(plain), plain);
}

#[test]
fn messages_keep_what_templates_may_ask_for() {
    let json = json!({"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]});
    let message: Message = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(json!(message), json);
    let source = "{{ messages[0].tool_calls[0].id }}{{ messages[0].content is none }}";
    assert_eq!(template(source).render(&[message], false).unwrap(), "1True");
}
