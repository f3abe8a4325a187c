//! `'%s' % x`.

use super::super::error::{Result, type_error, value_error};
use super::super::ops::undefined;
use super::super::repr::{to_repr, to_str};
use super::super::run::Run;
use super::super::text::escape;
use super::super::value::Value;
use super::spec::{
    MAX_PRECISION, MAX_WIDTH, Spec, bounded, float_digits, number_field, pad, radix,
};

/// `template % values`.
pub(in super::super) fn percent(
    run: &Run<'_>,
    template: &str,
    values: &Value,
    is_safe: bool,
) -> Result<String> {
    run.budget.scan(template.len())?;
    let mut positional = match values {
        Value::Tuple(seq) => seq.items.clone(),
        value => vec![value.clone()],
    }
    .into_iter();
    let mut used_key = false;
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let mut named = None;
        if let Some(inside) = rest.strip_prefix('(') {
            let Some(end) = inside.find(')') else {
                return value_error("incomplete format key");
            };
            let Value::Dict(dict) = values else {
                return type_error("format requires a mapping");
            };
            let Some(value) = dict.get_str(&inside[..end]) else {
                return value_error(format!("'{}'", &inside[..end]));
            };
            used_key = true;
            named = Some(value.clone());
            rest = &inside[end + 1..];
        }
        let mut next = || match positional.next() {
            Some(value) => Ok(value),
            None => type_error("not enough arguments for format string"),
        };
        let mut spec = Spec::default();
        while let Some(flag) = rest.chars().next().filter(|c| "-+ #0".contains(*c)) {
            match flag {
                '-' => spec.align = Some('<'),
                '0' => spec.zero = true,
                '#' => spec.alternate = true,
                '+' => spec.sign = Some('+'),
                _ => spec.sign = spec.sign.or(Some(' ')),
            }
            rest = &rest[1..];
        }
        let mut number = |rest: &mut &str| -> Result<Option<i128>> {
            if let Some(after) = rest.strip_prefix('*') {
                *rest = after;
                return match next()?.as_int() {
                    Some(number) => Ok(Some(number)),
                    None => type_error("* wants int"),
                };
            }
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at(digits);
            *rest = after;
            Ok(if digits == 0 { None } else { Some(number.parse().unwrap_or(i128::MAX)) })
        };
        let width = number(&mut rest)?.unwrap_or(0);
        if width < 0 {
            spec.align = Some('<');
        }
        spec.width = bounded(width.unsigned_abs(), MAX_WIDTH)?;
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            let precision = number(&mut rest)?.unwrap_or(0).max(0);
            spec.precision = Some(bounded(precision.unsigned_abs(), MAX_PRECISION)?);
        }
        rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
        let Some(kind) = rest.chars().next() else {
            return value_error("incomplete format");
        };
        rest = &rest[kind.len_utf8()..];
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = match named {
            Some(value) => value,
            None => next()?,
        };
        percent_field(run, &spec, kind, &value, is_safe, &mut out)?;
    }
    out.push_str(rest);
    let left = positional.next();
    let is_ignored = used_key
        || matches!(
            values,
            Value::Dict(_) | Value::List(_) | Value::Range(..) | Value::Undefined(_)
        );
    // As in Python, a right operand that can be indexed may stay unused.
    if left.is_some() && !is_ignored {
        return type_error("not all arguments converted during string formatting");
    }
    Ok(out)
}

fn percent_field(
    run: &Run<'_>,
    spec: &Spec,
    kind: char,
    value: &Value,
    is_safe: bool,
    out: &mut String,
) -> Result<()> {
    run.budget.bytes(spec.width)?;
    let align = spec.align.unwrap_or('>');
    if matches!(kind, 's' | 'r' | 'a' | 'c') {
        let text = match (kind, value) {
            ('s', value) if is_safe && !value.is_safe() => escape(&to_str(run, value)?),
            ('s', value) => to_str(run, value)?,
            ('c', Value::Str(text)) if text.n_chars == 1 => text.text.to_string(),
            ('c', value) => match value.as_int().and_then(|code| u32::try_from(code).ok()) {
                Some(code) => char::from_u32(code).map(String::from).unwrap_or_default(),
                None => return type_error("%c requires int or char"),
            },
            (_, value) => to_repr(run, value)?,
        };
        let text = match spec.precision {
            Some(most) if kind != 'c' => text.chars().take(most).collect(),
            _ => text,
        };
        pad(&text, spec.width, ' ', align, out);
        return Ok(());
    }
    if let Value::Undefined(message) = value {
        return undefined(message);
    }
    let Some(number) = value.as_float() else {
        let name = value.type_name();
        return type_error(format!("%{kind} format: a real number is required, not {name}"));
    };
    let (negative, digits) = match kind {
        'd' | 'i' | 'u' => {
            let integer = value.as_int().unwrap_or(number as i128);
            (integer < 0, integer.unsigned_abs().to_string())
        }
        'x' | 'X' | 'o' => match value.as_int() {
            Some(integer) => (integer < 0, radix(integer.unsigned_abs(), kind, spec.alternate)),
            None => {
                return type_error(format!(
                    "%{kind} format: an integer is required, not {}",
                    value.type_name()
                ));
            }
        },
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            (number.is_sign_negative(), float_digits(number.abs(), kind, spec))
        }
        kind => return value_error(format!("unsupported format character '{kind}'")),
    };
    // The precision of an integer is its minimum number of digits.
    let digits = match spec.precision {
        Some(least) if "diuxXo".contains(kind) && digits.len() < least => {
            "0".repeat(least - digits.len()) + &digits
        }
        _ => digits,
    };
    number_field(spec, negative, &digits, Some(align), ' ', out);
    Ok(())
}
