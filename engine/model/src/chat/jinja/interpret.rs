//! Execution of statements.

use super::ast::{AssignmentTarget, Body, Expr, ExprKind, Name, Stmt};
use super::attributes;
use super::call::{Arguments, call};
use super::error::{Error, ErrorKind, Result, other_error, value_error};
use super::evaluate::{evaluate, filtered};
use super::loops::for_loop;
use super::macros::{define, macro_value};
use super::repr::write_str;
use super::run::Run;
use super::scope::Scope;
use super::text::escape;
use super::value::{Object, Value};
use std::rc::Rc;

/// How a statement ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

/// Executes `body`.
pub(super) fn execute(
    run: &Run<'_>,
    scope: &Rc<Scope>,
    body: &[Stmt],
    out: &mut String,
) -> Result<Flow> {
    for statement in body {
        let _level = run.budget.enter()?;
        let flow = execute_one(run, scope, statement, out)?;
        if flow != Flow::Next {
            return Ok(flow);
        }
    }
    Ok(Flow::Next)
}

/// Executes `body` and returns its output.
pub(super) fn capture(run: &Run<'_>, scope: &Rc<Scope>, body: &[Stmt]) -> Result<String> {
    let mut text = String::new();
    execute(run, scope, body, &mut text)?;
    Ok(text)
}

/// A captured text as a value. It is safe if escaping is on, since its parts are escaped already.
pub(super) fn captured(run: &Run<'_>, text: String) -> Result<Value> {
    Value::marked(&run.budget, text, run.is_escaping.get())
}

fn execute_one(
    run: &Run<'_>,
    scope: &Rc<Scope>,
    statement: &Stmt,
    out: &mut String,
) -> Result<Flow> {
    match statement {
        Stmt::Text(text) => {
            run.budget.bytes(text.len())?;
            out.push_str(text);
        }
        Stmt::Print(expr) => {
            let value = evaluate(run, scope, expr)?;
            print(run, &value, out).map_err(|error| error.at(expr.line))?;
        }
        Stmt::For(code) => {
            let items = evaluate(run, scope, &code.iter)?;
            return for_loop(run, scope, code, items, 0, out);
        }
        Stmt::If(branches, otherwise) => {
            for (condition, body) in branches {
                if evaluate(run, scope, condition)?.truth() {
                    return execute(run, scope, body, out);
                }
            }
            return execute(run, scope, otherwise, out);
        }
        Stmt::Set(target, expr) => {
            let value = evaluate(run, scope, expr)?;
            assign(run, scope, target, value).map_err(|error| error.at(expr.line))?;
        }
        Stmt::SetBlock(target, filters, body) => {
            let text = capture(run, &Scope::inside(scope), body)?;
            let text = captured(run, text)?;
            let value = match filters {
                Some(filters) => filtered(run, scope, filters, text)?,
                None => text,
            };
            assign(run, scope, target, value)?;
        }
        Stmt::With(assignments, body) => {
            let inside = Scope::inside(scope);
            for (target, expr) in assignments {
                let value = evaluate(run, scope, expr)?;
                assign(run, &inside, target, value)?;
            }
            return execute(run, &inside, body, out);
        }
        Stmt::Macro(code) => define(run, scope, code)?,
        Stmt::Call(expr, code) => {
            let caller = macro_value(run, scope, code)?;
            let value = call_with(run, scope, expr, caller)?;
            print(run, &value, out).map_err(|error| error.at(expr.line))?;
        }
        Stmt::Filter(filters, body) => {
            let text = capture(run, &Scope::inside(scope), body)?;
            let text = captured(run, text)?;
            let value = filtered(run, scope, filters, text)?;
            print(run, &value, out)?;
        }
        Stmt::Autoescape(is_on, body) => {
            let is_on = evaluate(run, scope, is_on)?.truth();
            let before = run.is_escaping.replace(is_on);
            let flow = execute(run, &Scope::inside(scope), body, out);
            run.is_escaping.set(before);
            return flow;
        }
        Stmt::Block(body) | Stmt::Scope(body) => {
            return execute(run, &Scope::inside(scope), body, out);
        }
        Stmt::Break => return Ok(Flow::Break),
        Stmt::Continue => return Ok(Flow::Continue),
        Stmt::NoLoader(line) => {
            let reason = "a chat template cannot load another template";
            return Err(Error::new(ErrorKind::Other, reason).at(*line));
        }
    }
    Ok(Flow::Next)
}

/// `{{ value }}`.
fn print(run: &Run<'_>, value: &Value, out: &mut String) -> Result<()> {
    if run.is_escaping.get() && !value.is_safe() {
        let mut text = String::new();
        write_str(run, value, &mut text)?;
        out.push_str(&escape(&text));
        return Ok(());
    }
    write_str(run, value, out)
}

fn call_with(run: &Run<'_>, scope: &Rc<Scope>, expr: &Expr, caller: Value) -> Result<Value> {
    let ExprKind::Call(callee, args) = &*expr.kind else {
        return other_error("expected a call");
    };
    let callee = evaluate(run, scope, callee)?;
    let mut arguments = Arguments::evaluate(run, scope, args)?;
    arguments.named.push(("caller".into(), caller));
    call(run, &callee, arguments).map_err(|error| error.at(expr.line))
}

/// `{% set target = value %}`.
pub(super) fn assign(
    run: &Run<'_>,
    scope: &Rc<Scope>,
    target: &AssignmentTarget,
    value: Value,
) -> Result<()> {
    match target {
        AssignmentTarget::Name(name) => {
            run.budget.bytes(2 * size_of::<Value>())?;
            scope.set(*name, value);
            Ok(())
        }
        AssignmentTarget::Attribute(name, attribute, line) => match scope.get(*name) {
            Some(Value::Namespace(index)) => run.set_namespace(index, attribute, value),
            _ => {
                Err(Error::new(ErrorKind::Other, "cannot assign attribute on non-namespace object"))
            }
        }
        .map_err(|error| error.at(*line)),
        AssignmentTarget::Tuple(targets) => {
            let items = value.items(run)?;
            if items.len() < targets.len() {
                return value_error(format!(
                    "not enough values to unpack (expected {}, got {})",
                    targets.len(),
                    items.len()
                ));
            }
            if items.len() > targets.len() {
                let expected = targets.len();
                return value_error(format!("too many values to unpack (expected {expected})"));
            }
            for (target, item) in targets.iter().zip(items) {
                assign(run, scope, target, item)?;
            }
            Ok(())
        }
    }
}

/// Renders the whole template.
pub(super) fn render(
    run: &Run<'_>,
    body: &Body,
    context: Vec<(Box<str>, Value)>,
) -> Result<String> {
    let scope = Rc::new(Scope::default());
    for (name, value) in context {
        if let Some(at) = run.names.iter().position(|known| *known == name) {
            scope.set(at as Name, value);
        }
    }
    for global in attributes::GLOBALS {
        if let Some(at) = run.names.iter().position(|known| **known == *global)
            && scope.get(at as Name).is_none()
        {
            scope.set(at as Name, Value::object(Object::Global(global)));
        }
    }
    let root = Scope::inside(&scope);
    let mut out = String::new();
    execute(run, &root, body, &mut out)?;
    Ok(out)
}
