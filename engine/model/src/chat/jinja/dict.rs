//! Dictionaries and their keys.

use super::budget::RenderBudget;
use super::error::{Result, type_error};
use super::value::{Text, Value};
use indexmap::{Equivalent, IndexMap};
use std::hash::{Hash, Hasher};
use std::rc::Rc;

pub(super) struct Dict {
    pub(super) entries: IndexMap<Key, (Value, Value)>,
    pub(super) depth: u32,
}

/// A hashable value. Keys compare as in Python: `1`, `1.0` and `True` are the same key.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Key {
    None,
    Undefined,
    Number(i128),
    Float(u64),
    Str(Rc<Text>),
    Tuple(Vec<Key>),
    Range(i128, i128, i128),
    Other(usize, usize),
}

/// A borrowed string for looking up a string key.
pub(super) struct StrKey<'a>(pub(super) &'a str);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::None => state.write_u8(0),
            Self::Str(text) => StrKey(&text.text).hash(state),
            Self::Number(number) => number.hash(state),
            Self::Float(bits) => bits.hash(state),
            Self::Tuple(items) => items.hash(state),
            Self::Undefined => state.write_u8(2),
            Self::Range(start, stop, step) => (start, stop, step).hash(state),
            Self::Other(kind, place) => (kind, place).hash(state),
        }
    }
}

impl Hash for StrKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(1);
        self.0.hash(state);
    }
}

impl Equivalent<Key> for StrKey<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        matches!(key, Key::Str(text) if *text.text == *self.0)
    }
}

impl Key {
    pub(super) fn new(budget: &RenderBudget, value: &Value) -> Result<Self> {
        budget.steps(1)?;
        Ok(match value {
            Value::None => Self::None,
            Value::Undefined(_) => Self::Undefined,
            Value::Bool(value) => Self::Number(i128::from(*value)),
            Value::Int(value) => Self::Number(*value),
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 1e38 => {
                Self::Number(*value as i128)
            }
            Value::Float(value) => Self::Float(value.to_bits()),
            Value::Str(text) => {
                budget.scan(text.text.len())?;
                Self::Str(text.clone())
            }
            Value::Tuple(seq) => {
                let keys = seq.items.iter().map(|item| Self::new(budget, item));
                Self::Tuple(keys.collect::<Result<_>>()?)
            }
            Value::Namespace(index) => Self::Other(0, *index),
            Value::Object(object) => Self::Other(1, Rc::as_ptr(object) as usize),
            Value::Iter(iter) => Self::Other(2, Rc::as_ptr(iter) as usize),
            Value::Range(start, stop, step) => Self::Range(*start, *stop, *step),
            Value::List(_) | Value::Dict(_) | Value::View(..) => {
                return type_error(format!("unhashable type: '{}'", value.type_name()));
            }
        })
    }
}

impl Dict {
    pub(super) fn get(&self, key: &Key) -> Option<&Value> {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(super) fn get_str(&self, key: &str) -> Option<&Value> {
        self.entries.get(&StrKey(key)).map(|(_, value)| value)
    }
}
