//! Chats to the text that a model was trained to continue.
//!
//! A chat template is a Jinja program that comes with the model, so it is untrusted: it runs with a
//! bounded number of instructions, bounded recursion and a bounded output, and can read nothing but
//! the conversation. Not bounded is the memory of strings that it makes on the way.

mod python;
#[cfg(test)]
mod tests;
mod time;

use crate::tokenizer::{Tokenizer, read_json};
use crate::weights::gguf::Metadata;
use crate::{ModelError, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;
use std::thread::{self, ScopedJoinHandle};

/// Templates are a few hundred lines; the longest known has 20 kB.
const MAX_SOURCE_BYTES: usize = 1 << 20;
const MAX_OUTPUT_BYTES: usize = 64 << 20;
const MAX_RECURSION: usize = 64;
/// Instructions for a conversation, and for each value in it. Real templates need a tenth of it.
const FUEL: u64 = 100_000;
const FUEL_PER_VALUE: u64 = 200;
/// Lists nested as deep as the instructions allow are printed and freed by recursion.
const STACK_BYTES: usize = 128 << 20;

/// The templates that models name, in the order they are looked for.
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// A turn of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, or what else the template knows.
    pub role: String,
    /// A string for most templates; a list of parts for some.
    #[serde(default)]
    pub content: Value,
    /// Everything else, `tool_calls` for one, as the template wants it.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A turn of text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let content = Value::String(content.into());
        Self { role: role.into(), content, extra: Map::new() }
    }
}

/// What a template is given besides the messages.
#[derive(Clone, Debug, Default)]
pub struct ChatOptions {
    /// End with the beginning of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Tools the model may call, as JSON schemas.
    pub tools: Vec<Value>,
    /// Variables that some templates know, such as `enable_thinking`.
    pub variables: Map<String, Value>,
}

/// A model's chat template.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: Option<String>,
    eos: Option<String>,
}

impl ChatTemplate {
    /// The template of the model at `model_path`: from `gguf`, its metadata, if there is one, else
    /// from `chat_template.jinja` or `tokenizer_config.json` in its directory.
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
            return Self::from_file(&path, tokenizer);
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

    /// A template file, as `--chat-template` names it.
    pub fn from_file(path: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        let source = fs::read_to_string(path).map_err(|error| ModelError::io(path, error))?;
        Self::compile(path, "template", &source, None, tokenizer)
    }

    fn compile(
        path: &Path,
        field: &str,
        source: &str,
        tool_use: Option<&str>,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let token = |id: Option<u32>| id.and_then(|id| tokenizer.id_to_token(id));
        Self::new(source, tool_use, token(tokenizer.bos()), token(tokenizer.eos()))
            .map_err(|reason| ModelError::invalid(path, field, reason))
    }

    /// Compiles `source`; the error says what is wrong with it. `tool_use` is the template for
    /// conversations with tools, where it is another one.
    pub fn new(
        source: &str,
        tool_use: Option<&str>,
        bos: Option<String>,
        eos: Option<String>,
    ) -> Result<Self, String> {
        let mut environment = Environment::new();
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true);
        environment.set_syntax(syntax.build().map_err(|error| error.to_string())?);
        environment.set_recursion_limit(MAX_RECURSION);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(python::format);
        environment.add_filter("tojson", python::tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", time::strftime_now);
        for (name, source) in [(DEFAULT, Some(source)), (TOOL_USE, tool_use)] {
            let Some(source) = source else { continue };
            if source.len() > MAX_SOURCE_BYTES {
                return Err(format!("{} bytes are too long for a template", source.len()));
            }
            environment
                .add_template_owned(name, without_generation_tags(source))
                .map_err(|error| error.to_string())?;
        }
        Ok(Self { environment, bos, eos })
    }

