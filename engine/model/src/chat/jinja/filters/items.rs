//! Filters of lists and mappings.

use super::super::attributes;
use super::super::call::{Arguments, required, size};
use super::super::dict::Key;
use super::super::error::{Error, Result, other_error, type_error, value_error};
use super::super::methods::mapping_pairs;
use super::super::ops;
use super::super::repr::to_str;
use super::super::run::Run;
use super::super::value::Value;
use super::AttributePath;
use std::cmp::Ordering;
use std::collections::HashSet;

/// `attr(value, name)`: an attribute, never an item.
pub(super) fn attr(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [name] = arguments.bind("attr", ["name"])?;
    let name = super::text_argument(run, name, "attr", "name")?;
    if let Value::Undefined(message) = &value {
        return ops::undefined(message);
    }
    Ok(match attributes::own_attribute(run, &value, &name)? {
        Some(found) => found,
        None => {
            let type_name = value.type_name();
            Value::undefined(format!("'{type_name} object' has no attribute '{name}'"))
        }
    })
}

pub(super) fn length(_: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("length")?;
    match value.len() {
        Some(length) => Ok(Value::Int(length as i128)),
        None => type_error(format!("object of type '{}' has no len()", value.type_name())),
    }
}

pub(super) fn list(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("list")?;
    Value::list(&run.budget, value.items(run)?)
}

pub(super) fn first(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("first")?;
    let first = match &value {
        Value::Iter(iter) => iter.next(),
        Value::List(seq) | Value::Tuple(seq) => seq.items.first().cloned(),
        value => value.items(run)?.into_iter().next(),
    };
    Ok(first.unwrap_or_else(|| Value::undefined("No first item, sequence was empty.")))
}

pub(super) fn last(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("last")?;
    let last = match &value {
        Value::Iter(_) => {
            return type_error(format!("'{}' object is not reversible", value.type_name()));
        }
        Value::List(seq) | Value::Tuple(seq) => seq.items.last().cloned(),
        value => value.items(run)?.pop(),
    };
    Ok(last.unwrap_or_else(|| Value::undefined("No last item, sequence was empty.")))
}

pub(super) fn reverse(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("reverse")?;
    let budget = &run.budget;
    if let Value::Str(text) = &value {
        let reversed: String = text.text.chars().rev().collect();
        return Value::marked(budget, reversed, text.is_safe);
    }
    let mut items = value.items(run)?;
    items.reverse();
    match &value {
        Value::Iter(_) => Value::list(budget, items),
        Value::List(_) => Value::iter(budget, "list_reverseiterator", items),
        _ => Value::iter(budget, "reversed", items),
    }
}

/// `items(value)`: the pairs of a mapping.
pub(super) fn pairs(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("items")?;
    let pairs = match &value {
        Value::Undefined(_) => Vec::new(),
        Value::Dict(_) => mapping_pairs(run, &value, "items")?,
        _ => return type_error("Can only get item pairs from a mapping."),
    };
    let pair = |(key, value)| Value::tuple(&run.budget, vec![key, value]);
    Value::iter(&run.budget, "generator", pairs.into_iter().map(pair).collect::<Result<_>>()?)
}

pub(super) fn random(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("random")?;
    let items = value.items(run)?;
    match &items[..] {
        [] => Ok(Value::undefined("No random item, sequence was empty.")),
        [only] => Ok(only.clone()),
        _ => other_error("the filter 'random' would give another prompt every time"),
    }
}

/// Lower-cases a string, unless case matters; other values stay the same.
fn folded(run: &Run<'_>, value: Value, is_case_sensitive: bool) -> Result<Value> {
    match &value {
        Value::Str(text) if !is_case_sensitive => {
            Value::text(&run.budget, text.text.to_lowercase())
        }
        _ => Ok(value),
    }
}

fn is_set(value: Option<Value>) -> bool {
    value.is_some_and(|value| value.truth())
}

