//! Prints values as Python's `str()` and `repr()` do.

use super::error::{Result, other_error};
use super::run::Run;
use super::value::{DictView, Object, Value};

/// Greatest nesting of printed values. Namespaces may hold each other, so nesting may be endless.
const MAX_DEPTH: u32 = 500;

/// `str(value)`.
pub(super) fn write_str(run: &Run<'_>, value: &Value, out: &mut String) -> Result<()> {
    match value {
        Value::Str(text) => {
            run.budget.bytes(text.text.len())?;
            out.push_str(&text.text);
            Ok(())
        }
        Value::Undefined(_) => Ok(()),
        value => write_repr(run, value, out),
    }
}

/// `str(value)`, as a string.
pub(super) fn to_str(run: &Run<'_>, value: &Value) -> Result<String> {
    let mut out = String::new();
    write_str(run, value, &mut out)?;
    Ok(out)
}

/// `repr(value)`.
pub(super) fn write_repr(run: &Run<'_>, value: &Value, out: &mut String) -> Result<()> {
    repr(run, value, out, 0)
}

/// `repr(value)`, as a string.
pub(super) fn to_repr(run: &Run<'_>, value: &Value) -> Result<String> {
    let mut out = String::new();
    write_repr(run, value, &mut out)?;
    Ok(out)
}

fn repr(run: &Run<'_>, value: &Value, out: &mut String, depth: u32) -> Result<()> {
    if depth > MAX_DEPTH {
        return other_error("maximum recursion depth exceeded");
    }
    let before = out.len();
    match value {
        Value::Undefined(_) => out.push_str("Undefined"),
        Value::None => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Int(number) => out.push_str(&number.to_string()),
        Value::Float(number) => write_float(*number, out),
        Value::Str(text) => {
            if text.is_safe {
                out.push_str("Markup(");
            }
            write_quoted(&text.text, out);
            if text.is_safe {
                out.push(')');
            }
        }
        Value::List(seq) => sequence(run, ["[", "]"], &seq.items, out, depth)?,
        Value::Tuple(seq) => {
            let close = if seq.items.len() == 1 { ",)" } else { ")" };
            sequence(run, ["(", close], &seq.items, out, depth)?;
        }
        Value::Dict(dict) => mapping(run, dict.entries.values(), out, depth)?,
        Value::Range(start, stop, 1) => out.push_str(&format!("range({start}, {stop})")),
        Value::Range(start, stop, step) => {
            out.push_str(&format!("range({start}, {stop}, {step})"));
        }
        Value::View(view, _) => {
            let open = match view {
                DictView::Keys => "dict_keys([",
                DictView::Values => "dict_values([",
                DictView::Items => "dict_items([",
            };
            sequence(run, [open, "])"], &value.items(run)?, out, depth)?;
        }
        Value::Namespace(index) => {
            let fields = run.namespaces.borrow()[*index].clone();
            let mut pairs = Vec::new();
            for (name, value) in fields {
                pairs.push((Value::text(&run.budget, &*name)?, value));
            }
            out.push_str("<Namespace ");
            mapping(run, pairs.iter(), out, depth)?;
            out.push('>');
        }
        Value::Object(object) => match &**object {
            Object::Macro(value) => {
                out.push_str("<Macro ");
                write_quoted(&value.code.name, out);
                out.push('>');
            }
            Object::Loop(state) => {
                out.push_str(&format!("<LoopContext {}/{}>", state.index(), state.length()));
            }
            Object::Method(of, name) => {
                out.push_str(&format!("<built-in method {name} of {} object>", of.type_name()));
            }
            Object::Global(name @ ("range" | "dict")) => out.push_str(&format!("<class '{name}'>")),
            Object::Global("cycler") => out.push_str("<class 'jinja2.utils.Cycler'>"),
            Object::Global("joiner") => out.push_str("<class 'jinja2.utils.Joiner'>"),
            Object::Global(name) => out.push_str(&format!("<function {name}>")),
            _ => out.push_str(&format!("<{} object>", value.type_name())),
        },
        Value::Iter(_) => out.push_str(&format!("<{} object>", value.type_name())),
    }
    run.budget.steps(1)?;
    // The parts are charged already. A container charges at most 4096 bytes of them again.
    run.budget.bytes((out.len() - before).min(4096))
}

fn sequence(
    run: &Run<'_>,
    [open, close]: [&str; 2],
    items: &[Value],
    out: &mut String,
    depth: u32,
) -> Result<()> {
    out.push_str(open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        repr(run, item, out, depth + 1)?;
    }
    out.push_str(close);
    Ok(())
}

fn mapping<'v>(
    run: &Run<'_>,
    pairs: impl Iterator<Item = &'v (Value, Value)>,
    out: &mut String,
    depth: u32,
) -> Result<()> {
    out.push('{');
    for (index, (key, value)) in pairs.enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        repr(run, key, out, depth + 1)?;
        out.push_str(": ");
        repr(run, value, out, depth + 1)?;
    }
    out.push('}');
    Ok(())
}

/// Writes a string literal, in the quotes that need fewer escapes.
pub(super) fn write_quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            c if is_printable(c) => out.push(c),
            c => out.push_str(&match u32::from(c) {
                code @ 0..=0xff => format!("\\x{code:02x}"),
                code @ 0x100..=0xffff => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            }),
        }
    }
    out.push(quote);
}

/// Whether `c` is no control character, separator or unassigned code. Rust escapes the same set.
pub(super) fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        '\0'..='\u{7f}' => false,
        // Rust does not escape a combining mark after another character.
        c => ['x', c].iter().collect::<String>().escape_debug().count() == 2,
    }
}

/// Writes the fewest digits that round-trip: `1.0`, `0.0001`, `1e-05`, `1e+16`, `inf`, `nan`.
pub(super) fn write_float(value: f64, out: &mut String) {
    if !value.is_finite() {
        out.push_str(if value.is_nan() {
            "nan"
        } else if value > 0.0 {
            "inf"
        } else {
            "-inf"
        });
        return;
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent @ -4..16) => {
            // The number of digits after the point in fixed notation.
            let after_point = digits.split_once('.').map_or(0, |(_, digits)| digits.len() as i32);
            let decimals = (after_point - exponent).max(i32::from(exponent >= 0));
            out.push_str(&format!("{value:.decimals$}", decimals = decimals as usize));
        }
        Ok(exponent) => out.push_str(&format!("{digits}e{exponent:+03}")),
        Err(_) => out.push_str(&value.to_string()),
    }
}
