//! `galley bench`: prefill and decode, compared with the machine's floor, which is measured within the same minute.
//!
//! A row runs in two passes over the same prompts. The first pass generates one token per prompt: its time is
//! the time of the prefill. The second pass finds the prompts in the prefix cache, so that all sequences
//! start to decode together: once every sequence has its first token, each step decodes the whole batch. Rows
//! with a drafter decode from the same cached prompts, alternating with plain decoding.

mod draft;
mod floor;
mod progress;
mod prompts;
mod turns;
mod window;

use crate::args::BenchArgs;
use crate::console::{self, note};
use crate::load::{Loaded, open_for, start};
use crate::request::{by_flag, follow};
use crate::resident::{forget_peak_rss, peak_rss_bytes};
use anyhow::{Context, Result, bail};
use draft::{DraftingResult, DraftingSetting};
use floor::{Floor, Machine, Moment};
use galley_engine::{Answer, DraftRequest, ModelFiles, Prompt, Request, RequestHandle};
use progress::BenchProgress;
use prompts::Prompts;
use serde::Serialize;
use std::io::Write;
use std::time::Duration;
use turns::{StepSpan, Turns, nothing_measured, seconds};
use window::Window;

/// One row of results: times in ms, rates in tokens per second over the whole batch.
#[derive(Clone, Debug, Serialize)]
struct BenchRow {
    model: String,
    dataset: String,
    backend: String,
    batch: usize,
    context: usize,
    gen_tokens: usize,
    /// None for plain decoding.
    drafter: Option<String>,
    /// The measurements of drafting; None for plain decoding.
    #[serde(flatten)]
    draft: Option<DraftingResult>,
    prefill_tok_s: f64,
    decode_tok_s: f64,
    /// Median over the batch of the time to the first token, with all prompts submitted at once.
    ttft_ms: f64,
    /// One decode step of the whole batch.
    t_step_ms: f64,
    /// Share of the time of a step outside forward and sampling: scheduling, blocks, text, events.
    bookkeeping_fraction: f64,
    weight_mb: f64,
    /// The weights that a decode step reads: all but an embedding that is not the output head.
    step_weight_mb: f64,
    kv_pool_mb: f64,
    kv_blocks_used: usize,
    /// Peak resident memory of loading and of this row, without the memory of the probes.
    /// None if the system does not report it.
    peak_rss_mb: Option<f64>,
    /// Bandwidth and peak of the machine, measured beside this row; None if the model does not run on the CPU.
    read_gb_s: Option<f64>,
    peak_gflop_s: Option<f64>,
    /// Floor over measured time: 1 is as fast as memory and arithmetic allow.
    decode_floor_fraction: Option<f64>,
    prefill_floor_fraction: Option<f64>,
}

