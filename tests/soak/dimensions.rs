//! Everything that a soak chooses at random, in one place.
//!
//! A feature that affects sampling or its arithmetic joins the soak here. A test reads the fields of
//! the drawn settings from their `Debug` text: it fails for a new setting of a request, of drafting,
//! of an engine or of loading until this file draws several values for it, or [`CONSTANT`] names it.

use super::drafters::{drafters, random_budget};
use super::prompts;
use super::random::Random;
use super::target::{Arithmetic, Target};
use crate::{plugins, weights_in};
use galley_backend::cpu::InstructionSet;
use galley_backend::{Formats, OperandFormat, WeightFormat};
use galley_engine::{
    CostTable, DraftConfig, DraftRequest, DrafterChoice, EngineConfig, Request, SUFFIX_BYTES,
    SamplingParams, SchedulePolicy, Verify,
};
use galley_model::LoadOptions;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Settings with the same value in every workload when it is drawn. Output to resume comes from the
/// workload itself (`resume.rs`), an engine that is put together measures nothing, and the other two decide only which
/// requests are refused.
pub const CONSTANT: [&str; 6] = [
    "DraftConfig.calibrates",
    "DraftConfig.find_model",
    "DraftConfig.max_draft_length",
    "EngineConfig.max_waiting",
    "Request.fingerprint",
    "Request.generated",
];

/// The longest draft length that a request may set.
pub const MAX_DRAFT_LENGTH: u32 = 16;

/// The largest number of sequences in a request.
pub const MAX_N: usize = 4;

/// An engine configuration and the requests for that engine.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The settings that bits may depend on.
    pub arithmetic: Arithmetic,
    /// Threads of the device.
    pub n_threads: usize,
    /// Sizes of the model's pool and batches.
    pub load: LoadOptions,
    /// The engine's settings.
    pub engine: EngineConfig,
    /// Names of drafters, and their options.
    pub drafters: Vec<(&'static str, String)>,
    /// Draft length, unless a request sets another.
    pub draft_length: u32,
    /// KV budget of a draft, unless a request sets another.
    pub kv_budget: Option<u32>,
    /// Whether the engine waits for each draft token.
    pub waits_for_drafts: bool,
    /// Bytes of suffix indexes.
    pub suffix_bytes: usize,
    /// Whether the engine chooses for requests that name no drafter.
    pub chooses: bool,
    /// Operations of a row by the engine's first table of times; None takes estimates.
    pub costs: Option<f64>,
    /// Longest time between two tokens that the choice allows.
    pub max_inter_token_ms: Option<u64>,
    /// The requests.
    pub jobs: Vec<Job>,
}

/// A request, the time of its submission, and whether it is given up.
#[derive(Clone, Debug)]
pub struct Job {
    /// The request.
    pub request: Request,
    /// Number of events of earlier requests before the request is submitted.
    pub after_events: usize,
    /// How the request ends.
    pub end: End,
}

/// How a request ends: whether its owner gives it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It runs to its end.
    Own,
    /// It is cancelled after this many tokens.
    Cancelled(usize),
    /// Its handle is dropped after this many tokens.
    Dropped(usize),
}

impl Workload {
    /// Draws a workload for `target`. `all` holds the models that may draft for it.
    pub fn draw(random: &mut Random, target: &Target, all: &[Target]) -> Workload {
        let policy = match random.below(4) {
            0 => SchedulePolicy::Fixed,
            _ => SchedulePolicy::Random { seed: u64::from(random.word()) },
        };
        let budgets: &[usize] =
            if target.is_tiny { &[4, 9, 17, 33, 64, 128, 300] } else { &[33, 64, 300] };
        let max_num_batched_tokens = random.of(budgets);
        let max_rows = random.of(&[max_num_batched_tokens, max_num_batched_tokens + 7, 12]);
        // A random schedule preempts one sequence in every ten steps, so a prompt of more chunks
        // than that hardly ever ends.
        let longest = match policy {
            SchedulePolicy::Fixed => usize::MAX,
            SchedulePolicy::Random { .. } => 8 * max_num_batched_tokens.min(max_rows),
        };
        let context = if target.is_tiny { 20..=256 } else { 40..=400 };
        let most = random.within(context).min(target.checkpoint.config().max_context).min(longest);
        let block_size = random.of(&[16, 16, 16, 32, 48]);
        let n_blocks = most.div_ceil(block_size) + random.of(&[0, 0, 1, 2, 4, 9, 30, 100]);
        let max_num_seqs = random.within(1..=16);
        let logit_rows = [max_num_batched_tokens, max_num_seqs, max_num_seqs + 3, 2];
        let load = LoadOptions::new(block_size, n_blocks)
            .max_rows(max_rows)
            .max_logit_rows(random.of(&logit_rows));
        let engine = EngineConfig::default()
            .max_num_seqs(max_num_seqs)
            .max_num_batched_tokens(max_num_batched_tokens)
            .prefix_caching(random.one_in(2))
            .policy(policy);
        let arithmetic = Arithmetic {
            isa: match target.is_tiny {
                true if random.one_in(3) => random.of(&available()),
                _ => InstructionSet::best(),
            },
            formats: formats(random, target),
        };
        let drafters = drafters(random, target, all);
        let mut workload = Workload {
            arithmetic,
            // More threads than cores, beside other work, are slow.
            n_threads: random.of(&[1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3]),
            load,
            engine,
            drafters,
            draft_length: random.within(0..=8) as u32,
            kv_budget: random_budget(random),
            waits_for_drafts: random.one_in(4),
            suffix_bytes: random.of(&[SUFFIX_BYTES, SUFFIX_BYTES, 300_000, 0]),
            chooses: random.one_in(4),
            // Tables by which drafts, or plain decoding, take the less time: the choice follows the clock later.
            costs: random.of(&[None, Some(1.0), Some(1e9)]),
            max_inter_token_ms: random.of(&[None, None, Some(1), Some(1000)]),
            jobs: Vec::new(),
        };
        workload.jobs = jobs(random, target, most, &workload);
        if random.one_in(3) {
            workload.engine = workload.engine.prefix_caching(true);
            let requests = workload.jobs.iter_mut().map(|job| &mut job.request);
            prompts::share(requests.collect(), target);
        }
        workload
    }

