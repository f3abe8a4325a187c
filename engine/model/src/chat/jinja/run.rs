//! One rendering: its bounds, its namespaces and its globals.

use super::ast::Name;
use super::budget::RenderBudget;
use super::error::{Result, other_error};
use super::scope::Scope;
use super::value::Value;
use indexmap::IndexMap;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// State that all parts of one rendering share.
pub(super) struct Run<'a> {
    pub(super) budget: RenderBudget,
    /// The template's names.
    pub(super) names: &'a [Box<str>],
    pub(super) namespaces: RefCell<Vec<IndexMap<Rc<str>, Value>>>,
    /// Scopes that macros hold. Each scope also holds its macros, so `drop` breaks these cycles.
    pub(super) held_scopes: RefCell<Vec<Rc<Scope>>>,
    pub(super) strftime: &'a dyn Fn(&str) -> String,
    pub(super) is_escaping: Cell<bool>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        budget: RenderBudget,
        names: &'a [Box<str>],
        strftime: &'a dyn Fn(&str) -> String,
    ) -> Self {
        Self {
            budget,
            names,
            namespaces: RefCell::default(),
            held_scopes: RefCell::default(),
            strftime,
            is_escaping: Cell::new(false),
        }
    }

    pub(super) fn name(&self, name: Name) -> &'a str {
        &self.names[name as usize]
    }

    pub(super) fn new_namespace(&self, fields: Vec<(Value, Value)>) -> Result<Value> {
        let mut namespace = IndexMap::new();
        self.budget.bytes(fields.len() * 2 * size_of::<Value>() + 64)?;
        for (name, value) in fields {
            match name.as_str() {
                Some(name) if name.starts_with('_') => return underscore(name),
                Some(name) => namespace.insert(name.into(), value),
                // No expression can read a field with a key that is not a string.
                None => None,
            };
        }
        let mut namespaces = self.namespaces.borrow_mut();
        namespaces.push(namespace);
        Ok(Value::Namespace(namespaces.len() - 1))
    }

    pub(super) fn set_namespace(&self, index: usize, name: &str, value: Value) -> Result<()> {
        if name.starts_with('_') {
            return underscore(name);
        }
        self.budget.bytes(size_of::<Value>())?;
        let old = self.namespaces.borrow_mut()[index].insert(name.into(), value);
        drop(old);
        Ok(())
    }
}

fn underscore<T>(name: &str) -> Result<T> {
    other_error(format!(
        "Chat templates cannot store underscore-prefixed attributes on a namespace, but got \
         '{name}'. Please rename the attribute."
    ))
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        for scope in self.held_scopes.take() {
            scope.clear();
        }
    }
}