/// Runs the command.
pub(crate) fn bench(args: &BenchArgs) -> Result<()> {
    let request = Request::new(Prompt::Tokens(Vec::new()));
    request.temperature(args.temperature).check().map_err(by_flag)?;
    let files = open_for(&args.model)?;
    let (Some(&batch), Some(&context)) = (args.batch.iter().max(), args.context.iter().max())
    else {
        bail!("nothing to measure: --batch and --context need a number each");
    };
    // With a drafter, one sequence may generate more tokens than another during the window.
    let longest = args.draft_length.iter().max().copied().unwrap_or(0);
    let gen_tokens = match args.draft.wanted().next() {
        Some(_) => Window::most_tokens(args.gen_tokens, longest as usize),
        None => args.gen_tokens,
    };
    let max_context = files.config().max_context;
    if context + gen_tokens > max_context {
        bail!(
            "--context {context} plus {gen_tokens} to generate is over the model's {max_context} tokens"
        );
    }
    let mut model = args.model.clone();
    model.max_num_seqs = model.max_num_seqs.max(batch);
    model.max_num_batched_tokens = model.max_num_batched_tokens.max(model.max_num_seqs);
    let per_sequence = |context: usize| (context + gen_tokens).div_ceil(model.block_size) + 2;
    let blocks =
        args.context.iter().flat_map(|&c| args.batch.iter().map(move |b| b * per_sequence(c)));
    let wanted = blocks.max().unwrap_or(0) * model.block_size;
    let prompts = Prompts::open(args, &files, batch, context)?;
    // The times of the parts of a round are exact only if the engine waits for draft tokens.
    let drafting = args.draft.config(longest, longest, None)?.waits_for_drafts(true);
    let settings = DraftingSetting::all(args, &drafting)?;
    let loaded = start(&files, &model, &drafting, wanted)?;
    let machine = Machine::new(&model)?;
    let mut progress = BenchProgress::new(
        args,
        settings.len(),
        &Floor::of(files.config(), &loaded),
        machine.now().as_ref(),
    );
    // The floor is measured on this machine's cores and memory, so it applies to the CPU alone.
    let machine = loaded.is_on_cpu.then_some(&machine);
    let mut stdout = console::stdout();
    if !args.json {
        writeln!(stdout, "{}", loaded.device)?;
        writeln!(stdout, "{}", BenchRow::HEADER)?;
    }
    let mut turns = Turns::of(&loaded.engine);
    let mut salt = 0;
    for &context in &args.context {
        for &batch in &args.batch {
            let prompts = prompts.make(batch, context, args.shared_prompt)?;
            progress.row(batch, context, "plain decoding");
            let mut rows = Vec::new();
            for _ in 0..args.repeats.max(1) {
                salt += 1;
                rows.push(measure(args, &files, &loaded, &mut turns, machine, &prompts, salt)?);
            }
            rows.sort_by(|a, b| a.t_step_ms.total_cmp(&b.t_step_ms));
            let mut row = rows[rows.len() / 2].clone();
            rows.sort_by(|a, b| a.prefill_tok_s.total_cmp(&b.prefill_tok_s));
            let prefill = &rows[rows.len() / 2];
            row.prefill_tok_s = prefill.prefill_tok_s;
            row.prefill_floor_fraction = prefill.prefill_floor_fraction;
            row.ttft_ms = prefill.ttft_ms;
            print(&mut stdout, args, &row)?;
            // The last run has left the prompts in the prefix cache.
            for setting in &settings {
                progress.row(batch, context, &setting.to_string());
                let draft = draft::measure(args, &loaded, &mut turns, &prompts, salt, setting)?;
                let kept = batch * (model.block_size + 1);
                if draft.reread_tokens as usize > kept && !model.no_prefix_caching {
                    note(format_args!(
                        "note: {} tokens of prompts were read again, which takes part in the times: the KV cache is \
                         too small to keep them (--kv-cache-tokens)",
                        draft.reread_tokens
                    ));
                }
                let planner = loaded.engine.stats().planner.filter(|_| setting.is_auto());
                if let Some(planner) = planner.filter(|_| !args.json) {
                    note(format_args!(
                        "    planner: {}",
                        planner.describe(loaded.engine.drafters())
                    ));
                }
                let drafter = Some(draft.drafter.clone());
                print(&mut stdout, args, &BenchRow { drafter, draft: Some(draft), ..row.clone() })?;
            }
        }
    }
    Ok(())
}

fn print(stdout: &mut impl Write, args: &BenchArgs, row: &BenchRow) -> Result<()> {
    match (args.json, &row.draft) {
        (true, _) => writeln!(stdout, "{}", serde_json::to_string(&row)?)?,
        (false, None) => writeln!(stdout, "{row}")?,
        (false, Some(draft)) => writeln!(stdout, "{draft}")?,
    }
    Ok(stdout.flush()?)
}