    /// The largest number of sequences that run together, after the engine has fitted its sizes to
    /// each other.
    fn max_num_seqs(&self) -> usize {
        let LoadOptions { max_rows, max_logit_rows, .. } = self.load;
        let EngineConfig { max_num_seqs, max_num_batched_tokens, .. } = self.engine;
        max_num_seqs.min(max_num_batched_tokens).min(max_rows).min(max_logit_rows)
    }

    /// The engine's drafting configuration. Opens the drafters.
    pub fn drafting(&self) -> DraftConfig {
        let open = |(name, options): &(&str, String)| plugins::setup(name, options);
        DraftConfig::default()
            .drafters(self.drafters.iter().map(open))
            .draft_length(self.draft_length)
            .max_draft_length(MAX_DRAFT_LENGTH)
            .kv_budget(self.kv_budget)
            .waits_for_drafts(self.waits_for_drafts)
            .suffix_bytes(self.suffix_bytes)
            .auto(self.chooses)
            .costs(self.costs.map(|flop| CostTable::analytic(1e9, flop, 1e3, 1e9, 1e9)))
            .max_inter_token(self.max_inter_token_ms.map(Duration::from_millis))
            .find_model(Arc::new(|path| Ok(PathBuf::from(path))))
    }
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Workload { arithmetic, n_threads, load, engine, drafters, .. } = self;
        let Workload { draft_length, kv_budget, waits_for_drafts, suffix_bytes, jobs, .. } = self;
        let Workload { chooses, costs, max_inter_token_ms, .. } = self;
        write!(
            f,
            "{arithmetic:?}, {n_threads} threads, {load:?}, {engine:?}, drafters {drafters:?}, draft length \
             {draft_length}, budget {kv_budget:?}, waits: {waits_for_drafts}, suffix bytes {suffix_bytes}, \
             chooses: {chooses}, costs {costs:?}, at most {max_inter_token_ms:?} ms, {} requests",
            jobs.len()
        )
    }
}

fn available() -> Vec<InstructionSet> {
    crate::instruction_sets().collect()
}

/// Weights in every format, with bf16 or f32 for the rest. Weights in bf16 go with bf16 alone, and
/// weights in f32 with f32.
fn formats(random: &mut Random, target: &Target) -> Formats {
    let (dtype, floats) = match target.is_tiny && random.one_in(3) {
        true => (OperandFormat::F32, WeightFormat::F32),
        false => (OperandFormat::Bf16, WeightFormat::Bf16),
    };
    let native = WeightFormat::Native;
    let weights = random.of(&[native, native, floats, WeightFormat::Q8, WeightFormat::Q4]);
    weights_in(weights, dtype)
}

/// Requests in the order of their submission: all at once, or in bursts.
fn jobs(random: &mut Random, target: &Target, most: usize, workload: &Workload) -> Vec<Job> {
    let prefixes: Vec<Vec<u32>> =
        (0..3).map(|_| prompts::tokens(random, target, most / 2)).collect();
    let n_jobs = if target.is_tiny { random.within(2..=24) } else { random.within(2..=8) };
    let (comes_in_bursts, gives_up) = (random.one_in(3), random.one_in(2));
    let mut after_events = 0;
    let mut job = |_| {
        if comes_in_bursts && random.one_in(3) {
            after_events += random.below(40);
        }
        let end = match random.below(8) {
            0 if gives_up => End::Cancelled(random.of(&[0, 1, 5, 20])),
            1 if gives_up => End::Dropped(random.of(&[0, 1, 5, 20])),
            _ => End::Own,
        };
        let request = request(random, target, most, workload, &prefixes);
        Job { request, after_events, end }
    };
    (0..n_jobs).map(&mut job).collect()
}

