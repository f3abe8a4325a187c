//! The command line. An environment variable can set every flag except `--prompt`, `--prompt-file` and `--request`: see
//! `environment.rs`.

mod plan;

pub(crate) use plan::PlanArgs;

use crate::numbers;
use anyhow::{Result, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use galley_backend::cpu::InstructionSet;
use galley_backend::{Formats, OperandFormat, WeightFormat};
use galley_engine::{DeviceChoice, SUFFIX_BYTES, SamplingParams, Verify};
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
    /// Continue one prompt, or answer the requests of a file.
    #[command(after_help = "\
Examples:
  galley run -m smollm2-135m-instruct -p 'The capital of France is' --max-tokens 16
  galley run -m model.gguf --prompt-file book.txt --temperature 0.8 --seed 7 --json
  galley run -m smollm2-135m-instruct --request requests.jsonl")]
    Run(RunArgs),
    /// Talk to a model. Ctrl-C stops an answer, /new starts over, Ctrl-D ends the chat.
    #[command(after_help = "\
Examples:
  galley chat -m smollm2-135m-instruct --system 'Answer in one sentence.'
  galley chat -m smollm2-135m-instruct --temperature 0.7 --max-tokens 400")]
    Chat(ChatArgs),
    /// Measure prefill and decode, with and without drafters.
    #[command(after_help = "\
Examples:
  galley bench -m smollm2-135m-instruct --batch 1,8,32 --context 512,4096 --gen 64 --json
  galley bench -m smollm2-135m-instruct --dataset sotu --batch 8 --context 4096 \\
    --drafter ngram --drafter snap-kv --draft-length 2,4 --kv-budget 256,512")]
    Bench(BenchArgs),
    /// Compute which drafter, draft length and KV budget pay for a model on some hardware, which need not be here.
    #[command(after_help = "\
Examples:
  galley plan -m llama-3.1-8b/config.json --gpu H100-SXM --tp 8 --batch 64 --context 32000
  galley plan -m model.gguf --bandwidth-gb-s 40 --tflops 1.5 --batch 1,8 --context 2048,8192
  galley plan -m config.json --gpu L40S --batch 32 --context 16000 --kv-budget 256,512,1024 \\
    --acceptance 0.8,ngram=0.3 --draft-model small/config.json --json

The numbers are theory (docs/planning.md): measure on the machine with `galley bench`.")]
    Plan(PlanArgs),
    /// Fetch a model and print where it is.
    #[command(after_help = "\
Examples:
  galley pull smollm2-135m-instruct
  galley pull Qwen/Qwen3-0.6B")]
    Pull(PullArgs),
    /// Describe a model: its architecture, its size and the memory that it needs.
    #[command(after_help = "\
Examples:
  galley info smollm2-135m-instruct
  galley info model.gguf --json")]
    Info(InfoArgs),
    /// Measure this machine with a model, for the planner. An engine that chooses drafters does it by itself at its first
    /// start, in less time.
    #[command(after_help = "\
Examples:
  galley calibrate -m smollm2-135m-instruct
  galley calibrate -m model.gguf --threads 8 --json

The times depend on model, formats, device, instruction set and threads, and are kept in ~/.cache/galley/calibration.")]
    Calibrate(CalibrateArgs),
    /// List the drafters that are found and their options, and why a file is refused.
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
    /// auto (the first GPU if there is one, else the CPU), cpu, or cuda:N.
    #[arg(long, default_value_t = DeviceChoice::Auto)]
    pub(crate) device: DeviceChoice,
    /// Share of a GPU's memory that all processes together may use once weights and KV cache are allocated.
    #[arg(long, default_value_t = 0.9, value_parser = numbers::share)]
    pub(crate) gpu_memory_utilization: f64,
    /// Format of operands and KV cache: bf16, or f32 (CPU only), which is the format of weights too unless --weights
    /// is given.
    #[arg(long, default_value_t = OperandFormat::Bf16)]
    pub(crate) dtype: OperandFormat,
    /// Format of weights, which fixes their bytes: native (as in the file, the default; quantised weights keep their
    /// blocks), q8 or q4 (any model is quantised as it is read, to 1.06 or 0.56 bytes a weight), or bf16 (2 bytes a
    /// weight; quantised weights are expanded, as in earlier versions). A GPU takes native, which it expands, and bf16.
    #[arg(long)]
    pub(crate) weights: Option<WeightFormat>,
    /// Instruction set of the CPU kernels: avx512bf16, avx512vnni, avx512, avxvnni, avx2 or portable; the best by
    /// default.
    #[arg(long)]
    pub(crate) cpu: Option<String>,
    /// CPU threads; by default one per usable core. More threads than usable cores do not run at the same time.
    #[arg(short, long, value_parser = numbers::threads)]
    pub(crate) threads: Option<usize>,
    /// Tokens per KV block, a multiple of 16.
    #[arg(long, default_value_t = 16, value_parser = numbers::block_size)]
    pub(crate) block_size: usize,
    /// Longest sequence in tokens, prompt and output together; by default the context length of the model. A dynamic
    /// scaling of the rotary embedding is computed for this length.
    #[arg(long, value_parser = numbers::count)]
    pub(crate) max_model_len: Option<usize>,
    /// Size of the KV cache in tokens. The default on the CPU is the number that the command can use, within half of
    /// the free memory and within the memory that the model leaves free; limits of the control group and of the
    /// process count, too. The default on a GPU is all memory that --gpu-memory-utilization leaves.
    #[arg(long, value_parser = numbers::count)]
    pub(crate) kv_cache_tokens: Option<usize>,
    /// Most sequences that are decoded together.
    #[arg(long, default_value_t = 64, value_parser = numbers::sequences)]
    pub(crate) max_num_seqs: usize,
    /// Most tokens in one step; a longer prompt is read in chunks.
    #[arg(long, default_value_t = 512, value_parser = numbers::count)]
    pub(crate) max_num_batched_tokens: usize,
    /// Compute every prompt in full: reuse no KV of earlier prompts.
    #[arg(long)]
    pub(crate) no_prefix_caching: bool,
}

