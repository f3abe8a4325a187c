//! `'{}'.format(x)`.

use super::super::attributes;
use super::super::error::{Result, type_error, value_error};
use super::super::repr::{to_repr, to_str, write_float};
use super::super::run::Run;
use super::super::text::escape;
use super::super::value::Value;
use super::spec::{
    MAX_PRECISION, MAX_WIDTH, Spec, bounded, float_digits, grouped, number_field, pad, radix,
    shortest,
};

/// `template.format(*positional, **named)`.
pub(in super::super) fn braces(
    run: &Run<'_>,
    template: &str,
    positional: &[Value],
    named: &Value,
    is_safe: bool,
) -> Result<String> {
    let mut fields = FormatFields { run, positional, named, is_safe, next: 0 };
    let mut out = String::new();
    fields.write(template, 2, &mut out)?;
    Ok(out)
}

struct FormatFields<'a> {
    run: &'a Run<'a>,
    positional: &'a [Value],
    named: &'a Value,
    is_safe: bool,
    next: usize,
}

impl FormatFields<'_> {
    fn write(&mut self, template: &str, depth: u32, out: &mut String) -> Result<()> {
        self.run.budget.scan(template.len())?;
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let is_open = rest[at..].starts_with('{');
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(if is_open { '{' } else { '}' }) {
                out.push(if is_open { '{' } else { '}' });
                rest = after;
                continue;
            }
            if !is_open {
                return value_error("Single '}' encountered in format string");
            }
            let mut open = 1;
            let end = rest.find(|c| {
                open += i32::from(c == '{') - i32::from(c == '}');
                open == 0
            });
            let Some(end) = end else {
                return value_error("expected '}' before end of string");
            };
            if depth == 0 {
                return value_error("Max string recursion exceeded");
            }
            self.field(&rest[..end], depth, out)?;
            rest = &rest[end + 1..];
        }
        out.push_str(rest);
        Ok(())
    }

    fn field(&mut self, field: &str, depth: u32, out: &mut String) -> Result<()> {
        // A colon or an exclamation mark in brackets belongs to the field's name.
        let mut in_brackets = false;
        let end = field.find(|c| {
            in_brackets = (in_brackets || c == '[') && c != ']';
            !in_brackets && matches!(c, ':' | '!')
        });
        let (name, rest) = field.split_at(end.unwrap_or(field.len()));
        let (conversion, rest) = match rest.strip_prefix('!') {
            Some(after) => {
                let mut chars = after.chars();
                (chars.next(), chars.as_str())
            }
            None => (None, rest),
        };
        let mut spec = String::new();
        self.write(rest.strip_prefix(':').unwrap_or(rest), depth - 1, &mut spec)?;
        let value = self.value(name)?;
        let budget = &self.run.budget;
        let value = match conversion {
            None => value,
            Some('s') => Value::text(budget, to_str(self.run, &value)?)?,
            Some('r' | 'a') => Value::text(budget, to_repr(self.run, &value)?)?,
            Some(c) => return value_error(format!("Unknown conversion specifier '{c}'")),
        };
        let text = format_value(self.run, &value, &spec)?;
        out.push_str(&if self.is_safe && !value.is_safe() { escape(&text) } else { text });
        Ok(())
    }

    fn value(&mut self, name: &str) -> Result<Value> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let index = if first.is_empty() {
            self.next += 1;
            Some(self.next - 1)
        } else {
            first.parse::<usize>().ok()
        };
        let found = match index {
            Some(index) => self.positional.get(index).cloned(),
            None => match self.named {
                Value::Dict(dict) => dict.get_str(first).cloned(),
                _ => None,
            },
        };
        let Some(mut value) = found else {
            return value_error(match index {
                Some(index) => {
                    format!("Replacement index {index} out of range for positional args tuple")
                }
                None => format!("'{first}'"),
            });
        };
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                value = attributes::attribute(self.run, &value, &after[..end])?;
                rest = &after[end..];
            } else if let Some(after) = rest.strip_prefix('[')
                && let Some(end) = after.find(']')
            {
                let item = match after[..end].parse::<i128>() {
                    Ok(index) => Value::Int(index),
                    Err(_) => Value::text(&self.run.budget, &after[..end])?,
                };
                value = attributes::item(self.run, &value, &item)?;
                rest = &after[end + 1..];
            } else {
                return value_error("Only '.' or '[' may follow ']' in format field specifier");
            }
        }
        Ok(value)
    }
}