    /// The text of a conversation, special tokens written out: encode it with
    /// `add_special = false`.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.render_with(messages, &ChatOptions { add_generation_prompt, ..ChatOptions::default() })
    }

    /// As [`ChatTemplate::render`], with tools and variables.
    pub fn render_with(&self, messages: &[Message], options: &ChatOptions) -> Result<String> {
        let mut context = options.variables.clone();
        context.insert("messages".into(), json!(messages));
        context.insert("add_generation_prompt".into(), options.add_generation_prompt.into());
        let tools = if options.tools.is_empty() { Value::Null } else { json!(options.tools) };
        context.insert("tools".into(), tools);
        for (name, token) in [("bos_token", &self.bos), ("eos_token", &self.eos)] {
            if let Some(token) = token {
                context.insert(name.into(), token.as_str().into());
            }
        }
        let context = Value::Object(context);

        let name = if options.tools.is_empty() { DEFAULT } else { TOOL_USE };
        thread::scope(|scope| {
            let render = || self.run(name, &context);
            let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, render);
            match thread.map(ScopedJoinHandle::join) {
                Ok(Ok(text)) => text.map_err(ModelError::Text),
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(error) => Err(ModelError::Text(format!("no thread for the template: {error}"))),
            }
        })
    }

    fn run(&self, name: &str, context: &Value) -> Result<String, String> {
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(FUEL + FUEL_PER_VALUE * values(context)));
        let template =
            environment.get_template(name).or_else(|_| environment.get_template(DEFAULT));
        let mut output = Bounded::default();
        template
            .and_then(|template| {
                let context = minijinja::Value::from(minijinja::value::Serde(context));
                template.render_captured_to(context, &mut output).map(drop)
            })
            .map_err(|error| explain(&error))?;
        String::from_utf8(output.bytes).map_err(|error| error.to_string())
    }
}

fn missing(path: &Path) -> ModelError {
    ModelError::unsupported(
        path,
        "the model has no chat template, so it is probably no chat model: give one with \
         `--chat-template FILE`, or continue plain text with `galley run`",
    )
}

/// What a template's own `raise_exception` said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<String, minijinja::Error> {
    let error = minijinja::Error::new(ErrorKind::InvalidOperation, message.clone());
    Err(error.with_source(Raised(message)))
}

/// One sentence for the user.
fn explain(error: &minijinja::Error) -> String {
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        if let Some(Raised(message)) = error.downcast_ref() {
            return format!("the chat template refuses this conversation: {message}");
        }
        let inner = error.downcast_ref::<minijinja::Error>();
        if inner.is_some_and(|error| error.kind() == ErrorKind::OutOfFuel) {
            return "the chat template does not come to an end: it was stopped".to_owned();
        }
        cause = error.source();
    }
    match error.line() {
        Some(line) => format!("the chat template fails in line {line}: {error}"),
        None => format!("the chat template fails: {error}"),
    }
}

/// The number of values in `json`, itself included.
fn values(json: &Value) -> u64 {
    1 + match json {
        Value::Array(items) => items.iter().map(values).sum(),
        Value::Object(fields) => fields.values().map(values).sum(),
        _ => 0,
    }
}

/// `{% generation %}` marks the assistant's words for training, and means nothing here: it becomes
/// a condition that is always met, which keeps the white space control of the tag.
fn without_generation_tags(source: &str) -> String {
    let mut output = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        output.push_str(before);
        let sign = usize::from(tag.starts_with(['-', '+']));
        output.push_str(&tag[..sign]);
        let word = tag[sign..].trim_start();
        rest = &tag[sign..];
        for (name, replacement) in [("generation", " if true "), ("endgeneration", " endif ")] {
            let end = word.strip_prefix(name).map(str::trim_start);
            let is_end = |end: &&str| ["%}", "-%}", "+%}"].iter().any(|sign| end.starts_with(sign));
            if let Some(end) = end.filter(is_end) {
                output.push_str(replacement);
                rest = end;
            }
        }
    }
    output + rest
}

/// Output up to [`MAX_OUTPUT_BYTES`].
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT_BYTES {
            let reason = format!("it writes more than {} MiB", MAX_OUTPUT_BYTES >> 20);
            return Err(io::Error::other(reason));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
