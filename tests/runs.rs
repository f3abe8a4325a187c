//! Runs requests on tiny models, and records all of their output that a user can see.

use crate::{data, left_to_the_inner_model, on_cpu};
use galley_backend::sample::{SampleRow, SampledToken, SampledTokens};
use galley_backend::{
    Batch, Formats, KvView, LayerMask, Observation, Selected, SelectedIds, SeqSpan,
};
use galley_engine::{
    DraftConfig, Engine, EngineConfig, Event, Prompt, Request, RequestHandle, SchedulePolicy,
    Stats, TokenEvent,
};
use galley_model::tokenizer::Tokenizer;
use galley_model::weights::Checkpoint;
use galley_model::{Device, LanguageModel, LoadOptions, ModelIndex, Result, load};
use std::sync::Arc;

/// All that a user can see of a sequence; log-probabilities are compared as bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// All text.
    pub text: String,
    /// Log-probabilities of the tokens and of their alternatives.
    pub logprobs: Vec<u32>,
    /// The finish reason.
    pub finish: &'static str,
}

/// The sizes of a model and the configuration of its engine.
pub struct Setup {
    /// The device of the model.
    pub device: Device,
    /// Blocks in the pool.
    pub n_blocks: usize,
    /// The engine's configuration.
    pub config: EngineConfig,
    /// Limit on the rows of logits in a step.
    pub max_logit_rows: usize,
}

/// One request at a time, without a prefix cache: the reference for all comparisons.
pub fn alone() -> Setup {
    let config = EngineConfig::default()
        .max_num_seqs(4)
        .max_num_batched_tokens(512)
        .prefix_caching(false)
        .policy(SchedulePolicy::Fixed);
    Setup { device: on_cpu(Formats::BF16, 1), n_blocks: 256, config, max_logit_rows: 64 }
}

/// Loads a tiny model.
pub fn open(name: &str, setup: &Setup) -> (Box<dyn LanguageModel>, Arc<Tokenizer>) {
    let path = data("models").join(name);
    let checkpoint = Checkpoint::open(&path).expect("a tiny model");
    let tokenizer = Tokenizer::open(&path, checkpoint.gguf()).expect("its tokenizer");
    let options = LoadOptions::new(16, setup.n_blocks)
        .max_rows(setup.config.max_num_batched_tokens)
        .max_logit_rows(setup.max_logit_rows);
    let model = load(&checkpoint, setup.device, options, &mut |_, _| {}).expect("it loads");
    (model, Arc::new(tokenizer))
}

/// Requests of every kind: greedy, sampled, filtered, penalised, biased and stopped requests,
/// several sequences, shared prefixes, and a prompt longer than a tile of attention.
pub fn requests(vocab: u32, max_context: usize) -> Vec<Request> {
    let prompt = |seed: u32, n: usize| -> Vec<u32> {
        let n = n.min(max_context - 40);
        (0..n as u32).map(|i| (i * i * 7 + i * 13 + seed * 31) % (vocab - 20) + 10).collect()
    };
    let request = |seed: u32, n_tokens: usize| {
        Request::new(Prompt::Tokens(prompt(seed, n_tokens)))
            .seed(u64::from(seed))
            .logprobs(2)
            .max_tokens(24)
            .ignore_eos(true)
    };
    let shared = |tail: u32| {
        let mut tokens = prompt(99, 70);
        tokens.extend(prompt(tail, 9));
        Prompt::Tokens(tokens)
    };
    vec![
        request(1, 5).temperature(0.0),
        request(2, 300).temperature(0.0),
        request(3, 33).temperature(0.8),
        request(4, 49).temperature(1.2).top_k(20).top_p(0.9).n(3),
        request(5, 64).min_p(0.05).repetition_penalty(1.3).presence_penalty(0.5),
        request(6, 17).frequency_penalty(0.7).logit_bias(vec![(40, 4.0)]).n(2),
        request(7, 1).prompt(shared(7)),
        request(8, 1).prompt(shared(8)).temperature(0.0),
        request(9, 90).stop(vec!["e"]).min_tokens(3),
        request(10, 120).stop_tokens(0..vocab / 4),
    ]
}

