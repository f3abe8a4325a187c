//! Operators of Python.

use super::ast::{Binary, Comparison};
use super::dict::Key;
use super::error::{Error, ErrorKind, Result, type_error, value_error};
use super::format;
use super::repr::to_str;
use super::run::Run;
use super::text::escape;
use super::value::{Object, Value, range_length};
use std::cmp::Ordering;
use std::rc::Rc;

/// The error that using an undefined value raises.
pub(super) fn undefined<T>(message: &str) -> Result<T> {
    Err(Error::new(ErrorKind::Other, message))
}

pub(super) fn binary(run: &Run<'_>, op: Binary, a: &Value, b: &Value) -> Result<Value> {
    // `%` is the only operator of strings that takes undefined values.
    if let (Binary::Mod, Value::Str(text)) = (op, a) {
        let formatted = format::percent(run, &text.text, b, text.is_safe)?;
        return Value::marked(&run.budget, formatted, text.is_safe);
    }
    if let Value::Undefined(message) = a {
        return undefined(message);
    }
    if let Value::Undefined(message) = b {
        return undefined(message);
    }
    if let (Some(x), Some(y)) = (a.as_int(), b.as_int()) {
        return integers(op, x, y);
    }
    if let (Some(x), Some(y)) = (a.as_float(), b.as_float()) {
        return floats(op, x, y);
    }
    match (op, a, b) {
        (Binary::Add, Value::Str(x), Value::Str(y)) => {
            let is_safe = x.is_safe || y.is_safe;
            let part = |text: &super::value::Text| {
                if is_safe && !text.is_safe { escape(&text.text) } else { text.text.to_string() }
            };
            run.budget.bytes(x.text.len() + y.text.len())?;
            Value::marked(&run.budget, part(x) + &part(y), is_safe)
        }
        (Binary::Add, Value::List(x), Value::List(y)) => {
            Value::list(&run.budget, [&x.items[..], &y.items].concat())
        }
        (Binary::Add, Value::Tuple(x), Value::Tuple(y)) => {
            Value::tuple(&run.budget, [&x.items[..], &y.items].concat())
        }
        (Binary::Mul, value, count) | (Binary::Mul, count, value)
            if is_sequence(value) && count.as_int().is_some() =>
        {
            repeat(run, value, count.as_int().unwrap_or(0))
        }
        _ => unsupported(op, a, b),
    }
}

fn is_sequence(value: &Value) -> bool {
    matches!(value, Value::Str(_) | Value::List(_) | Value::Tuple(_))
}

fn unsupported<T>(op: Binary, a: &Value, b: &Value) -> Result<T> {
    let sign = match op {
        Binary::Add => "+",
        Binary::Sub => "-",
        Binary::Mul => "*",
        Binary::Div => "/",
        Binary::FloorDiv => "//",
        Binary::Mod => "%",
        Binary::Pow => "** or pow()",
    };
    let (a, b) = (a.type_name(), b.type_name());
    type_error(format!("unsupported operand type(s) for {sign}: '{a}' and '{b}'"))
}

fn repeat(run: &Run<'_>, value: &Value, count: i128) -> Result<Value> {
    let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    let budget = &run.budget;
    match value {
        Value::Str(text) => {
            budget.bytes(text.text.len().saturating_mul(count))?;
            Value::marked(budget, text.text.repeat(count), text.is_safe)
        }
        Value::List(seq) | Value::Tuple(seq) => {
            budget
                .bytes(seq.items.len().saturating_mul(count).saturating_mul(size_of::<Value>()))?;
            let items = std::iter::repeat_n(&seq.items, count).flatten().cloned().collect();
            if matches!(value, Value::List(_)) {
                Value::list(budget, items)
            } else {
                Value::tuple(budget, items)
            }
        }
        _ => type_error("can't multiply sequence by non-int"),
    }
}

fn integers(op: Binary, x: i128, y: i128) -> Result<Value> {
    let value = match op {
        Binary::Add => x.checked_add(y),
        Binary::Sub => x.checked_sub(y),
        Binary::Mul => x.checked_mul(y),
        Binary::Div | Binary::FloorDiv | Binary::Mod if y == 0 => {
            return value_error("division by zero");
        }
        Binary::Div => return Ok(Value::Float(quotient(x, y))),
        Binary::FloorDiv => {
            x.checked_div_euclid(y).map(|quotient| {
                // A Euclidean remainder is never negative; Python's has the sign of the divisor.
                if y < 0 && x.rem_euclid(y) != 0 { quotient - 1 } else { quotient }
            })
        }
        Binary::Mod => {
            x.checked_rem_euclid(y).map(|rest| if y < 0 && rest != 0 { rest + y } else { rest })
        }
        Binary::Pow if y < 0 => return floats(op, x as f64, y as f64),
        Binary::Pow => u32::try_from(y).ok().and_then(|y| x.checked_pow(y)),
    };
    match value {
        Some(value) => Ok(Value::Int(value)),
        None => value_error("an integer has more than 127 bits"),
    }
}

