//! Splits the source of a template into tokens, with the white space control of Jinja.
//!
//! As in transformers' environment, `trim_blocks` and `lstrip_blocks` are on,
//! `keep_trailing_newline` is off, and every kind of line end counts as a line feed.

use super::error::{Error, ErrorKind, Result};
use super::text::is_space;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TemplateToken {
    /// Text outside of tags.
    Text(Box<str>),
    PrintBegin,
    PrintEnd,
    TagBegin,
    TagEnd,
    Name(Box<str>),
    Str(Box<str>),
    Int(i128),
    Float(f64),
    Op(&'static str),
    End,
}

/// Longer operators stand before their prefixes.
const OPERATORS: [&str; 26] = [
    "**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",", ";",
];

/// The tokens of `source`, each with its line.
pub(super) fn tokens(source: &str) -> Result<Vec<(TemplateToken, u32)>> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer =
        Lexer { source, at: 0, line: 1, counted: 0, line_starting: true, tokens: Vec::new() };
    while lexer.at < source.len() {
        lexer.text()?;
    }
    let line = lexer.line();
    lexer.tokens.push((TemplateToken::End, line));
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: u32,
    /// Byte offset up to which `line` counts line feeds.
    counted: usize,
    /// Whether a line feed stands directly before `at`.
    line_starting: bool,
    tokens: Vec<(TemplateToken, u32)>,
}

impl<'a> Lexer<'a> {
    fn line(&mut self) -> u32 {
        let passed = &self.source.as_bytes()[self.counted..self.at];
        self.line += passed.iter().filter(|&&byte| byte == b'\n').count() as u32;
        self.counted = self.at;
        self.line
    }

    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn push(&mut self, token: TemplateToken) {
        let line = self.line();
        self.tokens.push((token, line));
    }

    fn fail<T>(&mut self, message: impl Into<Box<str>>) -> Result<T> {
        let line = self.line();
        Err(Error::new(ErrorKind::Other, message).at(line))
    }

    /// Moves forward by `bytes`.
    fn advance(&mut self, bytes: usize) {
        self.line_starting = self.source[..self.at + bytes].ends_with('\n');
        self.at += bytes;
    }

    /// Reads the text up to the next tag, and the tag.
    fn text(&mut self) -> Result<()> {
        let rest = self.rest();
        let begin = rest
            .match_indices('{')
            .map(|(at, _)| at)
            .find(|&at| matches!(rest.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')));
        let Some(begin) = begin else {
            self.push(TemplateToken::Text(rest.into()));
            self.advance(rest.len());
            return Ok(());
        };
        let (text, tag) = rest.split_at(begin);
        let sign = tag[2..].bytes().next().filter(|sign| matches!(sign, b'-' | b'+'));
        let kind = tag.as_bytes()[1];
        let text = self.stripped(text, sign, kind != b'{');
        if !text.is_empty() {
            self.push(TemplateToken::Text(text.into()));
        }
        let inside = begin + 2 + usize::from(sign.is_some());
        match kind {
            b'#' => {
                self.advance(inside);
                self.comment()
            }
            b'%' => match raw_begin(&rest[inside..]) {
                Some(length) => {
                    self.advance(inside + length);
                    self.raw()
                }
                None => self.tag(inside, TemplateToken::TagBegin),
            },
            _ => self.tag(inside, TemplateToken::PrintBegin),
        }
    }

    /// The text before a tag, without the white space that the tag removes.
    fn stripped<'t>(&self, text: &'t str, sign: Option<u8>, is_block: bool) -> &'t str {
        if sign == Some(b'-') {
            return text.trim_end_matches(is_space);
        }
        if sign == Some(b'+') || !is_block {
            return text;
        }
        let start = text.rfind('\n').map_or(0, |at| at + 1);
        let is_line = start > 0 || self.line_starting;
        let line = &text[start..];
        if is_line && line.chars().all(is_space) { &text[..start] } else { text }
    }

    fn comment(&mut self) -> Result<()> {
        let rest = self.rest();
        let Some(end) = rest.find("#}") else {
            return self.fail("a comment has no end");
        };
        let sign = rest[..end].bytes().next_back();
        self.advance(end + 2);
        self.after_tag(sign.filter(|sign| matches!(sign, b'-' | b'+')));
        Ok(())
    }