/// Runs `requests` together, or one after the other. Returns their output and the statistics.
pub fn run(
    model: (Box<dyn LanguageModel>, Arc<Tokenizer>),
    config: &EngineConfig,
    requests: &[Request],
    together: bool,
) -> (Vec<Vec<Seen>>, Stats) {
    run_drafting(model, config, &DraftConfig::default(), requests, together)
}

/// Like [`run`], with drafters.
pub fn run_drafting(
    (model, tokenizer): (Box<dyn LanguageModel>, Arc<Tokenizer>),
    config: &EngineConfig,
    drafting: &DraftConfig,
    requests: &[Request],
    together: bool,
) -> (Vec<Vec<Seen>>, Stats) {
    let engine = Engine::start_with_drafters(model, Some(tokenizer), config.clone(), drafting)
        .expect("drafters");
    let submit = |request: &Request| {
        let handle = engine.submit(request.clone()).expect("a valid request");
        (handle, request.n)
    };
    let mut all = Vec::new();
    for group in requests.chunks(if together { requests.len() } else { 1 }) {
        let handles: Vec<_> = group.iter().map(submit).collect();
        for (handle, n) in handles {
            let seen = seen_of(handle, n).unwrap_or_else(|message| panic!("{message}"));
            all.push(seen);
        }
    }
    engine.shutdown();
    (all, engine.stats())
}

/// The `n` sequences of a request, or the error with which it ended.
pub fn seen_of(handle: RequestHandle, n: u32) -> std::result::Result<Vec<Seen>, String> {
    let nothing = Seen { tokens: vec![], text: String::new(), logprobs: vec![], finish: "never" };
    let mut seen = vec![nothing; n as usize];
    for event in handle.events() {
        match event {
            Event::Token(TokenEvent { index, token, text, logprob, top, .. }) => {
                let seen = &mut seen[index as usize];
                seen.tokens.push(token);
                seen.text.push_str(&text);
                seen.logprobs.extend(logprob.map(f32::to_bits));
                seen.logprobs.extend(top.iter().map(|(_, p)| p.to_bits()));
            }
            Event::Finished { index, reason, .. } => seen[index as usize].finish = reason.as_str(),
            Event::Error(error) => return Err(error.to_string()),
            _ => {}
        }
    }
    Ok(seen)
}

/// A model that is not row-invariant: several rows that continue a sequence attend to it in an
/// altered way.
pub struct Altered(pub Box<dyn LanguageModel>, pub Alteration);

/// The alteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alteration {
    /// Attention to the same tokens, in another order of summation.
    OtherOrder,
    /// Attention to all tokens except the first sixteen, for devices that sum so few terms that
    /// bf16 hides their order.
    FewerTokens,
}

impl LanguageModel for Altered {
    left_to_the_inner_model!(0);

    fn forward(
        &mut self,
        model: ModelIndex,
        batch: &Batch<'_>,
        layers: &LayerMask<'_>,
        observations: &mut [Observation<'_>],
    ) -> Result<()> {
        let all: Vec<u32> = (0..1000).collect();
        let seqs: Vec<SeqSpan<'_>> = batch
            .seqs
            .iter()
            .map(|seq| {
                let whole = batch.positions[seq.first_row] / 16;
                if seq.n_rows == 1 || whole == 0 {
                    return *seq;
                }
                let view = match self.1 {
                    Alteration::OtherOrder => {
                        let blocks = SelectedIds::everywhere(&all[..whole as usize]);
                        KvView { selected: Selected::Blocks(blocks), tail_start: whole * 16 }
                    }
                    Alteration::FewerTokens => KvView { tail_start: 16, ..KvView::default() },
                };
                SeqSpan { view, ..*seq }
            })
            .collect();
        self.0.forward(model, &Batch { seqs: &seqs, ..*batch }, layers, observations)
    }
    fn sample(&mut self, model: ModelIndex, rows: &[SampleRow<'_>]) -> Result<Vec<SampledToken>> {
        self.0.sample(model, rows)
    }
    fn wait_tokens(&mut self) -> Result<SampledTokens> {
        self.0.wait_tokens()
    }
}
