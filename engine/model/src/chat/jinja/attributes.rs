//! Attributes and items of values, as far as the sandbox of transformers shows them.

use super::dict::Key;
use super::error::{Result, type_error, value_error};
use super::macros::macro_field;
use super::methods;
use super::ops::undefined;
use super::repr::to_repr;
use super::run::Run;
use super::text::char_range;
use super::value::{Object, Value, range_length};
use std::rc::Rc;

/// Names that every template knows.
pub(super) const GLOBALS: [&str; 8] =
    ["range", "dict", "lipsum", "cycler", "joiner", "namespace", "raise_exception", "strftime_now"];

/// `value.name`: the attribute of that name, or else the item.
pub(super) fn attribute(run: &Run<'_>, value: &Value, name: &str) -> Result<Value> {
    if let (Value::Undefined(message), false) = (value, is_internal(name)) {
        return undefined(message);
    }
    if let Some(found) = own_attribute(run, value, name)? {
        return Ok(found);
    }
    if let Value::Dict(dict) = value
        && let Some(found) = dict.get_str(name)
    {
        return Ok(found.clone());
    }
    Ok(Value::undefined(format!("'{}' has no attribute '{name}'", described(value))))
}

/// `value[item]`: the item, or else the attribute of that name.
pub(super) fn item(run: &Run<'_>, value: &Value, item: &Value) -> Result<Value> {
    let budget = &run.budget;
    let place = |length: usize| {
        let index = item.as_int()?;
        let index = if index < 0 { index + length as i128 } else { index };
        usize::try_from(index).ok().filter(|index| *index < length)
    };
    let found = match value {
        Value::Undefined(message) => return undefined(message),
        Value::Dict(dict) => match item {
            Value::Str(text) => dict.get_str(&text.text).cloned(),
            Value::List(_) | Value::Dict(_) | Value::View(..) => None,
            item => dict.get(&Key::new(budget, item)?).cloned(),
        },
        Value::List(seq) | Value::Tuple(seq) => {
            place(seq.items.len()).map(|index| seq.items[index].clone())
        }
        Value::Str(text) => match place(text.n_chars) {
            Some(index) if text.is_ascii() => Some(Value::text(budget, &text.text[index..=index])?),
            Some(index) => {
                budget.scan(text.text.len())?;
                Some(Value::text(budget, &text.text[char_range(&text.text, index, index + 1)])?)
            }
            None => None,
        },
        Value::Range(start, stop, step) => {
            let index = place(range_length(*start, *stop, *step));
            index.map(|index| Value::Int(start + index as i128 * step))
        }
        _ => None,
    };
    if let Some(found) = found {
        return Ok(found);
    }
    match item.as_str() {
        Some(name) => match own_attribute(run, value, name)? {
            Some(found) => Ok(found),
            None => {
                let object = described(value);
                Ok(Value::undefined(format!("'{object}' has no attribute '{name}'")))
            }
        },
        None => {
            let item = to_repr(run, item)?;
            Ok(Value::undefined(format!("{} has no element {item}", described(value))))
        }
    }
}

/// Whether Python reserves `name`, such as `__class__`.
fn is_internal(name: &str) -> bool {
    name.starts_with("__") && name.ends_with("__")
}

/// Looks up an attribute as Python's `getattr` does.
pub(super) fn own_attribute(run: &Run<'_>, value: &Value, name: &str) -> Result<Option<Value>> {
    if is_internal(name) {
        let type_name = value.type_name();
        return Ok(Some(Value::undefined(format!(
            "access to attribute '{name}' of '{type_name}' object is unsafe."
        ))));
    }
    let method = |known: &[&str]| {
        known.contains(&name).then(|| Value::object(Object::Method(value.clone(), name.into())))
    };
    let forbidden = |known: &[&str]| {
        let type_name = value.type_name();
        known.contains(&name).then(|| {
            Value::undefined(format!(
                "access to attribute '{name}' of '{type_name}' object is unsafe."
            ))
        })
    };
    Ok(match value {
        Value::Str(_) => method(&methods::STR),
        Value::List(_) => method(&methods::LIST).or_else(|| forbidden(&methods::LIST_CHANGES)),
        Value::Tuple(seq) if seq.is_group && name == "grouper" => Some(seq.items[0].clone()),
        Value::Tuple(seq) if seq.is_group && name == "list" => Some(seq.items[1].clone()),
        Value::Tuple(_) => method(&methods::TUPLE),
        Value::Dict(_) => method(&methods::DICT).or_else(|| forbidden(&methods::DICT_CHANGES)),
        Value::Range(start, stop, step) => match name {
            "start" => Some(Value::Int(*start)),
            "stop" => Some(Value::Int(*stop)),
            "step" => Some(Value::Int(*step)),
            _ => method(&methods::TUPLE),
        },
        Value::Int(_) | Value::Bool(_) => match name {
            "real" | "numerator" => Some(Value::Int(value.as_int().unwrap_or(0))),
            "imag" => Some(Value::Int(0)),
            "denominator" => Some(Value::Int(1)),
            _ => method(&["bit_length", "conjugate"]),
        },
        Value::Float(number) => match name {
            "real" => Some(Value::Float(*number)),
            "imag" => Some(Value::Float(0.0)),
            _ => method(&["is_integer", "conjugate"]),
        },
        Value::Namespace(index) => run.namespaces.borrow()[*index].get(name).cloned(),
        Value::Object(object) => match &**object {
            Object::Loop(state) => state.field(value, name),
            Object::Macro(of) => macro_field(run, &of.code, name)?,
            Object::Cycler(items, at) => match name {
                "current" => Some(items.items[at.get()].clone()),
                "next" => Some(Value::object(Object::Bound(value.clone(), "next"))),
                "reset" => Some(Value::object(Object::Bound(value.clone(), "reset"))),
                "items" => Some(Value::Tuple(Rc::clone(items))),
                "pos" => Some(Value::Int(at.get() as i128)),
                _ => None,
            },
            Object::Global("dict") => method(&["fromkeys"]),
            _ => None,
        },
        _ => None,
    })
}

pub(super) fn described(value: &Value) -> String {
    match value {
        Value::None => "None".to_owned(),
        value => format!("{} object", value.type_name()),
    }
}

/// Calls `next` or `reset` of a cycler, or `cycle` or `changed` of a loop.
pub(super) fn call_bound(
    run: &Run<'_>,
    of: &Value,
    name: &str,
    arguments: Vec<Value>,
) -> Result<Value> {
    let Value::Object(object) = of else { return type_error("not callable") };
    match (&**object, name) {
        (Object::Cycler(items, at), "next") => {
            let item = items.items[at.get()].clone();
            at.set((at.get() + 1) % items.items.len());
            Ok(item)
        }
        (Object::Cycler(_, at), "reset") => {
            at.set(0);
            Ok(Value::None)
        }
        (Object::Loop(state), "cycle") => state.cycle(&arguments),
        (Object::Loop(state), "changed") => {
            let value = Value::tuple(&run.budget, arguments)?;
            state.changed(run, value)
        }
        _ => value_error("not callable"),
    }
}
