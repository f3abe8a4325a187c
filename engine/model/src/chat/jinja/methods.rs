//! Methods of lists, tuples, dictionaries and numbers. Strings have [`super::str_methods`].

use super::call::{Arguments, integer, pairs_of, required};
use super::dict::Key;
use super::error::{Result, type_error, value_error};
use super::ops::{contains, equal};
use super::run::Run;
use super::str_methods;
use super::value::{DictView, Object, Value, range_length};

pub(super) const STR: [&str; 45] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];
pub(super) const LIST: [&str; 3] = ["copy", "count", "index"];
pub(super) const TUPLE: [&str; 2] = ["count", "index"];
pub(super) const DICT: [&str; 6] = ["copy", "fromkeys", "get", "items", "keys", "values"];

/// Methods that change a list. The sandbox hides them.
pub(super) const LIST_CHANGES: [&str; 8] =
    ["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"];
/// Methods that change a dictionary. The sandbox hides them.
pub(super) const DICT_CHANGES: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];

/// `of.name(…)`.
pub(super) fn call(run: &Run<'_>, of: &Value, name: &str, arguments: Arguments) -> Result<Value> {
    run.budget.steps(of.len().unwrap_or(0) / 64)?;
    match of {
        Value::Str(text) => str_methods::call(run, text, name, arguments),
        Value::Dict(_) => dict(run, of, name, arguments),
        Value::List(_) | Value::Tuple(_) | Value::Range(..) => sequence(run, of, name, arguments),
        Value::Object(object) if matches!(&**object, Object::Global("dict")) => {
            from_keys(run, arguments)
        }
        _ => number(of, name, arguments),
    }
}

fn number(of: &Value, name: &str, arguments: Arguments) -> Result<Value> {
    arguments.none(name)?;
    match (name, of.as_int(), of) {
        ("conjugate", ..) => Ok(of.clone()),
        ("bit_length", Some(number), _) => {
            Ok(Value::Int(i128::from(128 - number.unsigned_abs().leading_zeros())))
        }
        ("is_integer", _, Value::Float(number)) => Ok(Value::Bool(number.fract() == 0.0)),
        _ => type_error(format!("'{}' object has no method '{name}'", of.type_name())),
    }
}

fn sequence(run: &Run<'_>, of: &Value, name: &str, arguments: Arguments) -> Result<Value> {
    if name == "copy" {
        arguments.none("copy()")?;
        return Value::list(&run.budget, of.items(run)?);
    }
    let [item, start, stop] = arguments.bind(name, ["value", "start", "stop"])?;
    let item = required(item, name, "value")?;
    if let (Value::Range(from, to, step), "count" | "index") = (of, name) {
        let found = contains(run, of, &item)?;
        return match name {
            "count" => Ok(Value::Int(i128::from(found))),
            _ if found => Ok(Value::Int((item.as_int().unwrap_or(*from) - from) / step)),
            _ => value_error(format!(
                "the value is not in a range of {}",
                range_length(*from, *to, *step)
            )),
        };
    }
    let items = of.items(run)?;
    if name == "count" {
        let mut count = 0;
        for other in &items {
            count += i128::from(equal(run, other, &item)?);
        }
        return Ok(Value::Int(count));
    }
    let place = |number: Option<i128>, otherwise: usize| {
        let number = number.unwrap_or(otherwise as i128);
        let number = if number < 0 { number + items.len() as i128 } else { number };
        number.clamp(0, items.len() as i128) as usize
    };
    let (start, stop) = (place(integer(start, name)?, 0), place(integer(stop, name)?, items.len()));
    for (index, other) in items.iter().enumerate().take(stop).skip(start) {
        if equal(run, other, &item)? {
            return Ok(Value::Int(index as i128));
        }
    }
    value_error(format!("value is not in {}", of.type_name()))
}

fn dict(run: &Run<'_>, of: &Value, name: &str, arguments: Arguments) -> Result<Value> {
    let Value::Dict(dict) = of else { return type_error("not a dictionary") };
    let view = match name {
        "items" => DictView::Items,
        "keys" => DictView::Keys,
        "values" => DictView::Values,
        "copy" => {
            arguments.none("copy()")?;
            return Ok(of.clone());
        }
        "fromkeys" => return from_keys(run, arguments),
        _ => {
            if !arguments.named.is_empty() {
                return type_error("dict.get() takes no keyword arguments");
            }
            let [key, otherwise] = arguments.bind("get()", ["key", "default"])?;
            let key = Key::new(&run.budget, &required(key, "get()", "key")?)?;
            return Ok(dict.get(&key).cloned().or(otherwise).unwrap_or(Value::None));
        }
    };
    arguments.none(name)?;
    Ok(Value::View(view, dict.clone()))
}

fn from_keys(run: &Run<'_>, arguments: Arguments) -> Result<Value> {
    let [keys, value] = arguments.bind("fromkeys()", ["iterable", "value"])?;
    let value = value.unwrap_or(Value::None);
    let keys = required(keys, "fromkeys()", "iterable")?.items(run)?;
    Value::dict(&run.budget, keys.into_iter().map(|key| (key, value.clone())).collect())
}

/// A mapping's pairs, or an error that names the filter.
pub(super) fn mapping_pairs(
    run: &Run<'_>,
    value: &Value,
    callee: &str,
) -> Result<Vec<(Value, Value)>> {
    match value {
        Value::Dict(_) => pairs_of(run, value),
        Value::Undefined(message) => super::ops::undefined(message),
        _ => type_error(format!("{callee} wants a mapping, not {}", value.type_name())),
    }
}
