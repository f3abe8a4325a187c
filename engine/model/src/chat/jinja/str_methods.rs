//! Methods of strings.

use super::call::{Arguments, integer, required, size};
use super::dict::Key;
use super::error::{Result, type_error, value_error};
use super::format;
use super::repr::is_printable;
use super::run::Run;
use super::text::{
    capitalize, case_fold, char_range, expand_tabs, is_alnum, is_alpha, is_cased, is_decimal,
    is_digit, is_mark, is_numeric, is_space, split_lines, swap_case, title,
};
use super::value::{Text, Value};

/// Widest padded text. No prompt needs a wider one.
const MAX_WIDTH: usize = 1 << 20;

/// `text.name(…)`.
pub(super) fn call(run: &Run<'_>, of: &Text, name: &str, arguments: Arguments) -> Result<Value> {
    let budget = &run.budget;
    let text = &*of.text;
    budget.scan(text.len())?;
    let made = |text: String| Value::marked(budget, text, of.is_safe);
    match name {
        "format" => {
            let mut named = Vec::new();
            for (name, value) in arguments.named {
                named.push((Value::text(budget, name)?, value));
            }
            let named = Value::dict(budget, named)?;
            made(format::braces(run, text, &arguments.positional, &named, of.is_safe)?)
        }
        "format_map" => {
            let [mapping] = arguments.bind(name, ["mapping"])?;
            let mapping = required(mapping, name, "mapping")?;
            made(format::braces(run, text, &[], &mapping, of.is_safe)?)
        }
        "strip" | "lstrip" | "rstrip" => strip(of, name, arguments).and_then(made),
        "startswith" | "endswith" => affix(of, name, arguments),
        "removeprefix" | "removesuffix" => {
            let part = one_text(arguments, name, "affix")?;
            let rest = if name == "removeprefix" {
                text.strip_prefix(&*part.text)
            } else {
                text.strip_suffix(&*part.text)
            };
            made(rest.unwrap_or(text).to_owned())
        }
        "split" | "rsplit" => split(run, of, name == "rsplit", arguments),
        "splitlines" => {
            let [keep] = arguments.bind(name, ["keepends"])?;
            let lines = split_lines(text, keep.is_some_and(|keep| keep.truth()));
            texts(run, of, &lines, Value::list)
        }
        "partition" | "rpartition" => {
            let separator = one_text(arguments, name, "sep")?;
            let separator = &*separator.text;
            if separator.is_empty() {
                return value_error("empty separator");
            }
            let is_last = name == "rpartition";
            let found = if is_last { text.rfind(separator) } else { text.find(separator) };
            let parts = match found {
                Some(at) => [&text[..at], separator, &text[at + separator.len()..]],
                None if is_last => ["", "", text],
                None => [text, "", ""],
            };
            texts(run, of, &parts, Value::tuple)
        }
        "find" | "rfind" | "index" | "rindex" | "count" => search(run, of, name, arguments),
        "replace" => replace(run, of, arguments),
        "join" => {
            let [items] = arguments.bind(name, ["iterable"])?;
            join(run, of, required(items, name, "iterable")?)
        }
        "center" | "ljust" | "rjust" | "zfill" => justify(run, of, name, arguments),
        "expandtabs" => {
            let [tab_size] = arguments.bind(name, ["tabsize"])?;
            let tab_size = size(tab_size, name, 8)?;
            let n_tabs = text.matches('\t').count();
            if tab_size > MAX_WIDTH {
                return value_error("a tab is too wide");
            }
            budget.bytes(n_tabs.saturating_mul(tab_size))?;
            made(expand_tabs(text, tab_size))
        }
        "translate" => translate(run, of, arguments),
        _ => {
            arguments.none(name)?;
            Ok(match name {
                "lower" => made(text.to_lowercase())?,
                "upper" => made(text.to_uppercase())?,
                "title" => made(title(text))?,
                "capitalize" => made(capitalize(text))?,
                "casefold" => made(case_fold(text))?,
                "swapcase" => made(swap_case(text))?,
                name => Value::Bool(is_kind(text, name)),
            })
        }
    }
}

/// The methods with names that begin with `is`.
fn is_kind(text: &str, name: &str) -> bool {
    let all = |is: fn(char) -> bool| !text.is_empty() && text.chars().all(is);
    match name {
        "isalnum" => all(is_alnum),
        "isalpha" => all(is_alpha),
        "isascii" => text.is_ascii(),
        "isdecimal" => all(is_decimal),
        "isdigit" => all(is_digit),
        "isnumeric" => all(is_numeric),
        "isspace" => all(is_space),
        "isprintable" => text.chars().all(is_printable),
        "isidentifier" => {
            all(|c| c == '_' || is_alpha(c) || is_decimal(c) || is_mark(c))
                && !text.starts_with(|c| is_decimal(c) || is_mark(c))
        }
        "islower" => text.chars().any(is_cased) && !text.chars().any(char::is_uppercase),
        "isupper" => text.chars().any(is_cased) && !text.chars().any(char::is_lowercase),
        _ => text.chars().any(is_cased) && title(text) == text,
    }
}

