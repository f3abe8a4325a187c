//! Prompts with a task: a needle in a haystack, the most common words, an edit.
//!
//! The first two have the wording of RULER (arXiv 2404.06654). Each prompt ends with the first words of the answer, so
//! that a benchmark measures the answer and no preamble.

use super::{Dice, Prompts};
use anyhow::{Result, bail};
use galley_engine::ModelFiles;
use galley_model::chat::Message;
use galley_model::tokenizer::Tokenizer;
use std::collections::BTreeSet;

/// The text of the chat template around a message of the user. Without a template, `before` is the begin token.
#[derive(Default)]
pub(super) struct Frame {
    before: Vec<u32>,
    after: Vec<u32>,
}

impl Frame {
    pub(super) fn of(files: &ModelFiles) -> Result<Self> {
        const MESSAGE: &str = "MESSAGE-OF-THE-USER";
        let tokenizer = &files.tokenizer;
        let render = |template: galley_model::chat::ChatTemplate| {
            template.render(&[Message::new("user", MESSAGE)], true).ok()
        };
        let rendered = files.chat_template().ok().and_then(render);
        match rendered.as_deref().and_then(|text| text.split_once(MESSAGE)) {
            Some((before, after)) => Ok(Self {
                before: tokenizer.encode(before, false)?,
                after: tokenizer.encode(after, false)?,
            }),
            None => Ok(Self { before: tokenizer.encode("", true)?, after: Vec::new() }),
        }
    }
}

/// The parts of a task around its long text.
struct Task<'a> {
    instruction: &'a str,
    question: &'a str,
    answer: &'a str,
    /// The tokens of the long text with which the answer begins, after `answer`.
    quoted: &'a [u32],
}

const ADJECTIVES: [&str; 16] = [
    "amber", "brave", "calm", "distant", "eager", "frozen", "gentle", "hollow", "idle", "jolly",
    "keen", "lucid", "mellow", "narrow", "odd", "plain",
];
const NOUNS: [&str; 16] = [
    "anchor", "bridge", "candle", "desert", "engine", "feather", "garden", "harbor", "island",
    "jacket", "kettle", "lantern", "meadow", "needle", "orchard", "pebble",
];

/// The number of words that are the most common ones.
const CWE_COMMON: usize = 10;
/// Tokens of a text that has some thousand different words.
pub(super) const CWE_TEXT_TOKENS: usize = 200_000;

