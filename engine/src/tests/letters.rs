//! A tokenizer for tests: token 0 is "a", and so on; tokens beyond "z" are two letters.

use crate::output::{TextCodec, TextDecoder};
use galley_model::{ModelError, Result};

pub(crate) struct Letters;

struct Decoder;

pub(crate) fn letters(token: u32) -> String {
    let letter = |i: u32| char::from(b'a' + (i % 26) as u8);
    match token / 26 {
        0 => letter(token).to_string(),
        i => [letter(i - 1), letter(token)].iter().collect(),
    }
}

impl TextCodec for Letters {
    fn encode(&self, text: &str, _: bool) -> Result<Vec<u32>> {
        let token = |c: char| match c {
            'a'..='z' => Ok(u32::from(c) - u32::from('a')),
            _ => Err(ModelError::Text(format!("{c:?} is not a letter"))),
        };
        text.chars().map(token).collect()
    }

    fn content_hash(&self, _: &[u32]) -> u64 {
        26
    }

    fn stream_after(&self, _: &[u32]) -> Box<dyn TextDecoder> {
        Box::new(Decoder)
    }
}

impl TextDecoder for Decoder {
    fn push(&mut self, token: u32) -> String {
        letters(token)
    }

    fn finish(&mut self) -> String {
        String::new()
    }
}