impl ModelArgs {
    /// The instruction set that `--cpu` names; None if it names none.
    pub(crate) fn instruction_set(&self) -> Result<Option<InstructionSet>> {
        match self.cpu.as_deref() {
            None | Some("") => Ok(None),
            Some(name) => match name.parse() {
                Ok(isa) => Ok(Some(isa)),
                Err(e) => bail!("--cpu (GALLEY_CPU): {e}"),
            },
        }
    }

    /// The formats of `--dtype` and `--weights`.
    pub(crate) fn formats(&self) -> Result<Formats> {
        Formats::new(self.dtype, self.weights)
            .map_err(|error| anyhow!("--weights (GALLEY_WEIGHTS): {error}"))
    }
}

/// The drafter. It changes the speed and no token of the output, unless --verify rejection is set.
#[derive(Args, Clone, Debug)]
pub(crate) struct DraftArgs {
    /// auto, none, or a drafter and its options, such as streaming-llm,budget=512 (see `galley drafters`). With auto, the
    /// engine chooses drafter and draft length for every sequence and round, or plain decoding, whichever is fastest; it
    /// is the default, except in `galley bench`. With none, nothing drafts. Put a value with a comma in double quotes:
    /// small-model,model="a,b.gguf". `galley bench` takes several drafters and measures each.
    #[arg(long, value_name = "NAME[,KEY=VALUE...]")]
    pub(crate) drafter: Vec<String>,
    /// The file of a drafter; options may follow as for --drafter. If options follow a path with a comma, put the path
    /// in double quotes: '"a,b.so",times=2'.
    #[arg(long, value_name = "PATH[,KEY=VALUE...]")]
    pub(crate) drafter_plugin: Vec<String>,
    /// Folders to search for drafters first, separated as in PATH.
    #[arg(long, value_name = "FOLDERS")]
    pub(crate) plugin_path: Option<OsString>,
    /// Longest time between two tokens of a sequence, in ms, that a draft may cause where the engine chooses.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) slo_itl_ms: Option<u64>,
    /// Do not measure the machine where the engine chooses; it then begins with estimates.
    #[arg(long)]
    pub(crate) no_calibration: bool,
    /// How draft tokens are verified: equality (the output is that of plain decoding), or rejection (accepts a few
    /// more draft tokens; sampled output keeps its distribution, but depends on the drafter).
    #[arg(long, default_value_t = Verify::Equality)]
    pub(crate) verify: Verify,
    /// Most bytes of suffix indexes, in which ngram looks: three quarters for the tokens of sequences, and a quarter
    /// for earlier outputs. Beyond it, indexes cover the latest text alone, and the oldest outputs leave first.
    #[arg(long, default_value_t = SUFFIX_BYTES)]
    pub(crate) suffix_bytes: usize,
}

