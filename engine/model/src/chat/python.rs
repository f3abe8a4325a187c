//! Values as Python prints them: templates were written for Jinja on Python.

use super::MAX_OUTPUT_BYTES;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, Value};

/// Deeper values are no conversation.
const MAX_DEPTH: usize = 128;

/// `{{ value }}`.
pub(super) fn format(output: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    let written = match value.kind() {
        ValueKind::Undefined => Ok(()),
        ValueKind::None | ValueKind::Bool | ValueKind::Number | ValueKind::Seq | ValueKind::Map => {
            let mut writer = Writer { notation: Notation::Repr, out: String::new() };
            writer.value(value, 0)?;
            output.write_str(&writer.out)
        }
        _ => output.write_fmt(format_args!("{value}")),
    };
    written.map_err(|_| Error::new(ErrorKind::WriteFailure, "the output cannot be written"))
}

/// The filter `tojson` of transformers: `json.dumps` with `ensure_ascii=False`.
pub(super) fn tojson(value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let item = if indent.is_some() { "," } else { ", " };
    let (item, key) = match kwargs.get::<Option<Vec<String>>>("separators")? {
        None => (item.to_owned(), ": ".to_owned()),
        Some(pair) => <[String; 2]>::try_from(pair)
            .map(|[item, key]| (item, key))
            .map_err(|_| refused("tojson: separators are a pair"))?,
    };
    let json = Json {
        indent: indent.map(|width| width.min(16)),
        item,
        key,
        ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    let mut writer = Writer { notation: Notation::Json(json), out: String::new() };
    writer.value(value, 0)?;
    Ok(Value::from_safe_string(writer.out))
}

struct Writer {
    notation: Notation,
    out: String,
}

enum Notation {
    Repr,
    Json(Json),
}

struct Json {
    indent: Option<usize>,
    item: String,
    key: String,
    ascii: bool,
    sort: bool,
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH || self.out.len() > MAX_OUTPUT_BYTES {
            return Err(refused("a value is too large to be written out"));
        }
        let repr = matches!(self.notation, Notation::Repr);
        match value.kind() {
            ValueKind::None => self.out.push_str(if repr { "None" } else { "null" }),
            ValueKind::Bool => self.out.push_str(match (repr, value.is_true()) {
                (true, true) => "True",
                (true, false) => "False",
                (false, true) => "true",
                (false, false) => "false",
            }),
            ValueKind::Number => match f64::try_from(value.clone()) {
                Ok(number) if !value.is_integer() => float_repr(number, &mut self.out),
                _ => self.out.push_str(&value.to_string()),
            },
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.sequence(['[', ']'], &items, depth, |writer, item| {
                    writer.value(item, depth + 1)
                })?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if matches!(&self.notation, Notation::Json(json) if json.sort) {
                    keys.sort();
                }
                self.sequence(['{', '}'], &keys, depth, |writer, key| {
                    writer.value(key, depth + 1)?;
                    let colon = match &writer.notation {
                        Notation::Repr => ": ",
                        Notation::Json(json) => &json.key,
                    };
                    writer.out.push_str(colon);
                    writer.value(&value.get_item(key)?, depth + 1)
                })?;
            }
            kind if repr => self.out.push_str(&kind.to_string()),
            kind => return Err(refused(format!("tojson: {kind} has no JSON form"))),
        }
        Ok(())
    }

    fn sequence(
        &mut self,
        [open, close]: [char; 2],
        items: &[Value],
        depth: usize,
        mut write: impl FnMut(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.out.push_str(match &self.notation {
                    Notation::Repr => ", ",
                    Notation::Json(json) => &json.item,
                });
            }
            self.line(depth + 1);
            write(self, item)?;
        }
        if !items.is_empty() {
            self.line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    /// A new line, in JSON with indentation.
    fn line(&mut self, depth: usize) {
        if let Notation::Json(Json { indent: Some(width), .. }) = self.notation {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', width * depth));
        }
    }

    fn string(&mut self, text: &str) {
        let (json, ascii) = match &self.notation {
            Notation::Repr => (false, false),
            Notation::Json(json) => (true, json.ascii),
        };
        let single = !json && (!text.contains('\'') || text.contains('"'));
        let quote = if single { '\'' } else { '"' };
        self.out.push(quote);
        for c in text.chars() {
            match c {
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' if json => self.out.push_str("\\b"),
                '\u{c}' if json => self.out.push_str("\\f"),
                c if c == quote => self.out.extend(['\\', c]),
                c if json && (c < ' ' || (ascii && c > '~')) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c if !json && (c < ' ' || c == '\u{7f}') => {
                    self.out.push_str(&format!("\\x{:02x}", u32::from(c)));
                }
                c => self.out.push(c),
            }
        }
        self.out.push(quote);
    }
}

fn refused(reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

/// Floats with the fewest digits: `1.0`, `0.0001`, `1e-05`, `1e+16`.
fn float_repr(value: f64, out: &mut String) {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent @ -4..16) => {
            // Digits after the point when the number is written without an exponent.
            let after_point = digits.split_once('.').map_or(0, |(_, digits)| digits.len() as i32);
            let decimals = (after_point - exponent).max(i32::from(exponent >= 0));
            out.push_str(&format!("{value:.decimals$}", decimals = decimals as usize));
        }
        Ok(exponent) => out.push_str(&format!("{digits}e{exponent:+03}")),
        Err(_) => out.push_str(&value.to_string()),
    }
}
