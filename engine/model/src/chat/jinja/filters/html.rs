//! Filters for HTML and URLs.

use super::super::call::Arguments;
use super::super::error::{Result, other_error, value_error};
use super::super::methods::mapping_pairs;
use super::super::repr::to_str;
use super::super::run::Run;
use super::super::text::{self, is_space};
use super::super::value::Value;

pub(super) fn escape(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    if value.is_safe() { Ok(value) } else { forceescape(run, value, arguments) }
}

pub(super) fn forceescape(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("escape")?;
    Value::marked(&run.budget, text::escape(&to_str(run, &value)?), true)
}

pub(super) fn safe(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("safe")?;
    Value::marked(&run.budget, to_str(run, &value)?, true)
}

/// Removes comments, tags and repeated white space.
pub(super) fn striptags(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("striptags")?;
    let mut text = to_str(run, &value)?;
    for (open, close) in [("<!--", "-->"), ("<", ">")] {
        let mut kept = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(at) = rest.find(open)
            && let Some(end) = rest[at..].find(close)
        {
            kept.push_str(&rest[..at]);
            rest = &rest[at + end + close.len()..];
        }
        kept.push_str(rest);
        text = kept;
    }
    let words: Vec<&str> = text.split(is_space).filter(|word| !word.is_empty()).collect();
    Value::text(&run.budget, unescape(&words.join(" ")))
}

/// Replaces the commonest entities by their characters.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.find(';').filter(|end| *end < 12);
        let found = end.and_then(|end| {
            let name = &rest[1..end];
            let c = match name {
                "amp" => '&',
                "lt" => '<',
                "gt" => '>',
                "quot" => '"',
                "apos" => '\'',
                "nbsp" => '\u{a0}',
                name => {
                    let code = name.strip_prefix('#')?;
                    let code = match code.strip_prefix(['x', 'X']) {
                        Some(digits) => u32::from_str_radix(digits, 16),
                        None => code.parse(),
                    };
                    char::from_u32(code.ok()?)?
                }
            };
            Some((c, end + 1))
        });
        let (c, length) = found.unwrap_or(('&', 1));
        plain.push(c);
        rest = &rest[length..];
    }
    plain + rest
}

/// `urlencode`: of a text, or as a query, of a mapping or of pairs.
pub(super) fn urlencode(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("urlencode")?;
    let pairs = match &value {
        Value::Dict(_) => mapping_pairs(run, &value, "urlencode")?,
        Value::List(_) | Value::Tuple(_) | Value::View(..) | Value::Iter(_) | Value::Range(..) => {
            super::super::call::pairs_of(run, &value)?
        }
        Value::Undefined(_) => Vec::new(),
        value => return Value::text(&run.budget, quoted(&to_str(run, value)?, "/")),
    };
    let mut query = String::new();
    for (index, (key, value)) in pairs.iter().enumerate() {
        let part = |value: &Value| Ok(quoted(&to_str(run, value)?, "").replace("%20", "+"));
        if index > 0 {
            query.push('&');
        }
        query.push_str(&part(key)?);
        query.push('=');
        query.push_str(&part(value)?);
    }
    Value::text(&run.budget, query)
}

/// Percent-encodes all characters but letters, digits, `_.-~` and `safe`.
fn quoted(text: &str, safe: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "_.-~".contains(c) || (c.is_ascii() && safe.contains(c)) {
            quoted.push(c);
        } else {
            quoted.push_str(&format!("%{byte:02X}"));
        }
    }
    quoted
}

pub(super) fn urlize(_: &Run<'_>, _: Value, _: Arguments) -> Result<Value> {
    other_error("the filter 'urlize' makes links for web pages, which no chat template needs")
}

/// `xmlattr(value, autospace=True)`.
pub(super) fn xmlattr(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [autospace] = arguments.bind("xmlattr", ["autospace"])?;
    let mut attributes = Vec::new();
    for (key, value) in mapping_pairs(run, &value, "xmlattr")? {
        if matches!(value, Value::None | Value::Undefined(_)) {
            continue;
        }
        let key = to_str(run, &key)?;
        if key.contains(|c| is_space(c) || matches!(c, '/' | '>' | '=')) {
            return value_error(format!("Invalid character in attribute name: '{key}'"));
        }
        let value = to_str(run, &value)?;
        attributes.push(format!("{}=\"{}\"", text::escape(&key), text::escape(&value)));
    }
    let mut text = attributes.join(" ");
    if !text.is_empty() && autospace.is_none_or(|value| value.truth()) {
        text.insert(0, ' ');
    }
    Value::text(&run.budget, text)
}
