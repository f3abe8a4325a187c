//! Prompts, and stop strings that outputs may contain.

use super::random::Random;
use super::target::Target;
use galley_engine::{Prompt, Request};

/// Words of a text prompt: short and long words, characters of one to four bytes, and white space.
const WORDS: [&str; 12] =
    ["the ", "cat ", "sat ", "the cat ", "1234 ", "naïve ", "日本 ", "🦀", "\n", "\t", "\r\n", "e"];

/// Random tokens of the vocabulary.
pub fn random_tokens(random: &mut Random, target: &Target, n: usize) -> Vec<u32> {
    let vocab_size = target.checkpoint.config().vocab_size;
    (0..n).map(|_| random.below(vocab_size) as u32).collect()
}

/// At least one and at most `n` tokens: either all random, or a repeated pattern, which a lookup
/// finds.
pub fn tokens(random: &mut Random, target: &Target, n: usize) -> Vec<u32> {
    let n = random.within(1..=n.max(1));
    match random.one_in(2) {
        true => random_tokens(random, target, n),
        false => {
            let length = random.within(1..=20);
            let pattern = random_tokens(random, target, length);
            pattern.into_iter().cycle().take(n).collect()
        }
    }
}

/// A prompt of at most `most` tokens: tokens, with or without one of `prefixes` before them, or a
/// text.
pub fn prompt(random: &mut Random, target: &Target, most: usize, prefixes: &[Vec<u32>]) -> Prompt {
    let prompt = match random.below(6) {
        0 => Prompt::Text(text(random, most)),
        1 => Prompt::Rendered(text(random, most)),
        2..4 => {
            let mut prompt = random.of(prefixes);
            prompt.extend(tokens(random, target, most / 4));
            Prompt::Tokens(prompt)
        }
        _ => Prompt::Tokens(tokens(random, target, most)),
    };
    match n_tokens(&prompt, target) {
        n if (1..=most).contains(&n) => prompt,
        _ => Prompt::Tokens(tokens(random, target, most.min(8))),
    }
}

/// Gives most of the requests one prompt: the longer ones, so that every request keeps its room.
pub fn share(mut requests: Vec<&mut Request>, target: &Target) {
    requests.sort_by_cached_key(|request| n_tokens(&request.prompt, target));
    let longer = requests.len() / 3;
    let Some(shared) = requests.get(longer).map(|request| request.prompt.clone()) else { return };
    requests[longer..].iter_mut().for_each(|request| request.prompt = shared.clone());
}

/// Random words, up to about half of `most` bytes.
fn text(random: &mut Random, most: usize) -> String {
    let mut text = String::new();
    let n_bytes = random.within(1..=most.max(2) / 2);
    while text.len() < n_bytes {
        text.push_str(random.of(&WORDS));
    }
    text
}

/// The number of tokens in a prompt.
pub fn n_tokens(prompt: &Prompt, target: &Target) -> usize {
    let encode = |text: &str, add_special| {
        target.tokenizer.encode(text, add_special).expect("a text that can be encoded").len()
    };
    match prompt {
        Prompt::Text(text) => encode(text, true),
        Prompt::Rendered(text) => encode(text, false),
        Prompt::Tokens(tokens) => tokens.len(),
    }
}

/// The text of one or two tokens, or "e" if they have no text.
pub fn stop_string(random: &mut Random, target: &Target) -> String {
    let n = random.within(1..=2);
    let ids = random_tokens(random, target, n);
    match target.tokenizer.decode(&ids, false) {
        text if text.is_empty() => "e".to_owned(),
        text => text,
    }
}
