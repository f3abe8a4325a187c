//! Prompts for measurements: different real text for every sequence.

use crate::args::BenchArgs;
use crate::load::Files;
use anyhow::{Context, Result, bail};
use galley_backend::sample::philox::sequence_seed;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Tokens to cut prompts from.
pub(super) struct Corpus {
    tokens: Vec<u32>,
    source: PathBuf,
}

impl Corpus {
    /// Reads and tokenizes about as much text as `n_tokens` needs.
    pub(super) fn open(args: &BenchArgs, files: &Files, n_tokens: usize) -> Result<Self> {
        if args.random_tokens {
            let vocab = files.config().vocab_size as u64;
            let tokens =
                (0..n_tokens as u32).map(|i| (sequence_seed(1, i) % vocab) as u32).collect();
            return Ok(Self { tokens, source: PathBuf::from("random tokens") });
        }
        let source = match &args.text {
            Some(path) => path.clone(),
            None => python_library().context(
                "no text for prompts: name a file or folder with --text, or install python3",
            )?,
        };
        let mut tokens = Vec::new();
        for path in text_files(&source)? {
            if tokens.len() >= n_tokens {
                break;
            }
            // Some files are no UTF-8; there are others.
            if let Ok(text) = std::fs::read_to_string(&path) {
                tokens.extend(files.tokenizer.encode_plain(&text).unwrap_or_default());
            }
        }
        Ok(Self { tokens, source })
    }

    /// `batch` prompts of `context` tokens from different places, or one prompt for all.
    pub(super) fn prompts(
        &self,
        batch: usize,
        context: usize,
        shared: bool,
    ) -> Result<Vec<Vec<u32>>> {
        let n_places = if shared { 1 } else { batch };
        if self.tokens.len() < n_places * context {
            bail!(
                "{} has {} tokens of text and {} are needed: name a longer one with --text",
                self.source.display(),
                self.tokens.len(),
                n_places * context
            );
        }
        let place = |i: usize| &self.tokens[i % n_places * context..][..context];
        Ok((0..batch).map(|i| place(i).to_vec()).collect())
    }
}

/// Python's standard library: real text that is on most machines.
fn python_library() -> Option<PathBuf> {
    let print = "import sysconfig; print(sysconfig.get_path('stdlib'))";
    let output = Command::new("python3").args(["-c", print]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_dir().then_some(path)
}

/// The file itself, or the text and Python files of a folder, in order of name.
fn text_files(source: &Path) -> Result<Vec<PathBuf>> {
    if source.is_file() {
        return Ok(vec![source.into()]);
    }
    let entries = std::fs::read_dir(source)
        .with_context(|| format!("--text: cannot read {}", source.display()))?;
    let is_text = |path: &PathBuf| {
        let extension = path.extension().and_then(|e| e.to_str());
        path.is_file() && matches!(extension, Some("txt" | "py" | "md"))
    };
    let mut files: Vec<PathBuf> =
        entries.filter_map(|e| Some(e.ok()?.path())).filter(is_text).collect();
    files.sort();
    if files.is_empty() {
        bail!("--text: {} has no .txt, .md or .py file", source.display());
    }
    Ok(files)
}