    /// Skips the white space that the end of a block tag or comment removes.
    fn after_tag(&mut self, sign: Option<u8>) {
        let rest = self.rest();
        match sign {
            Some(b'-') => self.advance(rest.len() - rest.trim_start_matches(is_space).len()),
            None if rest.starts_with('\n') => self.advance(1),
            _ => {}
        }
    }

    fn raw(&mut self) -> Result<()> {
        let rest = self.rest();
        let found = rest.match_indices("{%").find_map(|(at, _)| {
            let tag = &rest[at + 2..];
            let sign = tag.bytes().next().filter(|sign| matches!(sign, b'-' | b'+'));
            let word = tag[usize::from(sign.is_some())..].trim_start_matches(is_space);
            let end = word.strip_prefix("endraw")?.trim_start_matches(is_space);
            let end_sign = end.bytes().next().filter(|sign| matches!(sign, b'-' | b'+'));
            let after = end[usize::from(end_sign.is_some())..].strip_prefix("%}")?;
            Some((at, sign, end_sign, rest.len() - after.len()))
        });
        let Some((at, sign, end_sign, length)) = found else {
            return self.fail("a raw block has no end");
        };
        let text = self.stripped(&rest[..at], sign, true);
        if !text.is_empty() {
            self.push(TemplateToken::Text(text.into()));
        }
        self.advance(length);
        self.after_tag(end_sign);
        Ok(())
    }

    /// Reads the tokens of one tag, from its opening to its closing delimiter.
    fn tag(&mut self, begin: usize, token: TemplateToken) -> Result<()> {
        let is_print = token == TemplateToken::PrintBegin;
        self.push(token);
        self.advance(begin);
        let mut open: Vec<char> = Vec::new();
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start_matches(is_space).len();
            self.advance(blank);
            let rest = self.rest();
            if rest.is_empty() {
                return self.fail("a tag has no end");
            }
            if open.is_empty() {
                let sign = rest.bytes().next().filter(|sign| matches!(sign, b'-' | b'+'));
                let sign = sign.filter(|&sign| sign == b'-' || !is_print);
                let end = &rest[usize::from(sign.is_some())..];
                if end.starts_with(if is_print { "}}" } else { "%}" }) {
                    self.push(if is_print {
                        TemplateToken::PrintEnd
                    } else {
                        TemplateToken::TagEnd
                    });
                    self.advance(2 + usize::from(sign.is_some()));
                    if !is_print || sign == Some(b'-') {
                        self.after_tag(sign);
                    }
                    return Ok(());
                }
            }
            self.word(&mut open)?;
        }
    }

    fn word(&mut self, open: &mut Vec<char>) -> Result<()> {
        let rest = self.rest();
        let first = rest.chars().next().unwrap_or(' ');
        if first.is_ascii_digit() {
            return self.number();
        }
        if first == '_' || first.is_alphanumeric() {
            let is_part = |c: char| c == '_' || c.is_alphanumeric();
            let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            self.push(TemplateToken::Name(rest[..length].into()));
            self.advance(length);
            return Ok(());
        }
        if matches!(first, '"' | '\'') {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let is_end = c == first && !escaped;
                escaped = c == '\\' && !escaped;
                is_end
            });
            let Some(end) = end else {
                return self.fail("a string has no end");
            };
            return match unescape(&rest[1..=end]) {
                Some(text) => {
                    self.push(TemplateToken::Str(text.into()));
                    self.advance(end + 2);
                    Ok(())
                }
                None => self.fail("a string has an incomplete escape"),
            };
        }
        let Some(op) = OPERATORS.into_iter().find(|op| rest.starts_with(op)) else {
            return self.fail(format!("unexpected char {first:?}"));
        };
        match first {
            '(' => open.push(')'),
            '[' => open.push(']'),
            '{' => open.push('}'),
            ')' | ']' | '}' if open.pop() != Some(first) => {
                return self.fail(format!("unexpected '{first}'"));
            }
            _ => {}
        }
        self.push(TemplateToken::Op(op));
        self.advance(op.len());
        Ok(())
    }

    fn number(&mut self) -> Result<()> {
        let rest = self.rest();
        // In `x.0.1`, the digits after a point are indices, not a float.
        let is_index = matches!(self.tokens.last(), Some((TemplateToken::Op("."), _)));
        if let Some(length) = float_length(rest).filter(|_| !is_index) {
            let digits = rest[..length].replace('_', "");
            self.push(TemplateToken::Float(digits.parse().unwrap_or(f64::INFINITY)));
            self.advance(length);
            return Ok(());
        }
        let radix = match rest.get(..2).map(str::to_ascii_lowercase).as_deref() {
            Some("0x") => 16,
            Some("0o") => 8,
            Some("0b") => 2,
            _ => 10,
        };
        let prefix = if radix == 10 { 0 } else { 2 };
        let is_digit = |c: char| c == '_' || c.is_digit(radix);
        let length = prefix + rest[prefix..].find(|c| !is_digit(c)).unwrap_or(rest.len() - prefix);
        let mut digits = rest[prefix..length].replace('_', "");
        let mut length = length;
        if radix == 10 && digits.len() > 1 && digits.starts_with('0') {
            // Python has no such octal numbers: the leading zeros are a number of their own.
            length = rest.find(|c| c != '0').unwrap_or(rest.len());
            digits.truncate(1);
        }
        match i128::from_str_radix(&digits, radix) {
            Ok(number) => {
                self.push(TemplateToken::Int(number));
                self.advance(length);
                Ok(())
            }
            Err(_) => self.fail(format!("{digits:?} is no integer of at most 127 bits")),
        }
    }
}

