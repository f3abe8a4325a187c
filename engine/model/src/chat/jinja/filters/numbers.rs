//! Filters that make numbers, or text from numbers.

use super::super::ast::Binary;
use super::super::call::{Arguments, integer};
use super::super::error::{Result, other_error, type_error, value_error};
use super::super::ops::{binary, undefined};
use super::super::run::Run;
use super::super::text::is_space;
use super::super::value::Value;
use super::AttributePath;

pub(super) fn abs(_: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("abs")?;
    match &value {
        Value::Float(number) => Ok(Value::Float(number.abs())),
        value => match value.as_int().map(i128::checked_abs) {
            Some(Some(number)) => Ok(Value::Int(number)),
            _ => type_error(format!("bad operand type for abs(): '{}'", value.type_name())),
        },
    }
}

/// `int(text, base)` of Python; `None` where Python raises an error.
fn parse_int(text: &str, base: i128) -> Option<i128> {
    let text = text.trim_matches(is_space);
    let (is_negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let prefix = digits.get(..2).map(str::to_ascii_lowercase);
    let of_prefix = match prefix.as_deref() {
        Some("0x") => 16,
        Some("0o") => 8,
        Some("0b") => 2,
        _ => 0,
    };
    let has_prefix = of_prefix != 0 && (base == 0 || base == of_prefix);
    let digits = if has_prefix { digits[2..].trim_start_matches('_') } else { digits };
    let base = if base == 0 { if has_prefix { of_prefix } else { 10 } } else { base };
    if !(2..=36).contains(&base) || digits.starts_with(['_', '+', '-']) || digits.ends_with('_') {
        return None;
    }
    if digits.contains("__") {
        return None;
    }
    let number = i128::from_str_radix(&digits.replace('_', ""), base as u32).ok()?;
    Some(if is_negative { -number } else { number })
}

/// `float(text)` of Python; `None` where Python raises an error.
fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(is_space);
    let is_grouped = text.contains('_');
    if is_grouped && (text.contains("__") || text.starts_with('_') || text.ends_with('_')) {
        return None;
    }
    text.replace('_', "").parse().ok()
}

/// `int(value, default=0, base=10)`.
pub(super) fn int(_: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [default, base] = arguments.bind("int", ["default", "base"])?;
    let default = default.unwrap_or(Value::Int(0));
    let whole = |number: f64| {
        let is_whole = number.is_finite() && number.abs() < 1e38;
        is_whole.then_some(Value::Int(number as i128))
    };
    Ok(match &value {
        Value::Undefined(message) => return undefined(message),
        Value::Str(text) => {
            let base = integer(base, "int")?.unwrap_or(10);
            let number = parse_int(&text.text, base).map(Value::Int);
            number.or_else(|| parse_float(&text.text).and_then(whole)).unwrap_or(default)
        }
        Value::Float(number) if number.is_infinite() => {
            return other_error("cannot convert float infinity to integer");
        }
        Value::Float(number) => whole(*number).unwrap_or(default),
        value => value.as_int().map_or(default, Value::Int),
    })
}

/// `float(value, default=0.0)`.
pub(super) fn float(_: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [default] = arguments.bind("float", ["default"])?;
    let number = match &value {
        Value::Undefined(message) => return undefined(message),
        Value::Str(text) => parse_float(&text.text),
        value => value.as_float(),
    };
    Ok(number.map(Value::Float).or(default).unwrap_or(Value::Float(0.0)))
}

/// `round(value, precision=0, method='common')`.
pub(super) fn round(_: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [precision, method] = arguments.bind("round", ["precision", "method"])?;
    let precision = integer(precision, "round")?.unwrap_or(0).clamp(-400, 400) as i32;
    if let Value::Undefined(message) = &value {
        return undefined(message);
    }
    let Some(number) = value.as_float() else {
        let name = value.type_name();
        return type_error(format!("type {name} doesn't define __round__ method"));
    };
    let scale = 10_f64.powi(precision);
    Ok(match method.as_ref().map_or(Some("common"), Value::as_str) {
        Some("ceil") => Value::Float((number * scale).ceil() / scale),
        Some("floor") => Value::Float((number * scale).floor() / scale),
        Some("common") => match value.as_int() {
            Some(number) if precision >= 0 => Value::Int(number),
            Some(number) => {
                let unit = 10_i128.checked_pow(precision.unsigned_abs());
                Value::Int(unit.map_or(0, |unit| half_even(number, unit)))
            }
            None if precision >= 0 && number.is_finite() => {
                let digits = format!("{number:.*}", precision as usize);
                Value::Float(digits.parse().unwrap_or(number))
            }
            None if number.is_finite() => {
                let unit = 10_f64.powi(-precision);
                Value::Float((number / unit).round_ties_even() * unit)
            }
            None => value,
        },
        _ => return other_error("method must be common, ceil or floor"),
    })
}

/// The nearest multiple of `unit`; a tie goes to the even multiple.
fn half_even(number: i128, unit: i128) -> i128 {
    let (quotient, rest) = (number.div_euclid(unit), number.rem_euclid(unit));
    let is_up = rest * 2 > unit || (rest * 2 == unit && quotient % 2 != 0);
    (quotient + i128::from(is_up)) * unit
}

/// `sum(value, attribute=None, start=0)`.
pub(super) fn sum(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [attribute, start] = arguments.bind("sum", ["attribute", "start"])?;
    let path = AttributePath::new(run, &attribute.unwrap_or(Value::None))?;
    let mut total = start.unwrap_or(Value::Int(0));
    if matches!(total, Value::Str(_)) {
        return type_error("sum() can't sum strings [use ''.join(seq) instead]");
    }
    for item in value.items(run)? {
        run.budget.steps(1)?;
        total = binary(run, Binary::Add, &total, &path.get(run, &item, None)?)?;
    }
    Ok(total)
}

/// `filesizeformat(value, binary=False)`.
pub(super) fn filesizeformat(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [is_binary] = arguments.bind("filesizeformat", ["binary"])?;
    let is_binary = is_binary.is_some_and(|value| value.truth());
    let bytes = match &value {
        Value::Str(text) => parse_float(&text.text),
        value => value.as_float(),
    };
    let Some(bytes) = bytes else { return value_error("could not convert the size to a number") };
    let base = if is_binary { 1024.0_f64 } else { 1000.0 };
    let text = if bytes == 1.0 {
        "1 Byte".to_owned()
    } else if bytes < base {
        format!("{} Bytes", bytes as i64)
    } else {
        let prefixes = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
        let larger = |power: i32| bytes < base.powi(power + 2);
        let power = (0..8).find(|power| larger(*power)).unwrap_or(7);
        let prefix = prefixes[power as usize];
        let unit =
            if is_binary { format!("{}iB", prefix.to_uppercase()) } else { format!("{prefix}B") };
        format!("{:.1} {unit}", base * bytes / base.powi(power + 2))
    };
    Value::text(&run.budget, text)
}
