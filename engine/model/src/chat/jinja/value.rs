//! The values of Python that templates can meet.
//!
//! Lists and dictionaries never change: transformers' sandbox refuses the methods that change them.
//! Only namespaces change. They live in the [`Run`], so no value holds itself.

use super::ast::Macro;
use super::budget::RenderBudget;
use super::dict::{Dict, Key};
use super::error::{Error, ErrorKind, Result, type_error};
use super::loops::LoopState;
use super::run::Run;
use super::scope::Scope;
use indexmap::IndexMap;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

/// Greatest nesting of containers. Python fails to print about a thousand levels.
const MAX_NESTING: u32 = 400;

#[derive(Clone)]
pub(super) enum Value {
    /// An undefined value, with the message of the error that its use raises.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Rc<Text>),
    List(Rc<Seq>),
    Tuple(Rc<Seq>),
    Dict(Rc<Dict>),
    /// `range`: start, stop, step.
    Range(i128, i128, i128),
    View(DictView, Rc<Dict>),
    Iter(Rc<Iter>),
    /// The namespace's index in the [`Run`].
    Namespace(usize),
    Object(Rc<Object>),
}

/// A string.
pub(super) struct Text {
    pub(super) text: Box<str>,
    pub(super) n_chars: usize,
    /// Whether it is `Markup`, which is safe in HTML.
    pub(super) is_safe: bool,
}