fn one_text(arguments: Arguments, callee: &str, name: &str) -> Result<std::rc::Rc<Text>> {
    let [value] = arguments.bind(callee, [name])?;
    match required(value, callee, name)? {
        Value::Str(text) => Ok(text),
        other => type_error(format!("{callee}() argument must be str, not {}", other.type_name())),
    }
}

/// Packs several texts into a list or a tuple.
fn texts(
    run: &Run<'_>,
    of: &Text,
    parts: &[&str],
    pack: fn(&super::budget::RenderBudget, Vec<Value>) -> Result<Value>,
) -> Result<Value> {
    let part = |part: &&str| Value::marked(&run.budget, *part, of.is_safe);
    pack(&run.budget, parts.iter().map(part).collect::<Result<_>>()?)
}

fn strip(of: &Text, name: &str, arguments: Arguments) -> Result<String> {
    let [chars] = arguments.bind(name, ["chars"])?;
    let is_taken: Box<dyn Fn(char) -> bool> = match chars {
        None | Some(Value::None) => Box::new(is_space),
        Some(Value::Str(chars)) => Box::new(move |c| chars.text.contains(c)),
        Some(other) => {
            let other = other.type_name();
            return type_error(format!("{name} arg must be None or str, not {other}"));
        }
    };
    let mut text = &*of.text;
    if name != "rstrip" {
        text = text.trim_start_matches(&*is_taken);
    }
    if name != "lstrip" {
        text = text.trim_end_matches(&*is_taken);
    }
    Ok(text.to_owned())
}

/// The part of the text between two indices, and the index at which it begins.
fn window<'a>(
    of: &'a Text,
    start: Option<Value>,
    stop: Option<Value>,
    callee: &str,
) -> Result<Option<(&'a str, usize)>> {
    let length = of.n_chars as i128;
    let place = |number: Option<i128>, otherwise: i128| {
        let number = number.unwrap_or(otherwise);
        if number < 0 { (number + length).max(0) } else { number }
    };
    let start = place(integer(start, callee)?, 0);
    let stop = place(integer(stop, callee)?, length).min(length);
    if start > stop {
        return Ok(None);
    }
    let (start, stop) = (start as usize, stop as usize);
    Ok(Some((&of.text[char_range(&of.text, start, stop)], start)))
}

fn affix(of: &Text, name: &str, arguments: Arguments) -> Result<Value> {
    let [affixes, start, stop] = arguments.bind(name, ["affix", "start", "end"])?;
    let affixes = match required(affixes, name, "affix")? {
        Value::Tuple(seq) => seq.items.clone(),
        other => vec![other],
    };
    let window = window(of, start, stop, name)?;
    let mut holds = false;
    for affix in &affixes {
        let Some(affix) = affix.as_str() else {
            return type_error(format!(
                "{name} first arg must be str or a tuple of str, not {}",
                affix.type_name()
            ));
        };
        holds |= window.is_some_and(|(text, _)| {
            if name == "startswith" { text.starts_with(affix) } else { text.ends_with(affix) }
        });
    }
    Ok(Value::Bool(holds))
}

fn split(run: &Run<'_>, of: &Text, from_right: bool, arguments: Arguments) -> Result<Value> {
    let [separator, most] = arguments.bind("split", ["sep", "maxsplit"])?;
    let most = match integer(most, "maxsplit")? {
        Some(most) => usize::try_from(most).unwrap_or(usize::MAX),
        None => usize::MAX,
    };
    let limit = most.saturating_add(1);
    let text = &*of.text;
    let mut parts: Vec<&str> = match &separator {
        None | Some(Value::None) => blank_split(text, most, from_right),
        Some(Value::Str(separator)) if separator.text.is_empty() => {
            return value_error("empty separator");
        }
        Some(Value::Str(separator)) if from_right => {
            text.rsplitn(limit, &*separator.text).collect()
        }
        Some(Value::Str(separator)) => text.splitn(limit, &*separator.text).collect(),
        Some(other) => {
            return type_error(format!("must be str or None, not {}", other.type_name()));
        }
    };
    if from_right {
        parts.reverse();
    }
    texts(run, of, &parts, Value::list)
}

/// Splits at white space, and drops the white space. `from_right` returns the last word first.
fn blank_split(text: &str, most: usize, from_right: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_matches(is_space);
    while !rest.is_empty() {
        let found = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        match found {
            Some(at) if parts.len() < most => {
                let (left, right) = rest.split_at(at);
                let (word, more) = if from_right { (right, left) } else { (left, right) };
                parts.push(word.trim_matches(is_space));
                rest = more.trim_matches(is_space);
            }
            _ => {
                // The unsplit rest keeps the white space at its far end.
                let whole = if from_right {
                    &text[..rest.as_ptr() as usize - text.as_ptr() as usize + rest.len()]
                } else {
                    &text[rest.as_ptr() as usize - text.as_ptr() as usize..]
                };
                parts.push(if parts.len() < most { rest } else { whole });
                break;
            }
        }
    }
    parts
}