/// `x / y`, rounded once to `f64`.
fn quotient(x: i128, y: i128) -> f64 {
    let exact = 1 << f64::MANTISSA_DIGITS;
    let (numerator, divisor) = (x.unsigned_abs(), y.unsigned_abs());
    if numerator <= exact && divisor <= exact {
        return x as f64 / y as f64;
    }
    let (mut bits, mut rest) = (numerator / divisor, numerator % divisor);
    let mut exponent = 0;
    while rest != 0 && bits < 1 << 64 {
        rest <<= 1;
        bits = bits << 1 | u128::from(rest >= divisor);
        rest %= divisor;
        exponent += 1;
    }
    // The last bit is sticky: it is set if any later bit is set.
    let magnitude = (bits | u128::from(rest != 0)) as f64 * 2_f64.powi(-exponent);
    if (x < 0) == (y < 0) { magnitude } else { -magnitude }
}

fn floats(op: Binary, x: f64, y: f64) -> Result<Value> {
    let is_division = matches!(op, Binary::Div | Binary::FloorDiv | Binary::Mod);
    if is_division && y == 0.0 {
        return value_error("float division by zero");
    }
    Ok(Value::Float(match op {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::Div => x / y,
        Binary::Mod => modulo(x, y),
        Binary::FloorDiv => {
            let quotient = (x - modulo(x, y)) / y;
            let floor = quotient.floor();
            if quotient - floor > 0.5 { floor + 1.0 } else { floor }
        }
        Binary::Pow if x == 0.0 && y < 0.0 => {
            return value_error("0.0 cannot be raised to a negative power");
        }
        Binary::Pow if x < 0.0 && y.fract() != 0.0 => {
            return value_error("a complex number has no place in a chat template");
        }
        Binary::Pow => x.powf(y),
    }))
}

/// `x % y` with the sign of the divisor, as in Python.
fn modulo(x: f64, y: f64) -> f64 {
    let rest = x % y;
    if rest == 0.0 {
        0.0_f64.copysign(y)
    } else if (rest < 0.0) != (y < 0.0) {
        rest + y
    } else {
        rest
    }
}

pub(super) fn negative(value: &Value) -> Result<Value> {
    match value {
        Value::Undefined(message) => undefined(message),
        Value::Float(number) => Ok(Value::Float(-number)),
        value => match value.as_int().map(i128::checked_neg) {
            Some(Some(number)) => Ok(Value::Int(number)),
            Some(None) => value_error("an integer has more than 127 bits"),
            None => type_error(format!("bad operand type for unary -: '{}'", value.type_name())),
        },
    }
}

pub(super) fn positive(value: &Value) -> Result<Value> {
    match value {
        Value::Undefined(message) => undefined(message),
        Value::Float(_) => Ok(value.clone()),
        value => match value.as_int() {
            Some(number) => Ok(Value::Int(number)),
            None => type_error(format!("bad operand type for unary +: '{}'", value.type_name())),
        },
    }
}

pub(super) fn compare(run: &Run<'_>, op: Comparison, a: &Value, b: &Value) -> Result<bool> {
    let ordered =
        |sign: &str, holds: fn(Ordering) -> bool| Ok(order(run, a, b, sign)?.is_some_and(holds));
    match op {
        Comparison::Eq => equal(run, a, b),
        Comparison::Ne => Ok(!equal(run, a, b)?),
        Comparison::Lt => ordered("<", Ordering::is_lt),
        Comparison::Le => ordered("<=", Ordering::is_le),
        Comparison::Gt => ordered(">", Ordering::is_gt),
        Comparison::Ge => ordered(">=", Ordering::is_ge),
        Comparison::In => contains(run, b, a),
        Comparison::NotIn => Ok(!contains(run, b, a)?),
    }
}