/// Measures one row once.
fn measure(
    args: &BenchArgs,
    files: &ModelFiles,
    loaded: &Loaded,
    turns: &mut Turns,
    machine: Option<&Machine>,
    prompts: &[Vec<u32>],
    salt: u64,
) -> Result<BenchRow> {
    let (batch, context) = (prompts.len(), prompts[0].len());
    let now = || machine.and_then(Machine::now);
    let before_prefill = now();
    forget_peak_rss();
    let plain = DraftRequest::off();
    let prefill = pass(args, loaded, turns, prompts, 1, salt, &plain)?;
    let prefill_peak = peak_rss_bytes();
    let between = now();
    forget_peak_rss();
    let before = turns.last().clone();
    let decode = pass(args, loaded, turns, prompts, args.gen_tokens, salt, &plain)?;
    let after = turns.last();
    let peak = loaded.load_peak_rss_bytes.max(prefill_peak).max(peak_rss_bytes());
    let after_decode = now();

    let mut first: Vec<Duration> = prefill.iter().map(|o| o.usage.first_token).collect();
    first.sort();
    let prefill_s = seconds(first[batch - 1], "reading the prompts")?;
    let begin = decode.iter().map(|o| o.usage.first_token).max().unwrap_or_default();
    let end = decode.iter().map(|o| o.usage.last_token).max().unwrap_or_default();
    let decode_time = end.checked_sub(begin).unwrap_or_default();
    let step_s = seconds(decode_time, "decoding")? / (args.gen_tokens - 1) as f64;
    let all = StepSpan::between(&before, after).context("decoding took no turn of the engine")?;

    let floor = Floor::of(files.config(), loaded);
    let is_quantised = args.model.formats()?.is_quantised(files.checkpoint.has_blocks());
    let mean = |a: &Option<Moment>, b: &Option<Moment>| Some(a.as_ref()?.mean(b.as_ref()?));
    let for_prefill = mean(&before_prefill, &between);
    let for_decode = mean(&between, &after_decode);
    Ok(BenchRow {
        model: args.model.model.clone(),
        dataset: args.dataset_name().to_owned(),
        backend: loaded.device.clone(),
        batch,
        context,
        gen_tokens: args.gen_tokens,
        drafter: None,
        draft: None,
        prefill_tok_s: (batch * context) as f64 / prefill_s,
        decode_tok_s: batch as f64 / step_s,
        ttft_ms: first[batch / 2].as_secs_f64() * 1e3,
        t_step_ms: step_s * 1e3,
        bookkeeping_fraction: all.share(|s| s.bookkeeping),
        weight_mb: loaded.weight_bytes as f64 / 1e6,
        step_weight_mb: loaded.step_weight_bytes as f64 / 1e6,
        kv_pool_mb: (after.kv_blocks_total * args.model.block_size * loaded.kv_bytes_per_token)
            as f64
            / 1e6,
        kv_blocks_used: after.kv_blocks_peak,
        peak_rss_mb: (peak > 0).then_some(peak as f64 / 1e6),
        read_gb_s: for_decode.map(|moment| moment.read_bytes_s / 1e9),
        peak_gflop_s: for_prefill.map(|moment| moment.flops_s / 1e9),
        decode_floor_fraction: for_decode
            .map(|moment| floor.decode_s(batch, context + args.gen_tokens / 2, &moment) / step_s),
        // The peak is that of floats: it says nothing about products of quantised weights.
        prefill_floor_fraction: for_prefill
            .filter(|_| !is_quantised)
            .map(|moment| floor.prefill_s(batch, context, &moment) / prefill_s),
    })
}

/// Submits a request for `n_tokens` tokens of every prompt, all at once.
fn submit(
    args: &BenchArgs,
    loaded: &Loaded,
    prompts: &[Vec<u32>],
    n_tokens: usize,
    salt: u64,
    drafting: &DraftRequest,
) -> Result<Vec<RequestHandle>> {
    let max_tokens = u32::try_from(n_tokens)?;
    let requests = prompts.iter().zip(0..).map(|(prompt, i)| {
        Request::new(Prompt::Tokens(prompt.clone()))
            .temperature(args.temperature)
            .seed(args.seed.wrapping_add(i))
            .drafting(drafting.clone())
            .max_tokens(max_tokens)
            .ignore_eos(true)
            .cache_salt(salt)
    });
    Ok(loaded.engine.submit_all(requests)?)
}

/// Generates `n_tokens` tokens from every prompt, all submitted at once.
fn pass(
    args: &BenchArgs,
    loaded: &Loaded,
    turns: &mut Turns,
    prompts: &[Vec<u32>],
    n_tokens: usize,
    salt: u64,
    drafting: &DraftRequest,
) -> Result<Vec<Answer>> {
    let n_finished = turns.last().finished + prompts.len() as u64;
    let mut handles = submit(args, loaded, prompts, n_tokens, salt, drafting)?;
    let mut outputs = Vec::new();
    for handle in &mut handles {
        outputs.append(&mut follow(handle, |_, _| Ok(()), || {})?);
    }
    let n_full = turns.until_finished(n_finished, prompts.len())?;
    if n_tokens > 1 && n_full == 0 {
        return Err(nothing_measured("plain decoding", prompts.len()));
    }
    if let Some(output) = outputs.iter().find(|o| o.tokens.len() != n_tokens) {
        bail!("a sequence ended after {} of {n_tokens} tokens", output.tokens.len());
    }
    Ok(outputs)
}

impl BenchRow {
    const HEADER: &str = "batch context   prefill tok/s (floor)    ttft ms   decode tok/s (floor)    \
                          step ms   read GB/s   KV blocks   peak MB";
}

/// A number with `decimals` decimals, or a dash for None.
fn shown(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.decimals$}"))
}

impl std::fmt::Display for BenchRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:5} {:7} {:15.0} ({:>3} %) {:10.1} {:14.1} ({:>3} %) {:10.2} {:>11} {:11} {:>9}",
            self.batch,
            self.context,
            self.prefill_tok_s,
            shown(self.prefill_floor_fraction.map(|share| share * 100.0), 0),
            self.ttft_ms,
            self.decode_tok_s,
            shown(self.decode_floor_fraction.map(|share| share * 100.0), 0),
            self.t_step_ms,
            shown(self.read_gb_s, 1),
            self.kv_blocks_used,
            shown(self.peak_rss_mb, 0)
        )
    }
}
