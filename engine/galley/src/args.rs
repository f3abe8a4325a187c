//! The command line. Every flag but `--prompt` and `--prompt-file` has a twin in the environment: see `environment.rs`.

use crate::device::DeviceArg;
use crate::numbers;
use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use galley_backend::Dtype;
use galley_backend::cpu::InstructionSet;
use galley_engine::Verify;
use std::ffi::OsString;
use std::path::PathBuf;

/// Galley: a paged-attention LLM inference engine.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    max_term_width = 100,
    after_help = "\
Examples:
  galley pull smollm2-135m-instruct
  galley chat -m smollm2-135m-instruct
  galley run --help"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Continue one prompt.
    #[command(after_help = "\
Examples:
  galley run -m smollm2-135m-instruct -p 'The capital of France is' --max-tokens 16
  galley run -m model.gguf --prompt-file book.txt --temperature 0.8 --seed 7 --json")]
    Run(RunArgs),
    /// Talk to a model. Ctrl-C stops an answer, /new starts over, Ctrl-D ends the chat.
    #[command(after_help = "\
Examples:
  galley chat -m smollm2-135m-instruct --system 'Answer in one sentence.'
  galley chat -m smollm2-135m-instruct --temperature 0.7 --max-tokens 400")]
    Chat(ChatArgs),
    /// Measure prefill and decode, one JSON object a line.
    #[command(after_help = "\
Examples:
  galley bench -m smollm2-135m-instruct --batch 1,8,32 --context 512,4096 --gen 64 --json
  galley bench -m smollm2-135m-instruct --dataset sotu --batch 8 --context 4096 \\
    --drafter ngram --drafter snap-kv --draft-length 2,4 --kv-budget 256,512")]
    Bench(BenchArgs),
    /// Fetch a model and print where it is.
    #[command(after_help = "\
Examples:
  galley pull smollm2-135m-instruct
  galley pull Qwen/Qwen3-0.6B")]
    Pull(PullArgs),
    /// Say what a model is and what it needs.
    #[command(after_help = "\
Examples:
  galley info smollm2-135m-instruct
  galley info model.gguf --json")]
    Info(InfoArgs),
    /// List the drafters that are here, their options, and why one was refused.
    #[command(after_help = "\
Examples:
  galley drafters
  galley drafters --plugin-path ./build --json")]
    Drafters(DraftersArgs),
}

/// Which model, on which device, with how much memory.
#[derive(Args, Clone, Debug)]
pub(crate) struct ModelArgs {
    /// A Hugging Face directory, a .gguf file, a hub id or a known name (see `galley pull`).
    #[arg(short, long)]
    pub(crate) model: String,
    /// auto (the first GPU where there is one, else the CPU), cpu, or cuda:N.
    #[arg(long, default_value_t = DeviceArg::Auto)]
    pub(crate) device: DeviceArg,
    /// Share of a GPU's memory that may be taken, by everybody together, once weights and KV cache are there.
    #[arg(long, default_value_t = 0.9, value_parser = numbers::share)]
    pub(crate) gpu_memory_utilization: f64,
    /// Format of weights and KV cache: bf16 or f32 (CPU only).
    #[arg(long, default_value_t = Dtype::Bf16)]
    pub(crate) dtype: Dtype,
    /// Instruction set of the CPU kernels: avx512bf16, avx512, avx2 or portable; the best by
    /// default.
    #[arg(long)]
    pub(crate) cpu: Option<String>,
    /// Threads; by default as many as there are usable cores. Of more, as many work at once as there are cores.
    #[arg(short, long, value_parser = numbers::threads)]
    pub(crate) threads: Option<usize>,
    /// Tokens per KV block, a multiple of 16.
    #[arg(long, default_value_t = 16, value_parser = numbers::block_size)]
    pub(crate) block_size: usize,
    /// Longest sequence, prompt and output together, in tokens; by default the longest that the model was made for.
    /// A model whose rotary embedding is scaled dynamically is scaled for this length.
    #[arg(long, value_parser = numbers::count)]
    pub(crate) max_model_len: Option<usize>,
    /// Size of the KV cache in tokens; by default what the command can use, within half of the
    /// free memory and what the model leaves of it, or of a GPU all that --gpu-memory-utilization leaves. Limits of
    /// the control group and of the process count.
    #[arg(long, value_parser = numbers::count)]
    pub(crate) kv_cache_tokens: Option<usize>,
    /// Most sequences decoded together.
    #[arg(long, default_value_t = 64, value_parser = numbers::sequences)]
    pub(crate) max_num_seqs: usize,
    /// Most tokens in one step: the chunk of a prefill.
    #[arg(long, default_value_t = 512, value_parser = numbers::count)]
    pub(crate) max_num_batched_tokens: usize,
    /// Compute every prompt anew.
    #[arg(long)]
    pub(crate) no_prefix_caching: bool,
}