/// `a == b`.
pub(super) fn equal(run: &Run<'_>, a: &Value, b: &Value) -> Result<bool> {
    run.budget.steps(1)?;
    if let (Some(x), Some(y)) = (a.as_int(), b.as_int()) {
        return Ok(x == y);
    }
    if let (Some(x), Some(y)) = (a.as_float(), b.as_float()) {
        return Ok(x == y);
    }
    Ok(match (a, b) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Str(x), Value::Str(y)) => {
            run.budget.scan(x.text.len().min(y.text.len()))?;
            x.text == y.text
        }
        (Value::List(x), Value::List(y)) | (Value::Tuple(x), Value::Tuple(y)) => {
            if x.items.len() != y.items.len() {
                return Ok(false);
            }
            for (x, y) in x.items.iter().zip(&y.items) {
                if !equal(run, x, y)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Dict(x), Value::Dict(y)) => {
            if x.entries.len() != y.entries.len() {
                return Ok(false);
            }
            for (key, (_, x)) in &x.entries {
                match y.get(key) {
                    Some(y) if equal(run, x, y)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::Range(a, b, c), Value::Range(x, y, z)) => {
            let length = range_length(*a, *b, *c);
            length == range_length(*x, *y, *z) && (length == 0 || a == x) && (length < 2 || c == z)
        }
        (Value::Namespace(x), Value::Namespace(y)) => x == y,
        (Value::Object(x), Value::Object(y)) => match (&**x, &**y) {
            (Object::Global(x), Object::Global(y)) => x == y,
            _ => Rc::ptr_eq(x, y),
        },
        (Value::Iter(x), Value::Iter(y)) => Rc::ptr_eq(x, y),
        _ => false,
    })
}

/// The order of `a` and `b`; `None` if either is NaN. Values without an order are an error.
pub(super) fn order(run: &Run<'_>, a: &Value, b: &Value, sign: &str) -> Result<Option<Ordering>> {
    run.budget.steps(1)?;
    if let Value::Undefined(message) = a {
        return undefined(message);
    }
    if let Value::Undefined(message) = b {
        return undefined(message);
    }
    if let (Some(x), Some(y)) = (a.as_int(), b.as_int()) {
        return Ok(Some(x.cmp(&y)));
    }
    if let (Some(x), Some(y)) = (a.as_float(), b.as_float()) {
        return Ok(x.partial_cmp(&y));
    }
    match (a, b) {
        (Value::Str(x), Value::Str(y)) => {
            run.budget.scan(x.text.len().min(y.text.len()))?;
            Ok(Some(x.text.cmp(&y.text)))
        }
        (Value::List(x), Value::List(y)) | (Value::Tuple(x), Value::Tuple(y)) => {
            for (x, y) in x.items.iter().zip(&y.items) {
                if !equal(run, x, y)? {
                    return order(run, x, y, sign);
                }
            }
            Ok(Some(x.items.len().cmp(&y.items.len())))
        }
        _ => {
            let (a, b) = (a.type_name(), b.type_name());
            type_error(format!("'{sign}' not supported between instances of '{a}' and '{b}'"))
        }
    }
}

/// `item in container`.
pub(super) fn contains(run: &Run<'_>, container: &Value, item: &Value) -> Result<bool> {
    match container {
        Value::Undefined(_) => Ok(false),
        Value::Str(text) => match item.as_str() {
            Some(part) => {
                run.budget.scan(text.text.len())?;
                Ok(text.text.contains(part))
            }
            None => type_error(format!(
                "'in <string>' requires string as left operand, not {}",
                item.type_name()
            )),
        },
        Value::Dict(dict) | Value::View(super::value::DictView::Keys, dict) => {
            Ok(dict.get(&Key::new(&run.budget, item)?).is_some())
        }
        Value::Range(start, stop, step) => Ok(match item.as_float() {
            Some(number) if number.fract() == 0.0 && number.abs() < 1e30 => {
                let place = (number as i128 - start) / step;
                (number as i128 - start) % step == 0
                    && place >= 0
                    && place < range_length(*start, *stop, *step) as i128
            }
            _ => false,
        }),
        Value::List(seq) | Value::Tuple(seq) => any_equal(run, &seq.items, item),
        Value::Iter(iter) => {
            while let Some(candidate) = iter.next() {
                if equal(run, &candidate, item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::View(..) => any_equal(run, &container.items(run)?, item),
        _ => type_error(format!("argument of type '{}' is not iterable", container.type_name())),
    }
}

fn any_equal(run: &Run<'_>, items: &[Value], item: &Value) -> Result<bool> {
    for candidate in items {
        if equal(run, candidate, item)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `a ~ b`.
pub(super) fn concat(run: &Run<'_>, values: &[Value]) -> Result<Value> {
    let mut text = String::new();
    let is_safe = run.is_escaping.get() && values.iter().any(Value::is_safe);
    for value in values {
        let part = to_str(run, value)?;
        text.push_str(&if is_safe && !value.is_safe() { escape(&part) } else { part });
    }
    Value::marked(&run.budget, text, is_safe)
}
