//! Macros: each is defined in one scope and called with a scope of its own.

use super::ast::{CALLER, KWARGS, Macro, VARARGS};
use super::call::Arguments;
use super::error::{Result, type_error};
use super::evaluate::evaluate;
use super::interpret::{capture, captured};
use super::run::Run;
use super::scope::Scope;
use super::value::{MacroValue, Object, Value};
use std::rc::Rc;
use std::sync::Arc;

/// A macro as a value. Its body sees `scope`.
pub(super) fn macro_value(run: &Run<'_>, scope: &Rc<Scope>, code: &Arc<Macro>) -> Result<Value> {
    run.budget.bytes(128)?;
    run.held_scopes.borrow_mut().push(scope.clone());
    Ok(Value::object(Object::Macro(MacroValue { code: code.clone(), scope: scope.clone() })))
}

/// `{% macro %}`.
pub(super) fn define(run: &Run<'_>, scope: &Rc<Scope>, code: &Arc<Macro>) -> Result<()> {
    scope.set(code.place, macro_value(run, scope, code)?);
    Ok(())
}

/// Calls a macro. Its parameters are names in a new scope.
pub(super) fn call_macro(run: &Run<'_>, value: &MacroValue, arguments: Arguments) -> Result<Value> {
    let _level = run.budget.enter()?;
    let code = &value.code;
    let scope = Scope::inside(&value.scope);
    let name = &code.name;
    let mut positional = arguments.positional.into_iter();
    let mut named = arguments.named;
    let mut take = |wanted: &str| {
        let at = named.iter().position(|(name, _)| **name == *wanted)?;
        Some(named.remove(at).1)
    };
    let mut takes_caller = code.uses_caller;
    for (parameter, default) in &code.parameters {
        let parameter_name = run.name(*parameter);
        takes_caller &= parameter_name != "caller";
        let given = match positional.next() {
            Some(value) => Some(value),
            None => take(parameter_name),
        };
        let value = match (given, default) {
            (Some(value), _) => value,
            (None, Some(default)) => evaluate(run, &scope, default)?,
            (None, None) => {
                Value::undefined(format!("parameter '{parameter_name}' was not provided"))
            }
        };
        scope.set(*parameter, value);
    }
    if takes_caller {
        let caller = take("caller").unwrap_or_else(|| Value::undefined("No caller defined"));
        scope.set(CALLER, caller);
    }
    let more: Vec<Value> = positional.collect();
    if code.uses_varargs {
        scope.set(VARARGS, Value::tuple(&run.budget, more)?);
    } else if !more.is_empty() {
        let n_parameters = code.parameters.len();
        return type_error(format!(
            "macro '{name}' takes not more than {n_parameters} argument(s)"
        ));
    }
    if code.uses_kwargs {
        let mut pairs = Vec::new();
        for (name, value) in named {
            pairs.push((Value::text(&run.budget, name)?, value));
        }
        scope.set(KWARGS, Value::dict(&run.budget, pairs)?);
    } else if let Some((unknown, _)) = named.first() {
        return type_error(format!("macro '{name}' takes no keyword argument '{unknown}'"));
    }
    let text = capture(run, &scope, &code.body)?;
    captured(run, text)
}

/// The fields of a macro.
pub(super) fn macro_field(run: &Run<'_>, code: &Macro, name: &str) -> Result<Option<Value>> {
    let budget = &run.budget;
    Ok(Some(match name {
        "name" => Value::text(budget, &*code.name)?,
        "arguments" => {
            let names = code.parameters.iter();
            let names = names.map(|(parameter, _)| Value::text(budget, run.name(*parameter)));
            Value::tuple(budget, names.collect::<Result<_>>()?)?
        }
        "catch_kwargs" => Value::Bool(code.uses_kwargs),
        "catch_varargs" => Value::Bool(code.uses_varargs),
        "caller" => Value::Bool(code.uses_caller),
        _ => return Ok(None),
    }))
}
