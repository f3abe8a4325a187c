//! Conversations: their keys in a request, and their text by the model's chat template.

use crate::error::ApiError;
use crate::json::{Field, Object, text};
use galley_engine::ModelFiles;
use galley_model::chat::{ChatOptions, ChatTemplate, Message};
use galley_model::tokenizer::Tokenizer;
use serde_json::Value;
use std::sync::Arc;

/// The parts of a model that turn requests into text and tokens: the tokenizer, and the chat template or the reason why
/// the model has none. Clones share both. `Send` and `Sync`.
#[derive(Clone, Debug)]
pub struct ModelTexts {
    tokenizer: Arc<Tokenizer>,
    template: Result<Arc<ChatTemplate>, String>,
}

impl ModelTexts {
    /// The tokenizer and the chat template of a model.
    pub fn of(files: &ModelFiles) -> Self {
        let template = files.chat_template().map(Arc::new).map_err(|error| error.to_string());
        Self { tokenizer: Arc::clone(&files.tokenizer), template }
    }

    /// Replaces the chat template.
    #[must_use]
    pub fn with_template(mut self, template: ChatTemplate) -> Self {
        self.template = Ok(Arc::new(template));
        self
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The text of a conversation: `json` is an object with the keys `messages`, `tools`, `chat_template_kwargs`,
    /// `add_generation_prompt` and `continue_final_message` of a request. The text spells out its special tokens, so it
    /// is encoded without adding any (`add_special_tokens: false` in a request).
    ///
    /// # Errors
    ///
    /// A wrong field, a model without a template, or a conversation that the template refuses.
    pub fn render_chat(&self, json: &str) -> Result<String, ApiError> {
        let mut object = Field::body(text(json.as_bytes())?).object()?;
        let conversation = Conversation::take(&mut object)?;
        object.finish("")?;
        let missing = || ApiError::invalid("messages", "a list of messages is needed");
        self.render(&conversation.ok_or_else(missing)?)
    }

    pub(crate) fn render(&self, conversation: &Conversation) -> Result<String, ApiError> {
        match &self.template {
            Ok(template) => conversation.render(template),
            Err(reason) => Err(ApiError::invalid("messages", reason.as_str())),
        }
    }
}

/// Messages, and the settings of their rendering.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    messages: Vec<Message>,
    options: ChatOptions,
    /// Whether the answer continues the last message.
    continues: bool,
}

impl Conversation {
    /// Takes the keys of a conversation out of a request. None if the request has no messages.
    pub(crate) fn take(object: &mut Object<'_>) -> Result<Option<Self>, ApiError> {
        let messages = object.take("messages");
        let tools = object.take("tools");
        let variables = object.take("chat_template_kwargs");
        let prompts = object.take("add_generation_prompt");
        let continues = object.take("continue_final_message");
        let Some(messages) = messages else {
            let beside = [tools, variables, prompts, continues].into_iter().flatten().next();
            return match beside {
                Some(field) => {
                    Err(field.wrong("it has a meaning beside messages only, and there are none"))
                }
                None => Ok(None),
            };
        };
        let continues = match &continues {
            Some(field) => field.bool()?,
            None => false,
        };
        let add_generation_prompt = match &prompts {
            Some(field) => field.bool()?,
            None => !continues,
        };
        if continues && add_generation_prompt {
            let reason = "the answer continues the last message, so it begins no message of its own: leave out \
                          add_generation_prompt, or set it to false";
            return Err(ApiError::invalid("continue_final_message", reason));
        }
        let options = ChatOptions {
            add_generation_prompt,
            tools: tools.as_ref().map(tools_of).transpose()?.unwrap_or_default(),
            variables: match variables {
                None => Default::default(),
                Some(field) => match field.value()? {
                    Value::Object(variables) => variables,
                    _ => return Err(field.mistyped("an object")),
                },
            },
        };
        Ok(Some(Self { messages: messages_of(&messages)?, options, continues }))
    }

    /// The text of the conversation.
    fn render(&self, template: &ChatTemplate) -> Result<String, ApiError> {
        match self.continues {
            true => self.render_continued(template),
            false => self.render_messages(template, &self.messages),
        }
    }

