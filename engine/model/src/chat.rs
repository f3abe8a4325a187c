//! Renders a chat to the text that the model was trained to continue.
//!
//! A chat template is a Jinja program that comes with the model, so it is untrusted. It runs with a
//! bounded number of steps, bounded recursion, bounded memory and a bounded output. It can read
//! nothing but the conversation and the date.

mod jinja;
mod special;
#[cfg(test)]
mod tests;
mod time;

use crate::metadata::Metadata;
use crate::tokenizer::{Tokenizer, read_json};
use crate::{ModelError, Result};
use jinja::{Bounds, Template};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;
use std::thread::{self, ScopedJoinHandle};

/// Templates have a few hundred lines; the longest known template has 20 kB.
const MAX_SOURCE_BYTES: usize = 1 << 20;
const MAX_OUTPUT_BYTES: usize = 64 << 20;
/// Evaluation steps of a rendering. Each value of the context adds more, and each byte adds one.
/// Real templates need a tenth of the total.
const STEPS: u64 = 1_000_000;
const STEPS_PER_VALUE: u64 = 1_000;
/// Bytes that a rendering may allocate in total. A template that appends each message to a text
/// copies the conversation so far at every message.
const BYTES: u64 = 256 << 20;
const BYTES_PER_BYTE: u64 = 4_096;
/// Stack of the rendering thread. Printing and comparing values recurses to their greatest depth.
const STACK_BYTES: usize = 128 << 20;

/// Names of templates in a model that has several.
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// The reason why a source cannot be compiled to a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The source is longer than any template.
    #[error("{n_bytes} bytes are too long for a template")]
    TooLong {
        /// The length of the source in bytes.
        n_bytes: usize,
    },
    /// The source is no template of Jinja: the line, and the defect.
    #[error("{0}")]
    Syntax(String),
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, or another role that the template knows.
    pub role: String,
    /// A string for most templates; a list of parts for some; null or absent beside tool calls.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub content: Option<Value>,
    /// All other fields, such as `tool_calls`, in the form that the template expects.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A message of plain text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let content = Some(Value::String(content.into()));
        Self { role: role.into(), content, extra: Map::new() }
    }
}

/// Reads a field that is present: `null` becomes `Some(Value::Null)`, not `None`.
fn present<'de, D: Deserializer<'de>>(field: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(field).map(Some)
}

/// Inputs of a template besides the messages.
#[derive(Clone, Debug, Default)]
pub struct ChatOptions {
    /// Whether the text ends with the beginning of the assistant's message.
    pub add_generation_prompt: bool,
    /// Tools that the model may call, as JSON schemas.
    pub tools: Vec<Value>,
    /// Variables that some templates know, such as `enable_thinking`.
    pub variables: Map<String, Value>,
}

/// A model's chat template.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    default: Template,
    /// The template for conversations with tools, if the model has a separate one.
    tool_use: Option<Template>,
    special_tokens: Map<String, Value>,
}

impl ChatTemplate {
    /// The template of the model at `model_path`. With `gguf`, the metadata of a GGUF model, the
    /// template comes from there, otherwise from `chat_template.jinja` or `tokenizer_config.json`
    /// in the model's directory.
    pub fn open(model_path: &Path, gguf: Option<&Metadata>, tokenizer: &Tokenizer) -> Result<Self> {
        if let Some(metadata) = gguf {
            return match metadata.str("tokenizer.chat_template") {
                Some(source) => {
                    let tool_use = metadata.str("tokenizer.chat_template.tool_use");
                    let field = "tokenizer.chat_template";
                    Self::compile(model_path, field, source, tool_use, tokenizer)
                }
                None => Err(missing(model_path)),
            };
        }
        let directory = if model_path.is_dir() {
            model_path
        } else {
            model_path.parent().unwrap_or(Path::new("."))
        };
        let path = directory.join("chat_template.jinja");
        if path.exists() {
            let tool_use = directory.join("additional_chat_templates/tool_use.jinja");
            let tool_use = if tool_use.exists() { Some(read(&tool_use)?) } else { None };
            let source = read(&path)?;
            return Self::compile(&path, "template", &source, tool_use.as_deref(), tokenizer);
        }
        let path = directory.join("tokenizer_config.json");
        let config = read_json(&path)?;
        let named = |name: &str| {
            let templates = config["chat_template"].as_array()?;
            templates.iter().find(|entry| entry["name"] == name)?["template"].as_str()
        };
        let source = config["chat_template"].as_str().or_else(|| named(DEFAULT));
        match source {
            Some(source) => {
                Self::compile(&path, "chat_template", source, named(TOOL_USE), tokenizer)
            }
            None => Err(missing(model_path)),
        }
    }

