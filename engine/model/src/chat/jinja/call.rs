//! Calls and their arguments.

use super::ast::ArgumentExprs;
use super::attributes::call_bound;
use super::error::{Error, ErrorKind, Result, type_error, value_error};
use super::evaluate::evaluate;
use super::macros::call_macro;
use super::methods;
use super::ops::undefined;
use super::repr::to_str;
use super::run::Run;
use super::scope::Scope;
use super::value::{Object, Value, range_length};
use std::cell::Cell;
use std::rc::Rc;

/// Longest `range`, as in the sandbox of transformers.
const MAX_RANGE: usize = 100_000;

/// The arguments of a call, a filter or a test.
#[derive(Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(Box<str>, Value)>,
}

impl Arguments {
    pub(super) fn evaluate(run: &Run<'_>, scope: &Rc<Scope>, args: &ArgumentExprs) -> Result<Self> {
        let mut arguments = Self::default();
        for expr in &args.positional {
            arguments.positional.push(evaluate(run, scope, expr)?);
        }
        for (name, expr) in &args.named {
            arguments.named.push((name.clone(), evaluate(run, scope, expr)?));
        }
        if let Some(expr) = &args.more_positional {
            arguments.positional.extend(evaluate(run, scope, expr)?.items(run)?);
        }
        if let Some(expr) = &args.more_named {
            let more = evaluate(run, scope, expr)?;
            let Value::Dict(dict) = &more else {
                let name = more.type_name();
                return type_error(format!("argument after ** must be a mapping, not {name}"));
            };
            for (key, value) in dict.entries.values() {
                let Some(name) = key.as_str() else {
                    return type_error("keywords must be strings");
                };
                if arguments.named.iter().any(|(known, _)| **known == *name) {
                    return type_error(format!(
                        "got multiple values for keyword argument '{name}'"
                    ));
                }
                arguments.named.push((name.into(), value.clone()));
            }
        }
        Ok(arguments)
    }

    pub(super) fn of(positional: Vec<Value>) -> Self {
        Self { positional, named: Vec::new() }
    }

    /// One value for each of `names`, in order; `None` where the call gives no value.
    pub(super) fn bind<const N: usize>(
        self,
        callee: &str,
        names: [&str; N],
    ) -> Result<[Option<Value>; N]> {
        let n_given = self.positional.len();
        if n_given > N {
            return type_error(format!("{callee} takes at most {N} argument(s), not {n_given}"));
        }
        let mut bound = [const { None }; N];
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            match names.iter().position(|known| **known == *name) {
                Some(at) if bound[at].is_none() => bound[at] = Some(value),
                Some(_) => {
                    return type_error(format!(
                        "{callee} got multiple values for argument '{name}'"
                    ));
                }
                None => {
                    return type_error(format!(
                        "{callee} got an unexpected keyword argument '{name}'"
                    ));
                }
            }
        }
        Ok(bound)
    }

    /// Checks that there are no arguments.
    pub(super) fn none(self, callee: &str) -> Result<()> {
        self.bind::<0>(callee, []).map(drop)
    }
}

/// A mandatory argument.
pub(super) fn required(value: Option<Value>, callee: &str, name: &str) -> Result<Value> {
    match value {
        Some(value) => Ok(value),
        None => type_error(format!("{callee} missing required argument '{name}'")),
    }
}

/// The argument as an integer; `None` if it is absent or `none`.
pub(super) fn integer(value: Option<Value>, callee: &str) -> Result<Option<i128>> {
    match value {
        None | Some(Value::None) => Ok(None),
        Some(Value::Undefined(message)) => undefined(&message),
        Some(value) => match value.as_int() {
            Some(number) => Ok(Some(number)),
            None => type_error(format!("{callee} wants an integer, not {}", value.type_name())),
        },
    }
}

/// The argument as a size, or `otherwise` if it is absent. A negative number counts as 0.
pub(super) fn size(value: Option<Value>, callee: &str, otherwise: usize) -> Result<usize> {
    let number = integer(value, callee)?;
    Ok(number.map_or(otherwise, |number| usize::try_from(number.max(0)).unwrap_or(usize::MAX)))
}

