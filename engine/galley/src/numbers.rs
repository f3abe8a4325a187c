//! The ranges of numbers on the command line.

use galley_api::limits::{
    BLOCK_MULTIPLE, MAX_BLOCK_TOKENS, MAX_COUNT, MAX_DRAFT_LENGTH, MAX_SEQUENCES, MAX_THREADS,
    MIN_MEMORY_SHARE,
};
use std::fmt::Display;
use std::str::FromStr;

/// A number of tokens or the like, at least one.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    size(text, 1, MAX_COUNT)
}

/// A number of threads of the CPU backend.
pub(crate) fn threads(text: &str) -> Result<usize, String> {
    size(text, 1, MAX_THREADS as u64)
}

/// A number of tokens, at least two.
pub(crate) fn at_least_two(text: &str) -> Result<usize, String> {
    size(text, 2, MAX_COUNT)
}

/// A number of sequences.
pub(crate) fn sequences(text: &str) -> Result<usize, String> {
    size(text, 1, MAX_SEQUENCES)
}

/// Tokens per KV block.
pub(crate) fn block_size(text: &str) -> Result<usize, String> {
    let size = size(text, 1, MAX_BLOCK_TOKENS)?;
    match size.is_multiple_of(BLOCK_MULTIPLE as usize) {
        true => Ok(size),
        false => Err(format!("a multiple of {BLOCK_MULTIPLE} is needed")),
    }
}

/// Draft tokens per round; 0 is plain decoding.
pub(crate) fn draft_length(text: &str) -> Result<u32, String> {
    whole(text, 0, MAX_DRAFT_LENGTH)
}

/// Draft tokens per round, at least one.
pub(crate) fn bench_draft_length(text: &str) -> Result<u32, String> {
    whole(text, 1, MAX_DRAFT_LENGTH)
}

/// Cached tokens that a draft token attends to.
pub(crate) fn budget(text: &str) -> Result<u32, String> {
    whole(text, 1, MAX_COUNT)
}

/// A share of a GPU's memory.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "a number is needed".to_owned())?;
    match (MIN_MEMORY_SHARE..=1.0).contains(&share) {
        true => Ok(share),
        false => Err(format!("a share from {MIN_MEMORY_SHARE} to 1 is needed")),
    }
}

/// A rate or a size that is larger than 0.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim().parse().map_err(|_| "a number is needed".to_owned())?;
    match number.is_normal() && number > 0.0 {
        true => Ok(number),
        false => Err("a number above 0 is needed".to_owned()),
    }
}

/// Bits of a value of the KV cache.
pub(crate) fn kv_bits(text: &str) -> Result<u32, String> {
    match text.trim().parse() {
        Ok(bits @ (4 | 8 | 16 | 32)) => Ok(bits),
        _ => Err("4, 8, 16 or 32 is needed".to_owned()),
    }
}

fn size(text: &str, least: u64, most: u64) -> Result<usize, String> {
    let number: u64 = whole(text, least, most)?;
    usize::try_from(number).map_err(|error| error.to_string())
}

fn whole<T: FromStr + TryFrom<u64>>(text: &str, least: u64, most: u64) -> Result<T, String>
where
    <T as FromStr>::Err: Display,
{
    let text = text.trim();
    let is_negative = text.starts_with('-');
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a whole number is needed".to_owned());
    }
    // The text is all digits, so parsing fails only for a number that is too large.
    let number = digits.parse::<u64>().unwrap_or(u64::MAX);
    if (is_negative && number > 0) || number < least {
        return Err(format!("at least {least} is needed"));
    }
    let number = Some(number).filter(|&number| number <= most);
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("at most {most} is possible"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_bounds_that_their_errors_name() {
        assert_eq!(count("1"), Ok(1));
        assert_eq!(count("4294967295"), Ok(4_294_967_295));
        assert_eq!(draft_length("0"), Ok(0));
        assert_eq!(budget("4294967295"), Ok(u32::MAX));
        assert_eq!(block_size("32"), Ok(32));
        for (wrong, part) in [
            (count("0"), "at least 1"),
            (count("-1"), "at least 1"),
            (count("4294967296"), "at most 4294967295"),
            (count("99999999999999999999999999"), "at most 4294967295"),
            (count("1e3"), "whole number"),
            (count(""), "whole number"),
            (count("-"), "whole number"),
            (at_least_two("1"), "at least 2"),
            (sequences("1048577"), "at most 1048576"),
            (block_size("0"), "at least 1"),
            (block_size("12"), "multiple of 16"),
            (block_size("18446744073709551600"), "at most 65536"),
        ] {
            assert!(wrong.as_ref().is_err_and(|error| error.contains(part)), "{wrong:?}: {part}");
        }
        assert!(
            bench_draft_length("0").is_err()
                && draft_length("1025").is_err()
                && budget("0").is_err()
        );
        for text in ["NaN", "inf", "0", "1.1", "-0.5", ""] {
            assert!(share(text).is_err(), "{text}");
        }
        assert_eq!(share("0.05"), Ok(0.05));
        for text in ["NaN", "inf", "0", "-1", "1e-320", ""] {
            assert!(positive(text).is_err(), "{text}");
        }
        assert_eq!(positive("1.5"), Ok(1.5));
        assert_eq!((kv_bits("16"), kv_bits("12").is_err()), (Ok(16), true));
    }
}
