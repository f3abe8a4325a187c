//! The filter `tojson` of transformers: `json.dumps`.

use super::error::{Error, ErrorKind, Result, type_error};
use super::ops;
use super::repr::write_float;
use super::run::Run;
use super::value::Value;
use std::cmp::Ordering;

/// The style in which JSON is written.
pub(super) struct Json {
    /// Indentation of one level; `None` writes a single line.
    pub(super) indent: Option<String>,
    pub(super) item_separator: String,
    pub(super) key_separator: String,
    pub(super) is_ascii: bool,
    pub(super) is_sorted: bool,
}

impl Json {
    /// `json.dumps(value)`.
    pub(super) fn dumps(&self, run: &Run<'_>, value: &Value) -> Result<String> {
        let mut out = String::new();
        self.value(run, value, 0, &mut out)?;
        Ok(out)
    }

    fn value(&self, run: &Run<'_>, value: &Value, depth: usize, out: &mut String) -> Result<()> {
        run.budget.steps(1)?;
        match value {
            Value::None => out.push_str("null"),
            Value::Bool(true) => out.push_str("true"),
            Value::Bool(false) => out.push_str("false"),
            Value::Int(number) => out.push_str(&number.to_string()),
            Value::Float(number) => float(*number, out),
            Value::Str(text) => self.string(run, &text.text, out)?,
            Value::List(seq) | Value::Tuple(seq) => {
                out.push('[');
                for (index, item) in seq.items.iter().enumerate() {
                    self.separate(run, index, depth + 1, out)?;
                    self.value(run, item, depth + 1, out)?;
                }
                self.close(run, seq.items.is_empty(), depth, ']', out)?;
            }
            Value::Dict(dict) => {
                let mut pairs: Vec<&(Value, Value)> = dict.entries.values().collect();
                if self.is_sorted {
                    sort(run, &mut pairs)?;
                }
                out.push('{');
                for (index, (key, value)) in pairs.into_iter().enumerate() {
                    self.separate(run, index, depth + 1, out)?;
                    self.key(run, key, out)?;
                    out.push_str(&self.key_separator);
                    self.value(run, value, depth + 1, out)?;
                }
                self.close(run, dict.entries.is_empty(), depth, '}', out)?;
            }
            value => {
                let name = value.type_name();
                return type_error(format!("Object of type {name} is not JSON serializable"));
            }
        }
        run.budget.bytes(8)
    }

    fn key(&self, run: &Run<'_>, key: &Value, out: &mut String) -> Result<()> {
        match key {
            Value::Str(text) => self.string(run, &text.text, out),
            Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                out.push('"');
                self.value(run, key, 0, out)?;
                out.push('"');
                Ok(())
            }
            key => type_error(format!(
                "keys must be str, int, float, bool or None, not {}",
                key.type_name()
            )),
        }
    }

    fn separate(&self, run: &Run<'_>, index: usize, depth: usize, out: &mut String) -> Result<()> {
        if index > 0 {
            out.push_str(&self.item_separator);
        }
        self.line(run, depth, out)
    }

    fn close(
        &self,
        run: &Run<'_>,
        is_empty: bool,
        depth: usize,
        bracket: char,
        out: &mut String,
    ) -> Result<()> {
        if !is_empty {
            self.line(run, depth, out)?;
        }
        out.push(bracket);
        Ok(())
    }

    fn line(&self, run: &Run<'_>, depth: usize, out: &mut String) -> Result<()> {
        run.budget.bytes(self.item_separator.len() + self.key_separator.len())?;
        if let Some(indent) = &self.indent {
            run.budget.bytes(indent.len().saturating_mul(depth))?;
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
        Ok(())
    }

    fn string(&self, run: &Run<'_>, text: &str, out: &mut String) -> Result<()> {
        run.budget.bytes(text.len())?;
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.is_ascii && c > '~') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
        Ok(())
    }
}

fn float(number: f64, out: &mut String) {
    match number {
        number if number.is_nan() => out.push_str("NaN"),
        f64::INFINITY => out.push_str("Infinity"),
        f64::NEG_INFINITY => out.push_str("-Infinity"),
        number => write_float(number, out),
    }
}

/// Sorts by key. Keys that cannot be compared are an error.
fn sort(run: &Run<'_>, pairs: &mut [&(Value, Value)]) -> Result<()> {
    let mut failed: Option<Error> = None;
    pairs.sort_by(|a, b| match ops::order(run, &a.0, &b.0, "<") {
        Ok(order) => order.unwrap_or(Ordering::Equal),
        Err(error) => {
            failed.get_or_insert(error);
            Ordering::Equal
        }
    });
    failed.map_or(Ok(()), |error| Err(Error::new(ErrorKind::Type, error.message)))
}
