//! Templates of the model families as transformers renders them, and hostile templates.

use super::*;
use std::path::PathBuf;
use std::time::Instant;

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
    assert!(error.contains("no chat template") && error.contains("plain text"), "{error}");

    let named = json!([{"name": "tool_use", "template": "tools"},
                       {"name": "default", "template": "{{ bos_token }}"}]);
    write("tokenizer_config.json", &json!({ "chat_template": named }).to_string());
    assert_eq!(open().unwrap().render(&chat, true).unwrap(), "<|im_start|>");
    let options = ChatOptions { tools: vec![json!({})], ..ChatOptions::default() };
    assert_eq!(open().unwrap().render_with(&chat, &options).unwrap(), "tools");

    write("chat_template.jinja", "{{ eos_token }}");
    assert_eq!(open().unwrap().render(&chat, true).unwrap(), "<|im_end|>");
    fs::create_dir(directory.path().join("additional_chat_templates")).unwrap();
    write("additional_chat_templates/tool_use.jinja", "{{ pad_token }}");
    write("special_tokens_map.json", &json!({"pad_token": {"content": "<pad>"}}).to_string());
    let beside = Tokenizer::open(&data("models/smollm2"), None).unwrap();
    let with_tools = ChatTemplate::open(directory.path(), None, &beside).unwrap();
    // The tokens come from the tokenizer's directory, not from the template's.
    assert_ne!(with_tools.render_with(&chat, &options).unwrap(), "<pad>");

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
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% macro m() %}{{ caller() }}{% endmacro %}\
         {% macro n() %}{% call m() %}{{ n() }}{% endcall %}{% endmacro %}{{ n() }}",
        "{% for a in range(2000) %}{{ 'x' * 100000 }}{% endfor %}",
        "{{ 'x' * 9999999999 }}",
        "{{ [0] * 9999999999 }}",
        "{{ range(9999999999) | list }}",
        "{{ range(99999999999999999999999999) }}",
        "{% include 'default' %}",
        "{% extends 'default' %}",
        "{% set ns = namespace(x=[]) %}{% for a in range(9999) %}{% set ns.x = [ns.x, ns.x] %}\
         {% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=1) %}{% for a in range(9999) %}{% set ns.x = (ns.x, ns.x) %}\
         {% endfor %}",
        "{% set ns = namespace(x=1) %}{% for a in range(50) %}{% set ns.x = (ns.x, ns.x) %}\
         {% endfor %}{{ {ns.x: 1} }}",
        "{% set ns = namespace(x=1) %}{% for a in range(50) %}{% set ns.x = [ns.x, ns.x] %}\
         {% endfor %}{{ ns.x | tojson }}",
        "{% set ns = namespace(x=1, y=1) %}{% for a in range(50) %}{% set ns.x = [ns.x, ns.x] %}\
         {% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
        "{% set ns = namespace() %}{% set ns.x = ns %}{% for a in range(999) %}{{ ns }}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for a in range(99999) %}{% for l in [ns.x] %}\
         {% set ns.x = loop %}{% endfor %}{% endfor %}{{ 1 / 0 }}",
        "{% set ns = namespace(s='x') %}{% for a in range(99) %}{% set ns.s = ns.s ~ ns.s %}\
         {% endfor %}",
        "{% set s = 'x' * 9999999 %}{% for a in range(99999) %}{% if 'y' in s %}{% endif %}\
         {% endfor %}",
        "{% set s = 'x' * 9999999 %}{{ s.replace('', s) }}",
        "{% set s = 'x' * 9999999 %}{{ s.join(s) }}",
        "{% set s = 'x' * 9999999 %}{{ s | list | join(s) }}",
        "{{ 'x'.ljust(99999999999) }}",
        "{{ 'x'.center(10 ** 30) }}",
        "{{ 'x' | center(99999999999) }}",
        "{{ 'x\\ty' | indent(99999999999) }}",
        "{{ '\\t'.expandtabs(99999999999) }}",
        "{{ '%99999999999d' % 1 }}",
        "{{ '%*d' % (99999999999, 1) }}",
        "{{ '%.99999999999f' % 1 }}",
        "{{ '{:>99999999999}'.format(1) }}",
        "{{ '{:.99999999999f}'.format(1) }}",
        "{{ [1] | batch(99999999999, 0) | list }}",
        "{{ [1] | slice(99999999999) | list }}",
        "{{ 2 ** 99999 }}",
        "{{ (2 ** 126) * 4 }}",
        "{% macro m() %}{% endmacro %}{{ m(*range(9)) }}",
        "{{ (messages[0].content * 50000000) | tojson }}",
        "{% set x = [messages[0].content * 999] * 99999 %}{{ x | tojson }}{{ x }}",
    ] {
        let error = render(source).expect_err(source).to_string();
        assert!(error.starts_with("the chat template"), "{error}");
    }
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
    assert!(ChatTemplate::new(&" ".repeat(MAX_SOURCE_BYTES + 1), None, None, None).is_err());
}

