//! Scopes: the names that a part of a template sees.

use super::ast::Name;
use super::value::Value;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Names and their values. A name that is absent here is looked up in the outer scope.
#[derive(Default)]
pub(super) struct Scope {
    names: RefCell<HashMap<Name, Value>>,
    outside: Option<Rc<Self>>,
}

impl Scope {
    pub(super) fn inside(outside: &Rc<Self>) -> Rc<Self> {
        Rc::new(Self { names: RefCell::default(), outside: Some(outside.clone()) })
    }

    pub(super) fn get(&self, name: Name) -> Option<Value> {
        let mut scope = self;
        loop {
            if let Some(value) = scope.names.borrow().get(&name) {
                return Some(value.clone());
            }
            scope = scope.outside.as_deref()?;
        }
    }

    pub(super) fn set(&self, name: Name, value: Value) {
        let old = self.names.borrow_mut().insert(name, value);
        drop(old);
    }

    pub(super) fn clear(&self) {
        let names = self.names.take();
        drop(names);
    }
}
