//! `galley run`: continues one prompt.

use crate::args::RunArgs;
use crate::console::{self, note};
use crate::load::{Loaded, chat_template, open_for, progress_bar, start};
use crate::request::{Output, by_flag, follow};
use crate::resident::peak_rss_bytes;
use anyhow::{Context, Result, bail, ensure};
use galley_engine::{Prompt, Stats};
use galley_model::chat::Message;
use serde_json::json;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::time::Duration;

/// Runs the command.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
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
    let drafting = args.draft.config(args.draft_length, args.draft_length, args.kv_budget)?;
    let loaded = start(&files, &args.model, &drafting, wanted)?;
    let mut handle = loaded.engine.submit(request).map_err(by_flag)?;
    let seed = handle.seed();
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
    let outputs = follow(&mut handle, on_text, on_wait)?;
    reading.finish_and_clear();
    // Shutting down waits for the last step, so that the statistics include it.
    loaded.engine.shutdown();
    let report = RunReport::new(&loaded, &outputs, tokens.len());
    if args.json {
        writeln!(stdout, "{}", report.to_json(&args.model.model, seed, &outputs))?;
        return Ok(());
    }
    if stream {
        writeln!(stdout)?;
    } else {
        for output in &outputs {
            writeln!(stdout, "--- {} ({})\n{}", output.index, output.finish_reason, output.text)?;
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

/// Reads a whole text, which may come from a pipe.
fn read_text(source: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    let n_bytes = source.take(MAX_PROMPT_BYTES + 1).read_to_end(&mut bytes)? as u64;
    if n_bytes > MAX_PROMPT_BYTES {
        return Err(io::Error::other(format!("it has more than {} GiB", MAX_PROMPT_BYTES >> 30)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        io::Error::other(format!("it is not UTF-8: byte {at} begins no character"))
    })
}

/// Speed and memory of one run.
struct RunReport<'a> {
    loaded: &'a Loaded,
    stats: Stats,
    prompt_tokens: usize,
    n_sequences: usize,
    generated_tokens: usize,
    first_token: Duration,
    last_token: Duration,
}

impl<'a> RunReport<'a> {
    fn new(loaded: &'a Loaded, outputs: &[Output], prompt_tokens: usize) -> Self {
        let times = |time: fn(&Output) -> Duration| outputs.iter().map(time);
        Self {
            loaded,
            stats: loaded.engine.stats(),
            prompt_tokens,
            n_sequences: outputs.len(),
            generated_tokens: outputs.iter().map(|o| o.token_ids.len()).sum(),
            first_token: times(|o| o.usage.first_token).min().unwrap_or_default(),
            last_token: times(|o| o.usage.last_token).max().unwrap_or_default(),
        }
    }

    fn prefill_tok_s(&self) -> f64 {
        self.prompt_tokens as f64 / self.first_token.as_secs_f64()
    }

    /// Decode speed: tokens after the first token of each of `n` sequences, over their time.
    fn decode_tok_s(&self) -> f64 {
        let tokens = self.generated_tokens.saturating_sub(self.n_sequences) as f64;
        let seconds = (self.last_token - self.first_token).as_secs_f64();
        if seconds > 0.0 { tokens / seconds } else { 0.0 }
    }

    fn to_json(&self, model: &str, seed: u64, outputs: &[Output]) -> serde_json::Value {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        json!({
            "model": model,
            "backend": self.loaded.device,
            "seed": seed,
            "prompt_tokens": self.prompt_tokens,
            "outputs": outputs,
            "timings": {
                "load_ms": ms(self.loaded.load_time),
                "ttft_ms": ms(self.first_token),
                "total_ms": ms(self.last_token),
                "prefill_tok_s": self.prefill_tok_s(),
                "decode_tok_s": self.decode_tok_s(),
            },
            "drafting": {
                "rounds": self.stats.drafts.rounds,
                "drafted": self.stats.drafts.drafted,
                "accepted": self.stats.drafts.accepted,
                "accept_rate": self.stats.drafts.accept_rate(),
                "accept_len": self.stats.drafts.accept_length(),
                "accepted_per_pos": self.stats.drafts.accepted_per_position,
            },
            "kv_blocks_used": self.stats.kv_blocks_peak,
            "kv_blocks_total": self.stats.kv_blocks_total,
            "weight_bytes": self.loaded.weight_bytes,
            "peak_rss_mb": peak_rss_bytes() as f64 / 1e6,
        })
    }

    fn print(&self) {
        note("");
        note(format_args!("device     {}", self.loaded.device));
        note(format_args!("load       {:.2} s", self.loaded.load_time.as_secs_f64()));
        note(format_args!(
            "prefill    {} tokens in {:.2} s: {:.0} tokens/s",
            self.prompt_tokens,
            self.first_token.as_secs_f64(),
            self.prefill_tok_s()
        ));
        note(format_args!(
            "decode     {} tokens in {:.2} s: {:.1} tokens/s",
            self.generated_tokens,
            (self.last_token - self.first_token).as_secs_f64(),
            self.decode_tok_s()
        ));
        let drafts = &self.stats.drafts;
        if drafts.rounds > 0 {
            note(format_args!(
                "drafts     {} of {} tokens accepted ({:.0} %), {:.2} tokens a round",
                drafts.accepted,
                drafts.drafted,
                drafts.accept_rate() * 100.0,
                drafts.accept_length()
            ));
        }
        let block = self.loaded.kv_bytes_per_token * self.prompt_tokens.max(1);
        note(format_args!(
            "KV cache   {} of {} blocks ({:.1} MB for the prompt)",
            self.stats.kv_blocks_peak,
            self.stats.kv_blocks_total,
            block as f64 / 1e6
        ));
        note(format_args!("memory     {:.0} MB at most", peak_rss_bytes() as f64 / 1e6));
    }
}
