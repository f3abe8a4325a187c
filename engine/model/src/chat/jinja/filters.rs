//! The filters of jinja2, and `tojson` of transformers.

mod html;
mod items;
mod numbers;
mod text;

use super::attributes::item;
use super::call::{Arguments, required};
use super::error::{Result, other_error, type_error};
use super::is_tests;
use super::repr::to_str;
use super::run::Run;
use super::value::Value;

type Filter = fn(&Run<'_>, Value, Arguments) -> Result<Value>;

/// Every filter, by name.
const FILTERS: [(&str, Filter); 54] = [
    ("abs", numbers::abs),
    ("attr", items::attr),
    ("batch", items::batch),
    ("capitalize", text::capitalize),
    ("center", text::center),
    ("count", items::length),
    ("d", default),
    ("default", default),
    ("dictsort", items::dictsort),
    ("e", html::escape),
    ("escape", html::escape),
    ("filesizeformat", numbers::filesizeformat),
    ("first", items::first),
    ("float", numbers::float),
    ("forceescape", html::forceescape),
    ("format", text::format),
    ("groupby", items::groupby),
    ("indent", text::indent),
    ("int", numbers::int),
    ("items", items::pairs),
    ("join", text::join),
    ("last", items::last),
    ("length", items::length),
    ("list", items::list),
    ("lower", text::lower),
    ("map", map),
    ("max", items::max),
    ("min", items::min),
    ("pprint", text::pprint),
    ("random", items::random),
    ("reject", |run, value, arguments| select(run, value, arguments, false, false)),
    ("rejectattr", |run, value, arguments| select(run, value, arguments, true, false)),
    ("replace", text::replace),
    ("reverse", items::reverse),
    ("round", numbers::round),
    ("safe", html::safe),
    ("select", |run, value, arguments| select(run, value, arguments, false, true)),
    ("selectattr", |run, value, arguments| select(run, value, arguments, true, true)),
    ("slice", items::slice),
    ("sort", items::sort),
    ("string", text::string),
    ("striptags", html::striptags),
    ("sum", numbers::sum),
    ("title", text::title),
    ("tojson", text::tojson),
    ("trim", text::trim),
    ("truncate", text::truncate),
    ("unique", items::unique),
    ("upper", text::upper),
    ("urlencode", html::urlencode),
    ("urlize", html::urlize),
    ("wordcount", text::wordcount),
    ("wordwrap", text::wordwrap),
    ("xmlattr", html::xmlattr),
];

pub(super) fn is_known(name: &str) -> bool {
    FILTERS.iter().any(|(known, _)| *known == name)
}

/// `value | name(…)`.
pub(super) fn apply(
    run: &Run<'_>,
    name: &str,
    value: Value,
    arguments: Arguments,
) -> Result<Value> {
    run.budget.steps(1 + value.len().unwrap_or(0) / 64)?;
    match FILTERS.iter().find(|(known, _)| *known == name) {
        Some((_, filter)) => filter(run, value, arguments),
        None => other_error(format!("No filter named '{name}'.")),
    }
}

/// `default(value, default_value='', boolean=False)`.
fn default(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [otherwise, is_boolean] = arguments.bind("default", ["default_value", "boolean"])?;
    let is_boolean = is_boolean.is_some_and(|value| value.truth());
    if value.is_undefined() || (is_boolean && !value.truth()) {
        return match otherwise {
            Some(otherwise) => Ok(otherwise),
            None => Value::text(&run.budget, ""),
        };
    }
    Ok(value)
}

/// A path of attributes and indices, such as `function.name` or `0`.
struct AttributePath(Vec<Value>);

impl AttributePath {
    fn new(run: &Run<'_>, path: &Value) -> Result<Self> {
        let part = |part: &str| match part.parse::<u32>() {
            Ok(index) => Ok(Value::Int(index.into())),
            Err(_) => Value::text(&run.budget, part),
        };
        Ok(Self(match path {
            Value::None => Vec::new(),
            Value::Str(text) => text.text.split('.').map(part).collect::<Result<_>>()?,
            other => vec![other.clone()],
        }))
    }

    fn get(&self, run: &Run<'_>, value: &Value, default: Option<&Value>) -> Result<Value> {
        let mut value = value.clone();
        for part in &self.0 {
            value = item(run, &value, part)?;
            if let (Value::Undefined(_), Some(default)) = (&value, default) {
                value = default.clone();
            }
        }
        Ok(value)
    }
}

/// The items that a filter visits: none if `value` counts as false.
fn items_or_nothing(run: &Run<'_>, value: &Value) -> Result<Vec<Value>> {
    if value.truth() { value.items(run) } else { Ok(Vec::new()) }
}

/// `map(attribute=…, default=…)` or `map(filter, …)`.
fn map(run: &Run<'_>, value: Value, mut arguments: Arguments) -> Result<Value> {
    let items = items_or_nothing(run, &value)?;
    let mut mapped = Vec::with_capacity(items.len());
    let is_path = arguments.positional.is_empty()
        && arguments.named.iter().any(|(name, _)| **name == *"attribute");
    if is_path {
        let [path, default] = arguments.bind("map", ["attribute", "default"])?;
        let path = AttributePath::new(run, &path.unwrap_or(Value::None))?;
        let default = default.filter(|default| !matches!(default, Value::None));
        for item in &items {
            run.budget.steps(1)?;
            mapped.push(path.get(run, item, default.as_ref())?);
        }
    } else {
        if arguments.positional.is_empty() {
            return other_error("map requires a filter argument");
        }
        let name = to_str(run, &arguments.positional.remove(0))?;
        for item in items {
            let positional = arguments.positional.clone();
            let named = arguments.named.clone();
            mapped.push(apply(run, &name, item, Arguments { positional, named })?);
        }
    }
    Value::iter(&run.budget, "generator", mapped)
}

/// `select`, `reject`, `selectattr` and `rejectattr`.
fn select(
    run: &Run<'_>,
    value: Value,
    mut arguments: Arguments,
    by_attribute: bool,
    wanted: bool,
) -> Result<Value> {
    let items = items_or_nothing(run, &value)?;
    let path = if by_attribute {
        if arguments.positional.is_empty() {
            return other_error("Missing parameter for attribute name");
        }
        AttributePath::new(run, &arguments.positional.remove(0))?
    } else {
        AttributePath(Vec::new())
    };
    let test = if arguments.positional.is_empty() {
        None
    } else {
        match arguments.positional.remove(0) {
            Value::Str(name) => Some(name),
            other => return type_error(format!("No test named {}.", to_str(run, &other)?)),
        }
    };
    let mut kept = Vec::new();
    for item in items {
        run.budget.steps(1)?;
        let tested = path.get(run, &item, None)?;
        let holds = match &test {
            Some(name) => {
                let positional = arguments.positional.clone();
                let named = arguments.named.clone();
                is_tests::holds(run, &name.text, &tested, Arguments { positional, named })?
            }
            None => tested.truth(),
        };
        if holds == wanted {
            kept.push(item);
        }
    }
    Value::iter(&run.budget, "generator", kept)
}

/// A mandatory argument of a filter, as text.
fn text_argument(run: &Run<'_>, value: Option<Value>, callee: &str, name: &str) -> Result<String> {
    to_str(run, &required(value, callee, name)?)
}