impl ModelArgs {
    /// The instruction set asked for.
    pub(crate) fn instruction_set(&self) -> Result<Option<InstructionSet>> {
        match self.cpu.as_deref() {
            None | Some("") => Ok(None),
            Some(name) => match name.parse() {
                Ok(isa) => Ok(Some(isa)),
                Err(e) => bail!("--cpu (GALLEY_CPU): {e}"),
            },
        }
    }
}

/// Who guesses tokens ahead. No drafter changes a token of the output, only the speed, unless --verify rejection
/// lets it.
#[derive(Args, Clone, Debug)]
pub(crate) struct DraftArgs {
    /// A drafter and its options, such as streaming-llm,budget=512 (see `galley drafters`). A value with a comma
    /// stands in double quotes: small-model,model="a,b.gguf". `galley bench` takes several, and measures each.
    #[arg(long, value_name = "NAME[,KEY=VALUE...]")]
    pub(crate) drafter: Vec<String>,
    /// A drafter's file; options may follow as for --drafter. A path with a comma stands in double quotes, as in
    /// '"a,b.so",times=2', if options follow it.
    #[arg(long, value_name = "PATH[,KEY=VALUE...]")]
    pub(crate) drafter_plugin: Vec<String>,
    /// Where drafters are looked for first: folders, separated as in PATH.
    #[arg(long, value_name = "FOLDERS")]
    pub(crate) plugin_path: Option<OsString>,
    /// Which guesses are kept: equality (the output of plain decoding), or rejection (sampled output of the same
    /// distribution, which then depends on the drafter; keeps a few more).
    #[arg(long, default_value_t = Verify::Equality)]
    pub(crate) verify: Verify,
}