/// Sorts by the keys, stably. Two keys that cannot be compared are an error.
pub(super) fn sort_by_key(
    run: &Run<'_>,
    pairs: &mut [(Value, Value)],
    is_descending: bool,
) -> Result<()> {
    let mut failed: Option<Error> = None;
    pairs.sort_by(|(a, _), (b, _)| {
        let order = ops::order(run, a, b, "<").unwrap_or_else(|error| {
            failed.get_or_insert(error);
            None
        });
        let order = order.unwrap_or(Ordering::Equal);
        if is_descending { order.reverse() } else { order }
    });
    failed.map_or(Ok(()), Err)
}

/// `sort(value, reverse=False, case_sensitive=False, attribute=None)`.
pub(super) fn sort(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [is_descending, is_case_sensitive, attribute] =
        arguments.bind("sort", ["reverse", "case_sensitive", "attribute"])?;
    let is_case_sensitive = is_set(is_case_sensitive);
    let paths = match &attribute {
        Some(Value::Str(paths)) => {
            let path = |path: &str| AttributePath::new(run, &Value::text(&run.budget, path)?);
            paths.text.split(',').map(path).collect::<Result<Vec<_>>>()?
        }
        Some(path) => vec![AttributePath::new(run, path)?],
        None => vec![AttributePath::new(run, &Value::None)?],
    };
    let mut pairs = Vec::new();
    for item in value.items(run)? {
        let mut keys = Vec::new();
        for path in &paths {
            keys.push(folded(run, path.get(run, &item, None)?, is_case_sensitive)?);
        }
        pairs.push((Value::list(&run.budget, keys)?, item));
    }
    sort_by_key(run, &mut pairs, is_set(is_descending))?;
    Value::list(&run.budget, pairs.into_iter().map(|(_, item)| item).collect())
}

/// `dictsort(value, case_sensitive=False, by='key', reverse=False)`.
pub(super) fn dictsort(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [is_case_sensitive, by, is_descending] =
        arguments.bind("dictsort", ["case_sensitive", "by", "reverse"])?;
    let by_value = match by.as_ref().map_or(Some("key"), Value::as_str) {
        Some("key") => false,
        Some("value") => true,
        _ => return other_error("You can only sort by either \"key\" or \"value\""),
    };
    let is_case_sensitive = is_set(is_case_sensitive);
    let mut pairs = Vec::new();
    for (key, value) in mapping_pairs(run, &value, "dictsort")? {
        let by = if by_value { value.clone() } else { key.clone() };
        let by = folded(run, by, is_case_sensitive)?;
        pairs.push((by, Value::tuple(&run.budget, vec![key, value])?));
    }
    sort_by_key(run, &mut pairs, is_set(is_descending))?;
    Value::list(&run.budget, pairs.into_iter().map(|(_, pair)| pair).collect())
}

/// `groupby(value, attribute, default=None, case_sensitive=False)`.
pub(super) fn groupby(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [attribute, default, is_case_sensitive] =
        arguments.bind("groupby", ["attribute", "default", "case_sensitive"])?;
    let path = AttributePath::new(run, &required(attribute, "groupby", "attribute")?)?;
    let default = default.filter(|default| !matches!(default, Value::None));
    let is_case_sensitive = is_set(is_case_sensitive);
    let key = |item: &Value| path.get(run, item, default.as_ref());
    let mut pairs = Vec::new();
    for item in value.items(run)? {
        pairs.push((folded(run, key(&item)?, is_case_sensitive)?, item));
    }
    sort_by_key(run, &mut pairs, false)?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (by, item) in pairs {
        match groups.last_mut() {
            Some((last, items)) if ops::equal(run, last, &by)? => items.push(item),
            _ => groups.push((by, vec![item])),
        }
    }
    let group = |(_, items): (Value, Vec<Value>)| Value::group(&run.budget, key(&items[0])?, items);
    Value::list(&run.budget, groups.into_iter().map(group).collect::<Result<_>>()?)
}