/// A request of at most `most` tokens, prompt and output together.
fn request(
    random: &mut Random,
    target: &Target,
    most: usize,
    workload: &Workload,
    prefixes: &[Vec<u32>],
) -> Request {
    let prompt = prompts::prompt(random, target, most - 1, prefixes);
    let room = most - prompts::n_tokens(&prompt, target);
    let longest = if target.is_tiny { 60 } else { 24 };
    let max_tokens = random.within(1..=room.min(longest));
    // A random schedule preempts a long sequence again before its context has been recomputed, so
    // unlimited requests need a fixed schedule.
    let is_fixed = matches!(workload.engine.policy, SchedulePolicy::Fixed);
    let is_unlimited = target.is_tiny && is_fixed && random.one_in(5);
    let tokens_of = |random: &mut Random, n| prompts::random_tokens(random, target, n);
    let n_biases = random.of(&[0, 0, 0, 1, 6]);
    let mut biased = tokens_of(random, n_biases);
    if random.one_in(8) {
        biased.extend(&target.checkpoint.config().end_tokens.of_chats());
    }
    let n_stop_tokens = random.of(&[0, 0, 0, 1, 9]);
    let n_stops = random.of(&[0, 0, 0, 1, 3]);
    let mut request = Request::new(prompt).chat(random.one_in(2));
    request.sampling = SamplingParams::default()
        .temperature(random.of(&[0.0, 0.0, 0.3, 0.8, 1.0, 1.5, 5.0]))
        .top_k(random.of(&[0, 0, 1, 3, 20, 1000]))
        .top_p(random.of(&[1.0, 1.0, 0.95, 0.5, 0.001]))
        .min_p(random.of(&[0.0, 0.0, 0.05, 0.5, 1.0]))
        .repetition_penalty(random.of(&[1.0, 1.0, 1.0, 1.3, 0.7]))
        .presence_penalty(random.of(&[0.0, 0.0, 0.0, 0.7, -0.5]))
        .frequency_penalty(random.of(&[0.0, 0.0, 0.0, 0.4, -0.3]))
        .logit_bias(
            biased.into_iter().map(|token| (token, random.of(&[-100.0, -5.0, 2.0, 5.0, 30.0]))),
        );
    // The order of the draws is the order of a seed's random numbers: changed, every seed of the
    // soak that was written down would stand for another request.
    request.seed = Some(u64::from(random.word()) << 32 | u64::from(random.word()));
    request.n = random.of(&[1, 1, 1, 1, 2, MAX_N]).min(workload.max_num_seqs()) as u32;
    request.sampling.logprobs = random.of(&[None, None, Some(0), Some(1), Some(5), Some(20)]);
    request.max_tokens = (!is_unlimited).then_some(max_tokens as u32);
    let min_tokens = random.of(&[0, 0, 1, max_tokens / 2, max_tokens]) as u32;
    let stop: Vec<String> = (0..n_stops).map(|_| prompts::stop_string(random, target)).collect();
    request
        .min_tokens(min_tokens)
        .stop(stop)
        .stop_tokens(tokens_of(random, n_stop_tokens))
        .include_stop(random.one_in(2))
        .ignore_eos(random.one_in(2))
        .priority(random.of(&[0, 0, 0, -3, 2]))
        .cache_salt(random.of(&[0, 0, 0, 7]))
        .drafting(drafting(random, workload))
}

fn drafting(random: &mut Random, workload: &Workload) -> DraftRequest {
    let names = workload.drafters.iter().map(|(name, _)| DrafterChoice::Named((*name).to_owned()));
    let named: Vec<_> = names.collect();
    DraftRequest::default()
        .drafter(match random.below(10) {
            0 => DrafterChoice::Off,
            1 => DrafterChoice::Default,
            2 => DrafterChoice::Auto,
            _ if named.is_empty() => DrafterChoice::Default,
            _ => random.of(&named),
        })
        .draft_length(match random.below(3) {
            0 => None,
            _ => Some(random.below(1 + MAX_DRAFT_LENGTH as usize) as u32),
        })
        .kv_budget(random_budget(random))
        .verify(random.of(&[
            Verify::Equality,
            Verify::Equality,
            Verify::Equality,
            Verify::Rejection,
        ]))
}

/// Whether the output of a request must equal plain decoding. With verification by rejection it
/// must if the request is greedy or has no drafter but `ngram`: such drafts are verified by
/// equality. A random schedule may give a request any drafter of the engine.
pub fn is_plain(request: &Request, workload: &Workload) -> bool {
    let names: Vec<&str> = workload.drafters.iter().map(|(name, _)| *name).collect();
    let any = matches!(workload.engine.policy, SchedulePolicy::Random { .. });
    let drafters = match &request.drafting.drafter {
        DrafterChoice::Off => &[],
        _ if any => &names[..],
        DrafterChoice::Auto => &names[..],
        DrafterChoice::Default if workload.chooses => &names[..],
        DrafterChoice::Default => &names[..names.len().min(1)],
        DrafterChoice::Named(name) => &[name.as_str()],
    };
    request.drafting.verify == Verify::Equality
        || request.sampling.temperature == 0.0
        || drafters.iter().all(|name| *name == "ngram")
}

/// The same request without drafts.
pub fn plain(request: &Request) -> Request {
    let off = DraftRequest::off();
    request.clone().drafting(off)
}
