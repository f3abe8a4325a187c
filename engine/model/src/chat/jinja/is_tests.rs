//! The tests behind `is`.

use super::ast::Comparison;
use super::call::{Arguments, required};
use super::dict::Key;
use super::error::{Result, other_error, type_error};
use super::filters;
use super::ops::{compare, contains, undefined};
use super::repr::to_str;
use super::run::Run;
use super::text::is_cased;
use super::value::{Object, Value};
use std::rc::Rc;

/// Every name that [`holds`] knows.
const NAMES: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

/// `value is name(…)`.
pub(super) fn holds(
    run: &Run<'_>,
    name: &str,
    value: &Value,
    arguments: Arguments,
) -> Result<bool> {
    let comparison = match name {
        "==" | "eq" | "equalto" => Some(Comparison::Eq),
        "!=" | "ne" => Some(Comparison::Ne),
        ">" | "gt" | "greaterthan" => Some(Comparison::Gt),
        ">=" | "ge" => Some(Comparison::Ge),
        "<" | "lt" | "lessthan" => Some(Comparison::Lt),
        "<=" | "le" => Some(Comparison::Le),
        _ => None,
    };
    if comparison.is_some() || matches!(name, "in" | "sameas" | "divisibleby") {
        let [other] = arguments.bind(name, ["other"])?;
        let other = required(other, name, "other")?;
        return match comparison {
            Some(op) => compare(run, op, value, &other),
            None if name == "in" => contains(run, &other, value),
            None if name == "sameas" => Ok(is_same(value, &other)),
            None => Ok(remainder(value, &other)? == 0),
        };
    }
    arguments.none(name)?;
    let is_exact = |other: bool| matches!(value, Value::Bool(found) if *found == other);
    Ok(match name {
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => is_exact(true),
        "false" => is_exact(false),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_)),
        "string" => matches!(value, Value::Str(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "escaped" => value.is_safe(),
        "odd" => remainder(value, &Value::Int(2))? == 1,
        "even" => remainder(value, &Value::Int(2))? == 0,
        "lower" => has_case(&to_str(run, value)?, char::is_uppercase),
        "upper" => has_case(&to_str(run, value)?, char::is_lowercase),
        "sequence" => matches!(
            value,
            Value::Undefined(_)
                | Value::Str(_)
                | Value::List(_)
                | Value::Tuple(_)
                | Value::Dict(_)
                | Value::Range(..)
        ),
        "iterable" => match value {
            Value::Object(object) => matches!(&**object, Object::Loop(_)),
            Value::None
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Namespace(_) => false,
            _ => true,
        },
        "callable" => match value {
            Value::Object(object) => !matches!(&**object, Object::Cycler(..)),
            value => value.is_undefined(),
        },
        "filter" | "test" => match (Key::new(&run.budget, value)?, name) {
            (Key::Str(name), "filter") => filters::is_known(&name.text),
            (Key::Str(name), _) => NAMES.contains(&&*name.text),
            _ => false,
        },
        name => return other_error(format!("No test named '{name}'.")),
    })
}

/// `a is sameas b`: the same object, not an equal one.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::Str(a), Value::Str(b)) => a.text == b.text && a.is_safe == b.is_safe,
        (Value::List(a), Value::List(b)) => Rc::ptr_eq(a, b),
        (Value::Tuple(a), Value::Tuple(b)) => {
            Rc::ptr_eq(a, b) || a.items.len() + b.items.len() == 0
        }
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
        (Value::Iter(a), Value::Iter(b)) => Rc::ptr_eq(a, b),
        (Value::Namespace(a), Value::Namespace(b)) => a == b,
        (Value::Object(a), Value::Object(b)) => match (&**a, &**b) {
            (Object::Global(a), Object::Global(b)) => a == b,
            _ => Rc::ptr_eq(a, b),
        },
        _ => false,
    }
}

/// The integer `a % b`, also of whole floats; -1 if the remainder is no integer.
fn remainder(a: &Value, b: &Value) -> Result<i128> {
    if let Value::Undefined(message) = a {
        return undefined(message);
    }
    if let (Some(a), Some(b)) = (a.as_int(), b.as_int())
        && let Some(rest) = a.checked_rem_euclid(b)
    {
        return Ok(rest);
    }
    match (a.as_float(), b.as_float()) {
        (Some(a), Some(b)) if b != 0.0 => {
            let rest = a.rem_euclid(b);
            Ok(if rest.fract() == 0.0 { rest as i128 } else { -1 })
        }
        _ => type_error(format!(
            "unsupported operand type(s) for %: '{}' and '{}'",
            a.type_name(),
            b.type_name()
        )),
    }
}

/// Whether at least one letter has a case, and no letter has the other case.
fn has_case(text: &str, is_other: fn(char) -> bool) -> bool {
    text.chars().any(is_cased) && !text.chars().any(is_other)
}