#[derive(Args, Debug)]
pub(crate) struct CalibrateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DraftersArgs {
    /// Folders to search for drafters first, separated as in PATH.
    #[arg(long, value_name = "FOLDERS")]
    pub(crate) plugin_path: Option<OsString>,
    /// Print one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How to sample tokens and when to stop.
#[derive(Args, Clone, Debug)]
pub(crate) struct SamplingArgs {
    #[command(flatten)]
    pub(crate) params: SamplingParams,
    /// Seed of the sampling noise; by default drawn at random (`galley run --json` reports it).
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Stop at this text; repeatable.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,
    /// Stop at this token id; repeatable.
    #[arg(long)]
    pub(crate) stop_token_id: Vec<u32>,
    /// Most tokens to generate; by default as many as the context has room for.
    #[arg(long, value_parser = numbers::count)]
    pub(crate) max_tokens: Option<usize>,
    /// Do not stop before this many tokens.
    #[arg(long, default_value_t = 0)]
    pub(crate) min_tokens: usize,
    /// Never sample the model's end-of-sequence tokens.
    #[arg(long)]
    pub(crate) ignore_eos: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) draft: DraftArgs,
    /// Draft tokens per round; 0 is plain decoding. By default 3 with a drafter that is named, and up to 8 where the engine
    /// chooses.
    #[arg(long, value_parser = numbers::draft_length)]
    pub(crate) draft_length: Option<u32>,
    /// Cached tokens that a draft token attends to; the drafter's own number by default.
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
    /// A file with a request as a JSON object, or with several requests, one a line or in a list; - reads standard
    /// input. Prints each answer as a line of JSON, in the order of the requests. docs/requests.md lists the keys.
    #[arg(long, value_name = "FILE")]
    pub(crate) request: Option<PathBuf>,
    /// Put the prompt into the model's chat template, as a message of the user.
    #[arg(long)]
    pub(crate) chat: bool,
    /// A template for --chat instead of the model's own.
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Keep this many tokens from the start of the prompt.
    #[arg(long, value_parser = numbers::count)]
    pub(crate) prompt_tokens: Option<usize>,
    /// Sequences to generate from the prompt.
    #[arg(short, long, default_value_t = 1, value_parser = numbers::sequences)]
    pub(crate) n: usize,
    /// Report this many alternatives per token with their log-probabilities (with --json).
    #[arg(long)]
    pub(crate) logprobs: Option<u32>,
    /// Print one JSON object with the answer (see docs/requests.md) and timings.
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
    /// Draft tokens per round; 0 is plain decoding. By default 3 with a drafter that is named, and up to 8 where the engine
    /// chooses.
    #[arg(long, value_parser = numbers::draft_length)]
    pub(crate) draft_length: Option<u32>,
    /// Cached tokens that a draft token attends to; the drafter's own number by default.
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
    /// Prompt lengths in tokens.
    #[arg(long, value_delimiter = ',', default_value = "512", value_parser = numbers::count)]
    pub(crate) context: Vec<usize>,
    #[command(flatten)]
    pub(crate) draft: DraftArgs,
    /// Draft tokens per round, one row of results for each number.
    #[arg(long, value_delimiter = ',', default_value = "3", value_parser = numbers::bench_draft_length)]
    pub(crate) draft_length: Vec<u32>,
    /// Cached tokens that a draft token attends to, one row of results for each number; the drafter's own by default.
    #[arg(long, value_delimiter = ',', value_parser = numbers::budget)]
    pub(crate) kv_budget: Vec<u32>,
    /// Sampling temperature; 0 is greedy.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) temperature: f32,
    /// Tokens to generate per sequence.
    #[arg(long = "gen", default_value_t = 64, value_parser = numbers::at_least_two)]
    pub(crate) gen_tokens: usize,
    /// Runs of each row; the median is printed.
    #[arg(long, default_value_t = 1, value_parser = numbers::count)]
    pub(crate) repeats: usize,
    /// The text of the prompts: sotu, moby-dick or code (plain text), niah (a needle in a haystack), cwe (the most
    /// common words), code-edit (a file to be written again with a change), or the path of a text file or of a folder
    /// of text files. The answer to niah is a few tokens long: measure it with --gen 8.
    #[arg(long, alias = "text", value_name = "SET|PATH", default_value = "code")]
    pub(crate) dataset: String,
    /// The folder that `cargo xtask data` filled, for sotu, moby-dick, niah and cwe; a build in the workspace finds it.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data: Option<PathBuf>,
    /// Seed of the prompts and of the sampling.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Give every sequence the same prompt.
    #[arg(long)]
    pub(crate) shared_prompt: bool,
    /// Use prompts of random token ids instead of text.
    #[arg(long, conflicts_with_all = ["dataset", "shared_prompt"])]
    pub(crate) random_tokens: bool,
    /// Print one JSON object a line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

impl BenchArgs {
    /// The name of the prompts in the results.
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
    /// Fetch files again that are already in the cache.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InfoArgs {
    /// A Hugging Face directory, a .gguf file, a hub id or a known name.
    pub(crate) model: Option<String>,
    /// The model as a flag, as other commands take it.
    #[arg(short, long = "model", hide = true)]
    pub(crate) model_flag: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}
