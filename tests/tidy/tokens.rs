//! Source text as tokens: enough of Rust, C, C++ and CUDA to find functions, enough of Rust to read imports, and to tell
//! code from comments and strings.

/// A piece of code: a word, a number, a string literal, or punctuation of one character (`::` is one piece).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// The text as written. A string literal has its quotes, and no prefix.
    pub(crate) text: &'a str,
    /// Line of its first character, from 1.
    pub(crate) line: usize,
}

impl<'a> Token<'a> {
    /// The content of a string literal, escapes as written.
    pub(crate) fn literal(self) -> Option<&'a str> {
        let inner = self.text.strip_prefix('"')?;
        Some(inner.strip_suffix('"').unwrap_or(inner))
    }

    fn is_word(self) -> bool {
        self.text.starts_with(is_word)
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A language, as far as its tokens differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// Comments nest, and a quote may begin a lifetime.
    Rust,
    /// C, C++ and CUDA: lines of the preprocessor, and quotes within numbers.
    C,
}

/// The tokens of a Rust text without comments, characters in quotes and spaces.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    tokens_of(text, Language::Rust)
}

/// The tokens of `text` without comments, characters in quotes, lines of the preprocessor and spaces.
pub(crate) fn tokens_of(text: &str, language: Language) -> Vec<Token<'_>> {
    let is_c = language == Language::C;
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (n_bytes, token) = match first {
            _ if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), None),
            _ if rest.starts_with("/*") && is_c => {
                (rest.find("*/").map_or(rest.len(), |at| at + 2), None)
            }
            _ if rest.starts_with("/*") => (block_comment(rest), None),
            '#' if is_c && is_first_of_line(&text[..at]) => (directive(rest), None),
            '"' => {
                let n_bytes = string(rest);
                (n_bytes, Some(&rest[..n_bytes]))
            }
            '\'' if is_c && text[..at].ends_with(|c: char| c.is_ascii_hexdigit()) => (1, None),
            '\'' => (character(rest), None),
            _ if is_word(first) => {
                let n_bytes = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                match (&rest[..n_bytes], raw_string(&rest[n_bytes..])) {
                    ("r" | "br" | "cr" | "R", Some((hashes, end))) => {
                        let quoted = n_bytes + hashes..n_bytes + end - hashes;
                        (n_bytes + end, Some(&rest[quoted]))
                    }
                    ("b" | "c", _) if rest[1..].starts_with(['"', '\'']) => (n_bytes, None),
                    (word, _) => (n_bytes, Some(word)),
                }
            }
            _ if rest.starts_with("::") => (2, Some(&rest[..2])),
            _ if first.is_whitespace() => (first.len_utf8(), None),
            _ => (first.len_utf8(), Some(&rest[..first.len_utf8()])),
        };
        tokens.extend(token.map(|text| Token { text, line }));
        line += rest[..n_bytes].matches('\n').count();
        at += n_bytes;
    }
    tokens
}

/// Whether only spaces stand before, in the line.
fn is_first_of_line(before: &str) -> bool {
    before.trim_end_matches([' ', '\t']).chars().next_back().is_none_or(|c| c == '\n')
}

/// Bytes of the line of the preprocessor at the start of `rest`, with the lines that continue it.
fn directive(rest: &str) -> usize {
    let ends = rest.match_indices('\n').map(|(at, _)| at);
    ends.into_iter().find(|&at| !rest[..at].ends_with('\\')).unwrap_or(rest.len())
}

/// Bytes of the comment, with the comments in it, at the start of `rest`.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Bytes of the string literal at the start of `rest`, with its quotes.
fn string(rest: &str) -> usize {
    let mut is_escaped = false;
    let end = rest.char_indices().skip(1).find(|&(_, c)| {
        let is_end = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    });
    end.map_or(rest.len(), |(at, _)| at + 1)
}

/// Hashes and bytes of what follows the `r` of a raw string.
fn raw_string(rest: &str) -> Option<(usize, usize)> {
    let n_hashes = rest.len() - rest.trim_start_matches('#').len();
    let content = rest[n_hashes..].strip_prefix('"')?;
    let end = format!("\"{}", &rest[..n_hashes]);
    let n_content = content.find(&end).unwrap_or(content.len().saturating_sub(end.len()));
    Some((n_hashes, n_hashes + 1 + n_content + end.len()))
}

/// Bytes of the character at the start of `rest`, or of the quote of a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((escaped, c))) => {
            let after = escaped + c.len_utf8();
            rest[after..].find('\'').map_or(rest.len(), |end| after + end + 1)
        }
        (Some(_), Some((end, '\''))) => end + 1,
        _ => 1,
    }
}