#[test]
fn sources_nested_without_end_are_refused() {
    let refused = |source: &str| ChatTemplate::new(source, None, None, None).is_err();
    for part in ["(", "[", "{1:", "not ", "-", "x.y(", "x[", "1 if 1 else ", "x|f(", "x is t("] {
        assert!(refused(&format!("{{{{ {}", part.repeat(90_000))), "{part}");
        assert!(refused(&format!("{{{{ {} 1 }}}}", part.repeat(90_000))), "{part}");
    }
    for part in [".y", "[0]", "(0)", "|e", "+1", "-1", "*1", "**1", " and 1", " or 1", " if 1"] {
        assert!(refused(&format!("{{{{ x{} }}}}", part.repeat(90_000))), "{part}");
    }
    for part in
        ["{% if x %}", "{% for x in y %}", "{% macro m() %}", "{% filter e %}", "{% set x %}"]
    {
        assert!(refused(&part.repeat(50_000)), "{part}");
    }
    // Long templates are not deep.
    assert!(!refused(&format!("{{% if x %}}{}{{% endif %}}", "{% elif y %}".repeat(50_000))));
    assert!(!refused(&format!("{{{{ x{} }}}}", "~1".repeat(50_000))));
    assert!(!refused(&format!("{{{{ [{}] }}}}", "1,".repeat(50_000))));
}

#[test]
fn case_03_none_is_not_iterable_and_the_context_is_that_of_transformers() {
    let source = "{%- if tools is iterable and tools | length > 0 %}TOOLS{% endif %}{{ documents }}\
                  {% if documents is none and pad_token is undefined %}!{% endif %}";
    assert_eq!(render(source).unwrap(), "None!");
    let tokens = json!({"pad_token": "<pad>", "image_token": "<image>", "bos_token": "<s>"});
    let tokens: Map<String, Value> = serde_json::from_value(tokens).unwrap();
    let source = "{{ bos_token }}{{ pad_token }}{{ image_token }}{{ eos_token is defined }}";
    let with_tokens = template(source).with_special_tokens(tokens);
    assert_eq!(with_tokens.render(&[], false).unwrap(), "<s><pad><image>False");
    // A variable of the request overrides a token of that name.
    let variables = Map::from_iter([("pad_token".to_owned(), json!("mine"))]);
    let options = ChatOptions { variables, ..ChatOptions::default() };
    let text = with_tokens.render_with(&[], &options).unwrap();
    assert_eq!(text, "<s>mine<image>False");
}

#[test]
fn case_04_templates_of_the_reports_render() {
    for (source, expected) in [
        ("{% if strftime_now is callable %}x{% endif %}ok", "xok"),
        ("{{ pad_token }}ok", "ok"),
        ("{{ messages[0].content.removeprefix('h') }}", "i"),
        ("{{ messages[0].content.rsplit('h',1)[-1] }}", "i"),
        ("{{ messages[0]|tojson(4) }}", "{\"role\": \"user\", \"content\": \"hi\"}"),
        ("{% set s %}{{ missing | length }}{% endset %}{{ s }}", "0"),
        ("{{ '%s: %d' % ('a', 2) }}", "a: 2"),
        ("{% set j = joiner(',') %}{% for m in 'ab' %}{{ j() }}{{ m }}{% endfor %}", "a,b"),
        ("{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, a=2) }}", "(1,){'a': 2}"),
        ("a\r\nb\r{% if true %}\r\nc{% endif %}\r\n", "a\nb\nc"),
    ] {
        assert_eq!(render(source).unwrap(), expected, "{source}");
    }
}

#[test]
fn a_message_without_content_has_none() {
    let messages =
        json!([{"role": "a"}, {"role": "b", "content": null}, {"role": "c", "content": ""}]);
    let messages: Vec<Message> = serde_json::from_value(messages).unwrap();
    let source = "{% for m in messages %}{{ m.content is defined }} {{ m.content }};{% endfor %}";
    assert_eq!(template(source).render(&messages, false).unwrap(), "False ;True None;True ;");
    let options = ChatOptions { tools: vec![json!({})], ..ChatOptions::default() };
    assert_eq!(template("{{ tools }}").render_with(&messages, &options).unwrap(), "[{}]");
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
fn generation_tags_print_what_is_inside() {
    let plain = "a\n  {%- if true -%} b {% endif +%}\nc";
    let tagged = "a\n  {%- generation -%} b {% endgeneration +%}\nc";
    assert_eq!(render(tagged).unwrap(), render(plain).unwrap());
    assert!(ChatTemplate::new("{% generations %}", None, None, None).is_err());
}

#[test]
fn messages_keep_what_templates_may_ask_for() {
    let json = json!({"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]});
    let message: Message = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(json!(message), json);
    let source = "{{ messages[0].tool_calls[0].id }}{{ messages[0].content is none }}";
    assert_eq!(template(source).render(&[message], false).unwrap(), "1True");
}