/// `format(value, spec)`.
fn format_value(run: &Run<'_>, value: &Value, spec: &str) -> Result<String> {
    if spec.is_empty() {
        return to_str(run, value);
    }
    let spec = parse_spec(spec)?;
    run.budget.bytes(spec.width)?;
    let mut out = String::new();
    let fill = spec.fill.unwrap_or(if spec.zero { '0' } else { ' ' });
    match value {
        Value::Str(text) => {
            let is_number =
                spec.sign.is_some() || spec.grouping.is_some() || spec.align == Some('=');
            if is_number || spec.kind.is_some_and(|kind| kind != 's') {
                return value_error("Unknown format code for object of type 'str'");
            }
            let text: String =
                text.text.chars().take(spec.precision.unwrap_or(usize::MAX)).collect();
            pad(&text, spec.width, fill, spec.align.unwrap_or('<'), &mut out);
        }
        Value::Int(_) | Value::Bool(_) | Value::Float(_) => {
            let is_whole = matches!(spec.kind, None | Some('c' | 'd' | 'x' | 'X' | 'o' | 'b'));
            if spec.precision.is_some() && is_whole && value.as_int().is_some() {
                return value_error("Precision not allowed in integer format specifier");
            }
            let number = value.as_float().unwrap_or(0.0);
            let (negative, mut digits) = match (value.as_int(), spec.kind) {
                (Some(code), Some('c')) => {
                    let c = u32::try_from(code).ok().and_then(char::from_u32);
                    (false, c.map(String::from).unwrap_or_default())
                }
                (Some(integer), Some(kind @ ('x' | 'X' | 'o' | 'b'))) => {
                    (integer < 0, radix(integer.unsigned_abs(), kind, spec.alternate))
                }
                (Some(integer), None | Some('d' | 'n')) => {
                    (integer < 0, integer.unsigned_abs().to_string())
                }
                (_, Some('%')) => {
                    (number < 0.0, float_digits(number.abs() * 100.0, 'f', &spec) + "%")
                }
                (None, None) if spec.precision.is_none() => {
                    let mut text = String::new();
                    write_float(number.abs(), &mut text);
                    (number.is_sign_negative(), text)
                }
                (_, Some(kind @ ('e' | 'E' | 'f' | 'F' | 'g' | 'G'))) => {
                    (number.is_sign_negative(), float_digits(number.abs(), kind, &spec))
                }
                (None, Some('n')) => {
                    (number.is_sign_negative(), float_digits(number.abs(), 'g', &spec))
                }
                (None, None) => (number.is_sign_negative(), shortest(number.abs(), &spec)),
                (_, kind) => {
                    return value_error(format!(
                        "Unknown format code '{}' for object of type '{}'",
                        kind.unwrap_or(' '),
                        value.type_name()
                    ));
                }
            };
            if let Some(separator) = spec.grouping {
                digits = grouped(&digits, separator);
            }
            number_field(&spec, negative, &digits, spec.align, fill, &mut out);
        }
        value => {
            let name = value.type_name();
            return type_error(format!("unsupported format string passed to {name}.__format__"));
        }
    }
    Ok(out)
}

fn parse_spec(text: &str) -> Result<Spec> {
    let mut spec = Spec::default();
    let mut rest = text;
    let mut chars = text.chars();
    let (first, second) = (chars.next(), chars.next());
    let is_align = |c: Option<char>| c.filter(|c| "<>=^".contains(*c));
    if let (Some(fill), Some(align)) = (first, is_align(second)) {
        (spec.fill, spec.align) = (Some(fill), Some(align));
        rest = &rest[fill.len_utf8() + 1..];
    } else if let Some(align) = is_align(first) {
        spec.align = Some(align);
        rest = &rest[1..];
    }
    let take = |rest: &mut &str, from: &str| {
        let found = rest.chars().next().filter(|c| from.contains(*c));
        *rest = &rest[found.map_or(0, char::len_utf8)..];
        found
    };
    spec.sign = take(&mut rest, "+- ").filter(|sign| *sign != '-');
    take(&mut rest, "z");
    spec.alternate = take(&mut rest, "#").is_some();
    spec.zero = take(&mut rest, "0").is_some();
    let number = |rest: &mut &str, most: usize| -> Result<Option<usize>> {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        *rest = after;
        if digits == 0 {
            return Ok(None);
        }
        bounded(number.parse().unwrap_or(u128::MAX), most).map(Some)
    };
    spec.width = number(&mut rest, MAX_WIDTH)?.unwrap_or(0);
    spec.grouping = take(&mut rest, ",_");
    if take(&mut rest, ".").is_some() {
        spec.precision = number(&mut rest, MAX_PRECISION)?;
        if spec.precision.is_none() {
            return value_error("Format specifier missing precision");
        }
    }
    spec.kind = rest.chars().next();
    if rest.chars().nth(1).is_some() {
        return value_error("Invalid format specifier");
    }
    Ok(spec)
}