/// Code without the items and statements under `#[cfg(test)]`, or under another condition that only tests meet.
pub(crate) fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        match test_attribute(&tokens[at..]) {
            Some(n_tokens) => at += n_tokens + item(&tokens[at + n_tokens..]),
            None => {
                kept.push(tokens[at]);
                at += 1;
            }
        }
    }
    kept
}

/// Tokens of the attribute at the start of `tokens`, if it is one of tests.
fn test_attribute(tokens: &[Token<'_>]) -> Option<usize> {
    let starts = |text: &[&str]| {
        tokens.len() > text.len() && tokens.iter().zip(text).all(|(a, b)| a.text == *b)
    };
    if !starts(&["#", "[", "cfg", "("]) {
        return None;
    }
    let n_tokens = 1 + group(&tokens[1..]);
    let condition: String = tokens[..n_tokens].iter().map(|token| token.text).collect();
    ["#[cfg(test)]", "#[cfg(all(test,"]
        .iter()
        .any(|start| condition.starts_with(start))
        .then_some(n_tokens)
}

/// Tokens of the bracketed group at the start of `tokens`.
pub(crate) fn group(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate() {
        depth += nesting(*token);
        if depth == 0 {
            return i + 1;
        }
    }
    tokens.len()
}

fn nesting(token: Token<'_>) -> i32 {
    match token.text {
        "(" | "[" | "{" => 1,
        ")" | "]" | "}" => -1,
        _ => 0,
    }
}

/// Tokens of the item at the start of `tokens`: up to its `;`, or up to the end of its block.
fn item(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate() {
        depth += nesting(*token);
        match token.text {
            ";" if depth == 0 => return i + 1,
            "}" if depth == 0 => return i + 1,
            _ if depth < 0 => return i,
            _ => {}
        }
    }
    tokens.len()
}

/// The code of each line that has some, with its number: without comments and strings, and with spaces between words
/// alone.
pub(crate) fn lines(tokens: &[Token<'_>]) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for token in tokens.iter().filter(|token| token.literal().is_none()) {
        match lines.last_mut() {
            Some((line, code)) if *line == token.line => {
                if token.is_word() && code.ends_with(is_word) {
                    code.push(' ');
                }
                code.push_str(token.text);
            }
            _ => lines.push((token.line, token.text.to_owned())),
        }
    }
    lines
}

/// Negative controls: comments, strings and tests hide nothing, and nothing else is hidden.
#[test]
fn rust_text() {
    let texts = |text| tokens(text).iter().map(|token| token.text.to_owned()).collect::<Vec<_>>();
    for (text, expected) in [
        ("use a::b; // c", &["use", "a", "::", "b", ";"][..]),
        ("a /* b /* c */ d */ e", &["a", "e"]),
        (
            r#"f("a \" // b", 'c', '"', '\'', x)"#,
            &["f", "(", r#""a \" // b""#, ",", ",", ",", ",", "x", ")"],
        ),
        ("b\"a\" b'a' c", &["\"a\"", "c"]),
        ("r#\"a \" b\"# c", &["\"a \" b\"", "c"]),
        ("r\"a\\\" b", &["\"a\\\"", "b"]),
        (
            "fn f<'a>(b: &'static str)",
            &["fn", "f", "<", "a", ">", "(", "b", ":", "&", "static", "str", ")"],
        ),
    ] {
        assert_eq!(texts(text), expected, "{text}");
    }
    let numbers: Vec<_> =
        tokens("a\n\"b\nc\" d\n/*\n*/ e").iter().map(|token| token.line).collect();
    assert_eq!(numbers, [1, 2, 3, 5]);

    for (text, expected) in [
        ("#[cfg(test)] mod tests { use a; } b", "b"),
        ("#[cfg(test)] #[path = \"a.rs\"] mod tests; b", "b"),
        ("#[cfg(all(test, feature = \"c\"))] fn f() -> [u8; 2] { a } b", "b"),
        ("{ a; #[cfg(test)] b } c", "{a;}c"),
        ("#[cfg(not(test))] a", "#[cfg(not(test))]a"),
        ("#[cfg(feature = \"c\")] a;", "#[cfg(feature=)]a;"),
    ] {
        let code = lines(&without_tests(&tokens(text)));
        assert_eq!(
            code.iter().map(|(_, code)| code.as_str()).collect::<String>(),
            expected,
            "{text}"
        );
    }
}
