//! Prompts of benchmarks. Every prompt has exactly the requested length, and every sequence has another text.
//!
//! The acceptance of draft tokens depends mostly on the text, so results name their data set. A data set is plain text
//! that is cut to the length of the prompt, or a task: an instruction, a long text and a question.

mod tasks;
#[cfg(test)]
mod tests;
mod texts;

use crate::args::BenchArgs;
use anyhow::{Result, bail};
use galley_backend::sample::philox::{sequence_seed, word};
use galley_engine::ModelFiles;
use galley_model::tokenizer::Tokenizer;
use tasks::Frame;
use texts::{FileTokens, Source};

/// The kind of a data set.
#[derive(Clone, Copy, Debug, PartialEq)]
enum PromptKind {
    RandomTokens,
    Text,
    Niah,
    Cwe,
    CodeEdit,
}

/// A data set, read and tokenized as far as the prompts need it.
pub(super) struct Prompts<'a> {
    kind: PromptKind,
    name: String,
    tokenizer: &'a Tokenizer,
    text: FileTokens,
    frame: Frame,
    vocab_size: u64,
    seed: u64,
}

impl<'a> Prompts<'a> {
    /// Opens the data set of `args`, with text for `batch` prompts of `context` tokens.
    pub(super) fn open(
        args: &BenchArgs,
        files: &'a ModelFiles,
        batch: usize,
        context: usize,
    ) -> Result<Self> {
        let name = args.dataset.as_str();
        let (kind, source) = match name {
            _ if args.random_tokens => (PromptKind::RandomTokens, None),
            "niah" => (PromptKind::Niah, Some("sotu")),
            "cwe" => (PromptKind::Cwe, Some("sotu")),
            "code-edit" => (PromptKind::CodeEdit, Some("code")),
            other => (PromptKind::Text, Some(other)),
        };
        let tokenizer = &*files.tokenizer;
        let text = match source {
            None => FileTokens::default(),
            Some(source) => {
                let source = Source::find(name, source, args.data.as_deref())?;
                let n_prompts = if args.shared_prompt { 1 } else { batch };
                let is_enough = |text: &FileTokens| match kind {
                    PromptKind::CodeEdit => text.passage(n_prompts - 1, context).is_some(),
                    PromptKind::Cwe => text.n_tokens() >= tasks::CWE_TEXT_TOKENS,
                    _ => text.n_tokens() >= n_prompts * context,
                };
                FileTokens::read(&source, tokenizer, args.seed, is_enough)?
            }
        };
        Ok(Self {
            kind,
            name: args.dataset_name().to_owned(),
            tokenizer,
            text,
            frame: match kind {
                PromptKind::RandomTokens | PromptKind::Text => Frame::default(),
                _ => Frame::of(files)?,
            },
            vocab_size: files.config().vocab_size as u64,
            seed: args.seed,
        })
    }

    /// `batch` prompts of `context` tokens; if `shared`, all are the same prompt. Every call returns the same prompts.
    pub(super) fn make(&self, batch: usize, context: usize, shared: bool) -> Result<Vec<Vec<u32>>> {
        let n_prompts = if shared { 1 } else { batch };
        let prompts = (0..n_prompts).map(|i| self.prompt(i, context));
        let prompts = prompts.collect::<Result<Vec<_>>>()?;
        Ok(prompts.into_iter().cycle().take(batch).collect())
    }

    fn prompt(&self, i: usize, context: usize) -> Result<Vec<u32>> {
        let mut dice = Dice { seed: sequence_seed(self.seed, i as u32), n_thrown: 0 };
        match self.kind {
            PromptKind::RandomTokens => {
                let places = (i * context..(i + 1) * context).map(|place| place as u32);
                let token = |place| (sequence_seed(1 + self.seed, place) % self.vocab_size) as u32;
                Ok(places.map(token).collect())
            }
            PromptKind::Text => Ok(self.cut(i, context)?.to_vec()),
            PromptKind::Niah => self.niah(self.cut(i, context)?, context, &mut dice),
            PromptKind::Cwe => self.cwe(context, &mut dice),
            PromptKind::CodeEdit => match self.text.passage(i, context) {
                Some(passage) => self.code_edit(&passage, context),
                None => self.too_short(i, context),
            },
        }
    }

    /// The `i`th piece of `context` tokens of the whole text.
    fn cut(&self, i: usize, context: usize) -> Result<&[u32]> {
        match self.text.all().get(i * context..(i + 1) * context) {
            Some(piece) => Ok(piece),
            None => self.too_short(i, context),
        }
    }

    fn too_short<T>(&self, i: usize, context: usize) -> Result<T> {
        bail!(
            "--dataset {}: {} tokens of text are too few for {} prompts of {context}: choose another set, or \
             name a longer file or folder",
            self.name,
            self.text.n_tokens(),
            i + 1
        )
    }
}

/// The random numbers of one prompt, a function of its seed.
struct Dice {
    seed: u64,
    n_thrown: u32,
}

impl Dice {
    /// A number below `n`.
    fn throw(&mut self, n: usize) -> usize {
        self.n_thrown += 1;
        ((u64::from(word(self.seed, self.n_thrown, 0)) * n as u64) >> 32) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.throw(i + 1));
        }
    }
}