    fn render_messages(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
    ) -> Result<String, ApiError> {
        let rendered = template.render_with(messages, &self.options);
        rendered.map_err(|error| ApiError::invalid("messages", error.to_string()))
    }

    /// The text up to the end of the last message's content. A mark after the content finds the end: the content itself
    /// may occur again in the text that closes the message.
    fn render_continued(&self, template: &ChatTemplate) -> Result<String, ApiError> {
        let mut messages = self.messages.clone();
        let place = format!("messages[{}].content", messages.len().saturating_sub(1));
        let last = messages.last_mut().and_then(|message| last_text(message.content.as_mut()?));
        let Some(last) = last else {
            let reason = "continue_final_message continues a text: a string is needed, or a list that ends with a part \
                          of text";
            return Err(ApiError::invalid(&place, reason));
        };
        let content = last.clone();
        last.push_str(MARK);
        let rendered = self.render_messages(template, &messages)?;
        let mut parts = rendered.split(MARK);
        // Many templates remove white space in front of the content.
        match (parts.next(), parts.next(), parts.next()) {
            (Some(text), Some(_), None) if text.ends_with(content.trim_start()) => {
                Ok(text.to_owned())
            }
            _ => Err(ApiError::invalid(
                &place,
                "continue_final_message is not possible: the chat template does not write this content unchanged, and \
                 once, at the end of the last message",
            )),
        }
    }
}

/// A word that is in no conversation.
const MARK: &str = "galleycontinuesthismessagehere";

