//! Filters that make text.

use super::super::call::{Arguments, integer, pairs_of, size};
use super::super::error::{Result, other_error, type_error, value_error};
use super::super::format as printf;
use super::super::json::Json;
use super::super::repr::{to_repr, to_str};
use super::super::run::Run;
use super::super::str_methods;
use super::super::text::{self, is_alpha, is_space, is_word, split_lines};
use super::super::value::{Text, Value};
use super::items::{joined, sort_by_key};
use super::{AttributePath, text_argument};
use std::rc::Rc;

/// Longest line of `pprint`, characters.
const PPRINT_WIDTH: usize = 80;
/// Most spaces of one indentation level of JSON.
const MAX_INDENT: i128 = 1 << 16;

/// Converts the value to text; safe text stays safe.
fn soft(run: &Run<'_>, value: &Value) -> Result<Rc<Text>> {
    let text = match value {
        Value::Str(_) => value.clone(),
        value => Value::text(&run.budget, to_str(run, value)?)?,
    };
    match text {
        Value::Str(text) => Ok(text),
        other => type_error(format!("{} is no text", other.type_name())),
    }
}

/// Runs a filter that is a method of strings.
fn by_method(run: &Run<'_>, value: &Value, name: &str, arguments: Arguments) -> Result<Value> {
    let text = soft(run, value)?;
    str_methods::call(run, &text, name, arguments)
}

pub(super) fn string(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("string")?;
    Ok(Value::Str(soft(run, &value)?))
}

pub(super) fn lower(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    by_method(run, &value, "lower", arguments)
}

pub(super) fn upper(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    by_method(run, &value, "upper", arguments)
}

pub(super) fn capitalize(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    by_method(run, &value, "capitalize", arguments)
}

pub(super) fn trim(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    by_method(run, &value, "strip", arguments)
}

/// `center(value, width=80)`.
pub(super) fn center(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [width] = arguments.bind("center", ["width"])?;
    let width = width.unwrap_or(Value::Int(80));
    by_method(run, &value, "center", Arguments::of(vec![width]))
}

/// Capitalises the letter after every space, hyphen and opening bracket, and lower-cases the rest.
pub(super) fn title(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("title")?;
    let value = soft(run, &value)?;
    let is_separator = |c: char| is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
    let mut title = String::with_capacity(value.text.len());
    for part in value.text.split_inclusive(is_separator) {
        let mut chars = part.chars();
        if let Some(first) = chars.next() {
            title.extend(first.to_uppercase());
            title.push_str(&chars.as_str().to_lowercase());
        }
    }
    Value::marked(&run.budget, title, value.is_safe)
}

/// `replace(value, old, new, count=None)`.
pub(super) fn replace(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [old, new, count] = arguments.bind("replace", ["old", "new", "count"])?;
    let old = text_argument(run, old, "replace", "old")?;
    let new = text_argument(run, new, "replace", "new")?;
    let count = match integer(count, "replace")? {
        Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
        None => usize::MAX,
    };
    str_methods::replaced(run, &*soft(run, &value)?, &old, &new, count)
}

/// `format(value, …)`: `value % (…)`.
pub(super) fn format(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let template = soft(run, &value)?;
    let budget = &run.budget;
    let values = if arguments.named.is_empty() {
        Value::tuple(budget, arguments.positional)?
    } else if arguments.positional.is_empty() {
        let pair = |(name, value)| Ok((Value::text(budget, name)?, value));
        Value::dict(budget, arguments.named.into_iter().map(pair).collect::<Result<_>>()?)?
    } else {
        return other_error("can't handle positional and keyword arguments at the same time");
    };
    let text = printf::percent(run, &template.text, &values, template.is_safe)?;
    Value::marked(budget, text, template.is_safe)
}

/// `join(value, d='', attribute=None)`.
pub(super) fn join(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [separator, attribute] = arguments.bind("join", ["d", "attribute"])?;
    let separator = match separator {
        Some(separator) => to_str(run, &separator)?,
        None => String::new(),
    };
    let path = AttributePath::new(run, &attribute.unwrap_or(Value::None))?;
    Value::text(&run.budget, joined(run, &value.items(run)?, &separator, &path)?)
}