#[derive(Args, Debug)]
pub(crate) struct DraftersArgs {
    /// Where drafters are looked for first: folders, separated as in PATH.
    #[arg(long, value_name = "FOLDERS")]
    pub(crate) plugin_path: Option<OsString>,
    /// Print one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How to pick tokens and when to stop.
#[derive(Args, Clone, Debug)]
pub(crate) struct SamplingArgs {
    /// 0 is greedy.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    #[arg(long, default_value_t = 0)]
    pub(crate) top_k: u32,
    /// Keep the most likely tokens up to this probability.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) top_p: f32,
    /// Keep tokens at least this fraction as likely as the most likely one.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) min_p: f32,
    /// Above 1 discourages tokens already seen.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) repetition_penalty: f32,
    /// Subtracted from the logit of every token in the output.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) presence_penalty: f32,
    /// Subtracted for every occurrence in the output.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) frequency_penalty: f32,
    /// Adds to a logit, as TOKEN_ID:BIAS; repeatable.
    #[arg(long, value_parser = numbers::bias)]
    pub(crate) logit_bias: Vec<(u32, f32)>,
    /// Fixes the noise; drawn at random and reported otherwise.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Stop at this text; repeatable.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,
    /// Stop at this token id; repeatable.
    #[arg(long)]
    pub(crate) stop_token_id: Vec<u32>,
    /// Most tokens to generate; up to the model's context by default.
    #[arg(long, value_parser = numbers::count)]
    pub(crate) max_tokens: Option<usize>,
    /// Do not stop before this many tokens.
    #[arg(long, default_value_t = 0)]
    pub(crate) min_tokens: usize,
    /// Never pick the model's end-of-sequence tokens.
    #[arg(long)]
    pub(crate) ignore_eos: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) draft: DraftArgs,
    /// Tokens guessed a round; 0 is plain decoding.
    #[arg(long, default_value_t = 3, value_parser = numbers::draft_length)]
    pub(crate) draft_length: u32,
    /// Cached tokens that a guess attends to; the drafter's own number by default.
    #[arg(long, value_parser = numbers::budget)]
    pub(crate) kv_budget: Option<u32>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// The prompt.
    #[arg(short, long, conflicts_with = "prompt_file", allow_hyphen_values = true)]
    pub(crate) prompt: Option<String>,
    /// A file with the prompt; - reads standard input.
    #[arg(short = 'f', long)]
    pub(crate) prompt_file: Option<PathBuf>,
    /// Put the prompt into the model's chat template, as a user's message.
    #[arg(long)]
    pub(crate) chat: bool,
    /// The template for --chat instead of the model's own.
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Cut the prompt to its first tokens.
    #[arg(long, value_parser = numbers::count)]
    pub(crate) prompt_tokens: Option<usize>,
    /// Sequences to generate from the prompt.
    #[arg(short, long, default_value_t = 1, value_parser = numbers::sequences)]
    pub(crate) n: usize,
    /// Report this many alternatives per token with their log-probabilities (with --json).
    #[arg(long)]
    pub(crate) logprobs: Option<u32>,
    /// Print one JSON object with token ids, text, finish reason and timings.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print speed and cache use on standard error.
    #[arg(long)]
    pub(crate) stats: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) draft: DraftArgs,
    /// Tokens guessed a round; 0 is plain decoding.
    #[arg(long, default_value_t = 3, value_parser = numbers::draft_length)]
    pub(crate) draft_length: u32,
    /// Cached tokens that a guess attends to; the drafter's own number by default.
    #[arg(long, value_parser = numbers::budget)]
    pub(crate) kv_budget: Option<u32>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// The system message.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) system: Option<String>,
    /// A chat template instead of the model's own.
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Batch sizes.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = numbers::sequences)]
    pub(crate) batch: Vec<usize>,
    /// Prompt lengths, tokens.
    #[arg(long, value_delimiter = ',', default_value = "512", value_parser = numbers::count)]
    pub(crate) context: Vec<usize>,
    #[command(flatten)]
    pub(crate) draft: DraftArgs,
    /// Tokens guessed a round, one row of results for each.
    #[arg(long, value_delimiter = ',', default_value = "3", value_parser = numbers::guessed)]
    pub(crate) draft_length: Vec<u32>,
    /// Cached tokens that a guess attends to, one row of results for each; the drafter's own number by default.
    #[arg(long, value_delimiter = ',', value_parser = numbers::budget)]
    pub(crate) kv_budget: Vec<u32>,
    /// 0 is greedy.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) temperature: f32,
    /// Tokens to generate per sequence.
    #[arg(long = "gen", default_value_t = 64, value_parser = numbers::at_least_two)]
    pub(crate) gen_tokens: usize,
    /// Runs of each row; the median is printed.
    #[arg(long, default_value_t = 1, value_parser = numbers::count)]
    pub(crate) repeats: usize,
    /// What prompts are made of: sotu, moby-dick or code (plain text), niah (a needle in a haystack), cwe (the most
    /// common words), code-edit (a file to be written again with a change), or a text file or a folder of them. The needle's
    /// number is a few tokens: measure niah with --gen 8.
    #[arg(long, alias = "text", value_name = "SET|PATH", default_value = "code")]
    pub(crate) dataset: String,
    /// The folder that `cargo xtask data` filled, for sotu, moby-dick, niah and cwe; found by itself in a workspace.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data: Option<PathBuf>,
    /// Of prompts and of sampling.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Give every sequence the same prompt.
    #[arg(long)]
    pub(crate) shared_prompt: bool,
    /// Prompts of random token ids instead of text.
    #[arg(long, conflicts_with_all = ["dataset", "shared_prompt"])]
    pub(crate) random_tokens: bool,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

impl BenchArgs {
    /// What results call the prompts.
    pub(crate) fn dataset_name(&self) -> &str {
        if self.random_tokens { "random tokens" } else { &self.dataset }
    }
}

#[derive(Args, Debug)]
pub(crate) struct PullArgs {
    /// A hub id (org/name, org/name@revision) or a known name.
    pub(crate) source: String,
    /// Fetch this file only, such as one .gguf of several.
    #[arg(long)]
    pub(crate) file: Option<String>,
    /// Fetch again what is already there.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InfoArgs {
    /// A Hugging Face directory, a .gguf file, a hub id or a known name.
    pub(crate) model: Option<String>,
    /// The same as a flag.
    #[arg(short, long = "model", hide = true)]
    pub(crate) model_flag: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}