    /// Reads a template file, such as the file of `--chat-template`.
    pub fn from_file(path: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        Self::compile(path, "template", &read(path)?, None, tokenizer)
    }

    fn compile(
        path: &Path,
        field: &str,
        source: &str,
        tool_use: Option<&str>,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let template = Self::new(source, tool_use, None, None)
            .map_err(|reason| ModelError::invalid(path, field, reason.to_string()))?;
        Ok(template.with_special_tokens(special::tokens(tokenizer)?))
    }

    /// Compiles `source`. `tool_use` is the template for conversations with tools, if the model has
    /// a separate one.
    ///
    /// # Errors
    ///
    /// A source that is too long, or that is no template.
    pub fn new(
        source: &str,
        tool_use: Option<&str>,
        bos: Option<String>,
        eos: Option<String>,
    ) -> Result<Self, TemplateError> {
        let compile = |source: &str| {
            if source.len() > MAX_SOURCE_BYTES {
                return Err(TemplateError::TooLong { n_bytes: source.len() });
            }
            Template::new(source).map_err(|error| TemplateError::Syntax(error.explain()))
        };
        let named = [("bos_token", bos), ("eos_token", eos)];
        let special_tokens = named
            .into_iter()
            .filter_map(|(name, token)| Some((name.to_owned(), Value::String(token?))));
        Ok(Self {
            default: compile(source)?,
            tool_use: tool_use.map(compile).transpose()?,
            special_tokens: special_tokens.collect(),
        })
    }

    /// Replaces the variables for special tokens, such as `pad_token`.
    #[must_use]
    pub fn with_special_tokens(mut self, tokens: Map<String, Value>) -> Self {
        self.special_tokens = tokens;
        self
    }

    /// The text of a conversation. It spells out its special tokens, so encode it with
    /// `add_special = false`.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.render_with(messages, &ChatOptions { add_generation_prompt, ..ChatOptions::default() })
    }

    /// Renders as [`ChatTemplate::render`] does, with tools and variables.
    pub fn render_with(&self, messages: &[Message], options: &ChatOptions) -> Result<String> {
        let mut context = self.special_tokens.clone();
        context.insert("documents".into(), Value::Null);
        context.extend(options.variables.clone());
        context.insert("messages".into(), json!(messages));
        context.insert("add_generation_prompt".into(), options.add_generation_prompt.into());
        let tools = if options.tools.is_empty() { Value::Null } else { json!(options.tools) };
        context.insert("tools".into(), tools);

        let tool_use = self.tool_use.as_ref().filter(|_| !options.tools.is_empty());
        let template = tool_use.unwrap_or(&self.default);
        let (n_values, n_bytes) = context.values().map(size).fold((0, 0), add);
        let bounds = Bounds {
            steps: STEPS + STEPS_PER_VALUE * n_values + n_bytes,
            bytes: BYTES + BYTES_PER_BYTE * (n_bytes + n_values),
            output_bytes: MAX_OUTPUT_BYTES,
        };
        thread::scope(|scope| {
            let render = || template.render(&context, bounds, &time::strftime_now);
            let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, render);
            match thread.map(ScopedJoinHandle::join) {
                Ok(Ok(text)) => text.map_err(|error| ModelError::Text(error.explain())),
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(error) => Err(ModelError::Text(format!("no thread for the template: {error}"))),
            }
        })
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| ModelError::io(path, error))
}

fn missing(path: &Path) -> ModelError {
    ModelError::unsupported(
        path,
        "the model has no chat template, so it is probably no chat model: continue plain text \
         instead of messages, or give a template",
    )
}

/// The number of values in `json`, `json` included, and the number of bytes in its strings.
fn size(json: &Value) -> (u64, u64) {
    match json {
        Value::String(text) => (1, text.len() as u64),
        Value::Array(items) => items.iter().map(size).fold((1, 0), add),
        Value::Object(fields) => {
            let sizes = fields.iter().map(|(name, value)| add(size(value), (1, name.len() as u64)));
            sizes.fold((1, 0), add)
        }
        _ => (1, 0),
    }
}

fn add(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0 + b.0, a.1 + b.1)
}