/// `unique(value, case_sensitive=False, attribute=None)`.
pub(super) fn unique(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [is_case_sensitive, attribute] =
        arguments.bind("unique", ["case_sensitive", "attribute"])?;
    let is_case_sensitive = is_set(is_case_sensitive);
    let path = AttributePath::new(run, &attribute.unwrap_or(Value::None))?;
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for item in value.items(run)? {
        let key = folded(run, path.get(run, &item, None)?, is_case_sensitive)?;
        if seen.insert(Key::new(&run.budget, &key)?) {
            kept.push(item);
        }
    }
    Value::iter(&run.budget, "generator", kept)
}

pub(super) fn max(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    extreme(run, &value, arguments, Ordering::Greater)
}

pub(super) fn min(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    extreme(run, &value, arguments, Ordering::Less)
}

/// `max(value, case_sensitive=False, attribute=None)`, or `min`.
fn extreme(run: &Run<'_>, value: &Value, arguments: Arguments, wanted: Ordering) -> Result<Value> {
    let [is_case_sensitive, attribute] = arguments.bind("max", ["case_sensitive", "attribute"])?;
    let is_case_sensitive = is_set(is_case_sensitive);
    let path = AttributePath::new(run, &attribute.unwrap_or(Value::None))?;
    let mut best: Option<(Value, Value)> = None;
    for item in value.items(run)? {
        let key = folded(run, path.get(run, &item, None)?, is_case_sensitive)?;
        let is_better = match &best {
            Some((known, _)) => ops::order(run, &key, known, "<")? == Some(wanted),
            None => true,
        };
        if is_better {
            best = Some((key, item));
        }
    }
    let none = || Value::undefined("No aggregated item, sequence was empty.");
    Ok(best.map_or_else(none, |(_, item)| item))
}

/// `batch(value, linecount, fill_with=None)`: rows of `linecount` items.
pub(super) fn batch(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [n_columns, filler] = arguments.bind("batch", ["linecount", "fill_with"])?;
    let n_columns = size(Some(required(n_columns, "batch", "linecount")?), "batch", 1)?;
    let filler = filler.filter(|filler| !matches!(filler, Value::None));
    if n_columns == 0 {
        return value_error("batch wants rows of one item at least");
    }
    let items = value.items(run)?;
    let mut rows = Vec::new();
    for row in items.chunks(n_columns) {
        let mut row = row.to_vec();
        if let Some(filler) = &filler {
            run.budget.bytes((n_columns - row.len()).saturating_mul(size_of::<Value>()))?;
            row.resize(n_columns, filler.clone());
        }
        rows.push(Value::list(&run.budget, row)?);
    }
    Value::iter(&run.budget, "generator", rows)
}

/// `slice(value, slices, fill_with=None)`: columns. The first columns take one more item each.
pub(super) fn slice(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [n_slices, filler] = arguments.bind("slice", ["slices", "fill_with"])?;
    let n_slices = size(Some(required(n_slices, "slice", "slices")?), "slice", 1)?;
    let filler = filler.filter(|filler| !matches!(filler, Value::None));
    if n_slices == 0 {
        return value_error("integer division or modulo by zero");
    }
    run.budget.bytes(n_slices.saturating_mul(size_of::<Value>()))?;
    let items = value.items(run)?;
    let (each, n_longer) = (items.len() / n_slices, items.len() % n_slices);
    let mut slices = Vec::new();
    let mut start = 0;
    for index in 0..n_slices {
        let stop = start + each + usize::from(index < n_longer);
        let mut part = items[start..stop].to_vec();
        if index >= n_longer {
            part.extend(filler.clone());
        }
        slices.push(Value::list(&run.budget, part)?);
        start = stop;
    }
    Value::iter(&run.budget, "generator", slices)
}

/// Joins the texts of all items with `separator`.
pub(super) fn joined(
    run: &Run<'_>,
    items: &[Value],
    separator: &str,
    path: &AttributePath,
) -> Result<String> {
    let mut text = String::new();
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            run.budget.bytes(separator.len())?;
            text.push_str(separator);
        }
        text.push_str(&to_str(run, &path.get(run, item, None)?)?);
    }
    Ok(text)
}