impl Prompts<'_> {
    /// A prompt with a number in a sentence somewhere in `text`, and with the question for that number.
    pub(super) fn niah(&self, text: &[u32], context: usize, dice: &mut Dice) -> Result<Vec<u32>> {
        let key = format!(
            "{}-{}",
            ADJECTIVES[dice.throw(ADJECTIVES.len())],
            NOUNS[dice.throw(NOUNS.len())]
        );
        let number = 1_000_000 + dice.throw(9_000_000);
        let needle = format!(" One of the special magic numbers for {key} is: {number}. ");
        let needle = self.tokenizer.encode_plain(&needle)?;
        let task = Task {
            instruction: "Some special magic numbers are hidden within the following text. Make sure to memorize \
                          them. I will quiz you about the numbers afterwards.\n",
            question: &format!(
                "\nWhat is the special magic number for {key} mentioned in the provided text?"
            ),
            answer: &format!(
                "The special magic number for {key} mentioned in the provided text is"
            ),
            quoted: &[],
        };
        self.task(&task, context, needle.len(), |n_tokens| {
            let text = &text[..n_tokens - needle.len()];
            let place = self.after_a_sentence(text, dice.throw(text.len() + 1));
            Ok([&text[..place], &needle, &text[place..]].concat())
        })
    }

    /// The first end of a sentence or line within 200 tokens from `place` on; else `place`.
    fn after_a_sentence(&self, text: &[u32], place: usize) -> usize {
        let ends = |&at: &usize| {
            let bytes = at.checked_sub(1).and_then(|i| self.tokenizer.token_bytes(text[i]));
            bytes.is_none_or(|bytes| bytes.ends_with(b".") || bytes.contains(&b'\n'))
        };
        (place..=text.len().min(place + 200)).find(ends).unwrap_or(place)
    }

    /// A prompt with a numbered list in which ten words are the most common ones, and the question for these words.
    pub(super) fn cwe(&self, context: usize, dice: &mut Dice) -> Result<Vec<u32>> {
        let task = Task {
            instruction: "Below is a numbered list of words. In these words, some appear more often than others. \
                          Memorize the ones that appear most often.\n",
            question: "\nQuestion: What are the 10 most common words in the above list?",
            answer: "Answer: The top 10 words that appear most often in the list are:",
            quoted: &[],
        };
        let mut words = words(self.tokenizer, self.text.all());
        dice.shuffle(&mut words);
        self.task(&task, context, 0, |n_tokens| {
            let list = |n_items: usize| {
                let items = list(&words, n_items)?;
                Some(self.tokenizer.encode_plain(&shuffled(items, dice.seed)))
            };
            // The number of items is estimated from the average word. A list that is too long is cut; a short
            // one gets more items.
            let mut n_items = n_tokens / 8 + 1;
            while let Some(tokens) = list(n_items) {
                let mut tokens = tokens?;
                if tokens.len() >= n_tokens {
                    tokens.truncate(n_tokens);
                    return Ok(tokens);
                }
                n_items += 1 + (n_tokens - tokens.len()) / 8;
            }
            bail!("--dataset cwe: {} different words are too few for {context} tokens", words.len())
        })
    }

    /// The length of a file's first lines, about 16 to 64 tokens.
    fn first_lines(&self, code: &[u32]) -> usize {
        let ends = |&at: &usize| {
            self.tokenizer.token_bytes(code[at - 1]).is_some_and(|bytes| bytes.contains(&b'\n'))
        };
        (16..=code.len().min(64)).find(ends).unwrap_or(code.len().min(16))
    }

    /// A prompt with source code, and with the request to write it again with one name changed.
    pub(super) fn code_edit(&self, code: &[u32], context: usize) -> Result<Vec<u32>> {
        // Without these lines, a small model describes the change or starts another file.
        let quoted = &code[..self.first_lines(code)];
        // The name is from the first half, which the prompt always contains, but not from the lines that the
        // answer has.
        let place = &code[quoted.len().min(context / 2)..context / 2];
        let name = defined_name(&self.tokenizer.decode(place, false));
        let task = Task {
            instruction: "Here is a file of Python code:\n\n```python\n",
            question: &format!(
                "\n```\n\nWrite the whole file again with one change: rename `{name}` to `new_{name}`.\n"
            ),
            answer: "```python\n",
            quoted,
        };
        self.task(&task, context, 0, |n_tokens| Ok(code[..n_tokens].to_vec()))
    }

    /// Joins the parts of a task to `context` tokens. `body` gets the number of tokens that are left for it; `extra` of
    /// them are not text.
    fn task(
        &self,
        task: &Task<'_>,
        context: usize,
        extra: usize,
        body: impl FnOnce(usize) -> Result<Vec<u32>>,
    ) -> Result<Vec<u32>> {
        /// Fewest tokens of text in a task.
        const LEAST_TEXT: usize = 32;
        let encode = |text| self.tokenizer.encode_plain(text);
        let (instruction, question, answer) =
            (encode(task.instruction)?, encode(task.question)?, encode(task.answer)?);
        let Frame { before, after } = &self.frame;
        let around = [before, &instruction, &question, after, &answer].map(Vec::len);
        let around = around.iter().sum::<usize>() + task.quoted.len();
        let least = around + extra + LEAST_TEXT;
        if context < least {
            bail!(
                "--context {context}: a prompt of --dataset {} has at least {least} tokens",
                self.name
            );
        }
        let body = body(context - around)?;
        let parts: [&[u32]; 7] =
            [before, &instruction, &body, &question, after, &answer, task.quoted];
        Ok(parts.concat())
    }
}

/// The different words in lower case, in alphabetical order.
fn words(tokenizer: &Tokenizer, text: &[u32]) -> Vec<String> {
    let text = tokenizer.decode(text, false);
    let is_word = |word: &&str| {
        (4..=10).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase())
    };
    let words: BTreeSet<&str> = text.split_whitespace().filter(is_word).collect();
    words.into_iter().map(str::to_owned).collect()
}

/// A list of `n_items` words. [`CWE_COMMON`] of them are ten times as frequent as the rest, as far as the
/// length allows.
fn list(words: &[String], n_items: usize) -> Option<Vec<&str>> {
    let n_common = (n_items / (2 * CWE_COMMON)).clamp(2, 30);
    let n_others = (n_common / 10).max(1);
    let (common, others) = words.split_at_checked(CWE_COMMON)?;
    let n_left = n_items.saturating_sub(CWE_COMMON * n_common);
    let others = others.get(..n_left.div_ceil(n_others))?;
    let repeated = |words, n| {
        let words: std::slice::Iter<'_, String> = words;
        words.flat_map(move |word| std::iter::repeat_n(word.as_str(), n))
    };
    let items = repeated(common.iter(), n_common);
    Some(items.chain(repeated(others.iter(), n_others).take(n_left)).collect())
}

/// The items, shuffled and numbered.
fn shuffled(mut items: Vec<&str>, seed: u64) -> String {
    Dice { seed, n_thrown: u32::MAX / 2 }.shuffle(&mut items);
    let items = items.iter().enumerate().map(|(i, item)| format!("{}. {item}", i + 1));
    items.collect::<Vec<_>>().join(" ")
}

/// The first name that the code defines, or else its first long word.
pub(super) fn defined_name(code: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let name = |text: &str| -> String { text.chars().take_while(|c| is_part(*c)).collect() };
    let defined = code.lines().filter_map(|line| {
        let line = line.trim_start();
        line.strip_prefix("def ").or_else(|| line.strip_prefix("class ")).map(name)
    });
    let mut defined = defined.filter(|name| name.len() > 3 && !name.starts_with("__"));
    let long = || code.split(|c| !is_part(c)).find(|word| word.len() > 4).map(str::to_owned);
    defined.next().or_else(long).unwrap_or_else(|| "self".into())
}
