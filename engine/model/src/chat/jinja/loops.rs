//! Loops, and the variable `loop` of templates.

use super::ast::{For, LOOP};
use super::error::{Result, type_error};
use super::evaluate::evaluate;
use super::interpret::{Flow, assign, captured, execute};
use super::ops;
use super::run::Run;
use super::scope::Scope;
use super::value::{Object, Value};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

/// The state behind the variable `loop`.
pub(super) struct LoopState {
    code: Arc<For>,
    scope: Rc<Scope>,
    items: Vec<Value>,
    /// Index of the current item, from zero.
    at: Cell<usize>,
    depth: usize,
    last_changed: RefCell<Option<Value>>,
    items_depth: u32,
}

impl LoopState {
    pub(super) fn length(&self) -> usize {
        self.items.len()
    }

    /// Number of the current item, from one.
    pub(super) fn index(&self) -> usize {
        self.at.get() + 1
    }

    pub(super) fn items_depth(&self) -> u32 {
        self.items_depth
    }

    /// Iteration over `loop`. jinja2 allows it; here it is always an error.
    pub(super) fn pairs(&self, run: &Run<'_>) -> Result<Vec<Value>> {
        run.budget.steps(self.items.len())?;
        type_error("a loop is iterated over by its own tag alone")
    }

    /// `loop.name`, if there is such a field.
    pub(super) fn field(&self, this: &Value, name: &str) -> Option<Value> {
        let (at, length) = (self.at.get(), self.items.len());
        let number = |number: usize| Value::Int(number as i128);
        let item = |item: Option<&Value>, reason: &str| {
            item.cloned().unwrap_or_else(|| Value::undefined(reason))
        };
        Some(match name {
            "index" => number(at + 1),
            "index0" => number(at),
            "revindex" => number(length - at),
            "revindex0" => number(length - at - 1),
            "first" => Value::Bool(at == 0),
            "last" => Value::Bool(at + 1 == length),
            "length" => number(length),
            "depth" => number(self.depth + 1),
            "depth0" => number(self.depth),
            "previtem" if at == 0 => Value::undefined("there is no previous item"),
            "previtem" => item(self.items.get(at - 1), "there is no previous item"),
            "nextitem" => item(self.items.get(at + 1), "there is no next item"),
            "cycle" => Value::object(Object::Bound(this.clone(), "cycle")),
            "changed" => Value::object(Object::Bound(this.clone(), "changed")),
            _ => return None,
        })
    }

    /// `loop.cycle(…)`.
    pub(super) fn cycle(&self, items: &[Value]) -> Result<Value> {
        match items.len() {
            0 => type_error("no items for cycling given"),
            length => Ok(items[self.at.get() % length].clone()),
        }
    }

    /// `loop.changed(…)`.
    pub(super) fn changed(&self, run: &Run<'_>, value: Value) -> Result<Value> {
        let is_same = match &*self.last_changed.borrow() {
            Some(last) => ops::equal(run, last, &value)?,
            None => false,
        };
        if !is_same {
            let old = self.last_changed.replace(Some(value));
            drop(old);
        }
        Ok(Value::Bool(!is_same))
    }

    /// `loop(items)` in a recursive loop: renders the same loop over other items.
    pub(super) fn recurse(&self, run: &Run<'_>, items: Value) -> Result<Value> {
        if !self.code.recursive {
            return type_error(
                "The loop must have the 'recursive' marker to be called recursively.",
            );
        }
        let mut text = String::new();
        for_loop(run, &self.scope, &self.code, items, self.depth + 1, &mut text)?;
        captured(run, text)
    }
}

/// Executes the body for each item, or the `else` body if there is no item.
pub(super) fn for_loop(
    run: &Run<'_>,
    scope: &Rc<Scope>,
    code: &Arc<For>,
    items: Value,
    depth: usize,
    out: &mut String,
) -> Result<Flow> {
    let _level = run.budget.enter()?;
    let mut items = items.items(run).map_err(|error| error.at(code.iter.line))?;
    if let Some(test) = &code.test {
        let mut kept = Vec::new();
        for item in items {
            let inside = Scope::inside(scope);
            assign(run, &inside, &code.target, item.clone())
                .map_err(|error| error.at(code.iter.line))?;
            if evaluate(run, &inside, test)?.truth() {
                kept.push(item);
            }
        }
        items = kept;
    }
    if items.is_empty() {
        return execute(run, &Scope::inside(scope), &code.otherwise, out);
    }
    let items_depth = Value::depth_of(&items);
    let state = Rc::new(LoopState {
        code: code.clone(),
        scope: scope.clone(),
        items,
        at: Cell::new(0),
        depth,
        last_changed: RefCell::new(None),
        items_depth,
    });
    let done = iterate(run, scope, &state, out);
    // The last value of `loop.changed` may hold the loop itself: break the cycle.
    let last = state.last_changed.take();
    drop(last);
    done
}

/// Executes the body for each item of `state`.
fn iterate(
    run: &Run<'_>,
    scope: &Rc<Scope>,
    state: &Rc<LoopState>,
    out: &mut String,
) -> Result<Flow> {
    let code = &state.code;
    for at in 0..state.items.len() {
        run.budget.steps(1)?;
        state.at.set(at);
        let inside = Scope::inside(scope);
        inside.set(LOOP, Value::object(Object::Loop(state.clone())));
        assign(run, &inside, &code.target, state.items[at].clone())
            .map_err(|error| error.at(code.iter.line))?;
        if execute(run, &inside, &code.body, out)? == Flow::Break {
            break;
        }
    }
    Ok(Flow::Next)
}