/// `indent(value, width=4, first=False, blank=False)`.
pub(super) fn indent(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [width, first, blank] = arguments.bind("indent", ["width", "first", "blank"])?;
    let is_set = |value: Option<Value>| value.is_some_and(|value| value.truth());
    let (first, blank) = (is_set(first), is_set(blank));
    let indent = match width {
        Some(Value::Str(text)) => text.text.to_string(),
        width => {
            let width = size(width, "indent", 4)?;
            run.budget.bytes(width)?;
            " ".repeat(width)
        }
    };
    let text = match &value {
        Value::Str(text) => format!("{}\n", text.text),
        Value::Undefined(message) => return super::super::ops::undefined(message),
        value => {
            let name = value.type_name();
            return type_error(format!("indent wants a text, not {name}"));
        }
    };
    let lines = split_lines(&text, false);
    run.budget.bytes(text.len() + lines.len().saturating_mul(indent.len() + 1))?;
    let mut indented = String::new();
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            indented.push('\n');
        }
        if if index == 0 { first } else { blank || !line.is_empty() } {
            indented.push_str(&indent);
        }
        indented.push_str(line);
    }
    Value::marked(&run.budget, indented, value.is_safe())
}

/// `truncate(value, length=255, killwords=False, end='...', leeway=5)`.
pub(super) fn truncate(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let names = ["length", "killwords", "end", "leeway"];
    let [length, killwords, end, leeway] = arguments.bind("truncate", names)?;
    let length = size(length, "truncate", 255)?;
    let leeway = size(leeway, "truncate", 5)?;
    let end = match end {
        Some(end) => to_str(run, &end)?,
        None => "...".to_owned(),
    };
    let Some(known) = value.len() else {
        return type_error(format!("object of type '{}' has no len()", value.type_name()));
    };
    let end_chars = end.chars().count();
    if length < end_chars {
        return value_error(format!("expected length >= {end_chars}, got {length}"));
    }
    if known <= length.saturating_add(leeway) {
        return Ok(value);
    }
    let Value::Str(text) = &value else {
        return type_error("truncate wants a text");
    };
    let kept = &text.text[text::char_range(&text.text, 0, length - end_chars)];
    let kept = match kept.rfind(' ') {
        Some(at) if !killwords.is_some_and(|value| value.truth()) => &kept[..at],
        _ => kept,
    };
    Value::marked(&run.budget, format!("{kept}{end}"), text.is_safe)
}

pub(super) fn wordcount(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("wordcount")?;
    let text = soft(run, &value)?;
    let words = text.text.split(|c| !is_word(c)).filter(|word| !word.is_empty());
    Ok(Value::Int(words.count() as i128))
}

/// `wordwrap(value, width=79, break_long_words=True, wrapstring=None, break_on_hyphens=True)`.
pub(super) fn wordwrap(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let names = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let [width, breaks_words, separator, breaks_hyphens] = arguments.bind("wordwrap", names)?;
    let width = size(width, "wordwrap", 79)?;
    if width == 0 {
        return value_error("invalid width 0 (must be > 0)");
    }
    let breaks_words = breaks_words.is_none_or(|value| value.truth());
    let breaks_hyphens = breaks_hyphens.is_none_or(|value| value.truth());
    let separator = match separator {
        None | Some(Value::None) => "\n".to_owned(),
        Some(separator) => to_str(run, &separator)?,
    };
    let Value::Str(text) = &value else {
        return type_error(format!("wordwrap wants a text, not {}", value.type_name()));
    };
    let mut lines = Vec::new();
    for paragraph in split_lines(&text.text, false) {
        let wrapped = wrap(paragraph, width, breaks_words, breaks_hyphens);
        run.budget.bytes(paragraph.len() + wrapped.len() * (separator.len() + 24))?;
        lines.push(wrapped.join(&separator));
    }
    Value::text(&run.budget, lines.join(&separator))
}

