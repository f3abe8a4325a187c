//! Jinja as transformers runs it: jinja2 in an immutable sandbox, on values of Python.
//!
//! A template is parsed once ([`Template`]) and interpreted for each conversation, with a bounded
//! number of steps, bounded depth and bounded memory. `docs/adr/0008-own-jinja.md` says why Galley
//! does not use a library; `docs/chat-templates.md` lists the differences from jinja2.

mod ast;
mod attributes;
mod budget;
mod call;
mod dict;
mod error;
mod evaluate;
mod expression;
mod filters;
mod format;
mod interpret;
mod is_tests;
mod json;
mod lexer;
mod loops;
mod macros;
mod methods;
mod ops;
mod parser;
mod repr;
mod run;
mod scope;
mod slices;
mod statements;
mod str_methods;
mod text;
mod value;

pub(super) use error::Error;

use ast::Body;
use budget::RenderBudget;
use run::Run;
use serde_json::{Map, Value as Json};
use value::Value;

/// A parsed template.
#[derive(Clone, Debug)]
pub(super) struct Template {
    body: Body,
    names: std::sync::Arc<[Box<str>]>,
}

/// Limits of one rendering.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) steps: u64,
    /// Bytes of all texts and lists that the rendering makes, freed ones included.
    pub(super) bytes: u64,
    pub(super) output_bytes: usize,
}

impl Template {
    /// Parses `source`.
    pub(super) fn new(source: &str) -> Result<Self, Error> {
        let (body, names) = parser::parse(source)?;
        Ok(Self { body, names: names.into() })
    }

    /// Renders the text with the variables of `context`. `strftime` formats the current date.
    pub(super) fn render(
        &self,
        context: &Map<String, Json>,
        bounds: Bounds,
        strftime: &dyn Fn(&str) -> String,
    ) -> Result<String, Error> {
        let budget = RenderBudget::new(bounds.steps, bounds.bytes);
        let run = Run::new(budget, &self.names, strftime);
        let mut variables = Vec::new();
        for (name, value) in context {
            variables.push((name.as_str().into(), Value::from_json(&run.budget, value)?));
        }
        let text = interpret::render(&run, &self.body, variables)?;
        if text.len() > bounds.output_bytes {
            let reason = format!("it writes more than {} MiB", bounds.output_bytes >> 20);
            return error::other_error(reason);
        }
        Ok(text)
    }
}