/// The text at the end of a message's content.
fn last_text(content: &mut Value) -> Option<&mut String> {
    match content {
        Value::String(text) => Some(text),
        Value::Array(parts) => match parts.last_mut()?.get_mut("text")? {
            Value::String(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn messages_of(field: &Field<'_>) -> Result<Vec<Message>, ApiError> {
    let items = field.items("a list of messages")?;
    if items.is_empty() {
        return Err(field.wrong("at least one message is needed"));
    }
    let items = items.into_iter().enumerate();
    items.map(|(index, item)| message_of(&field.item(index, item))).collect()
}

fn message_of(field: &Field<'_>) -> Result<Message, ApiError> {
    let Value::Object(mut fields) = field.value()? else {
        return Err(field.mistyped("an object with a role and a content"));
    };
    let wrong =
        |key: &str, needed: &str| Err(ApiError::invalid(&format!("{}.{key}", field.name), needed));
    let role = match fields.shift_remove("role") {
        Some(Value::String(role)) => role,
        _ => return wrong("role", "a string is needed, such as \"user\""),
    };
    let content = fields.shift_remove("content");
    match content {
        None | Some(Value::Null | Value::String(_) | Value::Array(_)) => {}
        _ => return wrong("content", "a string, a list of parts or null is needed"),
    }
    let mut message = Message::new(role, "");
    (message.content, message.extra) = (content, fields);
    Ok(message)
}

fn tools_of(field: &Field<'_>) -> Result<Vec<Value>, ApiError> {
    let items = field.items("a list of tools")?.into_iter().enumerate();
    let tool = |(index, item)| {
        let field = field.item(index, item);
        let tool = field.value()?;
        if tool.is_object() { Ok(tool) } else { Err(field.mistyped("an object")) }
    };
    items.map(tool).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                          {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

    fn rendered(template: &str, json: &str) -> Result<String, ApiError> {
        let template = ChatTemplate::new(template, None, None, None).expect("a template");
        let mut object = Field::body(json).object()?;
        let conversation = Conversation::take(&mut object)?;
        object.finish("")?;
        conversation.expect("messages").render(&template)
    }

    #[test]
    fn an_answer_begins_a_message_or_continues_the_last_one() {
        let text = rendered(CHATML, r#"{"messages": [{"role": "user", "content": "Hi"}]}"#);
        assert_eq!(text.expect("text"), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
        let none =
            r#"{"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": false}"#;
        assert_eq!(rendered(CHATML, none).expect("text"), "<|im_start|>user\nHi<|im_end|>\n");
        // "end" is also the end of the text that follows the message.
        for content in ["Hello, the end", "end", "im_", "", " spaces around ", "galley"] {
            let json = format!(
                r#"{{"messages": [{{"role": "assistant", "content": "{content}"}}], "continue_final_message": true}}"#
            );
            let text = rendered(CHATML, &json).expect("text");
            assert_eq!(text, format!("<|im_start|>assistant\n{content}"));
        }
        let parts = r#"{"messages": [{"role": "assistant", "content": [{"type": "text", "text": "So"}]}],
                        "continue_final_message": true}"#;
        let of_parts =
            "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}.{% endfor %}";
        assert_eq!(rendered(of_parts, parts).expect("text"), "So");
    }

    #[test]
    fn a_continuation_that_is_not_possible_is_refused() {
        let json = r#"{"messages": [{"role": "assistant", "content": " a B"}], "continue_final_message": true}"#;
        assert_eq!(rendered("{{ messages[0].content | trim }}!", json).expect("text"), "a B");
        for template in [
            "{{ messages[0].content | upper }}",
            "{{ messages[0].content }}{{ messages[0].content }}",
            "{{ messages[0].content | replace('B', 'C') }}",
            "nothing",
        ] {
            let error = rendered(template, json).expect_err(template);
            assert_eq!(error.field.as_deref(), Some("messages[0].content"), "{error}");
        }
        let both = json.replace(", \"cont", ", \"add_generation_prompt\": true, \"cont");
        let error = rendered(CHATML, &both).expect_err("both");
        assert_eq!(error.field.as_deref(), Some("continue_final_message"));
        rendered(CHATML, &both.replace("prompt\": true", "prompt\": false"))
            .expect("the first is off");
        for content in ["null", "[]", "[{\"text\": 3}]", "[3]"] {
            let error = rendered(CHATML, &json.replace("\" a B\"", content)).expect_err(content);
            assert_eq!(error.field.as_deref(), Some("messages[0].content"), "{content}: {error}");
        }
    }

    #[test]
    fn wrong_messages_are_named() {
        for (json, field) in [
            (r#"{"messages": []}"#, "messages"),
            (r#"{"messages": "Hi"}"#, "messages"),
            (r#"{"messages": ["Hi"]}"#, "messages[0]"),
            (
                r#"{"messages": [{"role": "user", "content": "a"}, {"content": "Hi"}]}"#,
                "messages[1].role",
            ),
            (r#"{"messages": [{"role": "user", "content": 3}]}"#, "messages[0].content"),
            (r#"{"messages": [{"role": "user", "role": "user"}]}"#, "messages[0]"),
            (r#"{"messages": [{"role": "user", "x": 1e400}]}"#, "messages[0]"),
            (r#"{"messages": [{"role": "user"}], "tools": [3]}"#, "tools[0]"),
            (
                r#"{"messages": [{"role": "user"}], "chat_template_kwargs": []}"#,
                "chat_template_kwargs",
            ),
            (
                r#"{"messages": [{"role": "user"}], "add_generation_prompt": 1}"#,
                "add_generation_prompt",
            ),
            (r#"{"tools": []}"#, "tools"),
            (r#"{"messages": [{"role": "user"}], "message": 1}"#, "message"),
        ] {
            let error = rendered(CHATML, json).expect_err(json);
            assert_eq!(error.field.as_deref(), Some(field), "{error}");
        }
        let deep = format!(
            r#"{{"messages": [{{"role": "user", "x": {}}}]}}"#,
            "[".repeat(100_000) + &"]".repeat(100_000)
        );
        let error = rendered(CHATML, &deep).expect_err("too deep");
        assert_eq!(
            error.to_string(),
            "messages[0]: this is no JSON that can be read: recursion limit exceeded"
        );
    }

    #[test]
    fn tools_and_variables_reach_the_template_in_their_order() {
        let template =
            "{{ tools | tojson }} {{ enable_thinking }} {{ messages[0].tool_calls[0].id }}";
        let json = r#"{"messages": [{"role": "user", "content": null, "tool_calls": [{"id": "call_1"}]}],
                       "tools": [{"b": 1, "a": 2.5}], "chat_template_kwargs": {"enable_thinking": false}}"#;
        assert_eq!(rendered(template, json).expect("text"), r#"[{"b": 1, "a": 2.5}] False call_1"#);
    }
}