fn search(run: &Run<'_>, of: &Text, name: &str, arguments: Arguments) -> Result<Value> {
    let [part, start, stop] = arguments.bind(name, ["sub", "start", "end"])?;
    let part = match required(part, name, "sub")? {
        Value::Str(part) => part,
        other => return type_error(format!("must be str, not {}", other.type_name())),
    };
    let part = &*part.text;
    run.budget.scan(of.text.len())?;
    let window = window(of, start, stop, name)?;
    if name == "count" {
        return Ok(Value::Int(match window {
            Some((text, _)) if part.is_empty() => text.chars().count() as i128 + 1,
            Some((text, _)) => text.matches(part).count() as i128,
            None => 0,
        }));
    }
    let found = window.and_then(|(text, offset)| {
        let at = if name.starts_with('r') { text.rfind(part) } else { text.find(part) };
        at.map(|at| (offset + text[..at].chars().count()) as i128)
    });
    match found {
        Some(index) => Ok(Value::Int(index)),
        None if name.ends_with("index") => value_error("substring not found"),
        None => Ok(Value::Int(-1)),
    }
}

fn replace(run: &Run<'_>, of: &Text, arguments: Arguments) -> Result<Value> {
    let [old, new, count] = arguments.bind("replace", ["old", "new", "count"])?;
    let (old, new) = (required(old, "replace", "old")?, required(new, "replace", "new")?);
    let (Some(old), Some(new)) = (old.as_str(), new.as_str()) else {
        return type_error("replace() arguments must be str");
    };
    let count = match integer(count, "replace")? {
        Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
        None => usize::MAX,
    };
    replaced(run, of, old, new, count)
}

/// `text.replace(old, new, count)`.
pub(super) fn replaced(
    run: &Run<'_>,
    of: &Text,
    old: &str,
    new: &str,
    count: usize,
) -> Result<Value> {
    let places = if old.is_empty() { of.n_chars + 1 } else { of.text.matches(old).count() };
    run.budget.bytes(places.min(count).saturating_mul(new.len()))?;
    Value::marked(&run.budget, of.text.replacen(old, new, count), of.is_safe)
}

fn join(run: &Run<'_>, of: &Text, items: Value) -> Result<Value> {
    let items = items.items(run)?;
    let mut text = String::new();
    for (index, item) in items.iter().enumerate() {
        let Some(part) = item.as_str() else {
            return type_error(format!(
                "sequence item {index}: expected str instance, {} found",
                item.type_name()
            ));
        };
        run.budget.bytes(part.len() + of.text.len())?;
        if index > 0 {
            text.push_str(&of.text);
        }
        text.push_str(part);
    }
    Value::marked(&run.budget, text, of.is_safe)
}

fn justify(run: &Run<'_>, of: &Text, name: &str, arguments: Arguments) -> Result<Value> {
    let [width, fill] = arguments.bind(name, ["width", "fillchar"])?;
    let width = size(Some(required(width, name, "width")?), name, 0)?;
    let fill = match fill {
        None if name == "zfill" => '0',
        None => ' ',
        Some(Value::Str(fill)) if fill.n_chars == 1 && name != "zfill" => {
            fill.text.chars().next().unwrap_or(' ')
        }
        Some(_) => return type_error("The fill character must be exactly one character long"),
    };
    if width > MAX_WIDTH.max(of.n_chars) {
        return value_error(format!("{name}() wants a width of at most {MAX_WIDTH}"));
    }
    let missing = width.saturating_sub(of.n_chars);
    run.budget.bytes(missing * fill.len_utf8())?;
    let padding = |count: usize| String::from_iter(std::iter::repeat_n(fill, count));
    let text = &*of.text;
    let padded = match name {
        "ljust" => format!("{text}{}", padding(missing)),
        "rjust" => format!("{}{text}", padding(missing)),
        "zfill" => {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            format!("{sign}{}{digits}", padding(missing))
        }
        _ => {
            // With an odd number of spaces, the left gets the odd one if the width is odd.
            let left = missing / 2 + (missing & width & 1);
            format!("{}{text}{}", padding(left), padding(missing - left))
        }
    };
    Value::marked(&run.budget, padded, of.is_safe)
}

fn translate(run: &Run<'_>, of: &Text, arguments: Arguments) -> Result<Value> {
    let [table] = arguments.bind("translate", ["table"])?;
    let Value::Dict(table) = required(table, "translate", "table")? else {
        return type_error("translate() wants a dictionary");
    };
    let mut text = String::new();
    for c in of.text.chars() {
        match table.get(&Key::Number(i128::from(u32::from(c)))) {
            None => text.push(c),
            Some(Value::None) => {}
            Some(Value::Str(other)) => {
                run.budget.bytes(other.text.len())?;
                text.push_str(&other.text);
            }
            Some(value) => match value.as_int().and_then(|code| u32::try_from(code).ok()) {
                Some(code) => text.extend(char::from_u32(code)),
                None => return type_error("character mapping must return integer, None or str"),
            },
        }
    }
    Value::marked(&run.budget, text, of.is_safe)
}