/// Splits one paragraph into lines of at most `width` characters.
fn wrap(text: &str, width: usize, breaks_words: bool, breaks_hyphens: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line: Vec<&str> = Vec::new();
    let mut used = 0;
    let mut pending = chunks(text, breaks_hyphens);
    pending.reverse();
    while let Some(chunk) = pending.pop() {
        let is_blank = chunk.chars().all(is_space);
        if is_blank && line.is_empty() && !lines.is_empty() {
            continue;
        }
        let length = chunk.chars().count();
        if used + length <= width {
            line.push(chunk);
            used += length;
            continue;
        }
        if length > width && breaks_words {
            let cut = text::char_range(chunk, 0, (width - used).max(usize::from(line.is_empty())));
            let (head, tail) = chunk.split_at(cut.end);
            if !head.is_empty() {
                line.push(head);
            }
            pending.push(tail);
        } else if length > width && line.is_empty() {
            line.push(chunk);
        } else {
            pending.push(chunk);
        }
        finish(&mut line, &mut lines);
        used = 0;
    }
    finish(&mut line, &mut lines);
    lines
}

/// Ends a line and drops its trailing white space.
fn finish(line: &mut Vec<&str>, lines: &mut Vec<String>) {
    if line.last().is_some_and(|chunk| chunk.chars().all(is_space)) {
        line.pop();
    }
    if !line.is_empty() {
        lines.push(line.concat());
    }
    line.clear();
}

/// Splits the text into words and white space, and words with hyphens into their parts.
fn chunks(text: &str, breaks_hyphens: bool) -> Vec<&str> {
    let mut chunks = Vec::new();
    let mut start = 0;
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    for (index, &(at, c)) in chars.iter().enumerate().skip(1) {
        let before = chars[index - 1].1;
        let is_edge = is_space(c) != is_space(before);
        let is_hyphen = breaks_hyphens
            && before == '-'
            && index >= 2
            && is_alpha(chars[index - 2].1)
            && is_alpha(c)
            && chars.get(index + 1).is_some_and(|&(_, next)| is_alpha(next));
        if is_edge || is_hyphen {
            chunks.push(&text[start..at]);
            start = at;
        }
    }
    if start < text.len() {
        chunks.push(&text[start..]);
    }
    chunks
}

/// `pprint`, for values that fit into one line. The keys of dictionaries are sorted.
pub(super) fn pprint(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("pprint")?;
    let text = to_repr(run, &sorted(run, &value)?)?;
    if text.chars().count() > PPRINT_WIDTH {
        return other_error("the filter 'pprint' writes only values that fit into one line");
    }
    Value::text(&run.budget, text)
}

fn sorted(run: &Run<'_>, value: &Value) -> Result<Value> {
    run.budget.steps(1)?;
    let all =
        |items: &[Value]| items.iter().map(|item| sorted(run, item)).collect::<Result<Vec<_>>>();
    match value {
        Value::List(seq) => Value::list(&run.budget, all(&seq.items)?),
        Value::Tuple(seq) => Value::tuple(&run.budget, all(&seq.items)?),
        Value::Dict(_) => {
            let mut pairs = Vec::new();
            for (key, value) in pairs_of(run, value)? {
                pairs.push((
                    key.clone(),
                    Value::tuple(&run.budget, vec![key, sorted(run, &value)?])?,
                ));
            }
            sort_by_key(run, &mut pairs, false)?;
            let pairs = pairs.into_iter().map(|(_, pair)| pair);
            let pairs = Value::list(&run.budget, pairs.collect())?;
            Value::dict(&run.budget, pairs_of(run, &pairs)?)
        }
        value => Ok(value.clone()),
    }
}

/// `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(run: &Run<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [is_ascii, indent, separators, is_sorted] = arguments.bind("tojson", names)?;
    let is_set = |value: Option<Value>| value.is_some_and(|value| value.truth());
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => Some(text.text.to_string()),
        Some(width) => {
            let width = integer(Some(width), "tojson")?.unwrap_or(0);
            Some(" ".repeat(width.clamp(0, MAX_INDENT) as usize))
        }
    };
    let (item_separator, key_separator) = match separators {
        None | Some(Value::None) => {
            ((if indent.is_some() { "," } else { ", " }).to_owned(), ": ".to_owned())
        }
        Some(pair) => match &pair.items(run)?[..] {
            [item, key] => (to_str(run, item)?, to_str(run, key)?),
            items => {
                return value_error(format!("tojson: two separators, not {}", items.len()));
            }
        },
    };
    let json = Json {
        indent,
        item_separator,
        key_separator,
        is_ascii: is_set(is_ascii),
        is_sorted: is_set(is_sorted),
    };
    Value::text(&run.budget, json.dumps(run, &value)?)
}