/// The length of `raw %}` at the start of the inside of a tag; `None` for another tag.
fn raw_begin(inside: &str) -> Option<usize> {
    let end = inside.trim_start_matches(is_space).strip_prefix("raw")?.trim_start_matches(is_space);
    let after = match end.strip_prefix("-%}") {
        Some(after) => after.trim_start_matches(is_space),
        None => end.strip_prefix("%}")?,
    };
    Some(inside.len() - after.len())
}

/// The length of the floating-point number at the start of `text`.
fn float_length(text: &str) -> Option<usize> {
    let digits =
        |text: &str| text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let mut length = digits(text);
    let mut is_float = false;
    if let Some(fraction) = text[length..].strip_prefix('.')
        && fraction.starts_with(|c: char| c.is_ascii_digit())
    {
        length += 1 + digits(fraction);
        is_float = true;
    }
    let rest = &text[length..];
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if unsigned.starts_with(|c: char| c.is_ascii_digit()) {
            length += rest.len() - unsigned.len() + digits(unsigned);
            is_float = true;
        }
    }
    is_float.then_some(length)
}

/// The text of a Python string literal; `None` if an escape is incomplete.
fn unescape(literal: &str) -> Option<String> {
    let mut text = String::with_capacity(literal.len());
    let mut rest = literal;
    let mut high_surrogate = None;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let mut chars = rest[at + 1..].chars();
        let escape = chars.next()?;
        rest = chars.as_str();
        let hex_digits = match escape {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        let code = match escape {
            '\n' => continue,
            '\\' | '\'' | '"' => u32::from(escape),
            'a' => 7,
            'b' => 8,
            't' => 9,
            'n' => 10,
            'v' => 11,
            'f' => 12,
            'r' => 13,
            'x' | 'u' | 'U' => {
                let digits = rest.get(..hex_digits)?;
                rest = &rest[hex_digits..];
                u32::from_str_radix(digits, 16).ok()?
            }
            '0'..='7' => {
                let from = rest.len() + 1;
                let all = &literal[literal.len() - from..];
                let length =
                    all.bytes().take(3).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
                rest = &all[length..];
                u32::from_str_radix(&all[..length], 8).ok()?
            }
            'N' => return None,
            _ => {
                text.push('\\');
                u32::from(escape)
            }
        };
        match (high_surrogate.take(), code) {
            (_, 0xd800..=0xdbff) => high_surrogate = Some(code),
            (Some(high), 0xdc00..=0xdfff) => {
                let code = 0x10000 + ((high - 0xd800) << 10) + (code - 0xdc00);
                text.push(char::from_u32(code)?);
            }
            _ => text.push(char::from_u32(code)?),
        }
    }
    text.push_str(rest);
    Some(text)
}