/// `callee(…)`.
pub(super) fn call(run: &Run<'_>, callee: &Value, arguments: Arguments) -> Result<Value> {
    let _level = run.budget.enter()?;
    let object = match callee {
        Value::Undefined(message) => return undefined(message),
        Value::Object(object) => object,
        _ => return type_error(format!("'{}' object is not callable", callee.type_name())),
    };
    match &**object {
        Object::Macro(value) => call_macro(run, value, arguments),
        Object::Method(of, name) => methods::call(run, of, name, arguments),
        Object::Global(name) => call_global(run, name, arguments),
        Object::Loop(state) => {
            let [items] = arguments.bind("loop()", ["iterable"])?;
            state.recurse(run, required(items, "loop()", "iterable")?)
        }
        Object::Bound(of, name) => {
            if !arguments.named.is_empty() {
                return type_error(format!("{name}() takes no keyword arguments"));
            }
            call_bound(run, of, name, arguments.positional)
        }
        Object::Joiner(separator, is_used) => {
            arguments.none("joiner()")?;
            if is_used.replace(true) { Ok(separator.clone()) } else { Value::text(&run.budget, "") }
        }
        Object::Cycler(..) => type_error("'Cycler' object is not callable"),
    }
}

fn call_global(run: &Run<'_>, name: &str, arguments: Arguments) -> Result<Value> {
    let budget = &run.budget;
    match name {
        "range" => range(arguments),
        "dict" | "namespace" => {
            let mut pairs = match arguments.positional.len() {
                0 => Vec::new(),
                1 => pairs_of(run, &arguments.positional[0])?,
                n => return type_error(format!("{name} expected at most 1 argument, got {n}")),
            };
            for (name, value) in arguments.named {
                pairs.push((Value::text(budget, name)?, value));
            }
            if name == "dict" { Value::dict(budget, pairs) } else { run.new_namespace(pairs) }
        }
        "cycler" => {
            if arguments.positional.is_empty() {
                return type_error("at least one item has to be provided");
            }
            match Value::tuple(budget, arguments.positional)? {
                Value::Tuple(items) => Ok(Value::object(Object::Cycler(items, Cell::new(0)))),
                other => Ok(other),
            }
        }
        "joiner" => {
            let [separator] = arguments.bind("joiner()", ["sep"])?;
            let separator = match separator {
                Some(separator) => separator,
                None => Value::text(budget, ", ")?,
            };
            Ok(Value::object(Object::Joiner(separator, Cell::new(false))))
        }
        "raise_exception" => {
            let [message] = arguments.bind("raise_exception()", ["message"])?;
            let message = required(message, "raise_exception()", "message")?;
            Err(Error::new(ErrorKind::Raised, to_str(run, &message)?))
        }
        "strftime_now" => {
            let [format] = arguments.bind("strftime_now()", ["format"])?;
            match required(format, "strftime_now()", "format")? {
                Value::Str(format) => {
                    budget.bytes(format.text.len().saturating_mul(16))?;
                    Value::text(budget, (run.strftime)(&format.text))
                }
                other => type_error(format!(
                    "strftime() argument 1 must be str, not {}",
                    other.type_name()
                )),
            }
        }
        _ => value_error(format!("{name}() makes text at random, which no chat template needs")),
    }
}

fn range(arguments: Arguments) -> Result<Value> {
    let mut bounds = Vec::new();
    if !arguments.named.is_empty() {
        return type_error("range() takes no keyword arguments");
    }
    for value in arguments.positional {
        match value {
            Value::Undefined(message) => return undefined(&message),
            value => match value.as_int() {
                Some(number) if i64::try_from(number).is_ok() => bounds.push(number),
                Some(_) => return value_error("a bound of range() is too large"),
                None => {
                    return type_error(format!(
                        "'{}' object cannot be interpreted as an integer",
                        value.type_name()
                    ));
                }
            },
        }
    }
    let (start, stop, step) = match bounds[..] {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [_, _, 0] => return value_error("range() arg 3 must not be zero"),
        [start, stop, step] => (start, stop, step),
        _ => return type_error(format!("range expected 1 to 3 arguments, got {}", bounds.len())),
    };
    if range_length(start, stop, step) > MAX_RANGE {
        return value_error(format!(
            "Range too big. The sandbox blocks ranges larger than MAX_RANGE ({MAX_RANGE})."
        ));
    }
    Ok(Value::Range(start, stop, step))
}

/// The pairs of a mapping, or of an iterable of pairs.
pub(super) fn pairs_of(run: &Run<'_>, value: &Value) -> Result<Vec<(Value, Value)>> {
    match value {
        Value::Dict(dict) => Ok(dict.entries.values().cloned().collect()),
        value => {
            let pair = |item: Value| match &item.items(run)?[..] {
                [key, value] => Ok((key.clone(), value.clone())),
                items => value_error(format!(
                    "dictionary update sequence element has length {}; 2 is required",
                    items.len()
                )),
            };
            value.items(run)?.into_iter().map(pair).collect()
        }
    }
}
