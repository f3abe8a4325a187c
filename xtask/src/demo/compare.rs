//! Compares a text generated without and with drafting: the tokens must be the same, and only the time may differ.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fmt::Write;
use std::io::{IsTerminal, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The output of one `galley run --json`.
#[derive(Debug)]
pub(super) struct Writing {
    /// Token ids of each sequence.
    tokens: Vec<Vec<u64>>,
    /// Text of the first sequence.
    text: String,
    prompt_tokens: usize,
    decode_tok_s: f64,
    drafted: u64,
    accepted: u64,
    tokens_a_round: f64,
}

impl Writing {
    /// Runs the command to its end.
    pub(super) fn of(command: Command) -> Result<Self> {
        let printed = watched(command)?;
        let json: Value = serde_json::from_str(&printed).context("galley run printed no JSON")?;
        Self::read(&json).context("galley run printed other JSON than this reads")
    }

    fn read(json: &Value) -> Option<Self> {
        let outputs = json["outputs"].as_array()?;
        let tokens = outputs
            .iter()
            .map(|output| output["token_ids"].as_array()?.iter().map(Value::as_u64).collect());
        let drafting = &json["drafting"];
        Some(Self {
            tokens: tokens.collect::<Option<_>>()?,
            text: outputs.first()?["text"].as_str()?.to_owned(),
            prompt_tokens: json["prompt_token_ids"].as_array()?.len(),
            decode_tok_s: json["timings"]["decode_tok_s"].as_f64()?,
            drafted: drafting["drafted"].as_u64()?,
            accepted: drafting["accepted"].as_u64()?,
            tokens_a_round: drafting["accept_len"].as_f64()?,
        })
    }

    /// The first text, without white space around it.
    pub(super) fn excerpt(&self) -> &str {
        self.text.trim()
    }

    fn n_tokens(&self) -> usize {
        self.tokens.iter().map(Vec::len).sum()
    }
}

/// Reports speeds, acceptance and identity of both runs. It is an error if their texts differ.
pub(super) fn compare(plain: &Writing, drafted: &Writing) -> Result<String> {
    let is_same = plain.tokens == drafted.tokens && plain.text == drafted.text;
    if plain.n_tokens() == 0 || drafted.drafted == 0 {
        bail!("nothing was written, or nothing was drafted: there is nothing to compare");
    }
    let mut printed = String::new();
    let ratio = drafted.decode_tok_s / plain.decode_tok_s;
    let share = drafted.accepted as f64 / drafted.drafted as f64 * 100.0;
    let _ = writeln!(
        printed,
        "prompt     {} tokens\n\
         plain      {:.1} tokens/s\n\
         drafted    {:.1} tokens/s: {ratio:.2}x\n\
         accepted   {share:.0} % of {} draft tokens, {:.2} tokens a round\n\
         identical: {} ({} tokens compared)",
        plain.prompt_tokens,
        plain.decode_tok_s,
        drafted.decode_tok_s,
        drafted.drafted,
        drafted.tokens_a_round,
        if is_same { "yes" } else { "no" },
        plain.n_tokens(),
    );
    if !is_same {
        bail!(
            "{printed}a drafter has changed the text: this is a fault of Galley, please report it"
        );
    }
    if ratio < 1.0 {
        let _ = writeln!(
            printed,
            "\nDrafting is slower here: with {:.2} tokens a round, a token took {:.2} times as long as a plain one.\n\
             `galley bench --drafter ...` measures the parts of a round.",
            drafted.tokens_a_round,
            1.0 / ratio,
        );
    }
    Ok(printed)
}

/// Time between two updates of the seconds on the terminal.
const TICK: Duration = Duration::from_secs(1);

/// Runs a command and returns its standard output. On a terminal, it shows the elapsed seconds.
fn watched(mut command: Command) -> Result<String> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("galley does not start")?;
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        let mut pipe = pipe.expect("it was asked for");
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).map(|_| String::from_utf8_lossy(&bytes).into_owned())
        })
    };
    let printed = read(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let complained = read(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let (begin, is_seen) = (Instant::now(), std::io::stderr().is_terminal());
    let mut next = TICK;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if is_seen && begin.elapsed() >= next {
            eprint!("\r    {} s ", next.as_secs());
            next += TICK;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    if is_seen {
        eprint!("\r          \r");
    }
    let join = |thread: std::thread::JoinHandle<std::io::Result<String>>| {
        thread.join().unwrap_or_else(|_| Ok(String::new()))
    };
    let (printed, complained) = (join(printed)?, join(complained)?);
    if !status.success() {
        bail!("galley run failed: {status}\n{complained}");
    }
    Ok(printed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn writing(tokens: &[u64], text: &str, drafted: u64) -> Writing {
        let json = json!({
            "prompt_token_ids": [1, 2, 3, 4, 5, 6, 7],
            "outputs": [{"token_ids": tokens, "text": text}, {"token_ids": [1, 2], "text": "b"}],
            "timings": {"decode_tok_s": 100.0 + drafted as f64},
            "drafting": {"drafted": drafted, "accepted": drafted / 2, "accept_len": 2.5},
        });
        Writing::read(&json).expect("all fields are there")
    }

    #[test]
    fn the_same_text_is_identical_and_another_is_an_error() {
        let plain = writing(&[5, 6], "a", 0);
        let printed = compare(&plain, &writing(&[5, 6], "a", 50)).expect("they are the same");
        for part in ["100.0 tokens/s", "150.0 tokens/s: 1.50x", "50 % of 50", "identical: yes (4"] {
            assert!(printed.contains(part), "{printed}");
        }
        for other in [writing(&[5, 7], "a", 50), writing(&[5], "a", 50), writing(&[5, 6], "c", 50)]
        {
            let error = compare(&plain, &other).expect_err("they differ").to_string();
            assert!(error.contains("identical: no"), "{error}");
        }
    }

    #[test]
    fn a_slower_draft_is_reported_by_its_measurements() {
        let (plain, slow) = (writing(&[5, 6], "a", 100), writing(&[5, 6], "a", 60));
        let printed = compare(&plain, &slow).expect("they are the same");
        for part in ["0.80x", "with 2.50 tokens a round, a token took 1.25 times as long"] {
            assert!(printed.contains(part), "{printed}");
        }
        let fast = compare(&slow, &plain).expect("they are the same");
        assert!(!fast.contains("slower"), "{fast}");
    }

    #[test]
    fn a_comparison_of_nothing_is_an_error() {
        let plain = writing(&[5, 6], "a", 0);
        assert!(compare(&plain, &writing(&[5, 6], "a", 0)).is_err(), "nothing was drafted");
    }

    #[test]
    fn json_that_lacks_something_is_none() {
        assert!(Writing::read(&json!({"outputs": []})).is_none());
        assert!(Writing::read(&json!({"error": "x"})).is_none());
    }

    #[cfg(unix)]
    #[test]
    fn a_command_that_fails_says_why() {
        let mut fails = Command::new("sh");
        fails.args(["-c", "echo reason >&2; exit 3"]);
        assert!(watched(fails).expect_err("it fails").to_string().contains("reason"));
        let mut prints = Command::new("sh");
        prints.args(["-c", "echo text"]);
        assert_eq!(watched(prints).expect("it runs"), "text\n");
    }
}
