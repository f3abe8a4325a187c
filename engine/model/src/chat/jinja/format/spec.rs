//! Numbers and texts in fields, for `%` and for `format`.

use super::super::error::{Result, value_error};

/// Widest field. No prompt needs a wider one.
pub(super) const MAX_WIDTH: usize = 1 << 20;
/// Most digits after the point. A float has at most about a thousand.
pub(super) const MAX_PRECISION: usize = 2_000;

/// The specification of one field.
#[derive(Default)]
pub(super) struct Spec {
    pub(super) fill: Option<char>,
    pub(super) align: Option<char>,
    pub(super) sign: Option<char>,
    pub(super) alternate: bool,
    pub(super) zero: bool,
    pub(super) width: usize,
    pub(super) grouping: Option<char>,
    pub(super) precision: Option<usize>,
    pub(super) kind: Option<char>,
}

pub(super) fn bounded(number: u128, most: usize) -> Result<usize> {
    match usize::try_from(number) {
        Ok(number) if number <= most => Ok(number),
        _ => value_error("a width or precision is too large"),
    }
}

pub(super) fn pad(text: &str, width: usize, fill: char, align: char, out: &mut String) {
    let missing = width.saturating_sub(text.chars().count());
    let before = match align {
        '<' => 0,
        '^' => missing / 2,
        _ => missing,
    };
    out.extend(std::iter::repeat_n(fill, before));
    out.push_str(text);
    out.extend(std::iter::repeat_n(fill, missing - before));
}

/// Writes a number with its sign. Filling zeros stand between sign and digits.
pub(super) fn number_field(
    spec: &Spec,
    negative: bool,
    digits: &str,
    align: Option<char>,
    fill: char,
    out: &mut String,
) {
    let sign = if negative {
        "-"
    } else {
        spec.sign.map_or("", |sign| if sign == '+' { "+" } else { " " })
    };
    let is_inside = align == Some('=') || (spec.zero && spec.align.is_none());
    if is_inside {
        let fill = if spec.zero { spec.fill.unwrap_or('0') } else { fill };
        let prefix =
            ["0x", "0X", "0o", "0b"].into_iter().find(|p| spec.alternate && digits.starts_with(p));
        let (prefix, digits) = digits.split_at(prefix.map_or(0, str::len));
        out.push_str(sign);
        out.push_str(prefix);
        pad(digits, spec.width.saturating_sub(sign.len() + prefix.len()), fill, '>', out);
    } else {
        pad(&format!("{sign}{digits}"), spec.width, fill, align.unwrap_or('>'), out);
    }
}

pub(super) fn radix(number: u128, kind: char, alternate: bool) -> String {
    match (kind, alternate) {
        ('x', false) => format!("{number:x}"),
        ('x', true) => format!("{number:#x}"),
        ('X', false) => format!("{number:X}"),
        ('X', true) => format!("0X{number:X}"),
        ('o', false) => format!("{number:o}"),
        ('o', true) => format!("{number:#o}"),
        (_, false) => format!("{number:b}"),
        (_, true) => format!("{number:#b}"),
    }
}

/// The digits of a number that is not negative.
pub(super) fn float_digits(number: f64, kind: char, spec: &Spec) -> String {
    let precision = spec.precision.unwrap_or(6);
    let text = if !number.is_finite() {
        (if number.is_nan() { "nan" } else { "inf" }).to_owned()
    } else {
        match kind.to_ascii_lowercase() {
            'f' => format!("{number:.precision$}"),
            'e' => exponent(&format!("{number:.precision$e}")),
            _ => general(number, precision.max(1), spec.alternate),
        }
    };
    if kind.is_ascii_uppercase() { text.to_uppercase() } else { text }
}

/// Writes the exponent with its sign and at least two digits, as Python does.
fn exponent(text: &str) -> String {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    format!("{digits}e{:+03}", exponent.parse::<i32>().unwrap_or(0))
}

/// `%g`: fixed or scientific notation by the exponent, without trailing zeros unless `keep_zeros`.
pub(super) fn general(number: f64, precision: usize, keep_zeros: bool) -> String {
    let scientific = format!("{number:.*e}", precision - 1);
    let magnitude =
        scientific.split_once('e').and_then(|(_, e)| e.parse::<i32>().ok()).unwrap_or(0);
    let trim = |digits: &str| match digits.contains('.') && !keep_zeros {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => digits.to_owned(),
    };
    if (-4..precision as i32).contains(&magnitude) {
        let decimals = (precision as i32 - 1 - magnitude).max(0) as usize;
        trim(&format!("{number:.decimals$}"))
    } else {
        let (digits, _) = scientific.split_once('e').unwrap_or((&scientific, ""));
        exponent(&format!("{}e{magnitude}", trim(digits)))
    }
}

/// Puts a separator between groups of three digits before the point.
pub(super) fn grouped(digits: &str, separator: char) -> String {
    let whole = digits.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = digits.split_at(whole);
    let mut text = String::new();
    for (index, c) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            text.push(separator);
        }
        text.push(c);
    }
    text + rest
}

/// A float without a presentation type: as [`general`], but fixed notation always has a point.
pub(super) fn shortest(number: f64, spec: &Spec) -> String {
    let precision = spec.precision.unwrap_or(6).max(1);
    if !number.is_finite() {
        return float_digits(number, 'g', spec);
    }
    let scientific = format!("{number:.*e}", precision - 1);
    let magnitude =
        scientific.split_once('e').and_then(|(_, e)| e.parse::<i32>().ok()).unwrap_or(0);
    if (-4..precision as i32 - 1).contains(&magnitude) {
        let text = general(number, precision, spec.alternate);
        return if text.contains('.') { text } else { text + ".0" };
    }
    let (digits, _) = scientific.split_once('e').unwrap_or((&scientific, ""));
    let digits = if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        digits
    };
    exponent(&format!("{digits}e{magnitude}"))
}