/// A list's or tuple's items.
pub(super) struct Seq {
    pub(super) items: Vec<Value>,
    /// Whether it is a pair of `groupby`: its items are also the attributes `grouper` and `list`.
    pub(super) is_group: bool,
    depth: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DictView {
    Keys,
    Values,
    Items,
}

/// An iterator of Python: it gives its items once.
pub(super) struct Iter {
    pub(super) type_name: &'static str,
    items: RefCell<std::vec::IntoIter<Value>>,
    depth: u32,
}

/// Callable objects, and the loop.
pub(super) enum Object {
    Macro(MacroValue),
    Method(Value, Rc<str>),
    Global(&'static str),
    Loop(Rc<LoopState>),
    Cycler(Rc<Seq>, Cell<usize>),
    Joiner(Value, Cell<bool>),
    /// A method of a cycler or a loop.
    Bound(Value, &'static str),
}

pub(super) struct MacroValue {
    pub(super) code: Arc<Macro>,
    pub(super) scope: Rc<Scope>,
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Text {}

impl Text {
    pub(super) fn is_ascii(&self) -> bool {
        self.n_chars == self.text.len()
    }
}

impl Iter {
    /// Takes the remaining items.
    pub(super) fn take(&self) -> Vec<Value> {
        std::mem::take(&mut *self.items.borrow_mut()).collect()
    }

    pub(super) fn next(&self) -> Option<Value> {
        self.items.borrow_mut().next()
    }
}

fn nested(depth: u32) -> Result<u32> {
    if depth >= MAX_NESTING {
        return Err(Error::new(ErrorKind::Other, "values are nested too deeply"));
    }
    Ok(depth + 1)
}

impl Value {
    pub(super) fn text(budget: &RenderBudget, text: impl Into<Box<str>>) -> Result<Self> {
        Self::marked(budget, text, false)
    }

    pub(super) fn marked(
        budget: &RenderBudget,
        text: impl Into<Box<str>>,
        is_safe: bool,
    ) -> Result<Self> {
        let text = text.into();
        budget.bytes(text.len() + 32)?;
        let n_chars = if text.is_ascii() { text.len() } else { text.chars().count() };
        Ok(Self::Str(Rc::new(Text { text, n_chars, is_safe })))
    }

    fn seq(budget: &RenderBudget, items: Vec<Self>) -> Result<Rc<Seq>> {
        budget.bytes(items.len() * size_of::<Self>() + 32)?;
        budget.steps(items.len() / 8)?;
        let depth = nested(items.iter().map(Self::depth).max().unwrap_or(0))?;
        Ok(Rc::new(Seq { items, is_group: false, depth }))
    }

    pub(super) fn list(budget: &RenderBudget, items: Vec<Self>) -> Result<Self> {
        Ok(Self::List(Self::seq(budget, items)?))
    }

    pub(super) fn tuple(budget: &RenderBudget, items: Vec<Self>) -> Result<Self> {
        Ok(Self::Tuple(Self::seq(budget, items)?))
    }

    /// A pair of `groupby`: a key and the list of its items.
    pub(super) fn group(budget: &RenderBudget, key: Self, items: Vec<Self>) -> Result<Self> {
        let items = vec![key, Self::list(budget, items)?];
        let depth = nested(Self::depth_of(&items))?;
        Ok(Self::Tuple(Rc::new(Seq { items, is_group: true, depth })))
    }

    pub(super) fn iter(
        budget: &RenderBudget,
        type_name: &'static str,
        items: Vec<Self>,
    ) -> Result<Self> {
        budget.bytes(items.len() * size_of::<Self>() + 32)?;
        let depth = nested(items.iter().map(Self::depth).max().unwrap_or(0))?;
        Ok(Self::Iter(Rc::new(Iter { type_name, items: RefCell::new(items.into_iter()), depth })))
    }

    pub(super) fn dict(budget: &RenderBudget, pairs: Vec<(Self, Self)>) -> Result<Self> {
        budget.bytes(pairs.len() * 4 * size_of::<Self>() + 64)?;
        let depth = pairs.iter().map(|(key, value)| key.depth().max(value.depth())).max();
        let depth = nested(depth.unwrap_or(0))?;
        let mut entries = IndexMap::with_capacity(pairs.len());
        for (key, value) in pairs {
            // A repeated key keeps its first spelling and takes the last value.
            entries.entry(Key::new(budget, &key)?).or_insert((key, Self::None)).1 = value;
        }
        Ok(Self::Dict(Rc::new(Dict { entries, depth })))
    }

    pub(super) fn from_json(budget: &RenderBudget, json: &serde_json::Value) -> Result<Self> {
        use serde_json::Value as Json;
        budget.steps(1)?;
        Ok(match json {
            Json::Null => Self::None,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(value), ..) => Self::Int(value.into()),
                (_, Some(value), _) => Self::Int(value.into()),
                (.., value) => Self::Float(value.unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::text(budget, text.as_str())?,
            Json::Array(items) => {
                let items = items.iter().map(|item| Self::from_json(budget, item));
                Self::list(budget, items.collect::<Result<_>>()?)?
            }
            Json::Object(fields) => {
                let pairs = fields.iter().map(|(name, value)| {
                    Ok((Self::text(budget, name.as_str())?, Self::from_json(budget, value)?))
                });
                Self::dict(budget, pairs.collect::<Result<_>>()?)?
            }
        })
    }

    pub(super) fn undefined(message: impl Into<Rc<str>>) -> Self {
        Self::Undefined(message.into())
    }

    pub(super) fn object(object: Object) -> Self {
        Self::Object(Rc::new(object))
    }

    fn depth(&self) -> u32 {
        match self {
            Self::List(seq) | Self::Tuple(seq) => seq.depth,
            Self::Dict(dict) | Self::View(_, dict) => dict.depth,
            Self::Iter(iter) => iter.depth,
            Self::Object(object) => match &**object {
                Object::Method(value, _) | Object::Joiner(value, _) => value.depth() + 1,
                Object::Bound(value, _) => value.depth() + 1,
                Object::Cycler(seq, _) => seq.depth + 1,
                Object::Loop(state) => state.items_depth() + 1,
                Object::Macro(_) | Object::Global(_) => 0,
            },
            _ => 0,
        }
    }

    /// The depth of the deepest item.
    pub(super) fn depth_of(items: &[Self]) -> u32 {
        items.iter().map(Self::depth).max().unwrap_or(0)
    }

    pub(super) fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined(_))
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(&text.text),
            _ => None,
        }
    }

