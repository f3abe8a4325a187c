//! Speed and memory of a run: `--json` and `--stats`.

use crate::console::note;
use crate::load::Loaded;
use crate::resident::peak_rss_bytes;
use galley_api::AnswerBody;
use galley_engine::{Answer, Stats};
use serde::Serialize;
use std::time::Duration;

/// Speed and memory of one run.
pub(super) struct RunReport<'a> {
    loaded: &'a Loaded,
    stats: Stats,
    prompt_tokens: usize,
    n_sequences: usize,
    generated_tokens: usize,
    first_token: Duration,
    last_token: Duration,
}

impl<'a> RunReport<'a> {
    pub(super) fn new(loaded: &'a Loaded, answers: &[Answer], prompt_tokens: usize) -> Self {
        let times = |time: fn(&Answer) -> Duration| answers.iter().map(time);
        Self {
            loaded,
            stats: loaded.engine.stats(),
            prompt_tokens,
            n_sequences: answers.len(),
            generated_tokens: answers.iter().map(|answer| answer.tokens.len()).sum(),
            first_token: times(|answer| answer.usage.first_token).min().unwrap_or_default(),
            last_token: times(|answer| answer.usage.last_token).max().unwrap_or_default(),
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

    /// The answer, with speed and memory beside it, as one line of JSON.
    pub(super) fn to_json(
        &self,
        model: &str,
        answer: AnswerBody<'_>,
    ) -> serde_json::Result<String> {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let drafts = &self.stats.drafts;
        serde_json::to_string(&ReportBody {
            model,
            backend: &self.loaded.device,
            answer,
            timings: Timings {
                load_ms: ms(self.loaded.load_time),
                ttft_ms: ms(self.first_token),
                total_ms: ms(self.last_token),
                prefill_tok_s: self.prefill_tok_s(),
                decode_tok_s: self.decode_tok_s(),
            },
            drafting: Drafting {
                rounds: drafts.rounds,
                drafted: drafts.drafted,
                accepted: drafts.accepted,
                accept_rate: drafts.accept_rate(),
                accept_len: drafts.accept_length(),
                accepted_per_pos: &drafts.accepted_per_position,
            },
            kv_blocks_used: self.stats.kv_blocks_peak,
            kv_blocks_total: self.stats.kv_blocks_total,
            suffix_index_bytes: self.stats.suffix_index_bytes_peak,
            suffix_memory_bytes: self.stats.suffix_memory_bytes,
            weight_bytes: self.loaded.weight_bytes,
            peak_rss_mb: peak_rss_bytes() as f64 / 1e6,
        })
    }

    /// Prints the report on standard error.
    pub(super) fn print(&self) {
        self.print_loading();
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
        self.print_drafts_and_memory();
    }

    /// Prints the report without speeds. The requests of a file run side by side, so the times of one say
    /// nothing about speed.
    pub(super) fn print_without_speeds(&self) {
        self.print_loading();
        self.print_drafts_and_memory();
    }

    fn print_loading(&self) {
        note("");
        note(format_args!("device     {}", self.loaded.device));
        note(format_args!("load       {:.2} s", self.loaded.load_time.as_secs_f64()));
    }

    fn print_drafts_and_memory(&self) {
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
        if let Some(planner) = self.stats.planner.as_ref().filter(|planner| planner.rounds > 0) {
            note(format_args!("planner    {}", planner.describe(self.loaded.engine.drafters())));
        }
        let block = self.loaded.kv_bytes_per_token * self.prompt_tokens.max(1);
        note(format_args!(
            "KV cache   {} of {} blocks ({:.1} MB for the prompt)",
            self.stats.kv_blocks_peak,
            self.stats.kv_blocks_total,
            block as f64 / 1e6
        ));
        let (index, memory) = (self.stats.suffix_index_bytes_peak, self.stats.suffix_memory_bytes);
        if index + memory > 0 {
            note(format_args!(
                "suffixes   {:.1} MB at most for indexes, {:.1} MB for earlier outputs, of {:.0} MB",
                index as f64 / 1e6,
                memory as f64 / 1e6,
                self.stats.suffix_bytes_limit as f64 / 1e6
            ));
        }
        note(format_args!("memory     {:.0} MB at most", peak_rss_bytes() as f64 / 1e6));
    }
}

/// An answer with speed and memory beside it, as `galley run --json` prints it.
#[derive(Serialize)]
struct ReportBody<'a> {
    model: &'a str,
    backend: &'a str,
    #[serde(flatten)]
    answer: AnswerBody<'a>,
    timings: Timings,
    drafting: Drafting<'a>,
    kv_blocks_used: usize,
    kv_blocks_total: usize,
    suffix_index_bytes: usize,
    suffix_memory_bytes: usize,
    weight_bytes: usize,
    peak_rss_mb: f64,
}

#[derive(Serialize)]
struct Timings {
    load_ms: f64,
    ttft_ms: f64,
    total_ms: f64,
    prefill_tok_s: f64,
    decode_tok_s: f64,
}

/// Draft tokens of the whole engine.
#[derive(Serialize)]
struct Drafting<'a> {
    rounds: u64,
    drafted: u64,
    accepted: u64,
    accept_rate: f64,
    accept_len: f64,
    accepted_per_pos: &'a [u64],
}
