//! `drafter-check lib.so`: checks whether a drafter keeps the contract.
//!
//! Each rule runs in a process of its own, because a drafter that breaks a rule may crash its
//! process.

use anyhow::{Context, Result, bail};
use clap::Parser;
use drafter_check::{ABOUT, RULES, Rule, Subject, Verdict};
use galley_drafter_host::{LoadError, Manifest};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Checks drafters against the contract of galley_drafter.h, rule by rule.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "\
Ends with 0 if no rule is broken, 1 if one is, 2 if the command line is wrong.
Examples:
  drafter-check ./libecho.so
  drafter-check --option model=small libgalley_drafter_small_model.so"
)]
struct Cli {
    /// Shared libraries of drafters.
    #[arg(required_unless_present = "rules")]
    libraries: Vec<PathBuf>,
    /// Option for the drafters that have it; the other drafters keep their defaults.
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = option)]
    options: Vec<(String, String)>,
    /// Print the rules and exit.
    #[arg(long)]
    rules: bool,
    /// Seconds that a drafter may take for one rule.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    patience: u64,
    /// Check this rule in this process.
    #[arg(long, hide = true)]
    only: Option<u8>,
}

fn option(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.rules {
        for rule in &RULES {
            println!("{rule}  {}", rule.text);
        }
        return ExitCode::SUCCESS;
    }
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether all rules are kept.
fn run(cli: &Cli) -> Result<bool> {
    let options: BTreeMap<_, _> = cli.options.iter().cloned().collect();
    if let Some(number) = cli.only {
        let rule = RULES.iter().find(|rule| rule.number == number).context("no such rule")?;
        let path = cli.libraries.first().context("no library")?;
        tell(&in_this_process(rule, path, &options));
        return Ok(true);
    }
    check_options(&cli.libraries, &options)?;
    let mut all_right = true;
    for path in &cli.libraries {
        all_right &= check(path, cli)?;
    }
    Ok(all_right)
}

/// An option that no library has is a typing error.
fn check_options(libraries: &[PathBuf], options: &BTreeMap<String, String>) -> Result<()> {
    let manifests: Vec<_> =
        libraries.iter().filter_map(|path| Manifest::of_file(path).ok()).collect();
    let mut known = manifests.iter().flat_map(|manifest| &manifest.options).map(|o| &o.name);
    match options.keys().find(|name| !known.clone().any(|known| known == *name)) {
        Some(name) if !manifests.is_empty() => {
            let all: Vec<&str> = known.by_ref().map(String::as_str).collect();
            bail!("no library has an option {name:?}; there are: {}", all.join(", "))
        }
        _ => Ok(()),
    }
}

/// Checks all rules on one library. Returns whether all are kept.
fn check(path: &Path, cli: &Cli) -> Result<bool> {
    let manifest = match Manifest::of_file(path) {
        Err(error @ LoadError::Unreadable { .. }) => bail!("{error}"),
        manifest => manifest,
    };
    match &manifest {
        Ok(manifest) => println!("{}: {} {}", path.display(), manifest.name, manifest.version),
        Err(_) => println!("{}", path.display()),
    }
    let mut counts = [0; 3];
    let (mut loads, mut lives) = (true, true);
    for rule in &RULES {
        let verdict = match (rule.number, &manifest) {
            (Rule::MANIFEST, Ok(_)) => Verdict::Pass,
            (Rule::MANIFEST, Err(error)) => Verdict::Fail(error.to_string()),
            (_, Err(_)) => Verdict::Skip("there is no manifest: see R01".to_owned()),
            (number, Ok(_)) if number > Rule::LOADING && !loads => {
                Verdict::Skip("it does not load: see R02".to_owned())
            }
            (number, Ok(_)) if number > Rule::LIVING && !lives => {
                Verdict::Skip("it ends its process in a plain life: see R03".to_owned())
            }
            _ => {
                let (verdict, is_told) = in_a_process(rule, path, cli)?;
                lives &= rule.number != Rule::LIVING || is_told;
                verdict
            }
        };
        loads &= rule.number != Rule::LOADING || verdict == Verdict::Pass;
        let (place, word, sentence) = match &verdict {
            Verdict::Pass => (0, "pass", ""),
            Verdict::Fail(sentence) => (1, "FAIL", sentence.as_str()),
            Verdict::Skip(sentence) => (2, "skip", sentence.as_str()),
        };
        counts[place] += 1;
        println!("  {rule} {word}  {}", rule.text);
        if !sentence.is_empty() {
            println!("           {sentence}");
        }
    }
    let [passed, failed, skipped] = counts;
    println!("  {passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0)
}

fn in_this_process(rule: &Rule, path: &Path, options: &BTreeMap<String, String>) -> Verdict {
    match Subject::open(path, options) {
        Ok(subject) => rule.check(&subject),
        Err(error) => Verdict::Fail(error.to_string()),
    }
}

fn tell(verdict: &Verdict) {
    let (word, sentence) = match verdict {
        Verdict::Pass => ("pass", ""),
        Verdict::Fail(sentence) => ("fail", sentence.as_str()),
        Verdict::Skip(sentence) => ("skip", sentence.as_str()),
    };
    println!("\n{VERDICT}{word} {}", sentence.replace('\n', " "));
}

/// Runs this program anew for one rule. Also returns whether that process reported a verdict.
fn in_a_process(rule: &Rule, path: &Path, cli: &Cli) -> Result<(Verdict, bool)> {
    let this = std::env::current_exe().context("this program does not know its own path")?;
    let mut command = Command::new(this);
    command.args(["--only", &rule.number.to_string()]).arg(path);
    for (name, value) in &cli.options {
        command.arg("--option").arg(format!("{name}={value}"));
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut pipe = child.stdout.take().context("a pipe was asked for")?;
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // If the pipe breaks, the text before the break is all there is.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let status = wait(&mut child, Duration::from_secs(cli.patience))?;
    let text = reader.join().unwrap_or_default();
    Ok(verdict(status, &text, cli.patience))
}

/// None: the process did not end in time and has been killed.
fn wait(child: &mut Child, patience: Duration) -> Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The verdict that a process reported, or else a failure that describes how the process ended.
fn verdict(status: Option<ExitStatus>, text: &str, patience: u64) -> (Verdict, bool) {
    let told = text.lines().rev().find_map(|line| line.strip_prefix(VERDICT));
    let (word, sentence) = told.and_then(|told| told.split_once(' ')).unwrap_or_default();
    let is_fine = status.is_some_and(|status| status.success());
    match (word, is_fine) {
        ("pass", true) => return (Verdict::Pass, true),
        ("skip", true) => return (Verdict::Skip(sentence.to_owned()), true),
        ("fail", true) => return (Verdict::Fail(sentence.to_owned()), true),
        _ => {}
    }
    let about = text.lines().rev().find_map(|line| line.strip_prefix(ABOUT));
    let about = about.map(|about| format!(" when it was about to {about}")).unwrap_or_default();
    let sentence = match status {
        None => format!("it did not return within {patience} s{about}"),
        Some(status) => format!("its process ended with {status}{about}"),
    };
    (Verdict::Fail(sentence), false)
}

/// Prefix of the line that reports the verdict on a rule.
const VERDICT: &str = "drafter-check says: ";