    pub(super) fn is_safe(&self) -> bool {
        matches!(self, Self::Str(text) if text.is_safe)
    }

    /// An integer. As in Python, a boolean is an integer.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Bool(value) => Some(i128::from(*value)),
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// Any number, as a float.
    pub(super) fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            value => value.as_int().map(|value| value as f64),
        }
    }

    /// The truth value, as `if` evaluates it.
    pub(super) fn truth(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            value => value.len().is_none_or(|length| length > 0),
        }
    }

    /// `len()`, for values that have one.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Self::Undefined(_) => Some(0),
            Self::Str(text) => Some(text.n_chars),
            Self::List(seq) | Self::Tuple(seq) => Some(seq.items.len()),
            Self::Dict(dict) | Self::View(_, dict) => Some(dict.entries.len()),
            Self::Range(start, stop, step) => Some(range_length(*start, *stop, *step)),
            Self::Object(object) => match &**object {
                Object::Loop(state) => Some(state.length()),
                _ => None,
            },
            _ => None,
        }
    }

    /// The items of an iteration over the value.
    pub(super) fn items(&self, run: &Run<'_>) -> Result<Vec<Self>> {
        let budget = &run.budget;
        let items: Vec<Self> = match self {
            Self::Undefined(_) => Vec::new(),
            Self::Str(text) => {
                budget.steps(text.text.len())?;
                let chars = text.text.chars().map(|c| Self::text(budget, c.to_string()));
                chars.collect::<Result<_>>()?
            }
            Self::List(seq) | Self::Tuple(seq) => seq.items.clone(),
            Self::Dict(dict) => dict.entries.values().map(|(key, _)| key.clone()).collect(),
            Self::View(view, dict) => {
                let entries = dict.entries.values();
                match view {
                    DictView::Keys => entries.map(|(key, _)| key.clone()).collect(),
                    DictView::Values => entries.map(|(_, value)| value.clone()).collect(),
                    DictView::Items => {
                        let pair = |(key, value): &(Self, Self)| {
                            Self::tuple(budget, vec![key.clone(), value.clone()])
                        };
                        entries.map(pair).collect::<Result<_>>()?
                    }
                }
            }
            Self::Range(start, stop, step) => {
                let length = range_length(*start, *stop, *step);
                (0..length).map(|index| Self::Int(start + index as i128 * step)).collect()
            }
            Self::Iter(iter) => iter.take(),
            Self::Object(object) => match &**object {
                Object::Loop(state) => return state.pairs(run),
                _ => return type_error(format!("'{}' object is not iterable", self.type_name())),
            },
            _ => return type_error(format!("'{}' object is not iterable", self.type_name())),
        };
        budget.bytes(items.len() * size_of::<Self>())?;
        Ok(items)
    }

    /// Python's name of the type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(text) if text.is_safe => "Markup",
            Self::Str(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Range(..) => "range",
            Self::View(DictView::Keys, _) => "dict_keys",
            Self::View(DictView::Values, _) => "dict_values",
            Self::View(DictView::Items, _) => "dict_items",
            Self::Iter(iter) => iter.type_name,
            Self::Namespace(_) => "Namespace",
            Self::Object(object) => match &**object {
                Object::Macro(_) => "Macro",
                Object::Method(..) => "builtin_function_or_method",
                Object::Global("range" | "namespace" | "cycler" | "joiner") => "type",
                Object::Global("dict") => "TemplateDict",
                Object::Global(_) => "function",
                Object::Loop(_) => "LoopContext",
                Object::Cycler(..) => "Cycler",
                Object::Joiner(..) => "Joiner",
                Object::Bound(..) => "method",
            },
        }
    }
}

pub(super) fn range_length(start: i128, stop: i128, step: i128) -> usize {
    let length = match step {
        1.. if start < stop => (stop - start - 1) / step + 1,
        ..=-1 if start > stop => (start - stop - 1) / -step + 1,
        _ => 0,
    };
    usize::try_from(length).unwrap_or(usize::MAX)
}
