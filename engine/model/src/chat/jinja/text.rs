//! Character classes and case conversions of Python's `str`.

use unicode_categories::UnicodeCategories;

/// `str.isspace` of one character, which is also `\s` of Python's regular expressions.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.isalpha` of one character.
pub(super) fn is_alpha(c: char) -> bool {
    c.is_ascii_alphabetic() || (!c.is_ascii() && c.is_letter())
}

/// `str.isdecimal` of one character.
pub(super) fn is_decimal(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && c.is_number_decimal_digit())
}

/// `str.isdigit` of one character: decimal digits, superscripts and similar digits.
pub(super) fn is_digit(c: char) -> bool {
    is_decimal(c)
        || matches!(c, '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' | '₀'..='₉' | '①'..='⑨' | '⑴'..='⑼' | '⒈'..='⒐' | '⓪' | '⓵'..='⓽' | '⓿' | '❶'..='❾' | '➀'..='➈' | '➊'..='➒')
}

/// `str.isnumeric` of one character.
pub(super) fn is_numeric(c: char) -> bool {
    c.is_numeric()
        || matches!(
            c,
            '一' | '二'
                | '三'
                | '四'
                | '五'
                | '六'
                | '七'
                | '八'
                | '九'
                | '十'
                | '百'
                | '千'
                | '万'
                | '億'
                | '零'
                | '〇'
        )
}

/// Whether `c` is a mark that belongs to the letter before it.
pub(super) fn is_mark(c: char) -> bool {
    !c.is_ascii() && (c.is_mark_nonspacing() || c.is_mark_spacing_combining())
}

pub(super) fn is_alnum(c: char) -> bool {
    is_alpha(c) || is_numeric(c)
}

/// Whether `c` is a letter that has a case.
pub(super) fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || c.is_letter_titlecase()
}

/// `\w` of regular expressions.
pub(super) fn is_word(c: char) -> bool {
    c == '_' || is_alnum(c)
}

/// `str.capitalize`: the first character in title case, the rest in lower case.
pub(super) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => title_case(first) + &lower_after(first, chars.as_str()),
        None => String::new(),
    }
}

fn title_case(c: char) -> String {
    // These characters are two letters each. In title case, only the first is a capital.
    let digraph = match c {
        'Ǆ' | 'ǅ' | 'ǆ' => Some('ǅ'),
        'Ǉ' | 'ǈ' | 'ǉ' => Some('ǈ'),
        'Ǌ' | 'ǋ' | 'ǌ' => Some('ǋ'),
        'Ǳ' | 'ǲ' | 'ǳ' => Some('ǲ'),
        _ => None,
    };
    if let Some(digraph) = digraph {
        return digraph.into();
    }
    let mut upper = c.to_uppercase();
    let first: String = upper.next().into_iter().collect();
    first + &upper.flat_map(char::to_lowercase).collect::<String>()
}

/// `text` in lower case after the character `before`, since a final sigma has its own form.
fn lower_after(before: char, text: &str) -> String {
    let whole: String = std::iter::once(before).chain(text.chars()).collect();
    let lower = whole.to_lowercase();
    let skip: usize = before.to_lowercase().map(char::len_utf8).sum();
    lower.get(skip..).unwrap_or_default().to_owned()
}

/// `str.title`: a letter after a letter becomes lower case.
pub(super) fn title(text: &str) -> String {
    let mut title = String::with_capacity(text.len());
    let mut is_inside = false;
    for c in text.chars() {
        if is_inside {
            title.extend(c.to_lowercase());
        } else {
            title.push_str(&title_case(c));
        }
        is_inside = is_cased(c);
    }
    title
}

/// `str.swapcase`.
pub(super) fn swap_case(text: &str) -> String {
    let swap = |c: char| -> String {
        if c.is_uppercase() {
            c.to_lowercase().collect()
        } else if c.is_lowercase() {
            c.to_uppercase().collect()
        } else {
            c.into()
        }
    };
    text.chars().map(swap).collect()
}

/// `str.casefold`.
pub(super) fn case_fold(text: &str) -> String {
    let fold = |c: char| -> String {
        match c {
            'ı' => c.into(),
            c => c.to_uppercase().flat_map(char::to_lowercase).collect(),
        }
    };
    text.chars().map(fold).collect()
}

/// `str.splitlines`.
pub(super) fn split_lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let is_end = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_end) {
        let end = match &rest[at..] {
            end if end.starts_with("\r\n") => 2,
            end => end.chars().next().map_or(1, char::len_utf8),
        };
        lines.push(&rest[..if keep_ends { at + end } else { at }]);
        rest = &rest[at + end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// `str.expandtabs`.
pub(super) fn expand_tabs(text: &str, size: usize) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' if size > 0 => {
                let width = size - column % size;
                expanded.extend(std::iter::repeat_n(' ', width));
                column += width;
            }
            '\t' => {}
            c => {
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
                expanded.push(c);
            }
        }
    }
    expanded
}

/// `markupsafe.escape`.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&#39;"),
            '"' => escaped.push_str("&#34;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The byte range of the characters `start..stop` of `text`.
pub(super) fn char_range(text: &str, start: usize, stop: usize) -> std::ops::Range<usize> {
    let mut places = text.char_indices().map(|(at, _)| at);
    let from = places.nth(start).unwrap_or(text.len());
    let to = match stop.checked_sub(start + 1) {
        Some(more) => places.nth(more).unwrap_or(text.len()),
        None => from,
    };
    from..to
}
