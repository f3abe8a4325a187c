//! `galley run`: continues one prompt, or answers the requests of a file.

mod report;
mod requests;

use crate::args::RunArgs;
use crate::console;
use crate::load::{chat_template, open_for, progress_bar, start};
use crate::request::{by_flag, follow};
use anyhow::{Context, Result, bail, ensure};
use galley_api::AnswerBody;
use galley_engine::Prompt;
use galley_model::chat::Message;
use report::RunReport;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

/// Runs the command.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
    match &args.request {
        Some(file) => requests::answer(args, file),
        None => continue_prompt(args),
    }
}

fn continue_prompt(args: &RunArgs) -> Result<()> {
    args.draft.at_most_one()?;
    args.sampling.check()?;
    ensure!(
        args.n <= args.model.max_num_seqs,
        "--n (GALLEY_N): {} sequences are more than run together: --max-num-seqs {}",
        args.n,
        args.model.max_num_seqs
    );
    let prompt = read_prompt(args)?;
    let files = open_for(&args.model)?;
    let mut tokens = match args.chat {
        true => {
            let template = chat_template(&files, args.chat_template.as_deref())?;
            let rendered = template.render(&[Message::new("user", prompt)], true)?;
            files.tokenizer.encode(&rendered, false)?
        }
        false => files.tokenizer.encode(&prompt, true)?,
    };
    if let Some(n) = args.prompt_tokens {
        tokens.truncate(n);
    }
    let n = u32::try_from(args.n).unwrap_or(u32::MAX);
    let mut request = args
        .sampling
        .request(Prompt::Tokens(tokens.clone()))
        .chat(args.chat)
        .n(n)
        .drafting(args.draft.request());
    request.sampling.logprobs = args.logprobs;
    let max_tokens = request.max_tokens.map_or(usize::MAX, |n| n as usize);
    let sequence = tokens.len().saturating_add(max_tokens).min(files.config().max_context);
    let block = args.model.block_size;
    let wanted = args.n.saturating_mul(sequence.next_multiple_of(block) + block);
    let drafting = args.draft.single(args.draft_length, args.kv_budget)?;
    let loaded = start(&files, &args.model, &drafting, wanted)?;
    let mut handle = loaded.engine.submit(request).map_err(by_flag)?;
    let submitted = handle.submitted().clone();
    let mut stdout = console::stdout();
    let stream = !args.json && args.n == 1;
    // The bar becomes visible only for a long prompt.
    let reading = progress_bar("reading", "tokens", tokens.len());
    let on_text = |_, text: &str| {
        reading.finish_and_clear();
        if stream {
            stdout.write_all(text.as_bytes())?;
            stdout.flush()?;
        }
        Ok(())
    };
    let on_wait = || reading.set_position(loaded.engine.stats().prompt_tokens);
    let answers = follow(&mut handle, on_text, on_wait)?;
    reading.finish_and_clear();
    // Shutting down waits for the last step, so that the statistics include it.
    loaded.engine.shutdown();
    let report = RunReport::new(&loaded, &answers, tokens.len());
    if args.json {
        let answer = AnswerBody::new(&submitted, &answers, loaded.engine.drafters());
        writeln!(stdout, "{}", report.to_json(&args.model.model, answer)?)?;
        return Ok(());
    }
    if stream {
        writeln!(stdout)?;
    } else {
        for answer in &answers {
            writeln!(stdout, "--- {} ({})\n{}", answer.index, answer.finish.as_str(), answer.text)?;
        }
    }
    if args.stats {
        report.print();
    }
    Ok(())
}

fn read_prompt(args: &RunArgs) -> Result<String> {
    match (&args.prompt, &args.prompt_file) {
        (Some(prompt), _) => Ok(prompt.clone()),
        (None, Some(path)) if path != Path::new("-") => {
            let text = File::open(path).and_then(read_text);
            text.with_context(|| format!("--prompt-file: cannot read {}", path.display()))
        }
        (None, None) if io::stdin().is_terminal() => {
            bail!(
                "no prompt: give one with --prompt TEXT or --prompt-file FILE (- reads standard input)"
            )
        }
        (None, _) => {
            let text = read_text(io::stdin().lock());
            text.context("cannot read the prompt from standard input")
        }
    }
}

/// Longest prompt, longer than any context: a file without end must not fill the memory.
const MAX_PROMPT_BYTES: u64 = 1 << 30;

/// Reads a whole file, which may be a pipe.
fn read_bytes(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let n_bytes = source.take(MAX_PROMPT_BYTES + 1).read_to_end(&mut bytes)? as u64;
    match n_bytes > MAX_PROMPT_BYTES {
        true => Err(io::Error::other(format!("it has more than {} GiB", MAX_PROMPT_BYTES >> 30))),
        false => Ok(bytes),
    }
}

fn read_text(source: impl Read) -> io::Result<String> {
    String::from_utf8(read_bytes(source)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        io::Error::other(format!("it is not UTF-8: byte {at} begins no character"))
    })
}
