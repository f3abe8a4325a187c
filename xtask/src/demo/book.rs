//! The long text of the demo: three chapters of a novel.

use crate::data::{check_sha256, folder};
use crate::shell::{cargo, output};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A public-domain novel. Every machine that has built Galley has it, because it is the benchmark text of a crate that
/// the tokenizer uses.
pub(super) struct Book {
    pub(super) name: &'static str,
    package: &'static str,
    file: &'static str,
    sha256: &'static str,
    /// The prompt begins with `from` and ends with `to`: about 7,100 tokens.
    from: &'static str,
    to: &'static str,
}

pub(super) const BOOK: Book = Book {
    name: "Jules Verne, Around the World in Eighty Days, chapters I to III (public domain)",
    package: "esaxx-rs",
    file: "data/eighty.txt",
    sha256: "f95647ced7981db2c1c7c50c77a1b89e3df569d9a20e8ad5c9e40ed2d2f4d268",
    from: "Chapter I\n",
    to: "IN WHICH PHILEAS FOGG ASTOUNDS PASSEPARTOUT, HIS SERVANT\n\n",
};

/// Files that the demo writes as prompts, and that the user can use in further commands.
pub(super) struct Texts {
    /// Three chapters and the heading of the fourth, which the model continues.
    pub(super) excerpt: PathBuf,
    /// The whole book, for prompts of several sequences.
    pub(super) book: PathBuf,
}

/// Writes the texts to files.
pub(super) fn book() -> Result<Texts> {
    let metadata = output(cargo("metadata --format-version 1 --locked"))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let path = package_folder(&metadata, BOOK.package)
        .with_context(|| format!("{} is no longer among the dependencies", BOOK.package))?
        .join(BOOK.file);
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    check_sha256(&bytes, BOOK.sha256).with_context(|| path.display().to_string())?;
    let text = String::from_utf8(bytes)?.replace("\r\n", "\n");
    let excerpt = excerpt(&text, BOOK.from, BOOK.to).context("the chapters are not in the book")?;
    let texts =
        Texts { excerpt: folder().join("demo.txt"), book: folder().join("eighty-days.txt") };
    fs::create_dir_all(folder())?;
    fs::write(&texts.excerpt, excerpt)?;
    fs::write(&texts.book, &text)?;
    Ok(texts)
}

fn package_folder(metadata: &Value, name: &str) -> Option<PathBuf> {
    let mut packages = metadata["packages"].as_array()?.iter();
    let manifest = packages.find(|package| package["name"] == name)?["manifest_path"].as_str()?;
    Path::new(manifest).parent().map(Path::to_path_buf)
}

/// The text from `from`, which starts a line, to the end of the first `to` after it.
fn excerpt<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let start = text.find(&format!("\n{from}"))? + 1;
    let end = start + text[start..].find(to)? + to.len();
    Some(&text[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_starts_at_a_line_and_ends_with_its_last_words() {
        let text = "x One\nOne\nbody\nEnd\nmore";
        assert_eq!(excerpt(text, "One\n", "End\n"), Some("One\nbody\nEnd\n"));
        assert_eq!(excerpt(text, "Two\n", "End\n"), None);
        assert_eq!(excerpt(text, "One\n", "Never"), None);
    }

    #[test]
    fn the_book_is_among_the_dependencies() {
        let texts = book().expect("the book");
        let text = fs::read_to_string(&texts.excerpt).expect("the excerpt");
        assert!(text.starts_with("Chapter I\n") && text.ends_with("SERVANT\n\n"));
        assert!((25_000..30_000).contains(&text.len()), "{} bytes", text.len());
        let whole = fs::read_to_string(&texts.book).expect("the whole book");
        assert!(whole.contains(&text) && whole.len() > 10 * text.len(), "{} bytes", whole.len());
    }
}
