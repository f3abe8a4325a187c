//! Evaluation of expressions.

use super::ast::{Expr, ExprKind};
use super::attributes;
use super::call::{Arguments, call};
use super::error::{Result, other_error};
use super::filters;
use super::is_tests;
use super::ops;
use super::run::Run;
use super::scope::Scope;
use super::slices;
use super::value::Value;
use std::rc::Rc;

/// The value of `expr`; an error names its line.
pub(super) fn evaluate(run: &Run<'_>, scope: &Rc<Scope>, expr: &Expr) -> Result<Value> {
    let _level = run.budget.enter()?;
    value_of(run, scope, expr).map_err(|error| error.at(expr.line))
}

fn all(run: &Run<'_>, scope: &Rc<Scope>, exprs: &[Expr]) -> Result<Vec<Value>> {
    exprs.iter().map(|expr| evaluate(run, scope, expr)).collect()
}

fn value_of(run: &Run<'_>, scope: &Rc<Scope>, expr: &Expr) -> Result<Value> {
    let budget = &run.budget;
    Ok(match &*expr.kind {
        ExprKind::None => Value::None,
        ExprKind::Bool(value) => Value::Bool(*value),
        ExprKind::Int(value) => Value::Int(*value),
        ExprKind::Float(value) => Value::Float(*value),
        ExprKind::Str(text) => Value::text(budget, &**text)?,
        ExprKind::Name(name) => match scope.get(*name) {
            Some(value) => value,
            None => Value::undefined(format!("'{}' is undefined", run.name(*name))),
        },
        ExprKind::List(items) => Value::list(budget, all(run, scope, items)?)?,
        ExprKind::Tuple(items) => Value::tuple(budget, all(run, scope, items)?)?,
        ExprKind::Dict(pairs) => {
            let pairs = pairs
                .iter()
                .map(|(key, value)| Ok((evaluate(run, scope, key)?, evaluate(run, scope, value)?)));
            Value::dict(budget, pairs.collect::<Result<_>>()?)?
        }
        ExprKind::Attribute(of, name) => {
            attributes::attribute(run, &evaluate(run, scope, of)?, name)?
        }
        ExprKind::Item(of, item) => {
            let of = evaluate(run, scope, of)?;
            if let ExprKind::Slice(parts) = &*item.kind {
                let mut bounds = [Value::None, Value::None, Value::None];
                for (bound, part) in bounds.iter_mut().zip(parts) {
                    if let Some(part) = part {
                        *bound = evaluate(run, scope, part)?;
                    }
                }
                return slices::slice(run, &of, bounds.each_ref());
            }
            attributes::item(run, &of, &evaluate(run, scope, item)?)?
        }
        ExprKind::Slice(_) => return other_error("a slice is inside of brackets alone"),
        ExprKind::Call(callee, args) => {
            let callee = evaluate(run, scope, callee)?;
            let arguments = Arguments::evaluate(run, scope, args)?;
            call(run, &callee, arguments)?
        }
        ExprKind::Filter(Some(value), name, args) => {
            let value = evaluate(run, scope, value)?;
            let arguments = Arguments::evaluate(run, scope, args)?;
            filters::apply(run, name, value, arguments)?
        }
        ExprKind::Filter(None, ..) => return other_error("a filter has nothing to filter"),
        ExprKind::Test(value, name, args) => {
            let value = evaluate(run, scope, value)?;
            let arguments = Arguments::evaluate(run, scope, args)?;
            Value::Bool(is_tests::holds(run, name, &value, arguments)?)
        }
        ExprKind::Not(value) => Value::Bool(!evaluate(run, scope, value)?.truth()),
        ExprKind::Negative(value) => ops::negative(&evaluate(run, scope, value)?)?,
        ExprKind::Positive(value) => ops::positive(&evaluate(run, scope, value)?)?,
        ExprKind::And(left, right) => {
            let left = evaluate(run, scope, left)?;
            if left.truth() { evaluate(run, scope, right)? } else { left }
        }
        ExprKind::Or(left, right) => {
            let left = evaluate(run, scope, left)?;
            if left.truth() { left } else { evaluate(run, scope, right)? }
        }
        ExprKind::Binary(op, left, right) => {
            let left = evaluate(run, scope, left)?;
            ops::binary(run, *op, &left, &evaluate(run, scope, right)?)?
        }
        ExprKind::Concat(parts) => ops::concat(run, &all(run, scope, parts)?)?,
        ExprKind::Compare(first, more) => {
            let mut left = evaluate(run, scope, first)?;
            for (op, right) in more {
                let right = evaluate(run, scope, right)?;
                if !ops::compare(run, *op, &left, &right)? {
                    return Ok(Value::Bool(false));
                }
                left = right;
            }
            Value::Bool(true)
        }
        ExprKind::If(condition, value, otherwise) => {
            if evaluate(run, scope, condition)?.truth() {
                evaluate(run, scope, value)?
            } else {
                match otherwise {
                    Some(otherwise) => evaluate(run, scope, otherwise)?,
                    None => Value::undefined(
                        "the inline if-expression evaluated to false and no else section was \
                         defined.",
                    ),
                }
            }
        }
    })
}

/// Applies `chain`, a chain of filters without an input value, to `text`.
pub(super) fn filtered(
    run: &Run<'_>,
    scope: &Rc<Scope>,
    chain: &Expr,
    text: Value,
) -> Result<Value> {
    let _level = run.budget.enter()?;
    let ExprKind::Filter(inner, name, args) = &*chain.kind else {
        return other_error("expected a filter");
    };
    let value = match inner {
        Some(inner) => filtered(run, scope, inner, text)?,
        None => text,
    };
    let arguments = Arguments::evaluate(run, scope, args)?;
    filters::apply(run, name, value, arguments).map_err(|error| error.at(chain.line))
}
